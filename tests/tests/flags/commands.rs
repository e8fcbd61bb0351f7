//! Commands about the life of containers: start, stop, restart, kill, rm, wait, rename, prune.

use harness::{Host, eventually};

use crate::cell::Cell;
use crate::life::{becomes, history, state};

pub const CELLS: &[Cell] = &[
    crate::cell!(
        restart_stops_and_starts,
        "restart",
        "restart --timeout",
        "restart -t",
        "restart --signal",
        "restart -s"
    ),
    crate::cell!(
        stop_sends_the_signal_and_then_kills,
        "stop",
        "stop --timeout",
        "stop -t",
        "stop --signal",
        "stop -s",
        "run --stop-signal",
        "run --stop-timeout"
    ),
    crate::cell!(kill_sends_any_signal, "kill", "kill --signal", "kill -s"),
    crate::cell!(
        rm_takes_what_is_over_and_by_force_what_runs,
        "rm",
        "rm --force",
        "rm -f",
        "rm --volumes",
        "rm -v"
    ),
    crate::cell!(wait_prints_the_codes_of_all, "wait"),
    crate::cell!(
        start_attaches_to_one_and_starts_several,
        "start",
        "start --attach",
        "start -a",
        "start --interactive",
        "start -i"
    ),
    crate::cell!(a_renamed_container_goes_by_its_new_name, "rename"),
    crate::cell!(bad_names_are_refused_in_dockers_words, "rename"),
    crate::cell!(
        prune_removes_what_does_not_run,
        "container prune",
        "container prune --force",
        "container prune -f",
        "container prune --filter"
    ),
];

/// A container that writes down the signals that it gets, and ends by none of them.
fn listener(host: &Host, name: &str, options: &str) {
    let script = "for s in TERM USR1 HUP; do trap \"echo got $s\" $s; done; echo ready; while :; do sleep 0.02; done";
    let mut words = vec!["run", "-d", "--name", name];
    words.extend(options.split_whitespace());
    words.extend(["busybox", "sh", "-c", script]);
    host.coracle(words).ok();
    logs_say(host, name, "ready");
}

#[track_caller]
fn logs_say(host: &Host, name: &str, text: &str) {
    eventually(&format!("{name} says {text}"), || {
        let log = host.run(&format!("logs {name}"));
        if log.stdout.lines().any(|line| line == text) {
            Ok(())
        } else {
            Err(log)
        }
    });
}

fn restart_stops_and_starts() {
    let host = Host::new();
    listener(&host, "c1", "");
    let before = host.pid_of("c1");
    host.run("restart -t 0 -s USR1 c1").says("c1");
    becomes(&host, "c1", "running");
    assert_ne!(host.pid_of("c1"), before);
    assert_eq!(host.inspect("c1")["RestartCount"], 0);
    let signals = |host: &Host| {
        let words = [
            "events",
            "--since",
            "1h",
            "--until",
            "0s",
            "-f",
            "event=kill",
        ];
        let format = ["--format", "{{.Actor.Attributes.signal}}"];
        host.coracle(words.iter().chain(&format))
            .ok()
            .text()
            .to_owned()
    };
    assert!(signals(&host).starts_with("10"), "{}", signals(&host));
    // The program that listens has it; the time is long enough that it is not killed before.
    host.run("restart --signal KILL --timeout 30 c1").says("c1");
    assert!(signals(&host).ends_with('9'));
    // One that does not run is started.
    host.run("stop -t 0 c1");
    host.run("restart c1").says("c1");
    becomes(&host, "c1", "running");
    host.try_run("restart nope")
        .exits(1)
        .complains("No such container: nope");
    host.try_run("restart -s BOGUS c1")
        .exits(1)
        .complains("Invalid signal: BOGUS");
    host.try_run("restart -t x c1").exits(125).complains(
        "invalid argument \"x\" for \"-t, --timeout\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
    );
    host.try_run("restart")
        .exits(1)
        .complains("requires at least 1 argument");
    becomes(&host, "c1", "running");
    host.run("rm -f c1");
}

