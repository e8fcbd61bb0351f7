//! Building as docs/images.md tells it: the commands are those of the document.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use harness::images::repository;
use harness::{Cmd, Host};

use crate::place;

const DOCKERFILE: &str = "\
FROM docker-archive:busybox.tar
COPY greeting /greeting
RUN rm -r /www && mkdir /www && echo built >/www/page && chown 1000 /www/page
ENV WHO=sailor
ENTRYPOINT [\"sh\", \"-c\", \"cat /greeting; ls /www; echo $WHO\"]
";

const SECOND: &str = "\
FROM docker-archive:base.tar
RUN rm /greeting && echo other >/greeting
ENV WHO=captain
";

/// The commands of a section of the document, one a line.
fn commands(section: &str) -> Vec<String> {
    let text = fs::read_to_string(repository().join("docs/images.md")).expect("docs/images.md");
    let begin = text
        .find(&format!("\n## {section}\n"))
        .unwrap_or_else(|| panic!("no section {section}"));
    let section = &text[begin + 1..];
    let end = section.find("\n## ").unwrap_or(section.len());
    let commands = section[..end]
        .lines()
        .filter_map(|line| line.strip_prefix("# "));
    commands.map(str::to_owned).collect()
}

#[test]
fn buildah_builds_what_coracle_loads_and_runs() {
    let host = Host::new();
    let context = place(&host, "context");
    let programs = place(&host, "programs");
    fs::create_dir_all(&context).unwrap();
    fs::create_dir_all(&programs).unwrap();
    for (name, content) in [
        ("Dockerfile", DOCKERFILE),
        ("Dockerfile.second", SECOND),
        ("greeting", "hello\n"),
    ] {
        fs::write(context.join(name), content).unwrap();
    }
    let program = |name: &str, line: &str| {
        let path = programs.join(name);
        fs::write(&path, format!("#!/bin/sh\nexec {line} \"$@\"\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    program("coracle", &host.command([] as [&str; 0]).line());
    // With everything of its own in the host's folder, and no namespaces, which a machine of tests may refuse.
    let own = |name: &str| place(&host, "buildah").join(name).display().to_string();
    let (root, run) = (own("root"), own("run"));
    let line = format!("/usr/bin/buildah --storage-driver vfs --root {root} --runroot {run}");
    program("buildah", &line);
    let run = |line: &str| {
        let line = format!(
            "cd {}; PATH={}:$PATH; {line}",
            context.display(),
            programs.display()
        );
        let script = Cmd::new("sh").args(["-euc", &line]);
        let script = script.env("BUILDAH_ISOLATION", "chroot");
        host.with_environment(script).run_in(&host.netns).ok()
    };
    run("coracle save -o busybox.tar busybox");
    let mut said = Vec::new();
    for command in commands("Building images") {
        let output = run(&command);
        if command.starts_with("coracle run") {
            said.push(output.stdout);
        }
    }
    assert_eq!(said, ["hello\npage\nsailor\n", "other\npage\ncaptain\n"]);
    host.coracle([
        "run",
        "--rm",
        "--entrypoint",
        "stat",
        "second",
        "-c",
        "%u",
        "/www/page",
    ])
    .ok()
    .says("1000");
    let tool = |line: &str| drop(run(line));
    tool("buildah rmi -af");
}
