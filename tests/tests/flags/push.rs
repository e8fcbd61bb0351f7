//! `push` and `tag`: what they print, and what they refuse. What arrives at a registry is shown by the suite push.

use harness::registry::Access;
use harness::{Host, Registry};

use crate::cell;
use crate::cell::Cell;

pub const CELLS: &[Cell] = &[
    cell!(tag_gives_another_name_and_moves_it, "tag", "image tag"),
    cell!(tag_refuses_in_dockers_words, "tag"),
    cell!(
        push_prints_dockers_lines,
        "push",
        "push --quiet",
        "push -q",
        "push --disable-content-trust",
        "image push"
    ),
    cell!(
        all_tags_of_a_repository_are_pushed,
        "push --all-tags",
        "push -a"
    ),
    cell!(push_refuses_in_dockers_words, "push", "push --all-tags"),
    cell!(push_of_another_platform_is_refused, "push --platform",),
    cell!(
        push_packs_and_sends_as_told,
        "push --compression",
        "push --monolithic"
    ),
    cell!(push_has_a_line_for_each_layer_on_a_terminal, "push"),
];

#[track_caller]
fn id(host: &Host, name: &str) -> String {
    let inspect = host
        .coracle(["image", "inspect", "-f", "{{.Id}}", name])
        .ok();
    inspect.text().to_owned()
}

fn tag_gives_another_name_and_moves_it() {
    let host = Host::new();
    let busybox = id(&host, "busybox");
    host.run("tag busybox mine/x:1").says("");
    host.run(&format!("tag {} mine/x", &busybox["sha256:".len()..]));
    host.run(&format!(
        "image tag {} y",
        &busybox["sha256:".len()..][..12]
    ));
    for name in ["mine/x:1", "mine/x:latest", "docker.io/library/y"] {
        assert_eq!(id(&host, name), busybox);
    }
    host.run("run --name other busybox touch /file");
    host.run("commit other other");
    let other = id(&host, "other");
    host.run("tag other y");
    assert_eq!(id(&host, "y"), other, "a name is of one image at a time");
    let events = host.run("events --since 1h --until 0s --filter event=tag");
    let event = format!("image tag {busybox} (name=mine/x:1)");
    assert!(events.stdout.contains(&event), "{events}");
    host.run("rmi mine/x:1 mine/x");
    host.run("run --rm busybox true");
    host.run("rm other");
}

fn tag_refuses_in_dockers_words() {
    let host = Host::new();
    let digest = format!("sha256:{}", "a".repeat(64));
    let whole = id(&host, "busybox")["sha256:".len()..].to_owned();
    let refused = |source: &str, target: &str, why: &str| {
        host.coracle(["tag", source, target])
            .exits(1)
            .complains(why);
    };
    refused("nope", "x", "No such image: nope:latest");
    refused("nope:7", "x", "No such image: nope:7");
    refused(
        "",
        "x",
        "Error parsing reference: \"\" is not a valid repository/tag: invalid reference format",
    );
    refused(
        "busybox",
        "",
        "Error parsing reference: \"\" is not a valid repository/tag: invalid reference format",
    );
    refused(
        "busybox",
        "a:b:c",
        "Error parsing reference: \"a:b:c\" is not a valid repository/tag",
    );
    refused("busybox", "X", "repository name must be lowercase");
    refused(
        "busybox",
        &whole,
        "cannot specify 64-byte hexadecimal strings",
    );
    let by_digest = format!("x@{digest}");
    refused(
        "busybox",
        &by_digest,
        "refusing to create a tag with a digest reference",
    );
    assert_eq!(host.run("images -q").stdout.lines().count(), 1);
}

fn push_prints_dockers_lines() {
    let host = Host::new();
    let registry = Registry::start(&host, Access::Open);
    let name = registry.image("dir/x");
    host.run(&format!("tag busybox {name}"));
    let format = "{{json .RootFS.Layers}}";
    let layers = host
        .coracle(["image", "inspect", "-f", format, "busybox"])
        .ok();
    let layers = layers.json();
    let layer = &layers[0].as_str().unwrap()["sha256:".len()..][..12];
    let expect = |said: &str, state: &str| {
        let (lines, digest) = said.rsplit_once("latest: digest: sha256:").expect(said);
        assert_eq!(
            lines,
            format!(
                "Using default tag: latest\nThe push refers to repository [{name}]\n{layer}: Preparing\n{layer}: {state}\n"
            )
        );
        assert!(digest.contains(" size: "), "{said}");
        digest.to_owned()
    };
    let first = host.run(&format!("push {name}"));
    let digest = expect(&first.stdout, "Pushed");
    let second = host.run(&format!("image push --disable-content-trust=true {name}"));
    assert_eq!(expect(&second.stdout, "Layer already exists"), digest);
    for quiet in ["-q", "--quiet"] {
        host.run(&format!("push {quiet} {name}"))
            .says(&format!("{name}:latest"));
    }
    let events = host.run("events --since 1h --until 0s --filter event=push");
    let event = format!("image push {name}:latest (name={name})");
    assert!(events.stdout.contains(&event), "{events}");
}

