//! The runtime under podman and dockerd.

use std::os::unix::fs::symlink;
use std::path::Path;

use harness::{Cmd, Host, Output, eventually, images};

use crate::bench::Bench;

/// Podman with everything of its own in a folder, and `coracle-oci` as its runtime.
fn podman(bench: &Bench, line: &str) -> Output {
    let folder = bench.folder.path();
    let limits = "--ulimit nofile=1024:1024 --ulimit nproc=1000:1000 --network none";
    let line = line.replace("LIMITS", limits);
    let mut words: Vec<String> = Vec::new();
    // A word with blanks stands between quotes.
    for (index, part) in line.split('\'').enumerate() {
        match index % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    let own = |name: &str| folder.join("podman").join(name).display().to_string();
    Cmd::new("podman")
        .args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"])
        .args([
            "--root",
            &own("root"),
            "--runroot",
            &own("run"),
            "--tmpdir",
            &own("tmp"),
        ])
        .arg("--runtime")
        .arg(&bench.runtime)
        .args(words)
        .run_in(&bench.netns)
}

#[test]
fn podman_runs_containers_by_it() {
    let bench = Bench::new();
    let import = format!("import {} bb", images::busybox_tar().display());
    podman(&bench, &import).ok();
    let said = podman(
        &bench,
        "run --rm LIMITS bb sh -c 'echo out; grep Seccomp: /proc/self/status; exit 7'",
    );
    assert_eq!(
        (said.code(), &*said.stdout),
        (7, "out\nSeccomp:\t2\n"),
        "{said}"
    );
    podman(&bench, "run --rm LIMITS bb nosuch")
        .exits(127)
        .complains("executable file not found in $PATH");
    podman(&bench, "run --rm LIMITS bb /etc/passwd")
        .exits(126)
        .complains("permission denied");
    let id = podman(&bench, "run -d --name web LIMITS bb sleep 1000").ok();
    assert_eq!(id.text().len(), 64, "{id}");
    podman(&bench, "exec web echo inside").ok().says("inside");
    podman(&bench, "exec web sh -c 'exit 3'").exits(3);
    podman(&bench, "pause web").ok();
    podman(&bench, "ps -a --format {{.Status}}")
        .ok()
        .says("Paused");
    podman(&bench, "unpause web").ok();
    podman(&bench, "stop -t 1 web").ok();
    podman(&bench, "inspect --format {{.State.ExitCode}} web")
        .ok()
        .says("137");
    podman(&bench, "rm web").ok();
    // A keyboard that types nothing. At the end of its input `script` ends the terminal's as well, and podman then leaves whatever
    // runtime's container, in one run of six before it has shown what was printed.
    let keyboard = "mkfifo \"$1\" && exec script -qec \"$2\" /dev/null <>\"$1\"";
    let terminal = Cmd::new("sh")
        .args(["-c", keyboard, "sh"])
        .arg(bench.folder.path().join("keyboard"))
        .arg(podman_line(&bench))
        .run_in(&bench.netns)
        .ok();
    assert!(terminal.stdout.contains("/dev/pts/0"), "{terminal}");
}

/// A container with a terminal, as one line for `script`.
fn podman_line(bench: &Bench) -> String {
    let own = |name: &str| {
        bench
            .folder
            .path()
            .join("podman")
            .join(name)
            .display()
            .to_string()
    };
    format!(
        "podman --cgroup-manager cgroupfs --events-backend file --root {} --runroot {} --tmpdir {} --runtime {} \
         run --rm -it --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 --network none bb tty",
        own("root"),
        own("run"),
        own("tmp"),
        bench.runtime.display()
    )
}

#[test]
fn dockerd_runs_containers_by_it() {
    let runtime = tempfile::Builder::new()
        .prefix("ccd-")
        .tempdir_in(images::scratch_folder())
        .unwrap();
    let program: &Path = &runtime.path().join("coracle-oci");
    symlink(images::binary(), program).expect("the runtime's own name");
    let option = format!("--add-runtime=coracle={}", program.display());
    let host = Host::builder().options([option]).docker().build();
    let said = host.coracle([
        "run",
        "--rm",
        "--runtime",
        "coracle",
        "busybox",
        "sh",
        "-c",
        "echo out; exit 7",
    ]);
    assert_eq!((said.code(), said.text()), (7, "out"), "{said}");
    host.try_run("run --rm --runtime coracle busybox nosuch")
        .exits(127);
    host.run("run -d --name web --runtime coracle -p 8080:80 busybox httpd -f -p 80 -h /www");
    eventually("it serves", || {
        harness::net::http_get(&host.neighbour, "192.0.2.1:8080")
    });
    let status = host.run("exec web cat /proc/self/status").stdout;
    assert!(
        status.contains("Seccomp:\t2") && status.contains("CapBnd:\t00000000a80425fb"),
        "{status}"
    );
    host.run("top web");
    host.run("pause web");
    host.run("unpause web");
    host.run("stop -t 1 web");
    host.run("rm web");
}
