//! Bad input: a clear message, the exit code that people script against, and nothing left behind.

use std::fs;

use harness::images::{self, PAGE};
use harness::oci::{self, Config, Image};
use harness::registry::Access;
use harness::{Host, Output, Registry, net, rules};

/// Where nobody listens (port 1, tcpmux, on the loopback of a namespace of the test's own).
const NOBODY: &str = "127.0.0.1:1/library/redis:7";

/// Runs what must fail, and checks that the containers, images, links and rules are as before.
#[track_caller]
fn refused(host: &Host, args: &[&str], code: i32) -> Output {
    // The default network comes with the first command that needs it: it is no leftover of the one that failed.
    host.system("up");
    let state = || {
        let containers = if host.is_docker() {
            Vec::new()
        } else {
            host.ids()
        };
        let images = host.run("images -q --no-trunc").stdout;
        let links = host
            .tool("ip", ["-br", "link"])
            .stdout
            .lines()
            .map(|line| line.split_whitespace().next().unwrap().to_owned())
            .collect::<Vec<_>>();
        (containers, images, links, rules::save(&host.netns))
    };
    let before = state();
    let output = host.coracle(args).exits(code);
    let after = state();
    assert_eq!(before, after, "something is left of {output}");
    assert!(!output.stderr.contains("panicked"), "{output}");
    output
}

#[test]
fn a_tag_that_does_not_exist_is_named() {
    let host = Host::new();
    let registry = Registry::start(&host, Access::Open);
    registry.push(&images::redis_layout(), "7", "redis:7");
    let missing = registry.image("redis:nope");
    let output = refused(&host, &["pull", &missing], 1);
    assert!(
        output.stderr.contains("manifest") && output.stderr.contains("nope"),
        "{output}"
    );
    let output = refused(&host, &["run", &missing], 125);
    assert!(
        output
            .stderr
            .contains(&format!("Unable to find image '{missing}' locally")),
        "{output}"
    );
    let output = refused(&host, &["pull", &registry.image("nosuch")], 1);
    assert!(output.stderr.contains("nosuch"), "{output}");
}

#[test]
fn a_registry_that_does_not_answer_is_named() {
    let host = Host::new();
    let output = refused(&host, &["pull", NOBODY], 1);
    assert!(output.stderr.contains("127.0.0.1:1"), "{output}");
    assert!(
        output.stderr.to_lowercase().contains("connection refused"),
        "{output}"
    );
    refused(&host, &["run", "--rm", NOBODY], 125)
        .complains(&format!("Unable to find image '{NOBODY}' locally"));
}

