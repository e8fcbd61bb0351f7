//! Small flags of `run` and `create`: the init, environment and label files, names, the ID's file, platforms, stopping.

use std::fs;

use harness::{Host, Output, eventually};

use crate::cell;
use crate::cell::Cell;

pub const CELLS: &[Cell] = &[
    cell!(init_reaps_and_ends_with_the_programs_code, "run --init"),
    cell!(init_passes_signals_to_the_program, "run --init", "stop"),
    cell!(a_stop_that_had_to_kill_says_why, "stop"),
    cell!(
        env_files_are_read_as_docker_reads_them,
        "run --env-file",
        "run --env",
        "run -e"
    ),
    cell!(
        label_files_come_before_labels,
        "run --label-file",
        "run --label",
        "run -l"
    ),
    cell!(
        the_id_is_written_to_a_new_file,
        "run --cidfile",
        "create --cidfile"
    ),
    cell!(
        domain_and_host_names_are_the_containers,
        "run --domainname",
        "run --hostname",
        "run -h"
    ),
    cell!(a_foreign_platform_is_told, "run --platform"),
    cell!(pull_policies, "run --pull", "run --quiet", "run -q"),
    cell!(annotations_are_kept, "run --annotation"),
    cell!(content_trust_is_accepted, "run --disable-content-trust"),
    cell!(links_point_to_networks, "run"),
    cell!(what_is_not_built_says_what_to_do_instead, "rm"),
    cell!(names_are_checked, "run --name"),
    cell!(
        stop_signal_and_timeout,
        "run --stop-signal",
        "run --stop-timeout",
        "stop --timeout",
        "stop -t"
    ),
];

fn sh(host: &Host, options: &[&str], line: &str) -> Output {
    let words = [&["run", "--rm"], options, &["busybox", "sh", "-c", line]].concat();
    host.coracle(words)
}

fn init_reaps_and_ends_with_the_programs_code() {
    let host = Host::new();
    sh(&host, &["--init"], "exit 7").exits(7);
    sh(&host, &["--init"], "kill -KILL $$").exits(137);
    sh(
        &host,
        &["--init"],
        "cat /proc/1/cmdline | tr '\\0' ' '; echo x >>/proc/1/exe",
    )
    .complains("Text file busy")
    .stdout
    .strip_prefix("/sbin/coracle-init -- sh -c ")
    .expect("the first process is the init");
    sh(&host, &["--init"], "touch /sbin/coracle-init").complains("Read-only file system");
    // An orphan that has ended is nobody's zombie; without the init it is one for ever, so this look finds them.
    for (name, options, expected) in [("c-init", vec!["--init"], 0), ("c-none", vec![], 1)] {
        let line = "(sh -c 'until [ -e /go ]; do sleep 0.05; done' &); exec sleep 1000";
        let words = [
            &["run", "-d", "--name", name][..],
            &options,
            &["busybox", "sh", "-c", line],
        ];
        host.coracle(words.concat()).ok();
        eventually("the program has made its orphan and become another", || {
            let programs = host.run(&format!("exec {name} ps -o args")).stdout;
            let is_there = programs.lines().any(|line| line == "sleep 1000");
            is_there.then_some(()).ok_or(programs)
        });
        host.run(&format!("exec {name} touch /go"));
        eventually("the orphan has ended, and is seen or not", || {
            let states = host.run(&format!("exec {name} ps -o stat,args")).stdout;
            let zombies = states.lines().filter(|line| line.starts_with('Z')).count();
            let runs = states.contains("sh -c until");
            (zombies == expected && !runs).then_some(()).ok_or(states)
        });
        host.run(&format!("rm -f {name}"));
    }
    host.try_run("run --rm --init busybox nosuch")
        .exits(127)
        .complains("exec: \"nosuch\": executable file not found in $PATH");
    host.try_run("run --rm --init busybox /etc")
        .exits(126)
        .complains("is a directory");
    // As anybody, with nothing allowed, and with a terminal.
    sh(&host, &["--init", "-u", "1000", "--read-only"], "id -u")
        .ok()
        .says("1000");
    sh(
        &host,
        &["--init", "-t"],
        "ps -o pid,pgid | tail -n 2 | head -n 1; exit 3",
    )
    .exits(3);
    host.run("create --name c1 --init busybox true");
    let inspect = host.inspect("c1");
    assert_eq!(inspect["HostConfig"]["Init"], true);
    assert_eq!(inspect["Path"], "true");
}

