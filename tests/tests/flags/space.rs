//! Prunes, and the space that everything takes.

use harness::{Host, Output, eventually};
use serde_json::{Value, json};

use crate::cell;
use crate::cell::Cell;
use crate::images::{import, names};

pub const CELLS: &[Cell] = &[
    cell!(
        image_prune_takes_what_nobody_uses,
        "image prune",
        "image prune -a",
        "image prune --all",
        "image prune -f",
        "image prune --force",
        "image prune --filter"
    ),
    cell!(
        system_prune_takes_everything_unused,
        "system prune",
        "system prune -a",
        "system prune --all",
        "system prune -f",
        "system prune --force",
        "system prune --filter",
        "system prune --volumes"
    ),
    cell!(prunes_are_events, "events", "system prune"),
    cell!(
        system_df_tells_what_is_on_disk,
        "system df",
        "system df -v",
        "system df --verbose",
        "system df --format"
    ),
];

/// A second layer on an image.
fn build_on(host: &Host, base: &str, name: &str, script: &str) -> String {
    host.coracle(["run", "--name", "builds", base, "sh", "-c", script])
        .ok();
    let id = host.run(&format!("commit builds {name}"));
    host.run("rm builds");
    id.text().to_owned()
}

/// The answer to a command that asks.
fn answer(host: &Host, words: &[&str], answer: &str) -> Output {
    host.command(words).stdin(answer).run_in(&host.netns).ok()
}

const SURE: &str = "Are you sure you want to continue? [y/N] ";

fn image_prune_takes_what_nobody_uses() {
    let host = Host::builder().without_image().build();
    import(&host, Some("used:1"), &[]);
    import(&host, Some("free:1"), &["LABEL keep=yes"]);
    let nameless = import(&host, None, &[]);
    host.run("create --name c1 used:1 true");
    let dangling = "WARNING! This will remove all dangling images.\n";
    let all =
        "WARNING! This will remove all images without at least one container associated to them.\n";
    for (words, warning) in [
        (&["image", "prune"][..], dangling),
        (&["image", "prune", "--filter", "label=x"], dangling),
        (&["image", "prune", "-a"], all),
        (&["image", "prune", "--all", "--filter", "until=1h"], all),
        (&["image", "prune", "--filter", "dangling=false"], all),
    ] {
        let told = answer(&host, words, "n\n");
        assert_eq!(told.stdout, format!("{warning}{SURE}"), "{words:?}");
    }
    for line in [
        "image prune -f --filter until=1h",
        "image prune -f --filter label=keep",
        "image prune --force --all --filter label=keep=no",
    ] {
        host.run(line).says("Total reclaimed space: 0B");
    }
    assert_eq!(names(&host, &[]), "<none>:<none> free:1 used:1");
    let told = answer(&host, &["image", "prune"], "y\n");
    assert!(
        told.stdout.starts_with(&format!(
            "{dangling}{SURE}Deleted Images:\ndeleted: {nameless}\n\nTotal"
        )),
        "{told}"
    );
    host.run("image prune -af --filter label!=keep")
        .says("Total reclaimed space: 0B");
    let told = host.run("image prune -f --filter dangling=false");
    assert!(
        told.stdout
            .starts_with("Deleted Images:\nuntagged: free:1\ndeleted: sha256:"),
        "{told}"
    );
    assert_eq!(names(&host, &[]), "used:1");
    for (line, text) in [
        ("image prune -f --filter foo=x", "Invalid filter 'foo'"),
        (
            "image prune -f --filter dangling=x",
            "Invalid filter 'dangling=x'",
        ),
        (
            "image prune -f --filter until=x",
            "failed to parse value as time or duration: \"x\"",
        ),
        (
            "image prune -f --filter until=1h --filter until=2h",
            "more than one until filter specified",
        ),
        ("image prune -f extra", "accepts no arguments"),
    ] {
        host.try_run(line).exits(1).complains(text);
    }
    host.run("rm c1");
}

fn system_prune_takes_everything_unused() {
    let host = Host::new();
    import(&host, None, &[]);
    import(&host, Some("free:1"), &[]);
    let make = || {
        host.run("network create n1");
        host.run("volume create named");
        let volume = host.run("volume create").text().to_owned();
        let container = host
            .run("create --name ended busybox true")
            .text()
            .to_owned();
        (container, volume)
    };
    let (container, volume) = make();
    host.run("run -d --name runs busybox sleep 1000");
    let asked =
        |options: &[&str]| answer(&host, &[&["system", "prune"], options].concat(), "").stdout;
    assert_eq!(
        asked(&[]),
        format!(
            "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n  \
             - all dangling images\n  - what failed pulls and killed commands have left\n\n{SURE}"
        )
    );
    let told = asked(&[
        "-a",
        "--volumes",
        "--filter",
        "label=x",
        "--filter",
        "label!=y",
    ]);
    assert_eq!(
        told,
        format!(
            "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n  \
             - all anonymous volumes not used by at least one container\n  \
             - all images without at least one container associated to them\n  - what failed pulls and killed commands have left\n\n  \
             Items to be pruned will be filtered with:\n  - label!=y\n  - label=x\n\n{SURE}"
        )
    );
    host.run("system prune -f --filter label=nope")
        .says("Total reclaimed space: 0B");
    host.run("system prune -af --volumes --filter label=nope")
        .says("Total reclaimed space: 0B");
    let told = host.run("system prune -f").stdout;
    let expected = format!(
        "Deleted Containers:\n{container}\n\nDeleted Networks:\nn1\n\nDeleted Images:\ndeleted: sha256:"
    );
    assert!(told.starts_with(&expected), "{told}");
    assert_eq!(host.run("volume ls -q").stdout.lines().count(), 2);
    assert_eq!(names(&host, &[]), "busybox:latest free:1");
    host.run("volume rm named");
    let (container, second) = make();
    let told = host.run("system prune --all --force --volumes").stdout;
    let mut volumes = [volume, second];
    volumes.sort();
    let expected = format!(
        "Deleted Containers:\n{container}\n\nDeleted Networks:\nn1\n\nDeleted Volumes:\n{}\n\nDeleted Images:\nuntagged: free:1\ndeleted: sha256:",
        volumes.join("\n")
    );
    assert!(told.starts_with(&expected), "{told}\n{expected}");
    host.run("volume ls -q").says("named");
    assert_eq!(names(&host, &[]), "busybox:latest");
    for (line, text) in [
        ("system prune -f --filter foo=x", "Invalid filter 'foo'"),
        (
            "system prune -f --volumes --filter until=1h",
            "ERROR: The \"until\" filter is not supported with \"--volumes\"",
        ),
        ("system prune x", "accepts no arguments"),
    ] {
        host.try_run(line).exits(1).complains(text);
    }
    host.run("rm -f runs");
}

