//! What the container may do: capabilities, security options, sysctls. Seccomp, devices and users have files of their own.

use std::fs;

use harness::Host;

use crate::cell;
use crate::cell::Cell;

pub const CELLS: &[Cell] = &[
    cell!(
        capabilities_are_added_and_dropped,
        "run --cap-add",
        "run --cap-drop",
        "exec"
    ),
    cell!(
        a_capability_that_is_none_is_refused,
        "run --cap-add",
        "run --cap-drop",
        "create"
    ),
    cell!(
        privileged_has_everything_that_is_ours,
        "run --privileged",
        "exec --privileged"
    ),
    cell!(
        no_new_privileges_is_set_and_the_filter_loaded_all_the_same,
        "run --security-opt"
    ),
    cell!(a_bad_security_option_is_refused, "run --security-opt"),
    cell!(
        labels_of_absent_security_modules_are_no_complaint,
        "run --security-opt"
    ),
    cell!(system_paths_can_be_unmasked, "run --security-opt"),
    cell!(sysctls_are_set_in_the_containers_namespaces, "run --sysctl"),
    cell!(inspect_shows_what_was_asked_for, "inspect", "create"),
];

/// The lines of /proc/self/status that begin so, without white space between name and value.
#[track_caller]
pub fn status(host: &Host, args: &[&str], names: &str) -> String {
    let output = host
        .coracle(
            args.iter()
                .chain(&["grep", "-E", names, "/proc/self/status"]),
        )
        .ok();
    let lines = output.stdout.lines();
    lines
        .map(|line| line.replace(":\t", "="))
        .collect::<Vec<_>>()
        .join(" ")
}

fn capabilities_are_added_and_dropped() {
    let host = Host::new();
    for (options, bounding) in [
        (
            "--cap-add net_admin --cap-drop CAP_MKNOD",
            "00000000a00435fb",
        ),
        ("--cap-drop all --cap-add Cap_Chown", "0000000000000001"),
        ("--cap-drop ALL", "0000000000000000"),
    ] {
        host.run(&format!("run -d --name c1 {options} busybox sleep 1000"));
        for line in [
            [
                vec!["run", "--rm"],
                options.split(' ').collect(),
                vec!["busybox"],
            ]
            .concat(),
            vec!["exec", "c1"],
        ] {
            let expect = format!(
                "CapInh=0000000000000000 CapPrm={bounding} CapEff={bounding} CapBnd={bounding} CapAmb=0000000000000000"
            );
            assert_eq!(status(&host, &line, "^Cap"), expect, "{options}: {line:?}");
        }
        host.run("rm -f c1");
    }
    let script = "ip addr add 10.9.9.9/24 dev lo && chown web /tmp";
    host.coracle(["run", "--rm", "busybox", "sh", "-c", script])
        .exits(2);
    host.coracle([
        "run",
        "--rm",
        "--cap-add",
        "NET_ADMIN",
        "busybox",
        "sh",
        "-c",
        script,
    ])
    .ok();
    host.coracle([
        "run",
        "--rm",
        "--cap-drop",
        "chown",
        "busybox",
        "chown",
        "web",
        "/tmp",
    ])
    .exits(1);
}

fn a_capability_that_is_none_is_refused() {
    let host = Host::new();
    for (flag, option, name) in [
        ("--cap-add", "CapAdd", "bogus"),
        ("--cap-drop", "CapDrop", "CAP_bogus"),
    ] {
        let text = format!("invalid {option}: unknown capability: \"CAP_BOGUS\"");
        host.coracle(["run", "--rm", flag, name, "busybox", "true"])
            .exits(125)
            .complains(&text);
        host.coracle(["create", flag, name, "busybox", "true"])
            .exits(1)
            .complains(&text);
    }
    host.coracle(["run", "--rm", "--cap-add", "CAP_ALL", "busybox", "true"])
        .exits(125)
        .complains("unknown capability: \"CAP_ALL\"");
    assert_eq!(host.ids(), [""; 0]);
}

fn privileged_has_everything_that_is_ours() {
    let host = Host::new();
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find(|line| line.starts_with("CapBnd"));
    let own = own.unwrap().replace(":\t", "=");
    let privileged = status(
        &host,
        &["run", "--rm", "--privileged", "busybox"],
        "^(CapBnd|Seccomp):",
    );
    assert_eq!(privileged, format!("{own} Seccomp=0"));
    host.run("run --rm --privileged busybox mount -t tmpfs none /tmp");
    host.run("run --rm --privileged busybox ls -l /dev/kmsg");
    host.run("run -d --name c1 busybox sleep 1000");
    // As in Docker: all capabilities, and the container's own filter.
    let exec = status(&host, &["exec", "--privileged", "c1"], "^(CapBnd|Seccomp):");
    assert_eq!(exec, format!("{own} Seccomp=2"));
    let exec = status(&host, &["exec", "c1"], "^(CapBnd|Seccomp):");
    assert_eq!(exec, "CapBnd=00000000a80425fb Seccomp=2");
}

