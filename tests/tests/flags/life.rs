//! What becomes of a container by itself: restart policies, the monitor's death, a boot.

use std::path::Path;
use std::time::Duration;

use harness::{Host, eventually, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cell::Cell;

pub const CELLS: &[Cell] = &[
    crate::cell!(
        on_failure_starts_again_as_often_as_it_says,
        "run --restart",
        "wait"
    ),
    crate::cell!(on_failure_leaves_a_success_alone, "run --restart"),
    crate::cell!(pauses_grow_from_restart_to_restart, "run --restart"),
    crate::cell!(
        what_the_user_stops_stays_stopped,
        "run --restart",
        "stop",
        "kill"
    ),
    crate::cell!(another_signal_does_not_end_the_policy, "kill --signal"),
    crate::cell!(
        a_container_that_waits_for_its_restart_is_told_apart,
        "ps",
        "rm",
        "start",
        "exec",
        "inspect"
    ),
    crate::cell!(update_changes_the_policy, "update", "update --restart"),
    crate::cell!(
        bad_policies_are_refused_in_dockers_words,
        "run --restart",
        "create --restart"
    ),
    crate::cell!(
        a_restarted_container_has_its_ports_and_names_again,
        "run --restart"
    ),
    crate::cell!(
        a_monitor_that_is_killed_in_the_pause_is_replaced_by_the_next_command,
        "run --restart"
    ),
    crate::cell!(
        monitors_killed_at_any_moment_lose_no_restart,
        "run --restart"
    ),
    crate::cell!(
        a_container_that_dies_without_its_monitor_is_started_by_the_next_command,
        "run --restart"
    ),
    crate::cell!(
        after_a_boot_what_should_run_is_started,
        "run --restart",
        "system up"
    ),
    crate::cell!(
        down_and_up_again_is_not_the_users_stop,
        "run --restart",
        "system down",
        "system up"
    ),
    crate::cell!(the_units_are_valid),
];

/// `State.KEY` of `inspect`, as text.
pub fn state(host: &Host, name: &str, key: &str) -> String {
    let value = host.inspect(name)["State"][key].clone();
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => value.to_string(),
    }
}

/// Waits until the container is in this state.
#[track_caller]
pub fn becomes(host: &Host, name: &str, status: &str) {
    eventually(&format!("{name} is {status}"), || {
        match state(host, name, "Status") {
            now if now == status => Ok(()),
            now => Err(now),
        }
    });
}

fn restarts(host: &Host, name: &str) -> u64 {
    host.inspect(name)["RestartCount"]
        .as_u64()
        .expect("a number")
}

#[track_caller]
pub fn restarts_at_least(host: &Host, name: &str, count: u64) {
    eventually(
        &format!("{name} is started {count} times again"),
        || match restarts(host, name) {
            now if now >= count => Ok(()),
            now => Err(now),
        },
    );
}

fn shell(host: &Host, options: &str, script: &str) {
    let mut words = vec!["run", "-d"];
    words.extend(options.split_whitespace());
    words.extend(["busybox", "sh", "-c", script]);
    host.coracle(words).ok();
}

fn kill_process(pid: u32) {
    let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
}

/// What happened to a container, the oldest first: action and time in nanoseconds.
pub fn history(host: &Host, name: &str) -> Vec<(String, i64)> {
    let filter = format!("container={name}");
    let format = "{{.TimeNano}} {{.Action}}";
    let output = host
        .coracle([
            "events", "--since", "1h", "--until", "0s", "--filter", &filter, "--format", format,
        ])
        .ok();
    let lines = output.stdout.lines();
    lines
        .map(|line| {
            let (time, action) = line.split_once(' ').expect("two fields");
            (action.to_owned(), time.parse().expect("a number"))
        })
        .collect()
}

