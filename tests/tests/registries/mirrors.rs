//! Mirrors of docker.io: which is asked, and what each gets to see.

use std::fs;

use harness::mock::{Answer, Request};

use crate::authority::Authority;
use crate::front::StoreFront;
use crate::world::{Serve, World};

#[test]
fn mirrors_of_docker_io_are_asked_in_their_order_and_passed_over_when_they_fail() {
    let world = World::new();
    let _mirror = world.serve("127.0.0.1:5000", &Serve::default());
    world.logged_in(&["https://index.docker.io/v1/"]);
    let always = |status: u16| move |_: &Request| Answer::of(status);
    let broken = world.mock("127.0.0.1:5001", always(500));
    let empty = world.mock("127.0.0.1:5002", always(404));
    let closed = world.mock("127.0.0.1:5003", |_| {
        Answer::of(401).with("WWW-Authenticate", "Basic realm=\"mirror\"")
    });
    let mut words = Vec::new();
    for port in [5009, 5001, 5002, 5003, 5000] {
        words.push("--registry-mirror".to_owned());
        words.push(format!("http://127.0.0.1:{port}"));
    }
    let options: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = world.pulls(&options, "bb:1");
    for (port, why) in [
        (5009, "connection refused"),
        (5001, "answered 500"),
        (5002, "not found"),
        (5003, "no basic auth credentials"),
    ] {
        let notice = format!("mirror http://127.0.0.1:{port} is passed over: ");
        let said = output.stdout.lines().chain(output.stderr.lines());
        let lines: Vec<&str> = said.filter(|line| line.contains(&notice)).collect();
        assert!(
            lines.len() == 1 && lines[0].contains(why),
            "{port}: {output}"
        );
    }
    assert!(output.stdout.contains("docker.io/library/bb:1"), "{output}");
    // What is docker.io's never got there.
    for mirror in [broken, empty, closed] {
        let seen = mirror.requests();
        assert!(!seen.is_empty());
        assert!(seen.iter().all(|it| it.authorization().is_none()));
    }
    // For other registries, mirrors are nothing.
    let image = "127.0.0.1:5000/library/bb:1";
    let output = world.pulls(&["--registry-mirror", "http://127.0.0.1:5009"], image);
    assert!(!format!("{output}").contains("passed over"), "{output}");
    let config = world.folder("config.toml");
    fs::write(&config, "registry-mirrors = [\"http://127.0.0.1:5000/\"]\n").unwrap();
    world.pulls(&["--config", config.to_str().unwrap()], "bb:1");
    let command = world.host.command(["pull", "docker.io/library/bb:1"]);
    let command = command.env("CORACLE_REGISTRY_MIRRORS", "http://127.0.0.1:5000");
    command.run_in(&world.host.netns).ok();
    let output = world.host.coracle(["--registry-mirror", "m.io", "images"]);
    output.exits(125).complains("unsupported scheme");
}

#[test]
fn a_mirror_that_lacks_a_layer_is_helped_out_and_one_that_lies_is_refused() {
    let world = World::new();
    let _other = world.serve("127.0.0.1:5000", &Serve::default());
    let manifest = "/v2/library/bb/manifests/1";
    let front = StoreFront::new(&world);
    let lacking = world.mock("127.0.0.1:5001", move |request| {
        match request.path == manifest {
            true => front.answer(manifest),
            false => Answer::of(404),
        }
    });
    let front = StoreFront::new(&world);
    let lying = world.mock("127.0.0.1:5002", move |request| {
        let answer = front.answer(&request.path);
        match request.path == manifest {
            true => answer,
            false => answer.altered(),
        }
    });
    let mirrors = |port: u16| format!("--registry-mirror=http://127.0.0.1:{port}");
    let (first, second) = (mirrors(5001), mirrors(5000));
    let output = world.pulls(&[&first, &second], "bb:1");
    assert!(
        output
            .stdout
            .contains("http://127.0.0.1:5001 is passed over: blob sha256:"),
        "{output}"
    );
    assert_eq!(lacking.asked(manifest).len(), 1);
    let first = mirrors(5002);
    let output = world.refuses(&[&first, &second], "bb:1");
    assert!(output.stderr.contains("digest"), "{output}");
    assert!(lying.requests().len() >= 2);
}

#[test]
fn docker_io_itself_comes_after_its_mirrors_with_its_credentials() {
    let world = World::new();
    let ca = Authority::new("the world's");
    let pair = ca.server(&["registry-1.docker.io"]);
    let how = Serve {
        tls: Some(&pair),
        password: true,
        ..Serve::default()
    };
    let _hub = world.serve("127.0.0.1:443", &how);
    let mirror = world.mock("127.0.0.1:5001", |_| Answer::of(404));
    let certs = world.certificates("docker.io", &[("ca.crt", &ca.pem)]);
    let own = "echo 127.0.0.1 registry-1.docker.io >>/etc/hosts";
    let args = [
        "--cert-dir",
        certs.to_str().unwrap(),
        "--registry-mirror",
        "http://127.0.0.1:5001",
        "pull",
        "index.docker.io/bb:1",
    ];
    let output = world.with_own_etc(own, &args).exits(1);
    output.complains("pull access denied for bb");
    world.logged_in(&["https://index.docker.io/v1/"]);
    let output = world.with_own_etc(own, &args).ok();
    assert!(output.stdout.contains("is passed over"), "{output}");
    assert!(
        output.stdout.ends_with("\ndocker.io/library/bb:1\n"),
        "{output}"
    );
    assert!(
        mirror
            .requests()
            .iter()
            .all(|it| it.authorization().is_none())
    );
}
