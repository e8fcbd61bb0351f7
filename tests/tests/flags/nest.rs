//! `--privileged`, and containers by another runtime than our own.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use harness::host::HOST;
use harness::images::PAGE;
use harness::{Cmd, Host, Output, eventually, net};

use crate::cell;
use crate::cell::Cell;
use crate::seccomp::NO_MKDIR;
use crate::security::profile;

pub const CELLS: &[Cell] = &[
    cell!(
        privileged_gives_all_that_we_have_ourselves,
        "run --privileged"
    ),
    cell!(
        without_privileged_the_hosts_devices_are_out_of_reach,
        "run --privileged"
    ),
    cell!(crun_runs_a_container_from_start_to_end, "run --runtime"),
    cell!(runc_runs_a_container_from_start_to_end, "run --runtime"),
    cell!(
        another_runtime_tells_what_cannot_be_executed,
        "run --runtime"
    ),
    cell!(another_runtime_confines_as_our_own, "run --runtime"),
    cell!(
        a_seccomp_profile_of_the_users_own_holds_by_another_runtime,
        "run --runtime",
        "run --security-opt"
    ),
    cell!(
        a_container_of_another_runtime_outlives_its_monitor,
        "run --runtime"
    ),
    cell!(a_missing_or_failing_runtime_is_told, "run --runtime"),
];

/// Block and character devices below /dev that a container is to see: name, type and number.
fn host_devices() -> BTreeSet<String> {
    let skipped = ["pts", "ptmx", "shm", "mqueue", "fd", "console"];
    let mut found = BTreeSet::new();
    let mut folders = vec![Path::new("/dev").to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if skipped.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            let kind = metadata.file_type();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_block_device() || kind.is_char_device() {
                let letter = if kind.is_block_device() { 'b' } else { 'c' };
                found.insert(format!(
                    "{} {letter} {:x}",
                    entry.path().display(),
                    metadata.rdev()
                ));
            }
        }
    }
    found
}

/// In the first hierarchy of version 1, or the only one of version 2.
const MAKE_CGROUP: &str = "for at in /sys/fs/cgroup/memory /sys/fs/cgroup; do [ ! -e $at/cgroup.procs ] || exec mkdir $at/inner; done";

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default().trim_start_matches(':').trim()
}

fn privileged_gives_all_that_we_have_ourselves() {
    let host = Host::new();
    host.run("run -d --name all --privileged busybox sleep 1000");
    let status = host.run("exec all cat /proc/self/status").stdout;
    let own = fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(field(&status, "CapBnd"), field(&own, "CapBnd"));
    assert_eq!(field(&status, "CapEff"), field(&own, "CapBnd"));
    assert_eq!(field(&status, "Seccomp"), "0");
    let root = format!("/proc/{}/root", host.pid_of("all"));
    for device in host_devices() {
        let mut words = device.split(' ');
        let path = words.next().unwrap();
        let found = fs::symlink_metadata(format!("{root}{path}"));
        let found = found.unwrap_or_else(|error| panic!("{path} in the container: {error}"));
        assert_eq!(
            words.nth(1),
            Some(&*format!("{:x}", found.rdev())),
            "{path}"
        );
    }
    // Nothing is masked or read-only: settings of the container's own network, and its own cgroup.
    host.coracle([
        "exec",
        "all",
        "sh",
        "-c",
        "echo 1 >/proc/sys/net/ipv4/ip_forward",
    ])
    .ok();
    host.coracle(["exec", "all", "sh", "-c", MAKE_CGROUP]).ok();
    host.coracle(["exec", "all", "mount", "-t", "tmpfs", "none", "/tmp"])
        .ok();
    // A device that is made is one that opens, if there is one.
    host.coracle(["exec", "all", "sh", "-c", "mknod /n c 1 3 && : >/n"])
        .ok();
    host.remove_everything();
    host.assert_clean();
}

