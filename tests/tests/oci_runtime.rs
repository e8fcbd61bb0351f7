//! `coracle oci`: the OCI runtime's command line on bundles, by itself and under podman and dockerd.

#[path = "oci_runtime/bench.rs"]
mod bench;
#[path = "oci_runtime/engines.rs"]
mod engines;

use std::fs;

use bench::{Bench, config};
use harness::{Cmd, eventually};
use serde_json::{Value, json};

#[test]
fn a_container_goes_through_its_states() {
    let bench = Bench::new();
    let mut asked = config(&["sh", "-c", "echo runs; sleep 1000"]);
    asked["annotations"] = json!({ "com.example.key": "value" });
    let bundle = bench.bundle("life", &asked);
    bench
        .oci("state life")
        .exits(1)
        .complains("container \"life\" does not exist");
    let pid_file = bench.folder.path().join("pid");
    bench
        .create("life", &format!("--pid-file {}", pid_file.display()))
        .ok();
    let state = bench.state("life");
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], "life");
    assert_eq!(state["bundle"], json!(bundle.canonicalize().unwrap()));
    assert_eq!(state["annotations"]["com.example.key"], "value");
    assert!(
        state["ociVersion"]
            .as_str()
            .is_some_and(|version| version.starts_with("1."))
    );
    assert_eq!(
        fs::read_to_string(&pid_file).unwrap(),
        state["pid"].to_string()
    );
    assert_eq!(bench.out("life"), "", "the program waits for `start`");
    // The process that waits is ours, in the container's namespaces; its file is one that nobody can write to.
    let exe = format!("/proc/{}/exe", state["pid"]);
    let flags = nix::sys::statvfs::statvfs(exe.as_str()).unwrap().flags();
    assert!(flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY));
    bench
        .oci(&format!("create --bundle {} life", bundle.display()))
        .exits(1)
        .complains("already exists");
    bench
        .oci("exec life true")
        .exits(1)
        .complains("must be running");
    // What happens to the bundle now has no effect any more.
    fs::write(bundle.join("config.json"), "{}").unwrap();
    bench.oci("start life").ok();
    eventually("it runs", || match bench.out("life").as_str() {
        "runs\n" => Ok(()),
        other => Err(other.to_owned()),
    });
    assert_eq!(bench.state("life")["status"], "running");
    bench
        .oci("start life")
        .exits(1)
        .complains("must be created");
    bench
        .oci("delete life")
        .exits(1)
        .complains("not stopped: running");
    assert_eq!(bench.state("life")["status"], "running");
    bench.oci("pause life").ok();
    assert_eq!(bench.state("life")["status"], "paused");
    bench.oci("resume life").ok();
    assert_eq!(bench.oci("exec life sh -c exit${IFS}5").code(), 5);
    assert!(bench.oci("ps --format json life").ok().json()[0].is_u64());
    assert_eq!(bench.oci("list --format json").ok().json()[0]["id"], "life");
    bench
        .oci("kill life NOSUCH")
        .exits(1)
        .complains("invalid signal");
    bench.oci("kill life KILL").ok();
    bench.until_stopped("life");
    assert_eq!(bench.state("life")["pid"], 0);
    bench
        .oci("kill life TERM")
        .exits(1)
        .complains("container not running");
    bench.oci("delete life").ok();
    bench.assert_gone("life");
    bench
        .oci("delete life")
        .exits(1)
        .complains("does not exist");
    bench.oci("delete --force life").ok();
    for id in ["../up", "a/b", ".."] {
        bench
            .oci(&format!("state {id}"))
            .exits(1)
            .complains("invalid container id");
    }
}

