//! Pulling from a real registry: platforms, layers, passwords, what is printed, and what is there already.

use std::fs;

use harness::oci::{self, Config, Image};
use harness::registry::{ADDRESS, Access, PASSWORD, USER};
use harness::{Cmd, Host, Registry, images};

const SHELL: Config = Config {
    entrypoint: &[],
    cmd: &["sh"],
    env: &["FROM=image"],
    exposed_ports: &["81/tcp"],
    working_dir: "/var",
    user: "",
};

/// Builds a layer from a script that is run in an empty folder.
fn layer(host: &Host, name: &str, script: &str) -> std::path::PathBuf {
    let folder = host.folder().join(format!("layer-{name}"));
    fs::create_dir_all(&folder).unwrap();
    Cmd::new("sh")
        .args(["-euc", &format!("cd \"$1\"; {script}"), "sh"])
        .arg(&folder)
        .run()
        .ok();
    let tar = host.folder().join(format!("{name}.tar"));
    images::pack(&folder, &tar);
    tar
}

#[test]
fn the_image_of_this_machines_platform_is_taken_from_an_index() {
    let host = Host::builder().without_image().build();
    let registry = Registry::start(&host, Access::Open);
    let layout = host.folder().join("layout");
    let base = images::busybox_tar();
    let for_machine = |mark: &str| {
        vec![
            base.clone(),
            layer(&host, mark, &format!("echo {mark} >mark")),
        ]
    };
    let images = [
        Image {
            layers: for_machine("s390x"),
            config: SHELL,
            architecture: "s390x",
        },
        Image {
            layers: for_machine("mine"),
            config: SHELL,
            architecture: oci::this_architecture(),
        },
        Image {
            layers: for_machine("riscv64"),
            config: SHELL,
            architecture: "riscv64",
        },
    ];
    oci::write_layout(&layout, "1", &images);
    registry.push(&layout, "1", "many:1");
    let name = registry.image("many:1");
    host.run(&format!("pull {name}"));
    host.coracle(["run", "--rm", &name, "cat", "/mark"])
        .ok()
        .says("mine");

    let others = host.folder().join("others");
    oci::write_layout(&others, "1", &[images[0].clone(), images[2].clone()]);
    registry.push(&others, "1", "others:1");
    let output = host
        .try_run(&format!("pull {}", registry.image("others:1")))
        .exits(1);
    assert!(
        output.stderr.contains("no matching manifest for linux/"),
        "{output}"
    );
}

#[test]
fn layers_lie_on_each_other_with_whiteouts_and_opaque_folders() {
    let host = Host::builder().without_image().build();
    let registry = Registry::start(&host, Access::Open);
    let lower = layer(
        &host,
        "lower",
        "mkdir -p a/deep b opq; echo 1 >a/one; echo 1 >a/deep/gone; echo 1 >b/file; echo 1 >opq/old; echo old >over; ln -s nowhere link; chmod 1777 b",
    );
    let upper = layer(
        &host,
        "upper",
        "mkdir -p a/deep opq; : >a/.wh.one; : >a/deep/.wh.gone; : >.wh.b; : >opq/.wh..wh..opq; echo new >opq/fresh; echo new >over; mkdir link; echo in >link/in",
    );
    let layout = host.folder().join("layout");
    oci::write_layout(
        &layout,
        "1",
        &[Image::of(&[images::busybox_tar(), lower, upper], SHELL)],
    );
    registry.push(&layout, "1", "layers:1");
    let name = registry.image("layers:1");
    host.run(&format!("pull {name}"));
    let script = "cd /; ls a a/deep opq; cat over link/in; ls b 2>/dev/null || echo no b";
    host.coracle(["run", "--rm", &name, "sh", "-c", script])
        .ok()
        .says("a:\ndeep\n\na/deep:\n\nopq:\nfresh\nnew\nin\nno b");
}

