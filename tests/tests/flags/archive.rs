//! Images as archives: save, load, import and history. What other engines make of them is in tests/archive.rs.

use std::fs;

use harness::terminal::Terminal;
use harness::{Cmd, Host, Output, eventually, images, net};

use crate::cell;
use crate::cell::Cell;

pub const CELLS: &[Cell] = &[
    cell!(
        save_keeps_the_names_that_it_is_given,
        "save",
        "save -o",
        "save --output"
    ),
    cell!(save_refuses_what_it_cannot_do, "save"),
    cell!(save_writes_one_form_alone, "save"),
    cell!(
        load_reads_a_file_or_stdin,
        "load",
        "load -i",
        "load --input",
        "load -q",
        "load --quiet"
    ),
    cell!(load_says_whose_name_it_takes, "load"),
    cell!(load_shows_layers_on_a_terminal, "load"),
    cell!(load_refuses_what_is_no_archive, "load"),
    cell!(
        a_platform_is_checked,
        "save --platform",
        "load --platform",
        "import --platform",
        "history --platform"
    ),
    cell!(
        history_shows_the_steps,
        "history",
        "history -q",
        "history --quiet",
        "history --no-trunc",
        "history -H",
        "history --human",
        "history --format"
    ),
    cell!(import_reads_stdin_and_web_servers, "import"),
    cell!(archives_are_told_as_events, "save", "load", "import"),
    cell!(
        images_have_the_longer_spelling,
        "image save",
        "image load",
        "image history"
    ),
    cell!(build_says_who_builds),
];

#[track_caller]
fn shell(host: &Host, line: &str) -> Output {
    let program = host.command([] as [&str; 0]).line();
    let line = format!("cd {}; {line}", host.folder().display());
    let script = Cmd::new("sh").args(["-euc", &line.replace("$CORACLE", &program)]);
    host.with_environment(script).run_in(&host.netns)
}

/// A second image over `busybox`, and names.
fn two_images(host: &Host) {
    let tar = images::busybox_tar().display().to_string();
    for name in ["two:1", "two:2"] {
        host.coracle(["import", "-c", &format!("ENV NAME={name}"), &tar, name])
            .ok();
    }
}

/// The names in an archive's list, one line an image.
fn names(host: &Host, archive: &str) -> String {
    let list = shell(host, &format!("tar -xOf {archive} manifest.json")).ok();
    let list: serde_json::Value = serde_json::from_str(&list.stdout).unwrap();
    let images = list.as_array().unwrap().iter();
    let lines: Vec<String> = images.map(|image| image["RepoTags"].to_string()).collect();
    lines.join("\n")
}