fn on_failure_starts_again_as_often_as_it_says() {
    let host = Host::new();
    // In the foreground it ends with the first end, as with Docker.
    let script = ["sh", "-c", "echo once; exit 3"];
    let words = [
        "run",
        "--name",
        "c1",
        "--restart",
        "on-failure:2",
        "busybox",
    ];
    host.coracle(words.into_iter().chain(script))
        .exits(3)
        .says("once");
    host.run("wait c1").says("3");
    becomes(&host, "c1", "exited");
    assert_eq!(restarts(&host, "c1"), 2);
    host.run("logs c1").says("once\nonce\nonce");
    let policy = host.inspect("c1")["HostConfig"]["RestartPolicy"].take();
    assert_eq!(policy["Name"], "on-failure");
    assert_eq!(policy["MaximumRetryCount"], 2);
    // The user's start begins anew.
    host.run("start c1");
    host.run("wait c1").says("3");
    assert_eq!(restarts(&host, "c1"), 2);
    host.run("logs c1").says(["once"; 6].join("\n").as_str());
}

fn on_failure_leaves_a_success_alone() {
    let host = Host::new();
    host.run("run --name c1 --restart on-failure busybox true");
    becomes(&host, "c1", "exited");
    assert_eq!(restarts(&host, "c1"), 0);
    host.run("run -d --name c2 --restart no busybox false");
    becomes(&host, "c2", "exited");
    assert_eq!(restarts(&host, "c2"), 0);
    host.run("run -d --name c3 --restart always busybox true");
    restarts_at_least(&host, "c3", 1);
    host.run("rm -f c3");
}

fn pauses_grow_from_restart_to_restart() {
    let host = Host::new();
    host.run("run -d --name c1 --restart on-failure:4 busybox false");
    host.run("wait c1").says("1");
    let mut pauses = Vec::new();
    let mut died = None;
    for (action, time) in history(&host, "c1") {
        match (action.as_str(), died) {
            ("die", _) => died = Some(time),
            ("start", Some(died)) => pauses.push(Duration::from_nanos((time - died) as u64)),
            _ => {}
        }
    }
    assert_eq!(pauses.len(), 4, "{pauses:?}");
    // Not how long they are on a busy machine, but that none is shorter than promised.
    for (pause, least) in pauses.iter().zip([100, 200, 400, 800]) {
        assert!(*pause >= Duration::from_millis(least), "{pauses:?}");
    }
}

fn what_the_user_stops_stays_stopped() {
    let host = Host::new();
    for (verb, codes) in [
        // With a timeout of 0 the stop signal may do before SIGKILL is sent.
        ("stop -t 0", &["137", "143"][..]),
        ("kill", &["137"]),
        ("kill -s TERM", &["143"]),
    ] {
        for policy in ["always", "unless-stopped", "on-failure"] {
            shell(
                &host,
                &format!("--name c1 --restart {policy}"),
                "trap 'exit 143' TERM; touch /ready; while :; do sleep 0.02; done",
            );
            eventually("it is ready", || {
                let ready = host.try_run("exec c1 test -e /ready");
                if ready.code() == 0 {
                    Ok(())
                } else {
                    Err(ready)
                }
            });
            host.run(&format!("{verb} c1")).says("c1");
            let code = host.run("wait c1").text().to_owned();
            assert!(codes.contains(&code.as_str()), "{verb} {policy}: {code}");
            becomes(&host, "c1", "exited");
            assert_eq!(restarts(&host, "c1"), 0, "{verb} {policy}");
            host.run("rm c1");
        }
    }
    // In its pause, too.
    for verb in ["stop", "kill"] {
        host.run("run -d --name c2 --restart always busybox false");
        restarts_at_least(&host, "c2", 2);
        host.run(&format!("{verb} c2")).says("c2");
        becomes(&host, "c2", "exited");
        let count = restarts(&host, "c2");
        let more = until(Duration::from_secs(2), || match restarts(&host, "c2") {
            now if now > count => Ok(now),
            _ => Err(()),
        });
        assert!(more.is_err(), "{verb}: it was started again");
        host.run("rm c2");
    }
}

fn another_signal_does_not_end_the_policy() {
    let host = Host::new();
    shell(
        &host,
        "--name c1 --restart always",
        "trap 'exit 5' USR1; touch /ready; while :; do sleep 0.02; done",
    );
    eventually("it is ready", || {
        let ready = host.try_run("exec c1 test -e /ready");
        if ready.code() == 0 {
            Ok(())
        } else {
            Err(ready)
        }
    });
    host.run("kill --signal USR1 c1");
    restarts_at_least(&host, "c1", 1);
    becomes(&host, "c1", "running");
    host.run("rm -f c1");
}