#[test]
fn the_program_gets_what_the_spec_says() {
    let bench = Bench::new();
    let mut asked = config(&[
        "sh",
        "-c",
        "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; id -u; id -g; ulimit -n; pwd; hostname; \
         cat /proc/sys/net/ipv4/ping_group_range; echo x >/proc/sys/net/ipv4/ip_forward; head -c 1 /proc/kcore | wc -c; mkdir /m; env; umask",
    ]);
    asked["process"]["noNewPrivileges"] = json!(true);
    asked["process"]["user"] = json!({ "uid": 5, "gid": 6, "umask": 63 });
    asked["process"]["cwd"] = json!("/tmp");
    asked["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]);
    asked["linux"]["sysctl"] = json!({ "net.ipv4.ping_group_range": "7 8" });
    asked["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }] });
    let out = bench.run("said", &asked);
    for line in [
        "CapBnd:\t0000000000000021",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "5",
        "6",
        "100",
        "/tmp",
        "inside",
        "7\t8",
        "0",
        "0077",
        "mkdir: can't create directory '/m': No space left on device",
    ] {
        assert!(
            out.lines().any(|found| found == line),
            "{line:?} is missing:\n{out}"
        );
    }
    assert!(out.contains("ip_forward: Read-only file system"), "{out}");
    assert!(
        out.contains("HOME=") && out.contains("PATH=/bin:/usr/bin"),
        "{out}"
    );
}

#[test]
fn capabilities_are_exactly_those_of_the_spec_without_no_new_privileges_too() {
    let bench = Bench::new();
    let mut asked = config(&["grep", "-E", "^(Cap|Seccomp:)", "/proc/self/status"]);
    asked["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }] });
    let zero = "0000000000000000";
    assert_eq!(
        bench.run("caps", &asked),
        format!(
            "CapInh:\t{zero}\nCapPrm:\t0000000000000021\nCapEff:\t0000000000000021\nCapBnd:\t0000000000000021\nCapAmb:\t{zero}\nSeccomp:\t2\n"
        ),
        "root's program gets all of its bounding set (capabilities(7), Capabilities and execution of programs by root)"
    );
    asked["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    asked["process"]["capabilities"]["inheritable"] = json!(["CAP_KILL"]);
    asked["process"]["capabilities"]["ambient"] = json!(["CAP_KILL"]);
    let kill = "0000000000000020";
    assert_eq!(
        bench.run("ambient", &asked),
        format!(
            "CapInh:\t{kill}\nCapPrm:\t{kill}\nCapEff:\t{kill}\nCapBnd:\t0000000000000021\nCapAmb:\t{kill}\nSeccomp:\t2\n"
        ),
    );
}

#[test]
fn exec_is_confined_as_the_container() {
    let bench = Bench::new();
    let mut asked = config(&["sleep", "1000"]);
    asked["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }] });
    bench.bundle("exec", &asked);
    bench.create("exec", "").ok();
    bench.oci("start exec").ok();
    let status = bench.oci("exec exec cat /proc/self/status").ok().stdout;
    assert!(status.contains("Seccomp:\t2"), "{status}");
    assert!(status.contains("CapBnd:\t0000000000000021"), "{status}");
    bench
        .oci("exec exec mkdir /new")
        .exits(1)
        .complains("Operation not permitted");
    bench
        .oci("exec exec nosuch")
        .exits(1)
        .complains("executable file not found in $PATH");
    let mut process = asked["process"].clone();
    process["args"] = json!(["sh", "-c", "exit 9"]);
    let file = bench.folder.path().join("process.json");
    fs::write(&file, process.to_string()).unwrap();
    bench
        .oci(&format!("exec --process {} exec", file.display()))
        .exits(9);
}

#[test]
fn hooks_run_in_their_order_and_read_the_state() {
    let bench = Bench::new();
    let log = bench.folder.path().join("hooks");
    let hook = |name: &str| {
        let script = format!(
            "read -r state; echo {name} \"$state\" >>{log}; echo {name} >>{log}.$1",
            log = log.display()
        );
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script, "sh", "args"], "env": ["PATH=/bin:/usr/bin"] }])
    };
    let mut asked = config(&["sh", "-c", "cat /started"]);
    asked["hooks"] = json!({
        "prestart": hook("prestart"),
        "createRuntime": hook("createRuntime"),
        "createContainer": hook("createContainer"),
        // This one is looked for in the container's own root.
        "startContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", "cat >/started"] }],
        "poststart": hook("poststart"),
        "poststop": hook("poststop"),
    });
    let bundle = bench.bundle("hooked", &asked).canonicalize().unwrap();
    let out = bench.run("hooked", &asked);
    let state: Value = serde_json::from_str(&out).expect("startContainer has read the state");
    assert_eq!(state["status"], "created");
    let text = fs::read_to_string(&log).unwrap();
    let order: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(
        order,
        [
            "prestart",
            "createRuntime",
            "createContainer",
            "poststart",
            "poststop"
        ]
    );
    for line in text.lines() {
        let (name, state) = line.split_once(' ').unwrap();
        let state: Value = serde_json::from_str(state).unwrap();
        assert_eq!(state["bundle"], json!(bundle), "{name}");
        assert_eq!(state["id"], "hooked", "{name}");
    }
    assert_eq!(
        fs::read_to_string(log.with_extension("args"))
            .unwrap()
            .lines()
            .count(),
        5
    );
}

