//! `events`: what is told, in which order, and to whom.

use harness::{Host, eventually};

use crate::cell::Cell;
use crate::life::history;

pub const CELLS: &[Cell] = &[
    crate::cell!(a_containers_life_is_told_in_dockers_order, "events"),
    crate::cell!(networks_and_images_are_told_of, "events"),
    crate::cell!(
        events_are_shown_as_they_happen_until_a_time,
        "events",
        "events --until"
    ),
    crate::cell!(
        times_are_given_in_three_forms,
        "events --since",
        "events --until"
    ),
    crate::cell!(filters_choose, "events --filter", "events -f"),
    crate::cell!(formats_are_dockers, "events --format", "system events"),
    crate::cell!(
        bad_words_are_refused_in_dockers_words,
        "events --since",
        "events --until",
        "events --format",
        "events --filter"
    ),
];

fn actions(host: &Host, name: &str) -> Vec<String> {
    let history = history(host, name).into_iter();
    history.map(|(action, _)| action).collect()
}

/// What the options choose of the past.
fn past(host: &Host, options: &[&str]) -> String {
    let mut words = vec!["events", "--since", "1h", "--until", "0s"];
    words.extend(options);
    host.coracle(words).ok().text().to_owned()
}

fn a_containers_life_is_told_in_dockers_order() {
    let host = Host::new();
    let id = host
        .run("run -d --name c1 --label k=v busybox sleep 1000")
        .text()
        .to_owned();
    host.run("exec c1 true");
    host.run("stop -t 0 c1");
    host.run("start c1");
    host.run("restart -t 0 c1");
    host.run("rename c1 c2");
    host.run("kill c2");
    host.run("wait c2");
    host.run("rm c2");
    let told = past(&host, &["--format", "{{.Type}} {{.Action}}"]);
    let told: Vec<&str> = told
        .lines()
        .skip_while(|line| *line != "container create")
        .collect();
    let kill_and_stop = [
        "container kill",
        "container kill",
        "container die",
        "network disconnect",
        "container stop",
    ];
    // With a timeout of 0 the stop signal may do before SIGKILL is sent.
    let told: Vec<&str> = told
        .into_iter()
        .filter(|line| *line != "container kill")
        .collect();
    let mut expected = vec![
        "container create",
        "network connect",
        "container start",
        "container exec_create: true",
        "container exec_start: true",
        "container exec_die",
    ];
    expected.extend(&kill_and_stop[2..]);
    expected.extend(["network connect", "container start"]);
    expected.extend(&kill_and_stop[2..]);
    expected.extend([
        "network connect",
        "container start",
        "container restart",
        "container rename",
        "container die",
        "network disconnect",
        "container destroy",
    ]);
    assert_eq!(told, expected);
    let lines = past(&host, &["--filter", &format!("container={id}")]);
    let line_of = |action: &str| {
        let found = lines.lines().find(|line| line.contains(action));
        found.unwrap_or_else(|| panic!("no {action} in {lines}"))
    };
    assert!(line_of(" kill ").ends_with(&format!(
        "container kill {id} (image=busybox, k=v, name=c1, signal=15)"
    )));
    assert!(line_of(" die ").ends_with(&format!(
        "container die {id} (exitCode=137, image=busybox, k=v, name=c1)"
    )));
    assert!(line_of(" rename ").ends_with("(image=busybox, k=v, name=c2, oldName=/c1)"));
    assert!(line_of(" exec_die ").contains("(execID="));
    let times: Vec<&str> = lines.lines().map(|line| &line[..30]).collect();
    assert!(times.is_sorted(), "{lines}");
    // As with Docker, the fastest end is not told before its start.
    host.run("run --rm --name c3 busybox true");
    eventually("it is removed", || match actions(&host, "c3") {
        all if all == ["create", "attach", "start", "die", "destroy"] => Ok(()),
        all => Err(all.join(" ")),
    });
    // The client attaches before the start.
    let told = past(&host, &["--format", "{{.Type}} {{.Action}}"]);
    let told: Vec<&str> = told.lines().collect();
    let expected = [
        "container create",
        "container attach",
        "network connect",
        "container start",
        "container die",
        "network disconnect",
        "container destroy",
    ];
    assert_eq!(told[told.len() - expected.len()..], expected);
}

fn networks_and_images_are_told_of() {
    let host = Host::new();
    let id = host.run("network create n1").text().to_owned();
    host.run("run -d --name c1 busybox sleep 1000");
    host.run("network connect n1 c1");
    host.run("network disconnect n1 c1");
    host.run("network rm n1");
    let told = past(
        &host,
        &["--filter", "network=n1", "--format", "{{.Action}}"],
    );
    let expected = ["create", "connect", "disconnect", "destroy"];
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
    let line = past(
        &host,
        &["--filter", "network=n1", "--filter", "event=connect"],
    );
    let container = host.inspect("c1")["Id"].as_str().unwrap().to_owned();
    let end = format!("network connect {id} (container={container}, name=n1, type=bridge)");
    assert!(line.ends_with(&end), "{line}");
    host.run("rm -f c1");
    host.run("rmi busybox");
    let told = past(
        &host,
        &["--filter", "type=image", "--format", "{{.Action}}"],
    );
    let expected = ["tag", "import", "untag", "delete"];
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
}

