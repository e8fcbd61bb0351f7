//! What a container's log keeps, and what `logs` prints of it.

use harness::{Host, eventually};

use crate::cell;
use crate::cell::Cell;

pub const CELLS: &[Cell] = &[
    cell!(logs_prints_each_stream_on_its_own, "logs"),
    cell!(logs_cuts_by_lines, "logs --tail", "logs -n"),
    cell!(logs_cuts_by_time, "logs --since", "logs --until"),
    cell!(logs_puts_the_time_first, "logs --timestamps", "logs -t"),
    cell!(logs_tells_details, "logs --details", "run --log-opt"),
    cell!(
        logs_follows_across_rotations_to_the_end,
        "logs --follow",
        "logs -f",
        "run --log-opt"
    ),
    cell!(any_bytes_come_back, "logs"),
    cell!(
        json_file_is_rotated_and_compressed,
        "run --log-opt",
        "run --log-driver"
    ),
    cell!(local_keeps_its_own_files, "run --log-driver"),
    cell!(none_keeps_nothing_and_says_so, "run --log-driver", "logs"),
    cell!(
        log_options_are_checked_in_dockers_words,
        "run --log-opt",
        "run --log-driver"
    ),
];

fn logs_prints_each_stream_on_its_own() {
    let host = Host::new();
    host.coracle([
        "run",
        "--name",
        "c1",
        "busybox",
        "sh",
        "-c",
        "echo out; echo err >&2",
    ])
    .ok();
    let logs = host.run("logs c1");
    assert_eq!(
        (logs.stdout.as_str(), logs.stderr.as_str()),
        ("out\n", "err\n")
    );
    host.try_run("logs nope")
        .exits(1)
        .complains("No such container: nope");
    host.try_run("logs").exits(1);
}

fn logs_cuts_by_lines() {
    let host = Host::new();
    for driver in ["json-file", "local"] {
        host.run(&format!(
            "run --name {driver} --log-driver {driver} busybox seq 100"
        ));
        host.run(&format!("logs --tail 2 {driver}")).says("99\n100");
        host.run(&format!("logs -n 1 {driver}")).says("100");
        host.run(&format!("logs -n 0 {driver}")).says("");
        for all in ["all", "-1", "1000"] {
            let logs = host.run(&format!("logs --tail {all} {driver}"));
            assert_eq!(logs.stdout.lines().count(), 100, "{all}");
        }
    }
}

fn logs_cuts_by_time() {
    let host = Host::new();
    host.coracle([
        "run",
        "--name",
        "c1",
        "busybox",
        "sh",
        "-c",
        "echo early; sleep 1.1; echo late",
    ])
    .ok();
    let logs = host.run("logs -t c1");
    let late = logs
        .stdout
        .lines()
        .last()
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    let seconds = &late[..19];
    host.run(&format!("logs --since {late} c1")).says("late");
    host.run(&format!("logs --since {seconds}Z c1"))
        .says("late");
    host.run(&format!("logs --until {seconds}Z c1"))
        .says("early");
    host.run("logs --since 1h30m c1").says("early\nlate");
    host.run("logs --until 10m c1").says("");
    host.run("logs --since 2020-01-01 c1").says("early\nlate");
    host.run("logs --until 1600000000.5 c1").says("");
    for (option, name) in [("--since", "since"), ("--until", "until")] {
        host.try_run(&format!("logs {option} 1d c1"))
            .exits(1)
            .complains(&format!(
                "invalid value for \"{name}\": failed to parse value as time or duration: \"1d\""
            ));
    }
}

fn logs_puts_the_time_first() {
    let host = Host::new();
    host.run("run --name c1 busybox echo hi");
    for option in ["-t", "--timestamps"] {
        let logs = host.run(&format!("logs {option} c1"));
        let (time, text) = logs.text().split_once(' ').unwrap();
        assert_eq!((time.len(), text), (30, "hi"), "{logs}");
        assert!(time.ends_with('Z') && time.as_bytes()[10] == b'T', "{logs}");
    }
}

fn logs_tells_details() {
    let host = Host::new();
    host.run(
        "run --name c1 --label a=1 --label bb=2 -e FOO=x -e BAR=y --log-opt labels=a,c --log-opt labels-regex=^b \
         --log-opt env=FOO --log-opt tag={{.Name}}/{{.ImageName}} busybox echo hi",
    );
    let details = host.run("logs --details c1");
    assert_eq!(details.stdout, "FOO=x,a=1,bb=2,tag=c1%2Fbusybox hi\n");
    host.run("run --name c2 busybox echo hi");
    assert_eq!(host.run("logs --details c2").stdout, " hi\n");
}

fn logs_follows_across_rotations_to_the_end() {
    let host = Host::new();
    for (name, driver) in [("js", "json-file"), ("lo", "local")] {
        let script = "until [ -e /go ]; do sleep 0.05; done; seq 5000; sleep 0.2; exit 3";
        host.coracle([
            "run",
            "-d",
            "--name",
            name,
            "--log-driver",
            driver,
            "--log-opt",
            "max-size=20k",
            "--log-opt",
            "max-file=100",
            "busybox",
            "sh",
            "-c",
            script,
        ])
        .ok();
        let follower = host.command(["logs", "-f", name]).spawn_in(&host.netns);
        host.run(&format!("exec {name} touch /go"));
        let expected: String = (1..=5000).map(|n| format!("{n}\n")).collect();
        let followed = follower.wait().ok();
        assert!(followed.stdout == expected, "{followed}");
        assert!(host.run(&format!("logs --follow {name}")).stdout == expected);
    }
}