fn prunes_are_events() {
    let host = Host::new();
    import(&host, None, &[]);
    host.run("system prune -f --volumes");
    let words = [
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--format",
        "{{.Type}} {{.Action}}",
    ];
    let told = host.coracle(words).ok();
    let ends = "container prune\nnetwork prune\nvolume prune\nimage delete\nimage prune\n";
    assert!(told.stdout.ends_with(ends), "{told}");
    let told = host.coracle([
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--filter",
        "event=prune",
    ]);
    let last = told.stdout.lines().last().unwrap();
    assert!(
        last.contains("image prune") && last.contains("(reclaimed="),
        "{last}"
    );
}

fn system_df_tells_what_is_on_disk() {
    let host = Host::new();
    build_on(
        &host,
        "busybox",
        "child:1",
        "head -c 300000 /dev/zero >/file",
    );
    let told = |line: &str| {
        let text = host.run(line).stdout;
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(words).collect::<Vec<_>>()
    };
    host.run("create --name c1 -v named:/x busybox true");
    host.run("volume create free");
    let rows = told("system df");
    assert_eq!(rows[0], "TYPE TOTAL ACTIVE SIZE RECLAIMABLE");
    for (row, begin) in rows[1..].iter().zip([
        "Images 2 1 ",
        "Containers 1 0 0B 0B",
        "Local Volumes 2 1 ",
        "Build Cache 0 0 0B 0B",
    ]) {
        assert!(row.starts_with(begin), "{row}");
    }
    let amounts = [
        "system",
        "df",
        "--format",
        "{{.Type}}:{{.SizeBytes}}:{{.ReclaimableBytes}}",
    ];
    let text = host.coracle(amounts).ok().stdout;
    let images: Vec<&str> = text.lines().next().unwrap().split(':').collect();
    let (size, reclaimable): (u64, u64) = (images[1].parse().unwrap(), images[2].parse().unwrap());
    // Of the child only its own layer is free to go.
    assert!(
        size > 1_900_000 && (300_000..400_000).contains(&reclaimable),
        "{text}"
    );
    for format in ["json", "{{json .}}"] {
        let text = host
            .coracle(["system", "df", "--format", format])
            .ok()
            .stdout;
        let row: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(
            (&row["Type"], &row["TotalCount"]),
            (&json!("Images"), &json!("2"))
        );
    }
    host.coracle(["system", "df", "--format", "table {{.Type}}\\t{{.Active}}"])
        .ok()
        .says("TYPE            ACTIVE\nImages          1\nContainers      0\nLocal Volumes   1\nBuild Cache     0");
    for line in ["system df -v", "system df --verbose"] {
        let text = host.run(line).stdout;
        for part in [
            "Images space usage:\n\nREPOSITORY ",
            "\n\nContainers space usage:\n\nCONTAINER ID ",
            "\n\nLocal Volumes space usage:\n\nVOLUME NAME ",
            "\n\nBuild cache usage: 0B\n\nCACHE ID ",
            "\n\nOther space usage:\n\nWHAT ",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    // What is told in words of an age is another with the next second.
    let all = eventually("both forms tell the same", || {
        let forms = ["json", "{{json .}}"].map(|form| {
            host.coracle(["system", "df", "-v", "--format", form])
                .ok()
                .json()
        });
        let [all, by_template] = forms;
        match all == by_template {
            true => Ok(all),
            false => Err(format!("{all}\n{by_template}")),
        }
    });
    let images = all["Images"].as_array().unwrap();
    let number = |row: &Value, key: &str| row[key].as_u64().unwrap();
    for row in images {
        assert_eq!(
            number(row, "SizeBytes"),
            number(row, "SharedSizeBytes") + number(row, "UniqueSizeBytes")
        );
    }
    assert_eq!(images[0]["Repository"], "child");
    assert_eq!(
        (&images[0]["Containers"], &images[1]["Containers"]),
        (&json!("0"), &json!("1"))
    );
    assert_eq!(number(&images[0], "UniqueSizeBytes"), reclaimable);
    let links: Vec<&Value> = all["Volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["Links"])
        .collect();
    assert_eq!(links, ["0", "1"]);
    assert_eq!(all["Containers"][0]["Names"], "c1");
    host.try_run("system df --format {{.Foo}}")
        .exits(1)
        .complains("can't evaluate field Foo");
    host.try_run("system df -v --format {{.Foo}}")
        .exits(1)
        .complains("can't evaluate field Foo");
    host.try_run("system df -v --format {{")
        .exits(1)
        .complains("template parsing error");
    host.try_run("system df x")
        .exits(1)
        .complains("accepts no arguments");
    host.run("rm c1");
}