fn all_tags_of_a_repository_are_pushed() {
    let host = Host::new();
    let registry = Registry::start(&host, Access::Open);
    let name = registry.image("x");
    for tag in ["b", "a"] {
        host.run(&format!("tag busybox {name}:{tag}"));
    }
    let said = host.run(&format!("push -a {name}")).stdout;
    assert_eq!(
        said.matches("The push refers to repository").count(),
        1,
        "{said}"
    );
    let (first, second) = (said.find("\na: digest: "), said.find("\nb: digest: "));
    assert!(first.is_some() && first < second, "{said}");
    host.run(&format!("rmi {name}:a {name}:b"));
    for tag in ["a", "b"] {
        host.run(&format!("pull -q {name}:{tag}"));
    }
    host.run(&format!("push --all-tags {name}"));
}

fn push_refuses_in_dockers_words() {
    let host = Host::new();
    let registry = Registry::start(&host, Access::Open);
    let name = registry.image("x");
    let refused = |args: &[&str], why: &str| {
        let args = ["push"].iter().chain(args);
        host.coracle(args).exits(1).complains(why);
    };
    let none = format!("An image does not exist locally with the tag: {name}");
    refused(&[&name], &none);
    refused(&["-a", &name], &none);
    host.run(&format!("tag busybox {name}:1"));
    refused(&[&name], &format!("tag does not exist: {name}:latest"));
    refused(
        &[&format!("{name}:2")],
        &format!("tag does not exist: {name}:2"),
    );
    refused(
        &["-a", &format!("{name}:1")],
        "tag can't be used with --all-tags/-a",
    );
    refused(
        &["X"],
        "invalid reference format: repository name must be lowercase",
    );
    refused(&[""], "invalid reference format");
    let digest = format!("{name}@sha256:{}", "a".repeat(64));
    refused(&[&digest], "cannot push a digest reference");
    host.run("tag busybox 127.0.0.1:9/x");
    refused(&["127.0.0.1:9/x"], "connection refused");
}

fn push_of_another_platform_is_refused() {
    let host = Host::new();
    let registry = Registry::start(&host, Access::Open);
    let name = registry.image("x");
    host.run(&format!("tag busybox {name}"));
    let ours = format!("linux/{}", harness::oci::this_architecture());
    host.run(&format!("push --platform {ours} {name}"));
    host.try_run(&format!("push --platform linux/s390x {name}"))
        .exits(1)
        .complains("does not match the specified platform: wanted linux/s390x");
}

fn push_packs_and_sends_as_told() {
    let host = Host::new();
    let registry = Registry::start(&host, Access::Open);
    let push = |options: &str, name: &str| {
        let name = registry.image(name);
        host.run(&format!("tag busybox {name}"));
        host.run(&format!("push {options} {name}"));
        let image = format!("docker://{name}");
        let look = [
            "--insecure-policy",
            "inspect",
            "--raw",
            "--tls-verify=false",
            &*image,
        ];
        host.tool("skopeo", look).ok().json()["layers"][0].clone()
    };
    let gzip = push("--compression gzip", "one");
    let zstd = push("--compression=zstd", "two");
    assert!(gzip["mediaType"].as_str().unwrap().ends_with("tar.gzip"));
    assert!(zstd["mediaType"].as_str().unwrap().ends_with("tar+zstd"));
    let whole = push("--monolithic --compression gzip:1", "three");
    assert!(whole["mediaType"].as_str().unwrap().ends_with("tar.gzip"));
    for bad in ["xz", "gzip:10", "zstd:0", "zstd:"] {
        host.try_run(&format!(
            "push --compression {bad} {}",
            registry.image("one")
        ))
        .exits(1)
        .complains(&format!("invalid compression \"{bad}\""));
    }
}

fn push_has_a_line_for_each_layer_on_a_terminal() {
    let host = Host::new();
    let registry = Registry::start(&host, Access::Open);
    let name = registry.image("x");
    host.run(&format!("tag busybox {name}"));
    let mut terminal = harness::terminal::Terminal::run(&host, &format!("$CORACLE push {name}"));
    terminal.shows("Preparing");
    terminal.shows("Pushed");
    terminal.shows("latest: digest: sha256:");
}