#[test]
fn the_images_configuration_is_used() {
    let host = Host::builder().without_image().build();
    let registry = Registry::start(&host, Access::Open);
    let layout = host.folder().join("layout");
    let config = Config {
        entrypoint: &["echo", "entry"],
        cmd: &["default"],
        env: &["FROM=image"],
        user: "web",
        ..SHELL
    };
    oci::write_layout(&layout, "1", &[Image::of(&[images::busybox_tar()], config)]);
    registry.push(&layout, "1", "configured:1");
    let name = registry.image("configured:1");
    host.run(&format!("run --rm {name}")).says("entry default");
    host.run(&format!("run --rm {name} other words"))
        .says("entry other words");
    let output = host
        .coracle([
            "run",
            "--rm",
            "--entrypoint",
            "sh",
            &name,
            "-c",
            "id -un; pwd; echo $FROM",
        ])
        .ok();
    assert_eq!(output.stdout, "web\n/var\nimage\n");
}

#[test]
fn a_second_pull_downloads_nothing() {
    let host = Host::builder().without_image().build();
    let registry = Registry::start(&host, Access::Open);
    let layout = host.folder().join("layout");
    oci::write_layout(
        &layout,
        "latest",
        &[Image::of(&[images::busybox_tar()], SHELL)],
    );
    registry.push(&layout, "latest", "bb:latest");
    let name = registry.image("bb");
    let first = host.run(&format!("pull {name}"));
    assert!(
        first
            .stdout
            .starts_with("Using default tag: latest\nlatest: Pulling from bb\n"),
        "{first}"
    );
    assert!(first.stdout.contains(": Pull complete"), "{first}");
    let full = format!("{name}:latest");
    assert!(
        first.stdout.trim_end().ends_with(&format!(
            "Status: Downloaded newer image for {full}\n{full}"
        )),
        "{first}"
    );
    let second = host.run(&format!("pull {name}"));
    assert!(
        second
            .stdout
            .contains(&format!("Status: Image is up to date for {full}")),
        "{second}"
    );
    assert!(!second.stdout.contains("Pull complete"), "{second}");
    let digest = second
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("Digest: "))
        .unwrap()
        .to_owned();
    host.run(&format!("rmi {name}"));
    host.run(&format!("pull -q {name}@{digest}"))
        .says(&format!("{name}@{digest}"));
}

#[test]
fn a_registry_with_a_password_takes_it_from_dockers_configuration() {
    let host = Host::builder().without_image().build();
    let registry = Registry::start(&host, Access::Password);
    let layout = host.folder().join("layout");
    oci::write_layout(&layout, "1", &[Image::of(&[images::busybox_tar()], SHELL)]);
    registry.push(&layout, "1", "private:1");
    let name = registry.image("private:1");
    let output = host.try_run(&format!("pull {name}")).exits(1);
    let text = output.stderr.to_lowercase();
    assert!(
        ["auth", "denied", "credentials"]
            .iter()
            .any(|word| text.contains(word)),
        "{output}"
    );
    fs::create_dir_all(host.folder().join(".docker")).unwrap();
    let credentials = format!(
        "{{\"auths\":{{\"{ADDRESS}\":{{\"auth\":\"{}\"}}}}}}",
        base64(&format!("{USER}:{PASSWORD}"))
    );
    fs::write(host.folder().join(".docker/config.json"), credentials).unwrap();
    host.run(&format!("pull {name}"));
}

#[test]
fn run_pulls_what_is_not_there() {
    let host = Host::builder().without_image().build();
    let registry = Registry::start(&host, Access::Open);
    let layout = host.folder().join("layout");
    oci::write_layout(&layout, "1", &[Image::of(&[images::busybox_tar()], SHELL)]);
    registry.push(&layout, "1", "bb:1");
    let name = registry.image("bb:1");
    let first = host.coracle(["run", "--rm", &name, "echo", "hello"]).ok();
    assert_eq!(first.stdout, "hello\n", "the progress is on stderr");
    let first = first.complains(&format!("Unable to find image '{name}' locally"));
    assert!(first.stderr.contains("1: Pulling from bb"), "{first}");
    let second = host.coracle(["run", "--rm", &name, "echo", "hello"]).ok();
    assert!(!second.stderr.contains("Unable to find"), "{second}");
}

fn base64(text: &str) -> String {
    Cmd::new("base64")
        .arg("-w0")
        .stdin(text)
        .run()
        .ok()
        .text()
        .to_owned()
}