fn a_container_that_waits_for_its_restart_is_told_apart() {
    let host = Host::new();
    host.run("run -d --name c1 --restart always busybox false");
    // The pauses have become long enough to do all this in one.
    restarts_at_least(&host, "c1", 5);
    // A pause ends by itself: each look is repeated until it has fallen into one.
    eventually("ps shows it without -a", || {
        let status = host.run("ps --format {{.Status}}");
        match status.text().starts_with("Restarting (1) ") {
            true => Ok(()),
            false => Err(status),
        }
    });
    eventually("a filter finds it", || {
        let ids = host.run("ps -q --filter status=restarting");
        match ids.text().is_empty() {
            true => Err(ids),
            false => Ok(()),
        }
    });
    // Of one moment: a slow machine may be beyond the pause at the next look.
    let seen = eventually(
        "it is seen in its pause",
        || match host.inspect("c1")["State"].take() {
            seen if seen["Status"] == "restarting" => Ok(seen),
            seen => Err(seen),
        },
    );
    assert_eq!(seen["Restarting"], true);
    assert_eq!(seen["Running"], true);
    assert_eq!(seen["Pid"], 0);
    assert_eq!(seen["ExitCode"], 1);
    let id = host.inspect("c1")["Id"].as_str().unwrap().to_owned();
    let waiting = format!("Container {id} is restarting, wait until the container is running");
    let refusals = [
        (
            "rm c1",
            &*format!(
                "You cannot remove a restarting container {id}. Stop the container before attempting removal or force remove"
            ),
        ),
        ("exec c1 true", &*waiting),
        ("pause c1", &*waiting),
        ("top c1", &*waiting),
    ];
    for (line, text) in refusals {
        eventually(line, || {
            becomes(&host, "c1", "restarting");
            let answer = host.try_run(line);
            if line == "pause c1" && answer.code() == 0 {
                host.try_run("unpause c1");
            }
            match answer.code() == 1 && answer.stderr.contains(text) {
                true => Ok(()),
                false => Err(answer),
            }
        });
    }
    host.run("start c1").says("c1");
    host.run("rm -f c1").says("c1");
    assert!(host.ids().is_empty());
}

fn update_changes_the_policy() {
    let host = Host::new();
    host.run("run -d --name c1 --restart always busybox false");
    restarts_at_least(&host, "c1", 1);
    host.run("update --restart no c1").says("c1");
    becomes(&host, "c1", "exited");
    host.run("run -d --name c2 busybox sleep 1000");
    host.run("update --restart on-failure:2 --pids-limit 9 c2");
    let config = host.inspect("c2")["HostConfig"].take();
    assert_eq!(
        config["RestartPolicy"],
        serde_json::json!({"Name": "on-failure", "MaximumRetryCount": 2})
    );
    kill_process(host.pid_of("c2"));
    restarts_at_least(&host, "c2", 1);
    becomes(&host, "c2", "running");
    host.run("run -d --rm --name c3 busybox sleep 1000");
    for (policy, name, code, text) in [
        ("bogus", "c2", 1, "invalid restart policy 'bogus'"),
        (
            "on-failure:x",
            "c2",
            1,
            "maximum retry count must be an integer",
        ),
        (
            "always",
            "c3",
            1,
            "Restart policy cannot be updated because AutoRemove is enabled for the container",
        ),
    ] {
        host.try_run(&format!("update --restart {policy} {name}"))
            .exits(code)
            .complains(text);
    }
    host.run("rm -f c1 c2 c3");
}

fn bad_policies_are_refused_in_dockers_words() {
    let host = Host::new();
    let integer = "invalid restart policy format: maximum retry count must be an integer";
    for (policy, text) in [
        ("bogus", "invalid restart policy 'bogus'"),
        ("on-failure:x", integer),
        ("on-failure:1:2", integer),
        ("on-failure:-1", "maximum retry count cannot be negative"),
        (
            "no:3",
            "maximum retry count cannot be used with restart policy 'no'",
        ),
        (
            "always:3",
            "maximum retry count cannot be used with restart policy 'always'",
        ),
    ] {
        host.try_run(&format!("run --restart {policy} busybox true"))
            .exits(125)
            .complains(text);
    }
    host.try_run("create --restart bogus busybox true")
        .exits(1)
        .complains("invalid restart policy 'bogus'");
    host.try_run("run --rm --restart always busybox true")
        .exits(125)
        .complains("conflicting options: cannot specify both --restart and --rm");
    host.run("run --rm --restart no busybox true");
    assert!(host.ids().is_empty());
}