fn init_passes_signals_to_the_program() {
    let host = Host::new();
    // Without a handler: with the init it is not the first process, and ends.
    host.run("run -d --name c1 --init busybox sleep 1000");
    let stopped = host.run("stop -t 50 c1");
    assert_eq!(stopped.stderr, "");
    assert_eq!(host.inspect("c1")["State"]["ExitCode"], 143);
    // With one, it is asked.
    host.coracle([
        "run",
        "-d",
        "--name",
        "c2",
        "--init",
        "busybox",
        "sh",
        "-c",
        "trap 'echo bye; exit 5' USR1; echo ready; while :; do sleep 0.05; done",
    ])
    .ok();
    eventually("the handler is there", || {
        let log = host.run("logs c2");
        log.stdout.contains("ready").then_some(()).ok_or(log)
    });
    host.run("kill -s USR1 c2");
    host.run("wait c2").says("5");
    host.run("logs c2").says("ready\nbye");
}

fn a_stop_that_had_to_kill_says_why() {
    let host = Host::new();
    host.run("run -d --name deaf busybox sleep 1000");
    host.run("stop -t 1 deaf")
        .complains("its first process does nothing about SIGTERM")
        .complains("--init");
    // Who gives it no time means to kill it.
    host.run("start deaf");
    assert_eq!(host.run("stop -t 0 deaf").stderr, "");
    assert_eq!(host.inspect("deaf")["State"]["ExitCode"], 137);
    // One that has a handler and takes too long has no need of an init.
    host.coracle([
        "run",
        "-d",
        "--name",
        "slow",
        "busybox",
        "sh",
        "-c",
        "trap : TERM; echo ready; while :; do sleep 0.05; done",
    ])
    .ok();
    eventually("the handler is there", || {
        let log = host.run("logs slow");
        log.stdout.contains("ready").then_some(()).ok_or(log)
    });
    assert_eq!(host.run("stop -t 0 slow").stderr, "");
}

