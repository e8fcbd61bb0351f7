//! Health checks: their options, their results, and who goes on with them.

use harness::{Host, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::cell::Cell;
use crate::life::{becomes, history, state};

pub const CELLS: &[Cell] = &[
    crate::cell!(
        a_check_says_healthy_and_unhealthy,
        "run --health-cmd",
        "run --health-interval",
        "run --health-retries"
    ),
    crate::cell!(
        a_check_that_takes_too_long_is_killed,
        "run --health-timeout"
    ),
    crate::cell!(
        failures_in_the_start_period_do_not_count,
        "run --health-start-period",
        "run --health-start-interval"
    ),
    crate::cell!(
        the_images_check_is_run_and_can_be_turned_off,
        "run --no-healthcheck",
        "import --change"
    ),
    crate::cell!(
        long_output_is_cut_and_five_results_are_kept,
        "run --health-cmd"
    ),
    crate::cell!(a_check_that_cannot_be_run_is_a_failure, "run --health-cmd"),
    crate::cell!(
        bad_checks_are_refused_in_dockers_words,
        "run --health-cmd",
        "run --health-interval",
        "run --health-timeout",
        "run --health-retries",
        "run --health-start-period",
        "run --health-start-interval",
        "run --no-healthcheck"
    ),
    crate::cell!(
        a_check_goes_on_after_the_monitor_was_killed,
        "run --health-cmd"
    ),
    crate::cell!(
        a_check_runs_again_after_a_restart,
        "run --health-cmd",
        "restart"
    ),
];

fn health(host: &Host, name: &str) -> Value {
    host.inspect(name)["State"]["Health"].take()
}

#[track_caller]
fn is_found(host: &Host, name: &str, status: &str) {
    eventually(&format!("{name} is found {status}"), || {
        let now = health(host, name);
        if now["Status"] == status {
            Ok(())
        } else {
            Err(now)
        }
    });
}

fn run(host: &Host, name: &str, options: &[&str]) -> String {
    let mut words = vec!["run", "-d", "--name", name];
    words.extend(options);
    words.extend(["busybox", "sleep", "1000"]);
    host.coracle(words).ok().text().to_owned()
}

fn a_check_says_healthy_and_unhealthy() {
    let host = Host::new();
    let check = [
        "--health-cmd",
        "echo looked; test -e /ok",
        "--health-interval=100ms",
    ];
    run(
        &host,
        "c1",
        &[&check[..], &["--health-retries", "2"]].concat(),
    );
    // Before two failures in a row it is not known.
    assert_ne!(health(&host, "c1")["Status"], "healthy");
    is_found(&host, "c1", "unhealthy");
    let found = health(&host, "c1");
    assert!(found["FailingStreak"].as_u64() >= Some(2), "{found}");
    assert_eq!(found["Log"][0]["ExitCode"], 1);
    assert_eq!(found["Log"][0]["Output"], "looked\n");
    assert!(host.run("ps").text().contains("(unhealthy)"));
    host.run("exec c1 touch /ok");
    is_found(&host, "c1", "healthy");
    let status = host.run("ps --format {{.Status}} --filter health=healthy");
    assert!(status.text().ends_with("(healthy)"), "{status}");
    host.run("ps -q --filter health=unhealthy").says("");
    let actions = history(&host, "c1");
    let statuses: Vec<&str> = actions
        .iter()
        .filter_map(|(action, _)| action.strip_prefix("health_status: "))
        .collect();
    assert_eq!(statuses, ["unhealthy", "healthy"]);
    let line = "exec_create: /bin/sh -c echo looked; test -e /ok";
    assert!(actions.iter().any(|(action, _)| action == line));
    let config = host.inspect("c1")["Config"]["Healthcheck"].take();
    assert_eq!(config["Test"][0], "CMD-SHELL");
    assert_eq!(config["Interval"], 100_000_000);
    assert_eq!(config["Timeout"], Value::Null);
    host.run("stop -t 0 c1");
    assert_eq!(health(&host, "c1")["Status"], "unhealthy");
}

fn a_check_that_takes_too_long_is_killed() {
    let host = Host::new();
    let check = ["--health-cmd", "sleep 1234", "--health-interval=50ms"];
    run(
        &host,
        "c1",
        &[
            &check[..],
            &["--health-timeout=200ms", "--health-retries=1"],
        ]
        .concat(),
    );
    is_found(&host, "c1", "unhealthy");
    let found = health(&host, "c1")["Log"][0].take();
    assert_eq!(found["ExitCode"], -1);
    assert_eq!(found["Output"], "Health check exceeded timeout (200ms)");
    // One at a time, and none is left over.
    let running = host.coracle(["exec", "c1", "sh", "-c", "ps | grep '[s]leep 1234' | wc -l"]);
    let count: u32 = running.ok().text().parse().expect("a number");
    assert!(count <= 2, "{count} processes");
    host.run("rm -f c1");
}

fn failures_in_the_start_period_do_not_count() {
    let host = Host::new();
    let check = [
        "--health-cmd",
        "test -e /ok",
        "--health-interval=1h",
        "--health-retries=1",
    ];
    let start = ["--health-start-period=1h", "--health-start-interval=50ms"];
    run(&host, "c1", &[&check[..], &start[..]].concat());
    eventually("it has failed some times", || {
        let found = health(&host, "c1");
        match found["Log"].as_array().map_or(0, Vec::len) {
            3.. => Ok(()),
            _ => Err(found),
        }
    });
    let found = health(&host, "c1");
    assert_eq!(found["Status"], "starting");
    assert_eq!(found["FailingStreak"], 0);
    assert!(host.run("ps").text().contains("(health: starting)"));
    host.run("exec c1 touch /ok");
    is_found(&host, "c1", "healthy");
    host.run("rm -f c1");
}

fn the_images_check_is_run_and_can_be_turned_off() {
    let host = Host::new();
    let tar = harness::images::busybox_tar();
    let import = |change: &str, name: &str| {
        host.coracle([
            "import".as_ref(),
            "--change".as_ref(),
            change.as_ref(),
            tar.as_os_str(),
            name.as_ref(),
        ])
    };
    import(
        "HEALTHCHECK --interval=100ms --retries=1 CMD test -e /ok",
        "checked",
    )
    .ok();
    host.run("run -d --name c1 checked sleep 1000");
    is_found(&host, "c1", "unhealthy");
    host.run("exec c1 touch /ok");
    is_found(&host, "c1", "healthy");
    // What the user says stands above it, the rest stays.
    host.coracle([
        "run",
        "-d",
        "--name",
        "c2",
        "--health-cmd",
        "true",
        "checked",
        "sleep",
        "1000",
    ])
    .ok();
    is_found(&host, "c2", "healthy");
    assert_eq!(host.inspect("c2")["Config"]["Healthcheck"]["Retries"], 1);
    host.run("run -d --name c3 --no-healthcheck checked sleep 1000");
    assert_eq!(health(&host, "c3"), Value::Null);
    let test = host.inspect("c3")["Config"]["Healthcheck"]["Test"].take();
    assert_eq!(test, serde_json::json!(["NONE"]));
    import("HEALTHCHECK NONE", "unchecked").ok();
    host.run("run -d --name c4 unchecked sleep 1000");
    assert_eq!(health(&host, "c4"), Value::Null);
    import("HEALTHCHECK CMD [\"test\", \"-e\", \"/proc\"]", "words").ok();
    host.run("run -d --name c5 --health-interval 100ms words sleep 1000");
    is_found(&host, "c5", "healthy");
    import("HEALTHCHECK --interval=x CMD true", "bad")
        .exits(1)
        .complains("time: invalid duration \"x\"");
    import("HEALTHCHECK --interval=1us CMD true", "bad")
        .exits(1)
        .complains("interval 1us is less than 1ms");
    host.run("rm -f c1 c2 c3 c4 c5");
}

fn long_output_is_cut_and_five_results_are_kept() {
    let host = Host::new();
    let check = [
        "--health-cmd",
        "yes | head -c 10000",
        "--health-interval=50ms",
    ];
    run(&host, "c1", &check);
    eventually("there are five", || {
        let found = health(&host, "c1");
        match found["Log"].as_array().map_or(0, Vec::len) {
            5 => Ok(()),
            count => Err(count),
        }
    });
    let first = health(&host, "c1")["Log"][0]["Start"].take();
    eventually("the oldest goes", || {
        let found = health(&host, "c1")["Log"].take();
        assert_eq!(found.as_array().map(Vec::len), Some(5));
        if found[0]["Start"] == first {
            Err("still there")
        } else {
            Ok(())
        }
    });
    let output = health(&host, "c1")["Log"][0]["Output"].take();
    let output = output.as_str().expect("a text");
    assert_eq!(output.len(), 4096 + 3);
    assert!(output.ends_with("..."));
    host.run("rm -f c1");
}

fn a_check_that_cannot_be_run_is_a_failure() {
    let host = Host::new();
    let tar = harness::images::busybox_tar();
    host.coracle([
        "import".as_ref(),
        "-c".as_ref(),
        "HEALTHCHECK --interval=100ms --retries=2 CMD [\"/nonexistent\"]".as_ref(),
        tar.as_os_str(),
        "broken".as_ref(),
    ])
    .ok();
    host.run("run -d --name c1 broken sleep 1000");
    is_found(&host, "c1", "unhealthy");
    let found = health(&host, "c1")["Log"][0].take();
    assert_eq!(found["ExitCode"], -1);
    assert!(!found["Output"].as_str().unwrap_or_default().is_empty());
    host.run("rm -f c1");
}

fn bad_checks_are_refused_in_dockers_words() {
    let host = Host::new();
    let conflict = "--no-healthcheck conflicts with --health-* options";
    for (options, text) in [
        ("--no-healthcheck --health-cmd true", conflict),
        ("--no-healthcheck --health-interval 1s", conflict),
        (
            "--health-interval 1us",
            "Interval in Healthcheck cannot be less than 1ms",
        ),
        (
            "--health-timeout 1us",
            "Timeout in Healthcheck cannot be less than 1ms",
        ),
        (
            "--health-start-period 1us",
            "StartPeriod in Healthcheck cannot be less than 1ms",
        ),
        (
            "--health-start-interval 1us",
            "StartInterval in Healthcheck cannot be less than 1ms",
        ),
        (
            "--health-interval -1s",
            "--health-interval cannot be negative",
        ),
        (
            "--health-timeout -1s",
            "--health-timeout cannot be negative",
        ),
        ("--health-retries -1", "--health-retries cannot be negative"),
        (
            "--health-interval x",
            "invalid argument \"x\" for \"--health-interval\" flag: time: invalid duration \"x\"",
        ),
        (
            "--health-timeout 10",
            "invalid argument \"10\" for \"--health-timeout\" flag: time: missing unit in duration \"10\"",
        ),
        (
            "--health-retries x",
            "invalid argument \"x\" for \"--health-retries\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
    ] {
        host.try_run(&format!("run {options} busybox true"))
            .exits(125)
            .complains(text);
    }
    assert!(host.ids().is_empty());
}

fn a_check_goes_on_after_the_monitor_was_killed() {
    let host = Host::new();
    let check = ["--health-cmd", "test -e /ok", "--health-interval=100ms"];
    let id = run(&host, "c1", &[&check[..], &["--health-retries=1"]].concat());
    is_found(&host, "c1", "unhealthy");
    let monitor = host.monitor_of(&id).expect("it has a monitor");
    let _ = kill(Pid::from_raw(monitor.cast_signed()), Signal::SIGKILL);
    host.run("exec c1 touch /ok");
    is_found(&host, "c1", "healthy");
    host.run("exec c1 rm /ok");
    is_found(&host, "c1", "unhealthy");
    assert_eq!(state(&host, "c1", "Status"), "running");
    host.run("rm -f c1");
}

fn a_check_runs_again_after_a_restart() {
    let host = Host::new();
    let check = ["--health-cmd", "test -e /ok", "--health-interval=100ms"];
    run(&host, "c1", &[&check[..], &["--health-retries=1"]].concat());
    host.run("exec c1 touch /ok");
    is_found(&host, "c1", "healthy");
    host.run("exec c1 rm /ok");
    host.run("restart -t 0 c1");
    becomes(&host, "c1", "running");
    is_found(&host, "c1", "unhealthy");
    host.run("rm -f c1");
}