fn save_keeps_the_names_that_it_is_given() {
    let host = Host::new();
    two_images(&host);
    let id = host.run("images -q --no-trunc two:2").text().to_owned();
    for (what, expected) in [
        ("two:2", r#"["two:2"]"#.to_owned()),
        ("busybox", r#"["busybox:latest"]"#.to_owned()),
        ("two", "[\"two:1\"]\n[\"two:2\"]".to_owned()),
        (&id[..], "null".to_owned()),
        (&id[7..19], "null".to_owned()),
        (
            "two:2 two:2 busybox",
            "[\"two:2\"]\n[\"busybox:latest\"]".to_owned(),
        ),
    ] {
        shell(&host, &format!("$CORACLE save {what} >piped.tar")).ok();
        assert_eq!(names(&host, "piped.tar"), expected, "{what}");
        for option in ["-o", "--output"] {
            shell(&host, &format!("$CORACLE save {option} file.tar {what}")).ok();
            shell(&host, "cmp piped.tar file.tar; stat -c %a file.tar")
                .ok()
                .says("600");
        }
    }
}

fn save_refuses_what_it_cannot_do() {
    let host = Host::new();
    host.try_run("save")
        .exits(1)
        .complains("requires at least 1 argument");
    for name in ["nope", "busybox:nope", "sha256:00"] {
        host.coracle(["save", name])
            .exits(1)
            .complains(&format!("No such image: {name}"));
    }
    host.try_run("save UPPER")
        .exits(1)
        .complains("repository name must be lowercase");
    host.try_run("save -o /nope/x busybox")
        .exits(1)
        .complains("failed to save image: invalid output path");
    host.try_run("save -o /tmp busybox")
        .exits(1)
        .complains("failed to save image: cannot write to a directory");
    // What was there stays, and nothing is left beside it.
    shell(
        &host,
        "mkdir out; echo old >out/x; ! $CORACLE save -o out/x busybox nope; ls -A out; cat out/x",
    )
    .ok()
    .says("x\nold");
    let line = host.command(["save", "busybox"]).line();
    let mut terminal = Terminal::run(&host, &line);
    terminal.shows("cowardly refusing to save to a terminal. Use the -o flag or redirect");
}

fn save_writes_one_form_alone() {
    let host = Host::new();
    for (format, list, index) in [
        ("both", true, true),
        ("docker", true, false),
        ("oci", false, true),
        ("docker-archive", true, false),
    ] {
        let line = format!("$CORACLE save --format {format} busybox | tar t");
        let members = shell(&host, &line).ok().stdout;
        let has = |name: &str| members.lines().any(|member| member == name);
        assert_eq!(
            (has("manifest.json"), has("index.json")),
            (list, index),
            "{format}"
        );
    }
    host.try_run("save --format zip busybox").exits(125);
}

fn load_reads_a_file_or_stdin() {
    let host = Host::new();
    two_images(&host);
    shell(
        &host,
        "$CORACLE save -o all.tar busybox two; gzip -k all.tar",
    )
    .ok();
    let ids = host
        .run("images --no-trunc --format {{.ID}}{{.Tag}}")
        .stdout;
    for load in [
        "load -i all.tar",
        "load --input all.tar.gz",
        "load <all.tar",
        "load -q <all.tar.gz",
        "load --quiet -i all.tar",
    ] {
        host.run("rmi busybox two:1 two:2");
        shell(&host, &format!("$CORACLE {load}"))
            .ok()
            .says("Loaded image: busybox:latest\nLoaded image: two:1\nLoaded image: two:2");
        let again = host
            .run("images --no-trunc --format {{.ID}}{{.Tag}}")
            .stdout;
        assert_eq!(again, ids, "{load}");
    }
    host.coracle(["run", "--rm", "two:2", "sh", "-c", "echo $NAME"])
        .ok()
        .says("two:2");
    let id = host.run("images -q --no-trunc two:1").text().to_owned();
    shell(&host, &format!("$CORACLE save {id} | $CORACLE load"))
        .ok()
        .says(&format!("Loaded image ID: {id}"));
}

fn load_says_whose_name_it_takes() {
    let host = Host::new();
    let old = host.run("images -q --no-trunc").text().to_owned();
    shell(&host, "$CORACLE save -o old.tar busybox").ok();
    let tar = images::busybox_tar().display().to_string();
    host.coracle(["import", "-c", "ENV A=b", &tar, "busybox"])
        .ok();
    let new = host.run("images -q --no-trunc busybox").text().to_owned();
    shell(&host, "$CORACLE load -i old.tar").ok().says(&format!(
        "The image busybox:latest already exists, renaming the old one with ID {new} to empty string\n\
         Loaded image: busybox:latest"
    ));
    assert_eq!(host.run("images -q --no-trunc busybox").text(), old);
    // Nothing changes hands the second time.
    shell(&host, "$CORACLE load -i old.tar")
        .ok()
        .says("Loaded image: busybox:latest");
}

fn load_shows_layers_on_a_terminal() {
    let host = Host::new();
    let tar = host.folder().join("x.tar").display().to_string();
    host.coracle(["save", "-o", &tar, "busybox"]).ok();
    host.run("rmi busybox");
    let mut terminal = Terminal::run(&host, &format!("$CORACLE load -i {tar}"));
    terminal.shows("Loading layer [");
    terminal.shows("Loaded image: busybox:latest");
    let mut terminal = Terminal::run(&host, "$CORACLE load");
    terminal.shows("requested load from stdin, but stdin is empty");
}

fn load_refuses_what_is_no_archive() {
    let host = Host::new();
    host.try_run("load -i /nope").exits(1).complains("/nope");
    host.try_run("load -i /tmp")
        .exits(1)
        .complains("is a directory");
    host.try_run("load x")
        .exits(1)
        .complains("accepts no arguments");
    host.try_run("load").exits(1).complains("it is empty");
    let tar = images::busybox_tar().display().to_string();
    host.coracle(["load", "-i", &tar])
        .exits(1)
        .complains("it holds no image");
    shell(
        &host,
        "$CORACLE save busybox | head -c 100000 | $CORACLE load",
    )
    .exits(1)
    .complains("cut short");
}

fn a_platform_is_checked() {
    let host = Host::new();
    let tar = images::busybox_tar().display().to_string();
    host.coracle(["import", "--platform", "linux/s390x", &tar, "other"])
        .ok();
    let inspect = host.run("image inspect other").json();
    assert_eq!(inspect[0]["Architecture"], "s390x");
    let mine = format!("linux/{}", harness::oci::this_architecture());
    let wrong = "does not match the specified platform";
    for (name, right, other) in [
        ("busybox", &mine[..], "linux/s390x"),
        ("other", "linux/s390x", &mine),
    ] {
        host.run(&format!("history --platform {right} {name}"));
        host.try_run(&format!("history --platform {other} {name}"))
            .exits(1)
            .complains(wrong);
        shell(
            &host,
            &format!("$CORACLE save --platform {right} {name} >{name}.tar"),
        )
        .ok();
        host.try_run(&format!("save --platform {other} {name}"))
            .exits(1)
            .complains(wrong);
        let output = shell(
            &host,
            &format!("$CORACLE load --platform {other} -i {name}.tar"),
        )
        .exits(1);
        assert!(
            output.stderr.contains(wrong) || output.stderr.contains("no matching manifest"),
            "{output}"
        );
        shell(
            &host,
            &format!("$CORACLE load --platform {right} -i {name}.tar"),
        )
        .ok();
    }
    for command in [
        "save --platform a/b/c/d busybox",
        "load --platform a/b/c/d",
        "history --platform a/b/c/d busybox",
    ] {
        host.try_run(command).exits(1).complains("invalid platform");
    }
    host.coracle(["import", "--platform", "a/b/c/d", &tar])
        .exits(1)
        .complains("invalid platform");
}

fn history_shows_the_steps() {
    let host = Host::new();
    host.run("run --name c1 busybox touch /a-file-with-a-long-name-that-is-cut-off-here");
    host.run("commit -m said c1 two");
    host.run("rm c1");
    let id = host.run("images -q --no-trunc two").text().to_owned();
    let table = host.run("history two").stdout;
    let lines: Vec<&str> = table.lines().collect();
    let words: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(
        words,
        ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    );
    assert!(
        lines[1].starts_with(&id[7..19]) && lines[1].ends_with("said"),
        "{table}"
    );
    assert!(
        lines[1].contains("touch /a-file") && lines[1].contains('…'),
        "{table}"
    );
    assert!(
        lines[1].contains(" 0B ") && lines[1].contains(" ago "),
        "{table}"
    );
    assert!(
        lines[2].starts_with("<missing>") && lines[2].ends_with("Imported from -"),
        "{table}"
    );
    assert_eq!(lines.len(), 3);

    let whole = host.run("history --no-trunc two").stdout;
    assert!(
        whole.contains(&id) && whole.contains("cut-off-here"),
        "{whole}"
    );
    for option in ["-q", "--quiet"] {
        let said = host.run(&format!("history {option} two")).stdout;
        assert_eq!(said, format!("{}\n<missing>\n", &id[7..19]));
    }
    host.run("history -q --no-trunc two")
        .says(&format!("{id}\n<missing>"));
    for option in ["-H=false", "--human=false"] {
        let exact = host.run(&format!("history {option} two")).stdout;
        assert!(
            exact.contains("CREATED AT") && exact.contains("Z "),
            "{exact}"
        );
        assert!(!exact.contains("MB") && !exact.contains("ago"), "{exact}");
    }
    let human = host.run("history -H two").stdout;
    assert!(human.contains(" ago ") && human.contains("MB"), "{human}");
    host.coracle(["history", "--format", "{{.Comment}} {{.Size}}", "two"])
        .ok()
        .stdout
        .lines()
        .next()
        .map(|line| assert_eq!(line, "said 0B"))
        .unwrap();
    let rows = host.run("history --format json two").stdout;
    let row: serde_json::Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    assert_eq!(row["ID"], id[7..19]);
    host.run("history --format table{{.ID}} two");
    host.coracle(["history", "--format", "{{.Nope}}", "two"])
        .exits(1);
    host.try_run("history nope")
        .exits(1)
        .complains("No such image: nope");
    host.try_run("history")
        .exits(1)
        .complains("requires 1 argument");
}

fn import_reads_stdin_and_web_servers() {
    let host = Host::new();
    let tar = images::busybox_tar();
    shell(
        &host,
        &format!("gzip -c {} | $CORACLE import - piped", tar.display()),
    )
    .ok();
    host.run("run --rm piped echo x").says("x");
    // Served by a container of ours.
    host.run("run -d --name web --network host busybox httpd -f -p 127.0.0.1:8099 -h /www");
    eventually("the server listens", || {
        net::connect(&host.netns, "127.0.0.1:8099")
    });
    host.coracle(["cp", &tar.display().to_string(), "web:/www/root.tar"])
        .ok();
    let url = "http://127.0.0.1:8099/root.tar";
    let said = host.run(&format!("import {url} fetched")).stdout;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], format!("Downloading from {url}"));
    assert_eq!(lines[1], host.run("images -q --no-trunc fetched").text());
    host.run("run --rm fetched echo x").says("x");
    let comment = host
        .coracle(["history", "--format", "{{.Comment}}", "fetched"])
        .ok();
    comment.says(&format!("Imported from {url}"));
    let before = host.run("images -q").stdout;
    host.try_run("import http://127.0.0.1:8099/nope.tar x")
        .exits(1)
        .complains("404");
    host.try_run("import http://127.0.0.1:8098/root.tar x")
        .exits(1)
        .complains("cannot fetch http://127.0.0.1:8098/root.tar");
    host.try_run(&format!("import {url} UPPER")).exits(1);
    assert_eq!(host.run("images -q").stdout, before);
    host.run("rm -f web");
}