fn stop_sends_the_signal_and_then_kills() {
    let host = Host::new();
    // Its own signal, which it ignores, and its own time.
    listener(&host, "c1", "--stop-signal USR1 --stop-timeout 1");
    host.run("stop c1").says("c1");
    logs_say(&host, "c1", "got USR1");
    assert_eq!(state(&host, "c1", "ExitCode"), "137");
    // Another signal, said with the command.
    host.run("start c1");
    logs_say(&host, "c1", "ready");
    host.run("stop --signal HUP --timeout 1 c1");
    logs_say(&host, "c1", "got HUP");
    host.run("start c1");
    host.run("stop -s KILL -t 30 c1").says("c1");
    assert_eq!(state(&host, "c1", "Status"), "exited");
    // What does not run is no error.
    host.run("stop c1").says("c1");
    host.try_run("stop nope c1")
        .exits(1)
        .says("c1")
        .complains("No such container: nope");
    host.try_run("stop -s BOGUS c1")
        .exits(1)
        .complains("Invalid signal: BOGUS");
    host.try_run("stop -t x c1")
        .exits(125)
        .complains("invalid argument \"x\" for \"-t, --timeout\" flag");
    host.try_run("stop")
        .exits(1)
        .complains("requires at least 1 argument");
    host.run("rm c1");
}

fn kill_sends_any_signal() {
    let host = Host::new();
    listener(&host, "c1", "");
    for (written, heard) in [
        ("USR1", "got USR1"),
        ("SIGHUP", "got HUP"),
        ("15", "got TERM"),
    ] {
        host.run(&format!("kill -s {written} c1")).says("c1");
        logs_say(&host, "c1", heard);
    }
    host.try_run("kill --signal BOGUS c1")
        .exits(1)
        .complains("Invalid signal: BOGUS");
    host.try_run("kill -s 0 c1")
        .exits(1)
        .complains("Invalid signal: 0");
    host.try_run("kill nope")
        .exits(1)
        .complains("Cannot kill container: nope: No such container: nope");
    assert_eq!(state(&host, "c1", "Status"), "running");
    host.run("kill c1").says("c1");
    host.run("wait c1").says("137");
    let id = host.inspect("c1")["Id"].as_str().unwrap().to_owned();
    host.try_run("kill c1").exits(1).complains(&format!(
        "Cannot kill container: c1: Container {id} is not running"
    ));
    host.run("rm c1");
}

fn rm_takes_what_is_over_and_by_force_what_runs() {
    let host = Host::new();
    host.run("run -d --name c1 -v /data busybox sleep 1000");
    host.run("run --name c2 -v /data busybox true");
    let id = host.inspect("c1")["Id"].as_str().unwrap().to_owned();
    host.try_run("rm c1 c2").exits(1).says("c2").complains(&format!(
        "You cannot remove a running container {id}. Stop the container before attempting removal or force remove"
    ));
    let volumes = || {
        let entries = std::fs::read_dir(host.root().join("volumes"));
        entries.into_iter().flatten().count()
    };
    let before = volumes();
    host.run("rm --force --volumes c1").says("c1");
    assert_eq!(volumes(), before - 1);
    host.run("run --name c3 -v /data busybox true");
    host.run("rm -v c3").says("c3");
    assert_eq!(volumes(), before - 1);
    host.try_run("rm nope")
        .exits(1)
        .complains("No such container: nope");
    host.run("rm -f nope").complains("No such container: nope");
    assert!(host.ids().is_empty());
}

fn wait_prints_the_codes_of_all() {
    let host = Host::new();
    host.run("run -d --name c1 busybox sleep 1000");
    host.coracle(["run", "--name", "c2", "busybox", "sh", "-c", "exit 5"])
        .exits(5);
    host.run("create --name c3 busybox true");
    let waiting = host
        .command(["wait", "c1", "nope", "c2", "c3"])
        .spawn_in(&host.netns);
    host.run("kill c1");
    let told = waiting.wait().exits(1).complains("No such container: nope");
    assert_eq!(told.text(), "137\n5\n0");
    host.try_run("wait")
        .exits(1)
        .complains("requires at least 1 argument");
    host.run("rm c1 c2 c3");
}

fn start_attaches_to_one_and_starts_several() {
    let host = Host::new();
    host.coracle([
        "create",
        "--name",
        "c1",
        "-i",
        "busybox",
        "sh",
        "-c",
        "cat; exit 4",
    ])
    .ok();
    host.run("create --name c2 busybox sleep 1000");
    let told = host
        .command(["start", "-a", "-i", "c1"])
        .stdin("typed\n")
        .run_in(&host.netns)
        .exits(4);
    assert_eq!(told.text(), "typed");
    let told = host
        .command(["start", "--attach", "--interactive", "c1"])
        .stdin("again\n")
        .run_in(&host.netns)
        .exits(4);
    assert_eq!(told.text(), "again");
    host.try_run("start -ai c1 c2")
        .exits(1)
        .complains("you cannot start and attach multiple containers at once");
    host.try_run("start nope c2")
        .exits(1)
        .says("c2")
        .complains("Error: failed to start containers: nope");
    // It runs already.
    host.run("start c2").says("c2");
    host.try_run("start")
        .exits(1)
        .complains("requires at least 1 argument");
    host.run("rm -f c1 c2");
}

