//! Whose namespaces a container lives in: processes, shared memory, host name, cgroups, users.

use std::fs;
use std::path::Path;

use harness::{Host, eventually};

use crate::cell;
use crate::cell::Cell;

pub const CELLS: &[Cell] = &[
    cell!(
        the_hosts_processes_are_seen_and_nothing_is_left_running,
        "run --pid"
    ),
    cell!(
        another_containers_processes_are_shared_until_it_ends,
        "run --pid"
    ),
    cell!(a_pid_mode_that_is_none_is_refused, "run --pid"),
    cell!(shared_memory_is_shared_with_who_may, "run --ipc"),
    cell!(an_ipc_mode_that_is_none_is_refused, "run --ipc"),
    cell!(the_hosts_name_is_the_containers, "run --uts"),
    cell!(cgroups_are_seen_as_asked_for, "run --cgroupns"),
    cell!(users_are_the_hosts, "run --userns"),
];

fn namespace(host: &Host, options: &str, kind: &str) -> String {
    let line = format!("run --rm {options} busybox readlink /proc/self/ns/{kind}");
    host.run(&line).text().to_owned()
}

fn own(kind: &str) -> String {
    let path = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    path.display().to_string()
}

fn the_hosts_processes_are_seen_and_nothing_is_left_running() {
    let host = Host::new();
    assert_eq!(namespace(&host, "--pid host", "pid"), own("pid"));
    assert_ne!(namespace(&host, "", "pid"), own("pid"));
    let script = "sleep 98765 & echo $!; exec sleep 1000";
    host.coracle([
        "run", "-d", "--name", "c1", "--pid", "host", "busybox", "sh", "-c", script,
    ])
    .ok();
    let child = eventually("the child runs", || {
        let logs = host.run("logs c1");
        logs.text().parse::<u32>().map_err(|_| logs)
    });
    assert!(
        fs::exists(format!("/proc/{child}")).unwrap(),
        "its number is the host's"
    );
    host.coracle([
        "exec",
        "c1",
        "ls",
        "-d",
        &format!("/proc/{}", std::process::id()),
    ])
    .ok();
    // The kernel ends only the first process of such a container.
    host.run("kill c1");
    eventually("the child has ended too", || {
        match fs::exists(format!("/proc/{child}")) {
            Ok(false) => Ok(()),
            _ => Err("it still runs"),
        }
    });
    host.run("start c1");
    host.run("rm -f c1");
}

fn another_containers_processes_are_shared_until_it_ends() {
    let host = Host::new();
    host.run("run -d --name first busybox sleep 1001");
    let seen = host.run("run --rm --pid container:first busybox ps -o pid,args");
    assert!(seen.stdout.contains("1 sleep 1001"), "{seen}");
    host.run("run -d --name second --pid container:first busybox sleep 1002");
    let seen = host.run("exec second ps -o args");
    assert!(
        seen.stdout.contains("1001") && seen.stdout.contains("1002"),
        "{seen}"
    );
    let id = host.inspect("first")["Id"].as_str().unwrap().to_owned();
    assert_eq!(
        host.inspect("second")["HostConfig"]["PidMode"],
        format!("container:{id}")
    );
    // The one that has come last goes alone.
    host.run("run -d --name third --pid container:first busybox sleep 1003");
    host.run("rm -f third");
    let seen = host.run("exec first ps -o args");
    assert!(seen.stdout.contains("1002"), "{seen}");
    host.run("rm -f first");
    host.run("wait second").says("137");
    host.try_run("start second")
        .exits(1)
        .complains("No such container");
}

fn a_pid_mode_that_is_none_is_refused() {
    let host = Host::new();
    for mode in ["bogus", "private", "container:"] {
        host.coracle(["run", "--rm", "--pid", mode, "busybox", "true"])
            .exits(125)
            .complains("--pid: invalid PID mode");
    }
    host.try_run("run --rm --pid container:nosuch busybox true")
        .exits(125)
        .complains("No such container: nosuch");
    let id = host
        .run("create --name st busybox sleep 10")
        .text()
        .to_owned();
    host.try_run("run --rm --pid container:st busybox true")
        .exits(125)
        .complains(&format!("container {id} is not running"));
    assert_eq!(host.ids().len(), 1);
}