fn events_are_shown_as_they_happen_until_a_time() {
    let host = Host::new();
    host.run("create --name before busybox true");
    let file = host.folder().join("live");
    let format = "{{.Action}} {{.Actor.Attributes.name}}";
    let command = host.command(["events", "--format", format, "-f", "type=container"]);
    let live = command
        .wrapped_in(
            "sh",
            [
                "-c".as_ref(),
                "exec \"$@\" >\"$0\"".as_ref(),
                file.as_os_str(),
            ],
        )
        .spawn_in(&host.netns);
    let shown = || std::fs::read_to_string(&file).unwrap_or_default();
    // It may not have begun yet when the first happens; who comes later is told.
    let mut count = 0;
    eventually("it shows what happens", || {
        count += 1;
        host.run(&format!("create --name during{count} busybox true"));
        match shown() {
            text if text.is_empty() => Err("nothing"),
            _ => Ok(()),
        }
    });
    host.run("create --name last busybox true");
    eventually("it shows the last", || match shown() {
        text if text.ends_with("create last\n") => Ok(()),
        text => Err(text),
    });
    assert!(!shown().contains("before"));
    drop(live);
    // It ends by itself when the time has come, also where nothing happens.
    host.run("events --until -1s --since 0s").says("");
    host.run(&format!("rm {}", host.ids().join(" ")));
}

fn times_are_given_in_three_forms() {
    let host = Host::new();
    host.run("create --name c1 busybox true");
    let time = past(
        &host,
        &["--filter", "container=c1", "--format", "{{.TimeNano}}"],
    );
    let (seconds, nanos) = time.split_at(time.len() - 9);
    let at = format!("{seconds}.{nanos}");
    let line = past(&host, &["--filter", "container=c1"]);
    let written = &line[..30];
    let told = |since: &str, until: &str| {
        let words = [
            "events",
            "--filter",
            "container=c1",
            "--since",
            since,
            "--until",
            until,
        ];
        !host.coracle(words).ok().text().is_empty()
    };
    assert!(told(&at, &at), "{at}");
    assert!(told(written, written), "{written}");
    assert!(told("1h", "0s"));
    assert!(told("0", written));
    assert!(!told("0", "1h"));
    assert!(!told("0", seconds));
    // A time to end at is enough.
    let words = ["events", "--filter", "container=c1", "--until", "0s"];
    assert!(!host.coracle(words).ok().text().is_empty());
    host.run("rm c1");
}

fn filters_choose() {
    let host = Host::new();
    host.run("create --name c1 --label tier=front busybox true");
    host.run("create --name c2 busybox true");
    host.run("rm c2");
    let told = |filters: &[&str]| {
        let mut options = vec!["--format", "{{.Action}} {{.Actor.Attributes.name}}"];
        options.extend(filters.iter().flat_map(|filter| ["-f", filter]));
        past(&host, &options)
    };
    assert_eq!(
        told(&["type=container"]),
        "create c1\ncreate c2\ndestroy c2"
    );
    assert_eq!(told(&["event=destroy"]), "destroy c2");
    assert_eq!(told(&["container=c1"]), "create c1");
    assert_eq!(
        told(&["container=c1", "container=c2", "event=create"]),
        "create c1\ncreate c2"
    );
    assert_eq!(told(&["label=tier=front"]), "create c1");
    assert_eq!(told(&["label=tier=back"]), "");
    assert_eq!(told(&["image=busybox", "event=destroy"]), "destroy c2");
    assert_eq!(told(&["type=volume"]), "");
    host.run("rm c1");
}

fn formats_are_dockers() {
    let host = Host::new();
    let id = host.run("create --name c1 busybox true").text().to_owned();
    for format in ["json", "{{json .}}"] {
        let line = past(&host, &["--filter", "container=c1", "--format", format]);
        let event: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(event["Type"], "container");
        assert_eq!(event["Action"], "create");
        assert_eq!(
            (&event["status"], &event["id"]),
            (&"create".into(), &id.as_str().into())
        );
        assert_eq!(event["from"], "busybox");
        assert_eq!(event["Actor"]["ID"], id);
        assert_eq!(event["Actor"]["Attributes"]["name"], "c1");
        assert_eq!(event["scope"], "local");
        assert!(event["timeNano"].as_i64() > event["time"].as_i64());
    }
    let words = [
        "system", "events", "--since", "1h", "--until", "0s", "--format",
    ];
    let format = "{{.ID}} {{.Status}} {{.From}} {{.Scope}} {{.Actor.Attributes.none}}";
    let line = host
        .coracle(
            words
                .into_iter()
                .chain([format, "--filter", "container=c1"]),
        )
        .ok();
    assert_eq!(line.text(), format!("{id} create busybox local <no value>"));
    host.run("rm c1");
}

fn bad_words_are_refused_in_dockers_words() {
    let host = Host::new();
    let time = "failed to parse value as time or duration: \"bogus\"";
    host.try_run("events --since bogus")
        .exits(1)
        .complains(time);
    host.try_run("events --until bogus")
        .exits(1)
        .complains(time);
    host.try_run("events --format {{.Foo}} --until 0s")
        .exits(64)
        .complains("Error parsing format: ");
    host.try_run("events --format {{ --until 0s")
        .exits(64)
        .complains("Error parsing format: ");
    host.try_run("events --filter foo").exits(125).complains(
        "invalid argument \"foo\" for \"-f, --filter\" flag: bad format of filter (expected name=value)",
    );
    host.try_run("events x")
        .exits(1)
        .complains("accepts no arguments");
}