fn a_renamed_container_goes_by_its_new_name() {
    let host = Host::new();
    host.run("network create n1");
    host.start_web("web", "--network n1 -p 8080:80");
    host.run("run -d --name other --network n1 busybox sleep 1000");
    let pid = host.pid_of("web");
    host.run("exec other nslookup web");
    host.run("rename web front").says("");
    assert_eq!(host.inspect("front")["Name"], "/front");
    host.try_run("inspect web").exits(1);
    // It runs on, is reached, and is known by the new name alone.
    assert_eq!(host.pid_of("front"), pid);
    let page = format!("{}:8080", harness::host::HOST);
    harness::net::http_get(&host.neighbour, &page).expect("it still serves");
    host.run("exec other nslookup front");
    assert_ne!(host.try_run("exec other nslookup web").code(), 0);
    if !host.is_docker() {
        host.run("network doctor");
    }
    // The old name is free, and the container keeps the new one when it starts again.
    host.run("run -d --name web busybox sleep 1000");
    host.run("restart -t 0 front");
    host.run("exec other nslookup front");
    assert!(
        history(&host, "front")
            .iter()
            .any(|(action, _)| action == "rename")
    );
    host.run("rm -f web front other");
}

fn bad_names_are_refused_in_dockers_words() {
    let host = Host::new();
    let id = host.run("create --name c1 busybox true").text().to_owned();
    host.run("create --name c2 busybox true");
    let failed = |name: &str| format!("Error: failed to rename container named {name}");
    for (line, name, text) in [
        (
            "c1 c1",
            "c1",
            "Renaming a container with the same name as its current name".to_owned(),
        ),
        (
            "c2 b@d",
            "c2",
            "Error when allocating new name: Invalid container name (".to_owned(),
        ),
        (
            "c2 c1",
            "c2",
            format!(
                "Error when allocating new name: Conflict. The container name \"/c1\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
            ),
        ),
        ("nope c3", "nope", "No such container: nope".to_owned()),
    ] {
        host.try_run(&format!("rename {line}"))
            .exits(1)
            .complains(&text)
            .complains(&failed(name));
    }
    host.coracle(["rename", "c1", ""])
        .exits(1)
        .complains("Error: Neither old nor new names may be empty");
    host.try_run("rename c1")
        .exits(1)
        .complains("requires 2 arguments");
    host.run("rm c1 c2");
}

fn prune_removes_what_does_not_run() {
    let host = Host::new();
    let make = || {
        host.run("run -d --name runs busybox sleep 1000");
        host.run("run -d --name waits --restart always busybox false");
        let words = [
            "run", "--name", "wrote", "-l", "keep=no", "busybox", "sh", "-c",
        ];
        let script = "head -c 1000000 /dev/zero >/data";
        host.coracle(words.into_iter().chain([script])).ok();
        host.run("create --name made busybox true");
    };
    make();
    let ask = |answer: &str| {
        host.command(["container", "prune"])
            .stdin(answer)
            .run_in(&host.netns)
            .ok()
    };
    let question = "WARNING! This will remove all stopped containers.\nAre you sure you want to continue? [y/N] ";
    let no = ask("n\n");
    assert_eq!(no.stdout, question);
    assert_eq!(host.ids().len(), 4);
    for filter in ["label=nope", "until=1h", "label!=keep", "label=keep=yes"] {
        let only_made = filter == "label!=keep";
        let told = host.run(&format!("container prune -f --filter {filter}"));
        assert_eq!(
            told.text().starts_with("Deleted Containers:"),
            only_made,
            "{told}"
        );
    }
    let id = host.inspect("wrote")["Id"].as_str().unwrap().to_owned();
    let told = ask("y\n");
    // What it has written takes a little more on disk, with folders and logs: `disk_usage` has it to the byte.
    let expected = format!("{question}Deleted Containers:\n{id}\n\nTotal reclaimed space: 1");
    assert!(
        told.stdout.starts_with(&expected) && told.stdout.ends_with("MB\n"),
        "{told}"
    );
    host.run("container prune --force")
        .says("Total reclaimed space: 0B");
    assert_eq!(host.ids().len(), 2);
    assert_eq!(state(&host, "runs", "Status"), "running");
    host.try_run("container prune -f --filter foo=x")
        .exits(1)
        .complains("Invalid filter 'foo'");
    host.try_run("container prune -f --filter until=bogus")
        .exits(1)
        .complains("failed to parse value as time or duration: \"bogus\"");
    host.run("rm -f runs waits");
}