fn shared_memory_is_shared_with_who_may() {
    let host = Host::new();
    let shm = "ls /dev/shm; grep -c ' /dev/shm ' /proc/mounts";
    let run = |mode: &str, script: &str| {
        host.coracle(["run", "--rm", "--ipc", mode, "busybox", "sh", "-c", script])
    };
    host.run("run -d --name giver --ipc shareable busybox sleep 1000");
    host.run("exec giver touch /dev/shm/from-giver");
    run("container:giver", &format!("touch /dev/shm/back; {shm}"))
        .ok()
        .says("back\nfrom-giver\n1");
    host.coracle(["exec", "giver", "ls", "/dev/shm"])
        .ok()
        .says("back\nfrom-giver");
    run("private", shm).ok().says("1");
    run("", shm).ok().says("1");
    assert_eq!(namespace(&host, "--ipc host", "ipc"), own("ipc"));
    let theirs = host
        .run("exec giver readlink /proc/self/ns/ipc")
        .text()
        .to_owned();
    assert_eq!(namespace(&host, "--ipc container:giver", "ipc"), theirs);
    assert_ne!(namespace(&host, "--ipc private", "ipc"), theirs);
    let none = run(
        "none",
        "grep -c ' /dev/shm ' /proc/mounts; ls -d /dev/shm /dev/mqueue",
    );
    assert_eq!((none.text(), none.code()), ("0\n/dev/mqueue", 1), "{none}");
    // Who has joined can be joined in turn.
    host.run("run -d --name next --ipc container:giver busybox sleep 1000");
    run("container:next", shm).ok().says("back\nfrom-giver\n1");
    // And the end of one does not take away what the other has.
    host.run("rm -f next");
    host.coracle(["exec", "giver", "ls", "/dev/shm"])
        .ok()
        .says("back\nfrom-giver");
    // A link in place of the folder leads nowhere.
    host.run("run -d --name liar --ipc shareable --cap-add SYS_ADMIN busybox sleep 1000");
    host.coracle([
        "exec",
        "liar",
        "sh",
        "-c",
        "umount /dev/shm && rmdir /dev/shm && ln -s /proc/self/root /dev/shm",
    ])
    .ok();
    if !host.is_docker() {
        run("container:liar", "true").exits(125);
    }
    let config = &host.inspect("giver")["HostConfig"];
    assert_eq!(config["IpcMode"], "shareable");
}

fn an_ipc_mode_that_is_none_is_refused() {
    let host = Host::new();
    let check = |mode: &str, why: &str| {
        host.coracle(["run", "--rm", "--ipc", mode, "busybox", "true"])
            .exits(125)
            .complains(why);
    };
    check("bogus", "Invalid IPC mode: bogus");
    check(
        "container:",
        "can't join IPC of container : invalid name or ID supplied: \"\"",
    );
    check("container:nosuch", "No such container: nosuch");
    let stopped = host
        .run("create --name st busybox sleep 10")
        .text()
        .to_owned();
    check(
        "container:st",
        &format!("can't join IPC of container {stopped}: container {stopped} is not running"),
    );
    for mode in ["private", "none"] {
        let id = host
            .run(&format!("run -d --name c1 --ipc {mode} busybox sleep 1000"))
            .text()
            .to_owned();
        check(
            "container:c1",
            &format!(
                "can't join IPC of container {id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
            ),
        );
        host.run("rm -f c1");
    }
}

fn the_hosts_name_is_the_containers() {
    let host = Host::new();
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    host.run("run --rm --uts host busybox hostname")
        .says(name.trim());
    assert_eq!(namespace(&host, "--uts host", "uts"), own("uts"));
    assert_ne!(namespace(&host, "", "uts"), own("uts"));
    host.run("run -d --name c1 --uts host busybox sleep 1000");
    host.run("exec c1 hostname").says(name.trim());
    host.try_run("run --rm --uts host -h other busybox true")
        .exits(125)
        .complains("conflicting options: hostname and the UTS mode");
    for mode in ["private", "bogus"] {
        host.coracle(["run", "--rm", "--uts", mode, "busybox", "true"])
            .exits(125)
            .complains("--uts: invalid UTS mode");
    }
}

fn cgroups_are_seen_as_asked_for() {
    let host = Host::new();
    assert_eq!(namespace(&host, "--cgroupns host", "cgroup"), own("cgroup"));
    assert_ne!(
        namespace(&host, "--cgroupns private", "cgroup"),
        own("cgroup")
    );
    let script =
        "grep -v ':/$' /proc/self/cgroup; mkdir /sys/fs/cgroup/*/x 2>/dev/null && echo made";
    host.coracle([
        "run",
        "--rm",
        "--cgroupns",
        "private",
        "busybox",
        "sh",
        "-c",
        script,
    ])
    .exits(1)
    .says("");
    host.run("create --name usual busybox true");
    let usual = match Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        true => "private",
        false => "host",
    };
    assert_eq!(host.inspect("usual")["HostConfig"]["CgroupnsMode"], usual);
    host.coracle(["run", "--rm", "--cgroupns", "bogus", "busybox", "true"])
        .exits(125)
        .complains("--cgroupns: invalid CGROUP mode");
}

fn users_are_the_hosts() {
    let host = Host::new();
    assert_eq!(namespace(&host, "--userns host", "user"), own("user"));
    for mode in ["private", "keep-id", "bogus"] {
        host.coracle(["run", "--rm", "--userns", mode, "busybox", "true"])
            .exits(125)
            .complains("--userns: invalid USER mode");
    }
}