fn env_files_are_read_as_docker_reads_them() {
    let host = Host::new();
    let file = |name: &str, bytes: &[u8]| {
        let path = host.folder().join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let good = file(
        "good",
        b"\xef\xbb\xbfA=1\n#c\n  B=2\n\nMARK\nNOSUCH\nC=x y \nD=\"q\"\n",
    );
    let words = [
        "run",
        "--rm",
        "--env-file",
        &good,
        "-e",
        "B=over",
        "-e",
        "MARK",
        "-e",
        "GONE",
        "--env",
        "E=",
        "busybox",
        "env",
    ];
    let env = host
        .command(words)
        .env("MARK", "mine")
        .run_in(&host.netns)
        .ok()
        .stdout;
    for line in ["A=1", "B=over", "MARK=mine", "C=x y ", "D=\"q\"", "E="] {
        assert!(env.lines().any(|l| l == line), "{line:?} is missing: {env}");
    }
    assert!(!env.contains("NOSUCH") && !env.contains("GONE"));
    for (bytes, text) in [
        (&b"A B=1\n"[..], "variable 'A B' contains whitespaces"),
        (b"A =1\n", "variable 'A ' contains whitespaces"),
        (b"=1\n", "no variable name on line '=1'"),
        (
            b"B=1\nA=\xff\n",
            "invalid utf8 bytes at line 2: [65 61 255]",
        ),
    ] {
        let bad = file("bad", bytes);
        let expected = format!("invalid env file ({bad}): {text}");
        sh(&host, &["--env-file", &bad], "true")
            .exits(125)
            .complains(&expected);
    }
    sh(&host, &["--env-file", "/nope"], "true")
        .exits(125)
        .complains("open /nope: no such file or directory");
    sh(&host, &["--env-file", "/tmp"], "true")
        .exits(125)
        .complains("invalid env file (/tmp): read /tmp: is a directory");
    for bad in ["", "=x"] {
        sh(&host, &["-e", bad], "true")
            .exits(125)
            .complains(&format!("invalid argument \"{bad}\" for \"-e, --env\" flag: invalid environment variable: {bad}"));
    }
}

fn label_files_come_before_labels() {
    let host = Host::new();
    let path = host.folder().join("labels");
    fs::write(&path, "bare\none=1\n# no\ntwo=a=b\n").unwrap();
    let file = path.display().to_string();
    host.coracle([
        "create",
        "--name",
        "c1",
        "--label-file",
        &file,
        "-l",
        "one=over",
        "--label",
        "three",
        "busybox",
        "true",
    ])
    .ok();
    assert_eq!(
        host.inspect("c1")["Config"]["Labels"],
        serde_json::json!({"one": "over", "three": "", "two": "a=b"})
    );
    sh(&host, &["--label-file", "/nope"], "true")
        .exits(125)
        .complains("open /nope: no such file or directory");
    sh(&host, &["-l", "=x"], "true")
        .exits(125)
        .complains("invalid label '=x': empty name");
}

fn the_id_is_written_to_a_new_file() {
    let host = Host::new();
    let path = host.folder().join("cid");
    let file = path.display().to_string();
    let id = host
        .coracle(["create", "--cidfile", &file, "busybox", "true"])
        .ok()
        .text()
        .to_owned();
    assert_eq!(fs::read_to_string(&path).unwrap(), id);
    assert_eq!(
        host.inspect(&id)["HostConfig"]["ContainerIDFile"],
        file.as_str()
    );
    let there = format!(
        "container ID file found, make sure the other container isn't running or delete {file}"
    );
    host.coracle(["create", "--cidfile", &file, "busybox", "true"])
        .exits(1)
        .complains(&there);
    sh(&host, &["--cidfile", &file], "true")
        .exits(125)
        .complains(&there);
    assert_eq!(host.ids().len(), 1);
    // Its end does not take the file along.
    fs::remove_file(&path).unwrap();
    sh(&host, &["--cidfile", &file], "true").ok();
    assert_eq!(fs::read_to_string(&path).unwrap().len(), 64);
    // What came to nothing leaves none.
    fs::remove_file(&path).unwrap();
    host.coracle(["run", "--cidfile", &file, "-v", "a/b:/x", "busybox", "true"])
        .exits(125);
    host.coracle(["run", "--cidfile", &file, "busybox", "nosuch"])
        .exits(127);
    assert!(!path.exists());
    sh(&host, &["--cidfile", "/nope/cid"], "true").complains(
        "failed to create the container ID file: open /nope/cid: no such file or directory",
    );
}

fn domain_and_host_names_are_the_containers() {
    let host = Host::new();
    sh(
        &host,
        &["-h", "web", "--domainname", "example.com"],
        "hostname; cat /proc/sys/kernel/domainname; tail -n 1 /etc/hosts | cut -f 2",
    )
    .ok()
    .says("web\nexample.com\nweb.example.com web");
    sh(
        &host,
        &["--hostname", "web.example.com"],
        "hostname; tail -n 1 /etc/hosts | cut -f 2",
    )
    .ok()
    .says("web.example.com\nweb.example.com web");
    host.run("create --name c1 --domainname example.com busybox true");
    assert_eq!(host.inspect("c1")["Config"]["Domainname"], "example.com");
    let long = "a".repeat(65);
    for option in ["-h", "--domainname"] {
        sh(&host, &[option, &long], "true")
            .exits(125)
            .complains("64");
        sh(&host, &[option, "a b"], "true")
            .exits(125)
            .complains("must be one word");
    }
    assert_eq!(host.ids().len(), 1);
}

fn a_foreign_platform_is_told() {
    let host = Host::new();
    let own = host.run("inspect --type image busybox").json();
    let own = own[0]["Architecture"].as_str().unwrap().to_owned();
    let other = if own == "arm64" { "amd64" } else { "arm64" };
    sh(&host, &["--platform", &format!("linux/{own}")], "true").ok();
    sh(&host, &["--platform", &format!("linux/{other}"), "--pull", "never"], "true")
        .exits(125)
        .complains(&format!(
            "image with reference busybox was found but does not match the specified platform: wanted linux/{other}, actual: linux/{own}"
        ));
    sh(&host, &["--platform", "bogus"], "true").exits(125).complains(
        "error parsing specified platform: \"bogus\": unknown operating system or architecture: invalid argument",
    );
}

fn pull_policies() {
    let host = Host::new();
    for policy in ["missing", "never", ""] {
        sh(&host, &["--pull", policy], "true").ok();
    }
    sh(&host, &["--pull", "bogus"], "true")
        .exits(125)
        .complains(
            "invalid pull option: 'bogus': must be one of \"always\", \"missing\" or \"never\"",
        );
    let missing = host
        .try_run("run --rm --pull never nosuch true")
        .exits(125)
        .complains("No such image: nosuch:latest");
    assert!(!missing.stderr.contains("Unable to find"));
    // Nobody listens there.
    host.try_run("run --rm --pull always 127.0.0.1:1/busybox true")
        .exits(125);
    for quiet in ["-q", "--quiet"] {
        host.try_run(&format!("run --rm {quiet} 127.0.0.1:1/nosuch true"))
            .exits(125)
            .complains("Unable to find image '127.0.0.1:1/nosuch:latest' locally");
    }
}

fn annotations_are_kept() {
    let host = Host::new();
    let id = host
        .run("run -d --name c1 --annotation a=b --annotation c=d=e busybox sleep 1000")
        .text()
        .to_owned();
    assert_eq!(
        host.inspect("c1")["HostConfig"]["Annotations"],
        serde_json::json!({"a": "b", "c": "d=e"})
    );
    let spec = fs::read_to_string(
        host.run_root()
            .join("containers")
            .join(&id)
            .join("config.json"),
    )
    .unwrap();
    let spec: serde_json::Value = serde_json::from_str(&spec).unwrap();
    assert_eq!(spec["annotations"]["c"], "d=e");
    sh(&host, &["--annotation", "bogus"], "true").exits(125);
    host.run("rm -f c1");
}

fn content_trust_is_accepted() {
    let host = Host::new();
    for option in ["--disable-content-trust", "--disable-content-trust=true"] {
        sh(&host, &[option], "true").ok();
    }
}

fn links_point_to_networks() {
    let host = Host::new();
    sh(&host, &["--link", "other:db"], "true")
        .exits(125)
        .complains("--network NET");
}

fn what_is_not_built_says_what_to_do_instead() {
    let host = Host::new();
    for (options, text) in [
        ("--gpus all", "--gpus all is not supported: '--device'"),
        (
            "--storage-opt size=1G",
            "--storage-opt size=1G is not supported: ",
        ),
        (
            "--link-local-ip 169.254.1.1",
            "--link-local-ip 169.254.1.1 is not supported: ",
        ),
    ] {
        for verb in ["run", "create"] {
            host.try_run(&format!("{verb} {options} busybox true"))
                .exits(125)
                .complains(text);
        }
    }
    assert!(host.ids().is_empty());
    host.run("create --name c1 busybox true");
    for flag in ["-l", "--link"] {
        host.try_run(&format!("rm {flag} c1"))
            .exits(1)
            .complains("Conflict, cannot remove the default link name of the container");
        host.try_run(&format!("rm {flag} nope"))
            .exits(1)
            .complains("No such container: nope");
    }
    host.run("rm c1").says("c1");
}

fn names_are_checked() {
    let host = Host::new();
    for name in ["b@d", "a", "-a", "a/b"] {
        sh(&host, &["--name", name], "true")
            .exits(125)
            .complains(&format!(
                "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            ));
    }
    host.run("create --name c1 busybox true");
    sh(&host, &["--name", "c1"], "true")
        .exits(125)
        .complains("Conflict. The container name \"/c1\" is already in use by container \"");
}

fn stop_signal_and_timeout() {
    let host = Host::new();
    host.coracle([
        "run",
        "-d",
        "--name",
        "c1",
        "--stop-signal",
        "USR1",
        "--stop-timeout",
        "50",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 4' USR1; echo ready; while :; do sleep 0.05; done",
    ])
    .ok();
    let config = host.inspect("c1")["Config"].clone();
    assert_eq!(
        (&config["StopSignal"], &config["StopTimeout"]),
        (&"USR1".into(), &50.into())
    );
    eventually("the handler is there", || {
        let log = host.run("logs c1");
        log.stdout.contains("ready").then_some(()).ok_or(log)
    });
    host.run("stop --timeout 50 c1");
    assert_eq!(host.inspect("c1")["State"]["ExitCode"], 4);
    sh(&host, &["--stop-signal", "NOPE"], "true")
        .exits(125)
        .complains("Invalid signal: NOPE");
    sh(&host, &["--stop-timeout", "x"], "true")
        .exits(125)
        .complains("invalid argument \"x\" for \"--stop-timeout\" flag: strconv.ParseInt: parsing \"x\": invalid syntax");
    sh(&host, &["--stop-signal", ""], "true").ok();
}