#[test]
fn a_corrupt_blob_is_refused_and_a_mended_one_is_pulled() {
    // Without the image that has the same layer: a layer that is there already need not be pulled.
    let host = Host::builder().without_image().build();
    let registry = Registry::start(&host, Access::Open);
    let layout = host.folder().join("layout");
    let config = Config {
        cmd: &["sh"],
        ..Config::default()
    };
    oci::write_layout(&layout, "1", &[Image::of(&[images::busybox_tar()], config)]);
    registry.push(&layout, "1", "bb:1");
    let layer = fs::read_dir(layout.join("blobs/sha256"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .max_by_key(|entry| entry.metadata().unwrap().len())
        .unwrap();
    let blob = registry.blob(layer.file_name().to_str().unwrap());
    let good = fs::read(&blob).unwrap();
    let name = registry.image("bb:1");

    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    fs::write(&blob, &flipped).unwrap();
    let output = refused(&host, &["pull", &name], 1);
    let text = output.stderr.to_lowercase();
    assert!(
        ["digest", "verif", "corrupt", "checksum", "gzip", "flate"]
            .iter()
            .any(|word| text.contains(word)),
        "{output}"
    );

    // The bytes of another, valid layer: only the digest tells.
    let other = host.folder().join("other");
    fs::write(host.folder().join("text"), "x").unwrap();
    let tar = host.folder().join("other.tar");
    images::pack(&host.folder().join("layout"), &tar);
    oci::write_layout(&other, "1", &[Image::of(&[tar], config)]);
    let stranger = fs::read_dir(other.join("blobs/sha256"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .max_by_key(|p| p.metadata().unwrap().len())
        .unwrap();
    fs::write(&blob, fs::read(stranger).unwrap()).unwrap();
    refused(&host, &["pull", &name], 1);

    fs::write(&blob, &good).unwrap();
    host.run(&format!("pull {name}"));
    host.coracle(["run", "--rm", &name, "echo", "whole"])
        .ok()
        .says("whole");
}

#[test]
fn a_bad_port_is_refused() {
    let host = Host::new();
    for (port, message) in [
        ("99999:80", "invalid hostPort: 99999"),
        ("8080:99999", "nvalid containerPort: 99999"),
        ("foo:80", "nvalid"),
        ("8080:80/xyz", "nvalid proto: xyz"),
        ("8000-8002:80-81", "nvalid ranges"),
        ("300.0.0.1:8080:80", "nvalid"),
        ("", "port"),
    ] {
        refused(&host, &["run", "-d", "-p", port, "busybox", "true"], 125).complains(message);
    }
}

#[test]
fn a_host_port_that_is_taken_by_a_container_is_refused() {
    let host = Host::new();
    host.start_web("web", "-p 8080:80");
    for port in ["8080:80", "127.0.0.1:8080:80", "8070-8090:8070-8090"] {
        let output = refused(
            &host,
            &["run", "-d", "-p", port, "busybox", "sleep", "1"],
            125,
        );
        // Docker notices two of these only when its proxy cannot listen.
        let by_proxy = host.is_docker() && output.stderr.contains("address already in use");
        assert!(
            by_proxy || output.stderr.contains("port is already allocated"),
            "{output}"
        );
    }
    refused(
        &host,
        &["run", "-d", "-p", "8080:80", "busybox", "sleep", "1"],
        125,
    )
    .complains("Bind for 0.0.0.0:8080 failed: port is already allocated");
    host.run("run --rm -p 8080:80/udp busybox true");
    assert_eq!(
        net::http_get(&host.neighbour, "192.0.2.1:8080").unwrap(),
        PAGE,
        "the first is not disturbed"
    );
}

#[test]
fn a_host_port_that_is_taken_by_a_program_of_the_hosts_is_refused() {
    let host = Host::new();
    let _listener = host
        .netns
        .enter(|| std::net::TcpListener::bind("0.0.0.0:8080"))
        .unwrap();
    let output = refused(
        &host,
        &["run", "-d", "-p", "8080:80", "busybox", "sleep", "1"],
        125,
    );
    assert!(output.stderr.contains("8080"), "{output}");
    assert!(
        output.stderr.contains("address already in use")
            || output.stderr.contains("port is already allocated"),
        "{output}"
    );
}

#[test]
fn an_unknown_network_is_refused() {
    let host = Host::new();
    refused(
        &host,
        &["run", "-d", "--network", "nonet", "busybox", "true"],
        125,
    )
    .complains("network nonet not found");
    refused(&host, &["network", "rm", "nonet"], 1).complains("nonet");
    refused(&host, &["network", "inspect", "nonet"], 1).complains("nonet");
}

#[test]
fn a_subnet_in_use_and_a_predefined_network_are_refused() {
    let host = Host::new();
    host.run("network create --subnet 10.99.0.0/24 blue");
    refused(
        &host,
        &["network", "create", "--subnet", "10.99.0.0/16", "green"],
        1,
    )
    .complains("Pool overlaps with other one on this address space");
    refused(&host, &["network", "create", "blue"], 1)
        .complains("network with name blue already exists");
    refused(&host, &["network", "create", "bridge"], 1)
        .complains("operation is not permitted on predefined bridge network");
    refused(&host, &["network", "rm", "bridge"], 1)
        .complains("bridge is a pre-defined network and cannot be removed");
    refused(
        &host,
        &["network", "create", "--subnet", "10.0.0.0/33", "green"],
        1,
    );
}

#[test]
fn a_network_without_a_free_address_is_a_clear_error() {
    let host = Host::new();
    host.run("network create --subnet 10.99.0.0/29 small");
    for number in 2..=6 {
        host.run(&format!(
            "run -d --name c{number} --network small busybox sleep 1000"
        ));
    }
    let output = refused(
        &host,
        &["run", "-d", "--network", "small", "busybox", "true"],
        125,
    );
    assert!(
        output.stderr.to_lowercase().contains("no available ip"),
        "{output}"
    );
    host.run("rm -f c4");
    host.run("run --rm --network small busybox true");
}

#[test]
fn a_name_in_use_or_not_a_name_is_refused() {
    let host = Host::new();
    let id = host
        .run("run -d --name c1 busybox sleep 1000")
        .text()
        .to_owned();
    let text = format!(
        "Conflict. The container name \"/c1\" is already in use by container \"{id}\". You have to remove (or rename) that container to be able to reuse that name."
    );
    refused(
        &host,
        &["run", "-d", "--name", "c1", "busybox", "true"],
        125,
    )
    .complains(&text);
    refused(&host, &["create", "--name", "c1", "busybox", "true"], 1)
        .complains("is already in use by container");
    refused(&host, &["run", "--name", "b@d", "busybox", "true"], 125)
        .complains("Invalid container name (b@d), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed");
    assert_eq!(host.inspect("c1")["State"]["Running"], true);
}

#[test]
fn a_missing_command_is_127_and_one_that_cannot_run_126() {
    let host = Host::new();
    host.system("up");
    for (command, code, message) in [
        ("nosuch", 127, "executable file not found in $PATH"),
        ("/no/such", 127, "no such file or directory"),
        ("/usr/bin/notes.txt", 126, "permission denied"),
    ] {
        refused(&host, &["run", "--rm", "busybox", command], code).complains(message);
        refused(
            &host,
            &["run", "--rm", "-d", "-p", "8080:80", "busybox", command],
            code,
        )
        .complains(message);
    }
    // A folder: Docker 20.10 says "permission denied" here, later versions "is a directory".
    let output = refused(&host, &["run", "--rm", "busybox", "/etc"], 126);
    assert!(
        output.stderr.contains("is a directory") || output.stderr.contains("permission denied"),
        "{output}"
    );
}

#[test]
fn a_container_that_does_not_exist_is_named() {
    let host = Host::new();
    for command in ["start", "stop", "kill", "rm", "logs", "wait", "port"] {
        refused(&host, &[command, "nope"], 1).complains("No such container: nope");
    }
    refused(&host, &["exec", "nope", "true"], 1).complains("No such container: nope");
    refused(&host, &["rmi", "nope"], 1).complains("nope");
}

#[test]
fn a_flag_or_command_that_does_not_exist_is_refused() {
    let host = Host::new();
    refused(&host, &["run", "--nosuchflag", "busybox"], 125).complains("nosuchflag");
    let output = host.try_run("nosuchcommand");
    assert_ne!(output.code(), 0);
    assert!(output.stderr.contains("nosuchcommand"), "{output}");
    refused(&host, &["run", "-u", "nosuchuser", "busybox", "true"], 125).complains("nosuchuser");
}

#[test]
fn without_root_it_says_so() {
    let host = Host::builder().without_image().build();
    if host.is_docker() {
        return; // The client of a daemon needs no root.
    }
    // A copy that anyone may run: the build folder may be closed to others.
    let binary = host.folder().join("program");
    fs::copy(images::binary(), &binary).unwrap();
    harness::Cmd::new("chmod")
        .arg("0755")
        .arg(host.folder())
        .arg(&binary)
        .run()
        .ok();
    for (args, code) in [
        (&["run", "--rm", "busybox", "true"][..], 125),
        (&["ps"], 1),
        (&["network", "create", "x"], 1),
    ] {
        let state = host.folder().join("state");
        let output = harness::Cmd::new(&binary)
            .arg("--root")
            .arg(state.join("root"))
            .arg("--run-root")
            .arg(state.join("run"))
            .args(args)
            .wrapped_in(
                "setpriv",
                ["--reuid=65534", "--regid=65534", "--clear-groups"],
            )
            .run_in(&host.netns)
            .exits(code);
        assert!(
            output.stderr.to_lowercase().contains("root"),
            "it must say that root is needed: {output}"
        );
        assert!(!state.exists(), "{output}");
    }
    host.assert_clean();
}
