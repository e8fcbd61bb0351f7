//! A load that is killed leaves nothing that the next one does not take away.

use std::fs;

use harness::{Host, eventually};
use nix::sys::signal::Signal;

use crate::{entries, place, store};

#[test]
fn a_killed_load_leaves_nothing_after_the_next() {
    let host = Host::new();
    let tar = place(&host, "whole.tar");
    host.coracle(["save", "-o", &tar.display().to_string(), "busybox"])
        .ok();
    let whole = fs::read(&tar).unwrap();
    let before = store(&host);
    host.run("rmi busybox");
    let staging = host.root().join("layers/.staging");
    for cut in [1024, 4096, whole.len() / 2, whole.len() - 2048] {
        // The rest never comes: the pipe is held open by a process that sleeps.
        let part = place(&host, "part.tar");
        fs::write(&part, &whole[..cut]).unwrap();
        let program = host.command(["load"]).line();
        let pid = place(&host, "pid");
        let line = format!(
            "(cat {}; exec sleep 1000) | sh -c 'echo $$ >{}; exec {program}'",
            part.display(),
            pid.display()
        );
        let script = harness::Cmd::new("sh").args(["-c", &line]);
        let running = host.with_environment(script).spawn_in(&host.netns);
        let size = || {
            let folders = entries(&staging);
            let folder = folders.first().ok_or("no staging")?;
            let archive = staging.join(folder).join("archive");
            let length = fs::metadata(&archive).map_err(|_| "no copy")?.len();
            // What is in the tar's own buffer is not on disk yet.
            match length + 64 * 1024 > cut as u64 {
                true => Ok(()),
                false => Err("not all of it"),
            }
        };
        eventually("the load has read what there is", size);
        let pid: i32 = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        drop(running);
        assert_eq!(host.run("images -q").stdout, "");
        host.try_run("load -i /dev/null").exits(1);
        assert_eq!(entries(&staging), [""; 0], "after {cut} bytes");
    }
    host.coracle(["load", "-i", &tar.display().to_string()])
        .ok()
        .says("Loaded image: busybox:latest");
    assert_eq!(store(&host), before);
}
