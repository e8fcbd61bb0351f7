//! The end of a host: is anything left of what the program made, and how it goes away whatever state the program is in.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use super::Host;
use crate::clean::{Leftovers, Snapshot};
use crate::{eventually, rules};

impl Host {
    /// Removes every container and every network of the user's, and takes the program's own things off the host.
    #[track_caller]
    pub fn remove_everything(&self) {
        self.look_for_ids();
        let ids = self.ids();
        if !ids.is_empty() {
            let args = ["rm", "-f"].into_iter().map(str::to_owned).chain(ids);
            self.coracle(args).ok();
        }
        for name in self.run("network ls --format {{.Name}}").stdout.lines() {
            if !["bridge", "host", "none"].contains(&name) {
                self.run(&format!("network rm {name}"));
            }
        }
        self.system("down");
    }

    /// After [`Host::remove_everything`]: nothing of ours is left on the machine, and the host is as it was.
    #[track_caller]
    pub fn assert_clean(&self) {
        if self.is_docker() {
            return; // Docker leaves its rules and its bridge: this promise is ours alone.
        }
        self.look_for_ids();
        eventually("nothing of ours is left", || {
            let left = self.leftovers();
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
    }

    /// What of ours is on the machine, and how the host differs from what it was at first.
    pub fn leftovers(&self) -> String {
        let containers = self.ids_so_far();
        let lines: String = self
            .look(&containers)
            .find()
            .iter()
            .map(|line| format!("{line}\n"))
            .collect();
        lines + &self.before.changes(&Snapshot::take(&self.netns))
    }

    fn look<'a>(&'a self, containers: &'a BTreeSet<String>) -> Leftovers<'a> {
        Leftovers {
            folder: self.folder.path(),
            run_root: &self.run_root,
            netns: self.netns.id(),
            marker: &self.marker,
            containers,
        }
    }

    pub(super) fn remember_ids(&self, text: &str) {
        let ids = text.split_whitespace().filter(|word| is_id(word));
        self.ids_so_far().extend(ids.map(str::to_owned));
    }

    /// Learns the IDs of containers that no command has told of: each has a folder of content before it has anything else.
    pub fn look_for_ids(&self) {
        for folder in ["root/containers", "run", "run/containers"] {
            let entries = fs::read_dir(self.folder().join(folder));
            for entry in entries.into_iter().flatten().flatten() {
                self.remember_ids(&entry.file_name().to_string_lossy());
            }
        }
    }

    /// What one wants to see when a test has failed.
    fn diagnose(&self) {
        let show = |what: &str, text: &str| eprintln!("=== {what}\n{}", text.trim_end());
        eprintln!("======== the host {} at the end", self.folder().display());
        let limit = Duration::from_secs(10);
        for line in ["ps -a --no-trunc", "network ls"] {
            let command = self.command(line.split_whitespace()).limit(limit);
            show(line, &command.run_in(&self.netns).to_string());
        }
        show("iptables-save", &rules::save(&self.netns));
        show("ip addr", &self.tool("ip", ["-br", "addr"]).stdout);
        show("what differs from the start", &self.leftovers());
        for id in self.ids_so_far().iter() {
            let logs = self
                .command(["logs", "--tail", "20", id.as_str()])
                .limit(limit);
            let output = logs.run_in(&self.netns);
            if output.code() == 0 {
                show(&format!("logs {id}"), &(output.stdout + &output.stderr));
            }
        }
        if let Some(docker) = &self.docker {
            show("dockerd", &docker.log());
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.look_for_ids();
        if std::thread::panicking() {
            // A failure in here would hide the first one (and abort the process).
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.diagnose()));
        }
        // Whether the program can clean up is asked by tests. Here things must go, whatever state it is in.
        let containers = self.ids_so_far().clone();
        let look = self.look(&containers);
        for cgroup in look.cgroups() {
            // What is paused on cgroup v1 does not die before it goes on.
            let _ = fs::write(cgroup.join("freezer.state"), "THAWED");
        }
        for _ in 0..100 {
            let left = look.processes();
            if left.is_empty() || self.is_docker() {
                break;
            }
            for (pid, _) in left {
                let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        for mount in look.mounts().iter().rev() {
            let _ = nix::mount::umount2(mount, nix::mount::MntFlags::MNT_DETACH);
        }
        for cgroup in look.cgroups() {
            let _ = fs::remove_dir(cgroup);
        }
    }
}

fn is_id(word: &str) -> bool {
    word.len() == 64
        && word
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
