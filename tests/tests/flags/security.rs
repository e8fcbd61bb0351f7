//! What the container may do: capabilities, seccomp, devices, sysctls, groups.

use std::fs;
use std::os::unix::fs::MetadataExt;

use harness::{Host, Output};

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
    cell!(
        a_seccomp_profile_of_the_users_own_holds_for_run_and_exec,
        "run --security-opt"
    ),
    cell!(
        a_damaged_seccomp_cache_is_compiled_anew,
        "run --security-opt"
    ),
    cell!(a_bad_security_option_is_refused, "run --security-opt"),
    cell!(
        labels_of_absent_security_modules_are_no_complaint,
        "run --security-opt"
    ),
    cell!(system_paths_can_be_unmasked, "run --security-opt"),
    cell!(a_device_is_there_with_its_permissions, "run --device"),
    cell!(a_device_that_is_none_is_refused, "run --device"),
    cell!(
        a_device_rule_opens_what_is_made_by_hand,
        "run --device-cgroup-rule"
    ),
    cell!(sysctls_are_set_in_the_containers_namespaces, "run --sysctl"),
    cell!(
        groups_are_added_for_run_and_exec,
        "run --group-add",
        "exec --user"
    ),
    cell!(
        users_go_by_name_number_and_group,
        "run --user",
        "run -u",
        "exec --user",
        "exec -u"
    ),
    cell!(inspect_shows_what_was_asked_for, "inspect", "create"),
    cell!(
        no_library_of_the_container_is_loaded_outside_it,
        "run -u",
        "exec -u"
    ),
    cell!(
        links_of_an_image_under_dev_do_not_lead_a_terminal_out,
        "run --tty"
    ),
];

/// The lines of /proc/self/status that begin so, without white space between name and value.
#[track_caller]
fn status(host: &Host, args: &[&str], names: &str) -> String {
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
fn profile(host: &Host, name: &str, text: &str) -> String {
    let path = host.folder().join(name);
    fs::write(&path, text).unwrap();
    format!("seccomp={}", path.display())
}

const NO_MKDIR: &str = r#"{
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

/// A device that no default rule opens: of the usual ones any that is there.
fn some_device() -> &'static str {
    let names = ["/dev/loop-control", "/dev/fuse", "/dev/hpet", "/dev/rtc0"];
    let device = names.into_iter().find(|path| fs::exists(path).unwrap());
    device.expect("some device of the host")
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

fn a_device_is_there_with_its_permissions() {
    let host = Host::new();
    let device = some_device();
    let try_both = "[ -c /dev/x ] && exec 3</dev/x && echo read; exec 4>/dev/x && echo write";
    let run = |options: &[&str]| {
        let line = [
            &["run", "--rm"],
            options,
            &["busybox", "sh", "-c", try_both],
        ]
        .concat();
        host.coracle(line)
    };
    run(&["--device", &format!("{device}:/dev/x:r")])
        .exits(1)
        .says("read")
        .complains("Operation not permitted");
    run(&["--device", &format!("{device}:/dev/x")])
        .ok()
        .says("read\nwrite");
    // The container's permissions alone are a short form.
    host.coracle([
        "run",
        "--rm",
        "--device",
        "/dev/zero:r",
        "busybox",
        "head",
        "-c",
        "1",
        "/dev/zero",
    ])
    .ok();
    // A folder stands for what is in it.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    let node = folder.path().join("deep/n");
    fs::create_dir(folder.path().join("deep")).unwrap();
    harness::Cmd::new("mknod")
        .arg(&node)
        .args(["c", "1", "5"])
        .run()
        .ok();
    host.coracle([
        "run",
        "--rm",
        "--device",
        &format!("{path}:/dev/some"),
        "busybox",
        "stat",
        "-c",
        "%t %T",
        "/dev/some/deep/n",
    ])
    .ok()
    .says("1 5");
    // And a link for what it leads to.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    host.coracle([
        "run",
        "--rm",
        "--device",
        &format!("{}:/dev/y", link.display()),
        "busybox",
        "stat",
        "-c",
        "%t %T",
        "/dev/y",
    ])
    .ok()
    .says("1 3");
    // A command that is run later has them too.
    host.coracle([
        "run",
        "-d",
        "--name",
        "c1",
        "--device",
        &format!("{device}:/dev/x:r"),
        "busybox",
        "sleep",
        "1000",
    ])
    .ok();
    host.coracle(["exec", "c1", "sh", "-c", try_both])
        .exits(1)
        .says("read");
}