fn without_privileged_the_hosts_devices_are_out_of_reach() {
    let host = Host::new();
    host.run("run -d --name few busybox sleep 1000");
    let root = format!("/proc/{}/root", host.pid_of("few"));
    for device in host_devices() {
        let path = device.split(' ').next().unwrap();
        let usual = ["null", "zero", "full", "random", "urandom", "tty", "ptmx"];
        if !usual.iter().any(|name| path == format!("/dev/{name}")) {
            assert!(
                fs::symlink_metadata(format!("{root}{path}")).is_err(),
                "{path}"
            );
        }
    }
    // Kernel messages: a device that every host has, and no container.
    let made = host.coracle(["exec", "few", "sh", "-c", "mknod /n c 1 11 && head -c 1 /n"]);
    assert_ne!(made.code(), 0, "{made}");
    let cgroup = host.coracle(["exec", "few", "sh", "-c", MAKE_CGROUP]);
    assert_ne!(cgroup.code(), 0, "{cgroup}");
    assert!(cgroup.stderr.contains("Read-only file system"), "{cgroup}");
}

/// Every step that people take, by this runtime.
#[track_caller]
fn from_start_to_end(runtime: &str) {
    let host = Host::new();
    let script = "echo out; echo err >&2; exit 7";
    let ran = host.coracle([
        "run",
        "--rm",
        "--runtime",
        runtime,
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(
        (ran.code(), &*ran.stdout, &*ran.stderr.replace(WARNING, "")),
        (7, "out\n", "err\n")
    );
    let read = host
        .command(["run", "--rm", "-i", "--runtime", runtime, "busybox", "cat"])
        .stdin("through\n")
        .run_in(&host.netns);
    read.ok().says("through");
    host.start_web("web", &format!("-p 8080:80 --runtime {runtime}"));
    assert_eq!(
        net::http_get(&host.neighbour, &format!("{HOST}:8080")).unwrap(),
        PAGE
    );
    let inspect = host.inspect("web");
    let program = inspect["HostConfig"]["Runtime"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(
        program.starts_with('/') && program.ends_with(runtime),
        "{program}"
    );
    let exec = host.coracle(["exec", "web", "sh", "-c", "echo in; exit 4"]);
    assert_eq!((exec.code(), exec.text()), (4, "in"), "{exec}");
    host.run("exec -u web -w /www web pwd").says("/www");
    host.try_run("exec web nosuch").exits(127);
    host.run("exec -d web sleep 500");
    let terminal = host.command(["run", "--rm", "-it", "--runtime", runtime, "busybox", "tty"]);
    let terminal = Cmd::new("script").args(["-qec", &terminal.line(), "/dev/null"]);
    let terminal = host.with_environment(terminal).run_in(&host.netns).ok();
    assert!(terminal.stdout.contains("/dev/pts/0"), "{terminal}");
    host.run("stop -t 1 web");
    host.run("start web");
    eventually("it serves again", || {
        net::http_get(&host.neighbour, &format!("{HOST}:8080"))
    });
    host.run("kill web");
    host.run("wait web").says("137");
    host.remove_everything();
    host.assert_clean();
}

/// What the first container on a host says beside its own words.
const WARNING: &str = "WARNING: turned IPv4 forwarding on and set the policy of FORWARD to DROP; `coracle system down` undoes both\n";

fn crun_runs_a_container_from_start_to_end() {
    from_start_to_end("crun");
}

fn runc_runs_a_container_from_start_to_end() {
    from_start_to_end("runc");
}

fn another_runtime_tells_what_cannot_be_executed() {
    let host = Host::new();
    for runtime in ["crun", "runc"] {
        let run = |program: &str| {
            host.try_run(&format!("run --rm --runtime {runtime} busybox {program}"))
        };
        run("nosuch").exits(127).complains("nosuch");
        run("/etc/passwd").exits(126).complains("ermission denied");
    }
    assert_eq!(host.ids(), Vec::<String>::new());
    host.remove_everything();
    host.assert_clean();
}

fn another_runtime_confines_as_our_own() {
    let host = Host::new();
    let look = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; ulimit -n; ulimit -Hn; ls /dev; \
                cat /proc/self/cgroup | wc -l; id; env | sort | grep -v HOSTNAME; \
                unshare -n true 2>&1; keyctl 2>&1 | head -1; ls /proc/acpi /sys/firmware; \
                awk '$2 != \"/\" { print $2, $3, substr($4, 1, 2) }' /proc/mounts | sort";
    let ask = |options: &[&str]| -> Output {
        let mut words = vec!["run", "--rm"];
        words.extend(options);
        words.extend(["busybox", "sh", "-c", look]);
        host.coracle(words)
    };
    for options in [&[][..], &["--user", "1000:1000"]] {
        let ours = ask(options);
        for runtime in ["crun", "runc"] {
            let theirs = ask(&[options, &["--runtime", runtime]].concat());
            let [ours, theirs] = [&ours, &theirs].map(|output| comparable(&output.stdout));
            assert_eq!(theirs, ours, "{runtime} {options:?}");
        }
    }
}

fn a_seccomp_profile_of_the_users_own_holds_by_another_runtime() {
    let host = Host::new();
    let option = profile(&host, "no-mkdir.json", NO_MKDIR);
    let script = "mkdir /x; hostname h; kill -12 1; kill -0 1 && umask 22 && echo done";
    let check = |output: Output| {
        let output = output.ok().says("done");
        for why in ["Input/output error", "File exists", "No such device"] {
            assert!(output.stderr.contains(why), "{output}");
        }
    };
    for runtime in ["crun", "runc"] {
        let options = ["--runtime", runtime, "--security-opt", &option];
        let run = |first: &[&str], words: &[&str]| {
            host.coracle([first, &options, &["busybox"], words].concat())
        };
        check(run(&["run", "--rm"], &["sh", "-c", script]));
        run(&["run", "-d", "--name", "c1"], &["sleep", "1000"]).ok();
        check(host.coracle(["exec", "c1", "sh", "-c", script]));
        host.run("rm -f c1");
        // What the profile leaves to who holds a capability.
        run(&["run", "--rm", "--cap-add", "SYS_NICE"], &["mkdir", "/x"]).ok();
    }
}

/// How a masked path is masked, each runtime does its own way; and runc alone has /dev/core, a link to what is masked.
fn comparable(look: &str) -> Vec<String> {
    let lines = look
        .lines()
        .filter(|line| !line.starts_with("/proc/") && !line.starts_with("/sys/firmware"));
    lines
        .filter(|line| !line.starts_with("/sys/devices") && *line != "core")
        .map(str::to_owned)
        .collect()
}

fn a_container_of_another_runtime_outlives_its_monitor() {
    let host = Host::new();
    for runtime in ["crun", "runc"] {
        let id = host.start_web("web", &format!("-p 8080:80 --runtime {runtime}"));
        let monitor = host.monitor_of(&id).expect("a monitor");
        let pid = nix::unistd::Pid::from_raw(monitor.cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill the monitor");
        eventually("a new monitor is there", || {
            host.run("ps");
            match host.monitor_of(&id) {
                Some(other) if other != monitor => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        host.run("exec web echo still").says("still");
        host.run("rm -f web");
    }
    host.remove_everything();
    host.assert_clean();
}

fn a_missing_or_failing_runtime_is_told() {
    let host = Host::new();
    let run = |runtime: &str| host.try_run(&format!("run --rm --runtime {runtime} busybox true"));
    run("nosuch")
        .exits(125)
        .complains("Unknown runtime specified nosuch");
    run("/etc/passwd")
        .exits(125)
        .complains("no program that can be executed");
    run("/bin/false")
        .exits(125)
        .complains("/bin/false: it failed without a word");
    host.try_run("create --runtime nosuch busybox true")
        .exits(125)
        .complains("Unknown runtime");
    // One that is gone by the time of the start.
    let gone = host.folder().join("gone");
    fs::copy("/usr/bin/crun", &gone).expect("a copy of crun");
    host.run(&format!(
        "create --name late --runtime {} busybox true",
        gone.display()
    ));
    fs::remove_file(&gone).expect("remove the copy");
    host.try_run("start late")
        .exits(1)
        .complains("cannot run the runtime");
    host.run("rm late");
    assert_eq!(host.ids(), Vec::<String>::new());
    host.remove_everything();
    host.assert_clean();
}