fn any_bytes_come_back() {
    let host = Host::new();
    let script =
        r"printf '\377\376x\0\001\n'; head -c 40000 /dev/zero | tr '\0' a; echo; printf 'no end'";
    for (name, driver) in [("js", "json-file"), ("lo", "local")] {
        host.coracle([
            "run",
            "-d",
            "--name",
            name,
            "--log-driver",
            driver,
            "busybox",
            "sh",
            "-c",
            script,
        ])
        .ok();
        host.run(&format!("wait {name}"));
        let line = host.command(["logs", name]).line();
        let hex = host
            .tool(
                "sh",
                ["-c", &format!("{line} | od -An -v -tx1 | tr -d ' \n'")],
            )
            .ok();
        let expected = format!("fffe7800010a{}0a{}", "61".repeat(40_000), "6e6f20656e64");
        if !host.is_docker() {
            assert!(hex.stdout == expected, "{driver}");
        }
    }
}

fn json_file_is_rotated_and_compressed() {
    let host = Host::new();
    host.run(
        "run --name c1 --log-opt max-size=10k --log-opt max-file=3 --log-opt compress=true busybox seq 3000",
    );
    let logs = host.run("logs c1");
    let lines: Vec<&str> = logs.stdout.lines().collect();
    assert_eq!(lines.last(), Some(&"3000"));
    let first: usize = lines[0].parse().unwrap();
    assert!(
        first > 1 && lines.len() == 3001 - first,
        "{first} {}",
        lines.len()
    );
    let path = host.inspect("c1")["LogPath"].as_str().unwrap().to_owned();
    let folder = std::path::Path::new(&path).parent().unwrap().to_owned();
    eventually("two full files, compressed", || {
        let names: Vec<String> = std::fs::read_dir(&folder)
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.contains("json.log"))
            .collect();
        let packed = names.iter().filter(|name| name.ends_with(".gz")).count();
        if names.len() == 3 && packed == 2 {
            Ok(())
        } else {
            Err(format!("{names:?}"))
        }
    });
    host.run("logs --tail 3 c1").says("2998\n2999\n3000");
}

fn local_keeps_its_own_files() {
    let host = Host::new();
    host.run("run --name c1 --log-driver local --log-opt max-size=1m busybox seq 100000");
    let logs = host.run("logs c1");
    let expected: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    assert!(logs.stdout == expected);
    let inspect = host.inspect("c1");
    assert_eq!(inspect["LogPath"], "");
    assert_eq!(inspect["HostConfig"]["LogConfig"]["Type"], "local");
    assert_eq!(
        inspect["HostConfig"]["LogConfig"]["Config"]["max-size"],
        "1m"
    );
}

fn none_keeps_nothing_and_says_so() {
    let host = Host::new();
    host.run("run --name c1 --log-driver none busybox echo hi")
        .says("hi");
    for line in ["logs c1", "logs -f c1"] {
        host.try_run(line)
            .exits(1)
            .complains("configured logging driver does not support reading");
    }
}

fn log_options_are_checked_in_dockers_words() {
    let host = Host::new();
    for (options, text) in [
        (
            "--log-opt max-size=x",
            "failed to initialize logging driver: invalid size: 'x'",
        ),
        ("--log-opt max-size=0", "max-size must be a positive number"),
        (
            "--log-opt max-file=x",
            "failed to initialize logging driver: strconv.Atoi: parsing \"x\": invalid syntax",
        ),
        ("--log-opt max-file=0", "max-file cannot be less than 1"),
        (
            "--log-opt compress=x",
            "strconv.ParseBool: parsing \"x\": invalid syntax",
        ),
        (
            "--log-opt compress=true",
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        ),
        (
            "--log-opt bogus=1",
            "unknown log opt 'bogus' for json-file log driver",
        ),
        ("--log-opt mode=x", "logger: logging mode not supported: x"),
        (
            "--log-opt max-buffer-size=1m",
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ),
        (
            "--log-opt mode=non-blocking --log-opt max-buffer-size=x",
            "error parsing option max-buffer-size: invalid size: 'x'",
        ),
        (
            "--log-opt env-regex=[",
            "failed to initialize logging driver: error parsing regexp: ",
        ),
        (
            "--log-opt tag={{",
            "failed to initialize logging driver: template: log-tag:1: unclosed action",
        ),
        (
            "--log-driver local --log-opt max-size=x",
            "invalid value for max-size: x: invalid size: 'x'",
        ),
        (
            "--log-driver local --log-opt max-file=1",
            "compression cannot be enabled when max file count is 1",
        ),
        (
            "--log-driver local --log-opt labels=a",
            "unknown log opt 'labels' for log driver local",
        ),
        (
            "--log-driver none --log-opt max-size=1m",
            "invalid logging opts for driver none",
        ),
    ] {
        host.try_run(&format!("run --rm {options} busybox true"))
            .exits(125)
            .complains(text);
    }
    if !host.is_docker() {
        // Docker looks for a plugin of this name, for a long while.
        host.try_run("run --rm --log-driver bogus busybox true")
            .exits(125)
            .complains("error looking up logging plugin bogus: plugin \"bogus\" not found");
    }
    host.run("run --rm --log-opt mode=non-blocking --log-opt max-buffer-size=1m busybox echo hi")
        .says("hi");
    assert!(host.ids().is_empty());
}