fn a_restarted_container_has_its_ports_and_names_again() {
    let host = Host::new();
    host.run("network create n1");
    let options = "--restart always --network n1 -p 8080:80";
    host.start_web("web", options);
    host.run("run -d --name other --network n1 busybox sleep 1000");
    let before = host.pid_of("web");
    kill_process(before);
    restarts_at_least(&host, "web", 1);
    eventually("it serves again, by port and by name", || {
        let page =
            harness::net::http_get(&host.neighbour, &format!("{}:8080", harness::host::HOST))
                .map_err(|e| e.to_string())?;
        let inside = host.try_run("exec other nslookup web");
        match inside.code() {
            0 => Ok(page),
            _ => Err(inside.to_string()),
        }
    });
    assert_ne!(host.pid_of("web"), before);
    host.run("rm -f web other");
}

fn a_monitor_that_is_killed_in_the_pause_is_replaced_by_the_next_command() {
    let host = Host::new();
    host.run("run -d --name c1 --restart always busybox false");
    let id = host.ids().remove(0);
    restarts_at_least(&host, "c1", 4);
    becomes(&host, "c1", "restarting");
    let count = restarts(&host, "c1");
    kill_process(host.monitor_of(&id).expect("it has a monitor"));
    restarts_at_least(&host, "c1", count + 1);
    // Its new monitor goes on.
    restarts_at_least(&host, "c1", count + 3);
    // One that the user has stopped is not started by a repair.
    host.run("stop c1");
    host.run("ps");
    assert_eq!(state(&host, "c1", "Status"), "exited");
}

fn monitors_killed_at_any_moment_lose_no_restart() {
    let host = Host::new();
    if host.is_docker() {
        return;
    }
    shell(&host, "--name c1 --restart always", "sleep 0.05; exit 4");
    for round in 0..25u64 {
        std::thread::sleep(Duration::from_millis(round * 37 % 101));
        for monitor in host.monitors() {
            kill_process(monitor);
        }
        host.run("ps");
    }
    // It goes on as if nothing had been.
    let count = restarts(&host, "c1");
    restarts_at_least(&host, "c1", count + 2);
    host.run("stop c1");
    assert_eq!(state(&host, "c1", "Status"), "exited");
    // Each run has one start and one end.
    let actions = history(&host, "c1").into_iter().map(|(action, _)| action);
    let runs: Vec<String> = actions.filter(|a| a == "start" || a == "die").collect();
    let doubled = runs.windows(2).find(|two| two[0] == two[1]);
    assert_eq!(doubled, None, "{runs:?}");
    host.run("rm c1");
}

fn a_container_that_dies_without_its_monitor_is_started_by_the_next_command() {
    let host = Host::new();
    for (policy, is_back) in [("always", true), ("on-failure", true), ("no", false)] {
        let line = format!("run -d --name c1 --restart {policy} busybox sleep 1000");
        let id = host.run(&line).text().to_owned();
        let monitor = host.monitor_of(&id).expect("it has a monitor");
        let first = host.pid_of("c1");
        kill_process(monitor);
        kill_process(first);
        eventually("both have gone", || {
            match [monitor, first]
                .iter()
                .any(|pid| Path::new(&format!("/proc/{pid}/exe")).exists())
            {
                true => Err("not yet"),
                false => Ok(()),
            }
        });
        let status = if is_back { "running" } else { "exited" };
        assert_eq!(state(&host, "c1", "Status"), status, "{policy}");
        if is_back {
            assert_ne!(host.pid_of("c1"), first);
            // Its new monitor follows the policy as the old one did.
            kill_process(host.pid_of("c1"));
            restarts_at_least(&host, "c1", 2);
            becomes(&host, "c1", "running");
        }
        host.run("rm -f c1");
    }
}

