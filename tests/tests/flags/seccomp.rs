//! Seccomp: profiles of the user's own, and the filters that are kept.

use std::fs;

use harness::{Host, Output};

use crate::cell;
use crate::cell::Cell;
use crate::security::{profile, status};

pub const CELLS: &[Cell] = &[
    cell!(
        a_seccomp_profile_of_the_users_own_holds_for_run_and_exec,
        "run --security-opt"
    ),
    cell!(
        a_damaged_seccomp_cache_is_compiled_anew,
        "run --security-opt"
    ),
];

pub const NO_MKDIR: &str = r#"{
  "defaultAction": "SCMP_ACT_ALLOW",
  "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
              {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}],
  "syscalls": [
    {"names": ["mkdir", "mkdirat", "nosuchcall"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5, "excludes": {"caps": ["CAP_SYS_NICE"]}},
    {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 17, "includes": {"minKernel": "3.0"}},
    {"name": "umask", "action": "SCMP_ACT_ERRNO", "includes": {"minKernel": "99.0"}},
    {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 19, "args": [{"index": 1, "value": 12, "op": "SCMP_CMP_EQ"}]}
  ]
}"#;

fn a_seccomp_profile_of_the_users_own_holds_for_run_and_exec() {
    let host = Host::new();
    let option = profile(&host, "no-mkdir.json", NO_MKDIR);
    let script =
        "mkdir /x; hostname h; kill -12 1; kill -0 1 && echo there; umask 22 && echo masked";
    let check = |output: Output| {
        let output = output.ok().says("there\nmasked");
        for why in ["Input/output error", "File exists", "No such device"] {
            assert!(output.stderr.contains(why), "{output}");
        }
    };
    check(host.coracle([
        "run",
        "--rm",
        "--security-opt",
        &option,
        "busybox",
        "sh",
        "-c",
        script,
    ]));
    host.coracle([
        "run",
        "-d",
        "--name",
        "c1",
        "--security-opt",
        &option,
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    check(host.coracle(["exec", "c1", "sh", "-c", script]));
    // The file is read once: what becomes of it afterwards does not matter.
    fs::remove_file(host.folder().join("no-mkdir.json")).unwrap();
    host.run("stop -t 0 c1");
    host.run("start c1");
    check(host.coracle(["exec", "c1", "sh", "-c", script]));
    let option = profile(&host, "no-mkdir.json", NO_MKDIR);
    host.coracle([
        "run",
        "--rm",
        "--cap-add",
        "SYS_NICE",
        "--security-opt",
        &option,
        "busybox",
        "mkdir",
        "/x",
    ])
    .ok();
    // As an OCI spec has it; and a default that refuses all calls ends the program before it begins.
    let oci = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_NATIVE"],"syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#;
    let option = profile(&host, "oci.json", oci);
    host.coracle([
        "run",
        "--rm",
        "--security-opt",
        &option,
        "busybox",
        "mkdir",
        "/x",
    ])
    .exits(1)
    .complains("Operation not permitted");
    for option in ["seccomp=unconfined", "seccomp:unconfined"] {
        let run = ["run", "--rm", "--security-opt", option, "busybox"];
        assert_eq!(status(&host, &run, "^Seccomp:"), "Seccomp=0");
    }
    host.coracle([
        "run",
        "-d",
        "--name",
        "c2",
        "--security-opt",
        "seccomp=unconfined",
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    assert_eq!(status(&host, &["exec", "c2"], "^Seccomp:"), "Seccomp=0");
}

fn a_damaged_seccomp_cache_is_compiled_anew() {
    let host = Host::new();
    let option = profile(&host, "p.json", NO_MKDIR);
    let refused = || {
        host.coracle([
            "run",
            "--rm",
            "--security-opt",
            &option,
            "busybox",
            "mkdir",
            "/x",
        ])
        .exits(1)
        .complains("Input/output error");
        assert_eq!(
            status(&host, &["run", "--rm", "busybox"], "^Seccomp:"),
            "Seccomp=2"
        );
    };
    refused();
    let cache = host.root().join("seccomp");
    let files = || -> Vec<_> {
        let entries = fs::read_dir(&cache).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    // One for the default, one for the profile; nothing temporary.
    assert_eq!(files().len(), 2, "{:?}", files());
    for damage in [&b""[..], b"short", &[0xff; 4096]] {
        for file in files() {
            fs::write(file, damage).unwrap();
        }
        refused();
    }
    for file in files() {
        assert!(
            fs::metadata(&file).unwrap().len() > 100,
            "{}",
            file.display()
        );
    }
}
