//! Containers on a machine that has cgroup v2 alone: their devices, namespace, mount and limits, and what is left of them.
//!
//! Where cgroup v1 has a part these tests have no meaning, and say so: `scripts/test-vm cgroup_v2` runs them on a machine of the right kind.

use std::fs;
use std::path::{Path, PathBuf};

use harness::{Host, eventually};

const ROOT: &str = "/sys/fs/cgroup";

#[track_caller]
fn host() -> Host {
    assert!(
        Path::new(ROOT).join("cgroup.controllers").exists(),
        "this machine has cgroup v1 hierarchies; run scripts/test-vm cgroup_v2"
    );
    Host::new()
}

/// The cgroup of a running container, as the kernel says of its first process.
#[track_caller]
fn cgroup_of(host: &Host, name: &str) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", host.pid_of(name))).unwrap();
    let path = text.trim_end().strip_prefix("0::/").expect("cgroup v2");
    Path::new(ROOT).join(path)
}

fn read(cgroup: &Path, file: &str) -> String {
    let path = cgroup.join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
}

fn write(cgroup: &Path, file: &str, value: &str) {
    let path = cgroup.join(file);
    fs::write(&path, value).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
}

/// The number in a line `key number` of a flat keyed file (cgroup-v2.rst, Format).
fn count(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.unwrap_or_else(|| panic!("no {key} in {text:?}"));
    number.trim().parse().expect("a number")
}

/// A disk of this machine: `254 0`.
fn disk() -> String {
    let partitions = fs::read_to_string("/proc/partitions").unwrap();
    let line = partitions.lines().nth(2).expect("a disk");
    let numbers: Vec<_> = line.split_whitespace().take(2).collect();
    numbers.join(" ")
}

#[test]
fn a_disk_can_be_named_but_not_opened_in_run_and_in_exec() {
    let host = host();
    let script = format!("mknod /tmp/disk b {}; head -c 1 /tmp/disk", disk());
    host.run("run -d --name c1 busybox sleep 1000");
    for command in [&["run", "--rm", "busybox"][..], &["exec", "c1"]] {
        let open = host.coracle(command.iter().chain(&["sh", "-c", &script]));
        assert_ne!(open.code(), 0, "{open}");
        assert!(open.stderr.contains("Operation not permitted"), "{open}");
    }
    let usual = "echo x >/dev/null; head -c 3 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c";
    for command in [&["run", "--rm", "busybox"][..], &["exec", "c1"]] {
        let use_them = host.coracle(command.iter().chain(&["sh", "-c", usual]));
        use_them.ok().says("3\n4");
    }
}

#[test]
fn a_privileged_container_opens_a_disk() {
    let host = host();
    let script = format!(
        "mknod /tmp/disk b {} && head -c 5 /tmp/disk | wc -c",
        disk()
    );
    host.coracle([
        "run",
        "--rm",
        "--privileged",
        "busybox",
        "sh",
        "-c",
        &script,
    ])
    .ok()
    .says("5");
}

#[test]
fn the_container_sees_itself_at_the_root_of_its_own_cgroup_namespace() {
    let host = host();
    host.run("run -d --name c1 busybox sleep 1000");
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/cgroup")).unwrap();
    assert_ne!(
        namespace(&host.pid_of("c1").to_string()),
        namespace("self"),
        "the cgroup namespace is the host's"
    );
    for command in ["run --rm busybox", "exec c1"] {
        host.run(&format!("{command} cat /proc/self/cgroup"))
            .says("0::/");
    }
}

#[test]
fn its_cgroup_is_mounted_read_only_and_its_own_alone() {
    let host = host();
    host.run("run -d --name c1 busybox sleep 1000");
    let mounts = host.run("exec c1 cat /proc/self/mounts").stdout;
    let of_cgroups: Vec<_> = mounts
        .lines()
        .filter(|line| line.contains("cgroup"))
        .collect();
    let [mount] = of_cgroups[..] else {
        panic!("one mount of cgroups is expected: {of_cgroups:?}");
    };
    assert!(
        mount.starts_with("cgroup /sys/fs/cgroup cgroup2 ro,nosuid,nodev,noexec"),
        "{mount}"
    );
    // The root of the machine's hierarchy has no such file; and our first process is in what is seen here.
    host.run("exec c1 head -n 1 /sys/fs/cgroup/cgroup.procs")
        .says("1");
    host.run("exec c1 test -e /sys/fs/cgroup/cgroup.events");
    for attempt in [
        "mkdir /sys/fs/cgroup/x",
        "mount -o remount,rw /sys/fs/cgroup",
    ] {
        let refused = host.try_run(&format!("exec c1 {attempt}"));
        assert_ne!(refused.code(), 0, "{refused}");
    }
}