#[test]
fn a_failed_hook_leaves_no_container() {
    let bench = Bench::new();
    let mut asked = config(&["true"]);
    asked["hooks"] = json!({ "createRuntime": [{ "path": "/bin/false" }] });
    bench.bundle("failing", &asked);
    assert_ne!(bench.create("failing", "").code(), 0);
    bench.assert_gone("failing");
}

#[test]
fn what_cannot_be_created_is_told_and_leaves_nothing() {
    let bench = Bench::new();
    let log = bench.folder.path().join("log");
    let create = |name: &str| {
        bench.oci(&format!(
            "--log {} --log-format json create --bundle {}/{name} {name}",
            log.display(),
            bench.folder.path().display()
        ))
    };
    bench.bundle("missing", &config(&["nosuch"]));
    create("missing")
        .exits(1)
        .complains("exec: \"nosuch\": executable file not found in $PATH");
    let line: Value =
        serde_json::from_str(fs::read_to_string(&log).unwrap().lines().last().unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert_eq!(
        line["msg"],
        "exec: \"nosuch\": executable file not found in $PATH"
    );
    bench.bundle("refused", &config(&["/etc/passwd"]));
    create("refused").exits(1).complains("permission denied");
    bench.bundle("norootfs", &config(&["true"]));
    fs::rename(
        bench.folder.path().join("norootfs/rootfs"),
        bench.folder.path().join("away"),
    )
    .unwrap();
    create("norootfs").exits(1).complains("root filesystem");
    create("nobundle").exits(1).complains("find the bundle");
    bench.bundle("garbage", &config(&["true"]));
    fs::write(bench.folder.path().join("garbage/config.json"), "{ garbage").unwrap();
    create("garbage").exits(1).complains("the bundle");
    let mut systemd = config(&["true"]);
    systemd["linux"]["cgroupsPath"] = json!("machine.slice:libpod:1234");
    bench.bundle("systemd", &systemd);
    create("systemd").exits(1).complains("not supported");
    let mut terminal = config(&["true"]);
    terminal["process"]["terminal"] = json!(true);
    bench.bundle("terminal", &terminal);
    create("terminal").exits(1).complains("console socket");
    for name in [
        "missing", "refused", "norootfs", "nobundle", "garbage", "systemd", "terminal",
    ] {
        bench.assert_gone(name);
    }
}

#[test]
fn a_killed_create_leaves_nothing_after_delete() {
    let bench = Bench::new();
    let mut asked = config(&["true"]);
    // It hangs in here while it is killed.
    asked["hooks"] =
        json!({ "createRuntime": [{ "path": "/bin/sleep", "args": ["sleep", "30"] }] });
    bench.bundle("killed", &asked);
    let create = Cmd::new(&bench.runtime)
        .arg("--root")
        .arg(bench.folder.path().join("state"))
        .args(["create", "--bundle"])
        .arg(bench.folder.path().join("killed"))
        .arg("killed")
        .spawn_in(&bench.netns);
    eventually("it is being created", || {
        match bench.oci("ps --format json killed") {
            found if found.code() == 0 && found.json()[0].is_u64() => Ok(()),
            other => Err(other),
        }
    });
    assert_eq!(bench.state("killed")["status"], "creating");
    create.signal(nix::sys::signal::Signal::SIGKILL);
    drop(create);
    eventually(
        "its creator is gone",
        || match bench.state("killed")["status"].as_str() {
            Some("stopped") => Ok(()),
            other => Err(format!("{other:?}")),
        },
    );
    bench.oci("delete --force killed").ok();
    bench.assert_gone("killed");
}