fn no_new_privileges_is_set_and_the_filter_loaded_all_the_same() {
    let host = Host::new();
    for (option, expect) in [
        ("no-new-privileges", "NoNewPrivs=1 Seccomp=2"),
        ("no-new-privileges:true", "NoNewPrivs=1 Seccomp=2"),
        ("no-new-privileges=true", "NoNewPrivs=1 Seccomp=2"),
        ("no-new-privileges:false", "NoNewPrivs=0 Seccomp=2"),
    ] {
        let names = "^(NoNewPrivs|Seccomp):";
        let run = [
            "run",
            "--rm",
            "--security-opt",
            option,
            "-u",
            "web",
            "busybox",
        ];
        assert_eq!(status(&host, &run, names), expect, "{option}");
        host.run(&format!(
            "run -d --name c1 --security-opt {option} busybox sleep 1000"
        ));
        assert_eq!(status(&host, &["exec", "c1"], names), expect, "{option}");
        host.run("rm -f c1");
    }
    // What it is for: a set-user-ID program gives nothing.
    let source = host.folder().join("who.c");
    let program = host.folder().join("who");
    let text = "#include <stdio.h>\n#include <unistd.h>\nint main(void) { return printf(\"%d\\n\", geteuid()) < 0; }";
    fs::write(&source, text).unwrap();
    let gcc = harness::Cmd::new("gcc").args(["-static", "-o"]);
    gcc.arg(&program).arg(&source).run().ok();
    let bind = format!("{}:/given:ro", program.display());
    let script = "cp /given /who; chmod 4755 /who; exec su web -s /bin/sh -c /who";
    let who = |options: &[&str]| {
        let line = [
            &["run", "--rm", "-v", &bind],
            options,
            &["busybox", "sh", "-c", script],
        ];
        host.coracle(line.concat()).ok()
    };
    who(&[]).says("0");
    who(&["--security-opt", "no-new-privileges"]).says("1000");
}

/// Writes a profile into the host's folder; the option that names it.
pub fn profile(host: &Host, name: &str, text: &str) -> String {
    let path = host.folder().join(name);
    fs::write(&path, text).unwrap();
    format!("seccomp={}", path.display())
}

fn a_bad_security_option_is_refused() {
    let host = Host::new();
    let check = |option: &str, why: &str| {
        host.coracle(["run", "--rm", "--security-opt", option, "busybox", "true"])
            .exits(125)
            .complains(why);
    };
    check("foo", "Invalid --security-opt: \"foo\"");
    check("seccomp", "Invalid --security-opt: \"seccomp\"");
    check("bogus=1", "invalid --security-opt 2: \"bogus=1\"");
    check(
        "no-new-privileges:maybe",
        "invalid --security-opt 2: \"no-new-privileges:maybe\"",
    );
    check(
        "systempaths=confined",
        "invalid --security-opt 2: \"systempaths=confined\"",
    );
    check(
        "seccomp=/no/such",
        "opening seccomp profile (/no/such) failed: open /no/such: no such file or directory",
    );
    check(
        &profile(&host, "a", "no json"),
        "compacting json for seccomp profile",
    );
    check(
        &profile(&host, "a", "[]"),
        "Decoding seccomp profile failed",
    );
    for (text, why) in [
        (
            r#"{"defaultAction":"SCMP_ACT_BOGUS"}"#,
            "string SCMP_ACT_BOGUS is not a valid action for seccomp",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"name":"x","action":"SCMP_ACT_ERRNO"}]}"#,
            "'name' and 'names' were specified in the seccomp profile, use either 'name' or 'names'",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}"#,
            "'architectures' and 'archMap' were specified in the seccomp profile, use either 'architectures' or 'archMap'",
        ),
    ] {
        check(&profile(&host, "a", text), why);
    }
    assert_eq!(host.ids(), [""; 0]);
}

fn labels_of_absent_security_modules_are_no_complaint() {
    let host = Host::new();
    host.run("run --rm busybox true");
    for option in [
        "apparmor=no-such-profile",
        "label=type:no_such_t",
        "label=disable",
    ] {
        let is_absent = match option.starts_with("apparmor") {
            true => !fs::read_to_string("/sys/module/apparmor/parameters/enabled")
                .is_ok_and(|text| text.starts_with('Y')),
            false => !fs::exists("/sys/fs/selinux/enforce").unwrap(),
        };
        if is_absent {
            let output = host.coracle(["run", "--rm", "--security-opt", option, "busybox", "true"]);
            assert_eq!(output.ok().stderr, "", "{option}");
        }
    }
}

fn system_paths_can_be_unmasked() {
    let host = Host::new();
    let script = "grep -c ' /proc/' /proc/mounts; echo x 2>/dev/null >/proc/sys/kernel/domainname && echo writable";
    host.coracle([
        "run",
        "--rm",
        "--security-opt",
        "systempaths=unconfined",
        "busybox",
        "sh",
        "-c",
        script,
    ])
    .ok()
    .says("0\nwritable");
    let masked = host.coracle(["run", "--rm", "busybox", "sh", "-c", script]);
    assert_ne!(masked.code(), 0, "{masked}");
}