/// The power goes: every process of the engine's and the containers', and what is in memory. The database stays, and its boot is another's.
fn lose_power(host: &Host, names: &[&str]) {
    let mut doomed: Vec<u32> = host.monitors();
    for name in names {
        let pid = host.inspect(name)["State"]["Pid"].as_u64().unwrap_or(0);
        if pid != 0 {
            doomed.push(u32::try_from(pid).expect("a process ID"));
        }
    }
    for pid in &doomed {
        kill_process(*pid);
    }
    eventually("all have gone", || {
        let left = doomed
            .iter()
            .find(|pid| Path::new(&format!("/proc/{pid}/exe")).exists());
        left.map_or(Ok(()), |pid| Err(*pid))
    });
    std::fs::remove_dir_all(host.run_root()).expect("what was in memory goes");
    let database = rusqlite::Connection::open(host.root().join("coracle.db")).expect("it is there");
    database
        .execute(
            "UPDATE containers SET boot_id = '11111111-2222-3333-4444-555555555555'",
            [],
        )
        .expect("another boot");
}

fn after_a_boot_what_should_run_is_started() {
    let host = Host::builder().build();
    if host.is_docker() {
        return;
    }
    let policies = ["no", "always", "unless-stopped", "on-failure"];
    for policy in policies {
        // Both were there before: one runs, the other was stopped by the user.
        for kind in ["runs", "stopped"] {
            host.run(&format!(
                "run -d --name {policy}-{kind} --restart {policy} busybox sleep 1000"
            ));
        }
        host.run(&format!("stop -t 0 {policy}-stopped"));
    }
    host.run("run --name done --restart on-failure busybox true");
    host.run("create --name never --restart always busybox true");
    let running = [
        "no-runs",
        "always-runs",
        "unless-stopped-runs",
        "on-failure-runs",
    ];
    lose_power(&host, &running);
    // Any command finds out what has ended, and starts nothing.
    host.run("ps -q").says("");
    assert_eq!(state(&host, "no-runs", "Status"), "exited");
    assert_eq!(state(&host, "always-runs", "ExitCode"), "255");
    host.system("up");
    let mut up: Vec<String> = host
        .run("ps --format {{.Names}}")
        .stdout
        .lines()
        .map(str::to_owned)
        .collect();
    up.sort();
    assert_eq!(
        up,
        [
            "always-runs",
            "always-stopped",
            "on-failure-runs",
            "unless-stopped-runs"
        ]
    );
    // In this boot the user's stop counts, and up is done once.
    host.run("stop -t 0 always-runs");
    host.system("up");
    assert_eq!(state(&host, "always-runs", "Status"), "exited");
    assert_eq!(state(&host, "never", "Status"), "created");
    host.run(&format!("rm -f {}", host.ids().join(" ")));
}

fn down_and_up_again_is_not_the_users_stop() {
    let host = Host::new();
    if host.is_docker() {
        return;
    }
    host.run("run -d --name c1 --restart unless-stopped busybox sleep 1000");
    host.run("run -d --name c2 --restart unless-stopped busybox sleep 1000");
    host.run("run -d --name c3 --restart always busybox false");
    host.run("run -d --name c4 busybox sleep 1000");
    host.run("stop -t 0 c2");
    host.system("down");
    assert!(host.run("ps -q").text().is_empty());
    host.system("up");
    becomes(&host, "c1", "running");
    restarts_at_least(&host, "c3", 1);
    assert_eq!(state(&host, "c2", "Status"), "exited");
    assert_eq!(state(&host, "c4", "Status"), "exited");
    host.run("rm -f c1 c3");
}

fn the_units_are_valid() {
    let folder = harness::images::repository().join("contrib/systemd");
    for unit in ["coracle.service", "coracle-network-watch.service"] {
        let text = std::fs::read_to_string(folder.join(unit)).expect("the unit is there");
        assert!(text.contains("ExecStart=/usr/local/bin/coracle "), "{unit}");
    }
    // Where systemd is installed, it judges; the program is where the test has it.
    if Path::new("/usr/bin/systemd-analyze").exists() {
        let scratch = tempfile::tempdir().expect("a folder");
        let unit = std::fs::read_to_string(folder.join("coracle.service")).expect("read it");
        let binary = harness::images::binary();
        let unit = unit.replace("/usr/local/bin/coracle", &binary.display().to_string());
        let path = scratch.path().join("coracle.service");
        std::fs::write(&path, unit).expect("write it");
        harness::Cmd::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .arg(&path)
            .run()
            .ok();
    }
}