#[test]
fn what_exec_runs_is_in_the_containers_cgroup_and_the_monitor_is_not() {
    let host = host();
    let id = host.run("run -d --name c1 busybox sleep 1000");
    host.run("exec -d c1 sleep 2000");
    let cgroup = cgroup_of(&host, "c1");
    assert!(cgroup.ends_with(id.text()), "{}", cgroup.display());
    eventually("the command is in the container's cgroup", || {
        let pids = read(&cgroup, "cgroup.procs");
        let mut programs: Vec<_> = pids
            .lines()
            .map(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default())
            .collect();
        programs.sort();
        match programs[..] {
            [ref first, ref second]
                if first.contains("sleep\x001000") && second.contains("sleep\x002000") =>
            {
                Ok(())
            }
            _ => Err(format!("{programs:?}")),
        }
    });
}

#[test]
fn nothing_is_left_of_a_cgroup_however_the_container_ends() {
    let host = host();
    let until_told = "until [ -e /tmp/end ]; do sleep 0.1; done";
    host.coracle([
        "run", "-d", "--name", "ends", "busybox", "sh", "-c", until_told,
    ])
    .ok();
    host.run("run -d --name killed busybox sleep 1000");
    host.run("run -d --name removed busybox sleep 1000");
    let cgroups = ["ends", "killed", "removed"].map(|name| cgroup_of(&host, name));
    host.run("exec ends touch /tmp/end");
    host.run("wait ends");
    host.run("kill killed");
    host.run("wait killed");
    host.run("rm -f removed");
    for cgroup in cgroups {
        eventually("the cgroup is gone", || match cgroup.exists() {
            true => Err(format!("{} is there", cgroup.display())),
            false => Ok(()),
        });
    }
}

/// As containers in containers do.
#[test]
fn a_privileged_container_makes_cgroups_that_go_with_it() {
    let host = host();
    let script = "mkdir -p /sys/fs/cgroup/a/b && echo $$ >/sys/fs/cgroup/a/b/cgroup.procs && echo made && exec sleep 1000";
    host.coracle([
        "run",
        "-d",
        "--name",
        "c1",
        "--privileged",
        "busybox",
        "sh",
        "-c",
        script,
    ])
    .ok();
    eventually("the cgroups are made", || {
        let logs = host.run("logs c1");
        match logs.text() {
            "made" => Ok(()),
            _ => Err(logs),
        }
    });
    let cgroup = cgroup_of(&host, "c1");
    assert!(cgroup.ends_with("a/b"), "{}", cgroup.display());
    // What is run beside it joins the container, wherever its first process went.
    host.run("exec c1 true");
    host.run("rm -f c1");
    let own = cgroup.ancestors().nth(2).expect("the container's cgroup");
    assert!(!own.exists(), "{} is left", own.display());
}

/// An engine in a container hands controllers to cgroups below its own; nobody can join its own any more (cgroups(7), "no
/// internal processes" rule), but `exec` finds its way.
#[test]
fn exec_joins_a_container_that_has_given_its_controllers_to_children() {
    let host = host();
    let script = "cd /sys/fs/cgroup && mkdir init && echo 1 >init/cgroup.procs && echo +memory >cgroup.subtree_control && echo made && exec sleep 1000";
    host.coracle([
        "run",
        "-d",
        "--name",
        "c1",
        "--privileged",
        "busybox",
        "sh",
        "-c",
        script,
    ])
    .ok();
    eventually("the controllers are handed down", || {
        let logs = host.run("logs c1");
        match logs.text() {
            "made" => Ok(()),
            _ => Err(logs),
        }
    });
    host.run("exec c1 cat /proc/self/cgroup").says("0::/init");
}

/// Each written by the host into the files that the options of `run` are to write.
#[test]
fn limits_of_its_cgroup_bite() {
    let host = host();
    host.run("run -d --name c1 busybox sleep 1000");
    let cgroup = cgroup_of(&host, "c1");
    let controllers = read(&cgroup, "cgroup.controllers");
    for wanted in ["cpu", "cpuset", "memory", "pids", "io"] {
        assert!(
            controllers.split_whitespace().any(|name| name == wanted),
            "{wanted} is not among {controllers}"
        );
    }

    write(&cgroup, "memory.max", "20971520");
    write(&cgroup, "memory.swap.max", "0");
    let eater = host.coracle([
        "exec",
        "c1",
        "sh",
        "-c",
        "head -c 100000000 /dev/zero | tail -c 100000000 | wc -c; exit 0",
    ]);
    assert!(!eater.stdout.contains("100000000"), "{eater}");
    assert!(count(&read(&cgroup, "memory.events"), "oom_kill ") > 0);
    write(&cgroup, "memory.max", "max");

    write(&cgroup, "pids.max", "3");
    let many = host.coracle(["exec", "c1", "sh", "-c", "sleep 5 & sleep 5 & sleep 5 &"]);
    assert!(many.stderr.contains("can't fork"), "{many}");
    assert!(count(&read(&cgroup, "pids.events"), "max ") > 0);
    write(&cgroup, "pids.max", "max");

    write(&cgroup, "cpu.max", "5000 100000");
    host.coracle(["exec", "-d", "c1", "sh", "-c", "while :; do :; done"])
        .ok();
    eventually("the processor is held back", || {
        let stat = read(&cgroup, "cpu.stat");
        match count(&stat, "nr_throttled ") {
            0 => Err(stat),
            _ => Ok(()),
        }
    });
}