fn archives_are_told_as_events() {
    let host = Host::new();
    let id = host.run("images -q --no-trunc").text().to_owned();
    shell(
        &host,
        "$CORACLE save -o x.tar busybox; $CORACLE load -i x.tar",
    )
    .ok();
    let events = host
        .coracle([
            "events",
            "--since",
            "1h",
            "--until",
            "0s",
            "--format",
            "{{.Action}} {{.Actor.ID}}",
        ])
        .ok();
    let actions: Vec<&str> = events.stdout.lines().collect();
    let expected = ["import", "save", "load"].map(|action| format!("{action} {id}"));
    assert_eq!(actions[actions.len() - 3..], expected, "{events}");
}

fn images_have_the_longer_spelling() {
    let host = Host::new();
    shell(
        &host,
        "$CORACLE image save -o x.tar busybox; $CORACLE image load -i x.tar",
    )
    .ok()
    .says("Loaded image: busybox:latest");
    assert_eq!(
        host.run("image history busybox").stdout,
        host.run("history busybox").stdout
    );
    assert!(fs::metadata(host.folder().join("x.tar")).is_ok());
}

fn build_says_who_builds() {
    let host = Host::new();
    for line in [
        "build",
        "build -t x .",
        "image build --no-cache -f Dockerfile .",
    ] {
        let output = host.try_run(line).exits(1);
        assert!(
            output.stderr.contains("buildah build") && output.stderr.contains("docs/images.md"),
            "{output}"
        );
    }
}