fn sysctls_are_set_in_the_containers_namespaces() {
    let host = Host::new();
    let read =
        |name: &str| fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).unwrap();
    let before = read("kernel.shmmax");
    let script = "cd /proc/sys; cat net/core/somaxconn kernel/shmmax fs/mqueue/msg_max";
    let options = "--sysctl net.core.somaxconn=11 --sysctl net.core.somaxconn=12 --sysctl kernel.shmmax=1000000 --sysctl fs.mqueue.msg_max=21";
    let line: Vec<_> = format!("run --rm {options} busybox sh -c")
        .split(' ')
        .map(str::to_owned)
        .chain([script.to_owned()])
        .collect();
    host.coracle(line).ok().says("12\n1000000\n21");
    assert_eq!(read("kernel.shmmax"), before);
    for bad in [
        "foo",
        "net.core.somaxconn",
        "kernel.panic=1",
        "fs.file-max=1",
        "net/core/somaxconn=1",
    ] {
        host.coracle(["run", "--rm", "--sysctl", bad, "busybox", "true"])
            .exits(125)
            .complains(&format!(
                "invalid argument \"{bad}\" for \"--sysctl\" flag: sysctl '{bad}' is not allowed"
            ));
    }
    for (line, why) in [
        (
            "--network host --sysctl net.core.somaxconn=1",
            "sysctl \"net.core.somaxconn\" not allowed in host network namespace",
        ),
        (
            "--ipc host --sysctl kernel.shmmax=1",
            "sysctl \"kernel.shmmax\" is not allowed in the hosts ipc namespace",
        ),
        (
            "--ipc host --sysctl fs.mqueue.msg_max=20",
            "sysctl \"fs.mqueue.msg_max\" is not allowed in the hosts ipc namespace",
        ),
        (
            "--sysctl net.ipv4.ip_forward=bogus",
            "write /proc/sys/net/ipv4/ip_forward: invalid argument",
        ),
    ] {
        host.try_run(&format!("run --rm {line} busybox true"))
            .exits(125)
            .complains(why);
    }
    host.try_run("run --rm --sysctl net.bogus=1 busybox true")
        .exits(127)
        .complains("open /proc/sys/net/bogus: no such file or directory");
    assert_eq!(host.ids(), [""; 0]);
}

fn inspect_shows_what_was_asked_for() {
    let host = Host::new();
    let option = profile(
        &host,
        "p.json",
        "{ \"defaultAction\" : \"SCMP_ACT_ALLOW\" }",
    );
    host.coracle(
        "create --name c1 --cap-add net_admin --cap-drop CAP_Chown --security-opt no-new-privileges --security-opt label=disable \
         --security-opt apparmor=foo --group-add web --sysctl net.core.somaxconn=12 --device /dev/null:/dev/nn:r --ipc shareable \
         --pid host --uts host --cgroupns host --userns host --security-opt"
            .split_whitespace()
            .chain([option.as_str(), "--device-cgroup-rule", "c 42:* rmw", "busybox", "true"]),
    )
    .ok();
    let inspect = host.inspect("c1");
    let config = &inspect["HostConfig"];
    for (field, expect) in [
        ("CapAdd", r#"["CAP_NET_ADMIN"]"#),
        ("CapDrop", r#"["CAP_CHOWN"]"#),
        (
            "SecurityOpt",
            r#"["no-new-privileges","label=disable","apparmor=foo","seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}"]"#,
        ),
        ("GroupAdd", r#"["web"]"#),
        ("Sysctls", r#"{"net.core.somaxconn":"12"}"#),
        (
            "Devices",
            r#"[{"PathOnHost":"/dev/null","PathInContainer":"/dev/nn","CgroupPermissions":"r"}]"#,
        ),
        ("DeviceCgroupRules", r#"["c 42:* rmw"]"#),
        ("IpcMode", r#""shareable""#),
        ("PidMode", r#""host""#),
        ("UTSMode", r#""host""#),
        ("UsernsMode", r#""host""#),
        ("CgroupnsMode", r#""host""#),
    ] {
        let expect: serde_json::Value = serde_json::from_str(expect).unwrap();
        assert_eq!(config[field], expect, "{field}");
    }
    assert_eq!(inspect["AppArmorProfile"], "foo");
    assert!(
        config["MaskedPaths"]
            .as_array()
            .is_some_and(|paths| paths.contains(&"/proc/kcore".into()))
    );
    host.run("create --name c2 --security-opt systempaths=unconfined busybox true");
    let config = &host.inspect("c2")["HostConfig"];
    assert_eq!(
        (&config["MaskedPaths"], &config["ReadonlyPaths"]),
        (&serde_json::json!([]), &serde_json::json!([]))
    );
    host.run("create --name c3 --privileged busybox true");
    let config = &host.inspect("c3")["HostConfig"];
    assert_eq!(config["SecurityOpt"], serde_json::json!(["label=disable"]));
    assert!(config["MaskedPaths"].is_null());
}