fn a_device_that_is_none_is_refused() {
    let host = Host::new();
    let check = |device: &str, code: i32, why: &str| {
        host.coracle(["run", "--rm", "--device", device, "busybox", "true"])
            .exits(code)
            .complains(why);
    };
    let gathering = "error gathering device information while adding custom device";
    check(
        "/dev/nosuch",
        127,
        &format!("{gathering} \"/dev/nosuch\": no such file or directory"),
    );
    check(
        "/etc/passwd",
        125,
        &format!("{gathering} \"/etc/passwd\": not a device node"),
    );
    check("/dev/null:/dev/x:q", 125, "bad mode specified: q");
    check(
        "/dev/null:/dev/x:rw:z",
        125,
        "bad format for path: /dev/null:/dev/x:rw:z",
    );
    check(":/dev/x", 125, "bad format for path: :/dev/x");
    check("dev/null", 125, "dev/null is not an absolute path");
    check("/dev/null:rwmx", 125, "rwmx is not an absolute path");
    if !host.is_docker() {
        check("/dev/null:/opt/x", 125, "must be below /dev");
        check("/dev/null:/dev/../etc/x", 125, "must be below /dev");
    }
    assert_eq!(host.ids(), [""; 0]);
}

fn a_device_rule_opens_what_is_made_by_hand() {
    let host = Host::new();
    let number = fs::metadata(some_device()).unwrap().rdev();
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let opens = |mode: &str| format!("mknod /m c {major} {minor} && exec 3{mode}/m && echo opened");
    let run_script = |script: &str, rules: &[&str]| {
        let options = rules.iter().flat_map(|rule| ["--device-cgroup-rule", rule]);
        let line: Vec<_> = ["run", "--rm"]
            .into_iter()
            .chain(options)
            .chain(["busybox", "sh", "-c", script])
            .collect();
        host.coracle(line)
    };
    let run = |rules: &[&str]| run_script(&opens("<"), rules);
    let one = |text: &str| {
        text.replace("MAJOR", &major.to_string())
            .replace("MINOR", &minor.to_string())
    };
    for rule in [
        "c MAJOR:MINOR r",
        "c MAJOR:* rmw",
        "c *:* r",
        "c *:MINOR rwm",
        "a *:* rwm",
    ] {
        run(&[&one(rule)]).ok().says("opened");
    }
    run(&["b 8:* r", &one("c MAJOR:MINOR r")])
        .ok()
        .says("opened");
    // Not every device can be both, but who is refused is told so first.
    let both = [one("c MAJOR:* r"), one("c MAJOR:* w")];
    let both = run_script(&opens("<>"), &[&both[0], &both[1]]);
    assert!(!both.stderr.contains("not permitted"), "{both}");
    for rule in ["c MAJOR:MINOR w", "c 2:* rwm", "b MAJOR:MINOR rwm"] {
        run(&[&one(rule)])
            .exits(1)
            .complains("Operation not permitted");
    }
    run(&[]).exits(1).complains("Operation not permitted");
    for bad in ["x 1:1 r", "c 1:1", "c a:1 r", "c 1:1 z", "c 1:1 rwmr"] {
        run(&[bad]).exits(125).complains(&format!(
            "invalid argument \"{bad}\" for \"--device-cgroup-rule\" flag: invalid device cgroup format '{bad}'"
        ));
    }
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
            .complains(&format!("invalid argument \"{bad}\" for \"--sysctl\" flag: sysctl '{bad}' is not whitelisted"));
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

fn groups_are_added_for_run_and_exec() {
    let host = Host::new();
    let groups = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        status(&host, &words, "^Groups:").trim().to_owned()
    };
    assert_eq!(
        groups("run --rm --group-add 12 --group-add web busybox"),
        "Groups=0 12 1000"
    );
    assert_eq!(
        groups("run --rm --group-add 12 -u 5:6 busybox"),
        "Groups=6 12"
    );
    host.run("run -d --name c1 --group-add 12 busybox sleep 1000");
    assert_eq!(groups("exec c1"), "Groups=0 12");
    assert_eq!(groups("exec -u web c1"), "Groups=12 1000");
    for (group, why) in [
        (
            "adm",
            "Unable to find group adm: no matching entries in group file",
        ),
        ("99999999999", "uids and gids must be in range 0-2147483647"),
    ] {
        host.coracle(["run", "--rm", "--group-add", group, "busybox", "true"])
            .exits(125)
            .complains(why);
    }
}

