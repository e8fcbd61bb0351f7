//! Which registries may be spoken to in the clear, and addresses of both families.

use std::fs;

use harness::registry::{PASSWORD, USER};

use crate::authority::Authority;
use crate::world::{Serve, World};

#[test]
fn plain_http_is_spoken_to_those_that_are_listed_alone() {
    let world = World::new();
    let address = "192.0.2.1:5000";
    let image = "192.0.2.1:5000/library/bb:1";
    let _registry = world.serve(address, &Serve::default());
    let advice = "It is listed by --insecure-registry 192.0.2.1:5000, or by insecure-registries = [\"192.0.2.1:5000\"] in the configuration file.";
    world
        .refuses(&[], image)
        .complains("it does not speak TLS")
        .complains(advice);
    for listed in [address, "192.0.2.0/24", "http://192.0.2.1:5000"] {
        world.pulls(&["--insecure-registry", listed], image);
    }
    for other in ["192.0.2.1", "192.0.2.1:5001", "10.0.0.0/8"] {
        world.refuses(&["--insecure-registry", other], image);
    }
    let config = world.folder("config.toml");
    fs::write(&config, "insecure-registries = [\"192.0.2.1:5000\"]\n").unwrap();
    let with = ["--config", config.to_str().unwrap()];
    world.pulls(&with, image);
    // The option stands above the environment, and that above the file.
    let other = ["--insecure-registry", "10.0.0.0/8"];
    world.refuses(&[with, other].concat(), image);
    let pull = |listed: &str| {
        let command = world.host.command([&with[..], &["pull", image]].concat());
        let command = command.env("CORACLE_INSECURE_REGISTRIES", listed);
        command.run_in(&world.host.netns)
    };
    pull("other.example,10.0.0.0/8").exits(1);
    pull("other.example,192.0.2.0/24").ok();
    for (key, value) in [("insecure-registries", "a/b"), ("registry-mirrors", "m.io")] {
        fs::write(&config, format!("{key} = [{value:?}]\n")).unwrap();
        let output = world.host.coracle([&with[..], &["images"]].concat());
        output
            .exits(1)
            .complains("line 1: invalid ")
            .complains(value);
    }
}

#[test]
fn a_registry_may_have_an_ipv6_address() {
    let world = World::new();
    let ca = Authority::new("a company");
    let pair = ca.server(&["2001:db8::1"]);
    let _plain = world.serve("[::1]:5000", &Serve::default());
    let _tls = world.serve(
        "[2001:db8::1]:5443",
        &Serve {
            tls: Some(&pair),
            password: true,
            ..Serve::default()
        },
    );
    world.pulls(&[], "[::1]:5000/library/bb:1");
    let image = "[2001:db8::1]:5443/library/bb:1";
    let certs = world.certificates("[2001:db8::1]:5443", &[("ca.crt", &ca.pem)]);
    let with = ["--cert-dir", certs.to_str().unwrap()];
    world
        .refuses(&with, image)
        .complains("no basic auth credentials");
    let login = ["login", "-u", USER, "-p", PASSWORD, "[2001:db8::1]:5443"];
    world.host.coracle([&with[..], &login].concat()).ok();
    world.pulls(&with, image);
    world.refuses(&[], image).complains("unknown authority");
    world.pulls(&["--insecure-registry", "2001:db8::/32"], image);
}