fn users_go_by_name_number_and_group() {
    let host = Host::new();
    host.run("run -d --name c1 busybox sleep 1000");
    for (user, expect) in [
        ("web", "1000:1000:1000"),
        ("1000", "1000:1000:1000"),
        ("web:0", "1000:0:0"),
        ("web:nogroup", "1000:65534:65534"),
        ("77", "77:0:0"),
        ("77:78", "77:78:78"),
        (":web", "0:1000:1000"),
    ] {
        let script = "echo $(id -u):$(id -g):$(id -G)";
        for flag in ["-u", "--user"] {
            host.coracle(["run", "--rm", flag, user, "busybox", "sh", "-c", script])
                .ok()
                .says(expect);
            host.coracle(["exec", flag, user, "c1", "sh", "-c", script])
                .ok()
                .says(expect);
        }
    }
    for (user, why) in [
        (
            "nosuch",
            "unable to find user nosuch: no matching entries in passwd file",
        ),
        (
            "web:nosuch",
            "unable to find group nosuch: no matching entries in group file",
        ),
    ] {
        host.coracle(["run", "--rm", "-u", user, "busybox", "true"])
            .exits(125)
            .complains(why);
        host.coracle(["exec", "-u", user, "c1", "true"])
            .exits(126)
            .complains(why);
    }
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
        ("CapAdd", r#"["net_admin"]"#),
        ("CapDrop", r#"["CAP_Chown"]"#),
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

/// NSS reads nsswitch.conf and loads what it names. Whoever looks a user up in a container's files must not: the code would run
/// with the host's rights.
fn no_library_of_the_container_is_loaded_outside_it() {
    let host = Host::new();
    let source = host.folder().join("evil.c");
    let library = host.folder().join("libnss_evil.so.2");
    fs::write(
        &source,
        r#"#include <fcntl.h>
#include <stdlib.h>
__attribute__((constructor)) static void ran(void) {
    const char *at = getenv("EVIL_AT");
    open(at ? at : "/evil-ran", O_CREAT | O_WRONLY, 0666);
}"#,
    )
    .unwrap();
    harness::Cmd::new("gcc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source)
        .run()
        .ok();
    // The trap works.
    let marker = host.folder().join("marker");
    harness::Cmd::new("true")
        .env("LD_PRELOAD", &library)
        .env("EVIL_AT", &marker)
        .run()
        .ok();
    assert!(marker.exists(), "the library does nothing");
    let bind = format!("{}:/trap:ro", host.folder().display());
    let script = "mkdir -p /lib /lib64 /usr/lib; for d in /lib /lib64 /usr/lib /lib/x86_64-linux-gnu; do mkdir -p $d; cp /trap/libnss_evil.so.2 $d/; done
printf 'passwd: evil\ngroup: evil\nshadow: evil\nhosts: evil\n' >/etc/nsswitch.conf; echo set; exec sleep 1000";
    host.coracle([
        "run", "-d", "--name", "c1", "-v", &bind, "busybox", "sh", "-c", script,
    ])
    .ok();
    harness::eventually("the trap is set", || {
        let logs = host.run("logs c1");
        if logs.stdout.contains("set") {
            Ok(())
        } else {
            Err(logs)
        }
    });
    for user in ["web", "web:nogroup", "root", "4242"] {
        host.coracle(["exec", "-u", user, "c1", "/bin/true"]).ok();
    }
    host.try_run("exec -u nosuch c1 /bin/true").exits(126);
    host.run("stop -t 0 c1");
    host.run("start c1");
    host.coracle(["exec", "c1", "ls", "/evil-ran"]).exits(1);
    assert!(!fs::exists("/evil-ran").unwrap());
}

fn links_of_an_image_under_dev_do_not_lead_a_terminal_out() {
    let host = Host::new();
    let outside = host.folder().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "untouched").unwrap();
    for name in ["console", "ptmx", "pts", "null", "tty"] {
        let root = tempfile::tempdir().unwrap();
        harness::Cmd::new("tar")
            .arg("-C")
            .arg(root.path())
            .arg("-xf")
            .arg(harness::images::busybox_tar())
            .run()
            .ok();
        let at = root.path().join("dev").join(name);
        std::os::unix::fs::symlink(outside.join("file"), &at).unwrap();
        let tar = host.folder().join("hostile.tar");
        harness::images::pack(root.path(), &tar);
        host.coracle(["import".as_ref(), tar.as_os_str(), "hostile".as_ref()])
            .ok();
        let output = host.try_run("run --rm -t hostile tty");
        assert_eq!(output.ok().text(), "/dev/pts/0", "{name}");
        assert_eq!(
            fs::read_to_string(outside.join("file")).unwrap(),
            "untouched",
            "{name}"
        );
    }
}
