//! Certificates: of registries, of their CAs, and of clients.

use std::fs;

use harness::host::HOST;

use crate::authority::Authority;
use crate::world::{Serve, World};
use crate::{IMAGE, TLS};

#[test]
fn a_certificate_of_an_unknown_ca_is_refused_until_the_ca_is_there() {
    let world = World::new();
    let ca = Authority::new("a company");
    let pair = ca.server(&[HOST]);
    let _registry = world.serve_tls(TLS, &pair);
    let folder = world.folder("certs").display().to_string();
    let with = ["--cert-dir", folder.as_str()];
    world
        .refuses(&with, IMAGE)
        .complains("its certificate is signed by an unknown authority")
        .complains(&format!(
            "put the certificate of its CA into {folder}/{TLS}/ca.crt"
        ));
    let other = Authority::new("another company").pem;
    world.certificates(TLS, &[("ca.crt", &other)]);
    world.refuses(&with, IMAGE).complains("unknown authority");
    // Both count where both are there, and files of other names do not.
    world.certificates(
        TLS,
        &[("a.crt", &other), ("b.crt", &ca.pem), ("README", "x")],
    );
    world.pulls(&with, IMAGE);
    for text in [
        "garbage",
        "",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        world.certificates(TLS, &[("ca.crt", text)]);
        world
            .refuses(&with, IMAGE)
            .complains(&format!("{folder}/{TLS}/ca.crt: "));
    }
    // Listed as insecure, anything goes.
    fs::remove_dir_all(&folder).unwrap();
    world.pulls(&["--insecure-registry", TLS], IMAGE);
}

#[test]
fn the_folders_are_coracles_then_dockers_and_the_configuration_names_another() {
    let world = World::new();
    let ca = Authority::new("a company");
    let pair = ca.server(&[HOST]);
    let _registry = world.serve_tls(TLS, &pair);
    let certs = world.certificates(TLS, &[("ca.crt", &ca.pem)]);
    for place in ["coracle", "docker"] {
        let script = format!(
            "mkdir -p /etc/{place} && cp -r {} /etc/{place}/certs.d",
            certs.display()
        );
        world.with_own_etc(&script, &["pull", IMAGE]).ok();
        world.host.run(&format!("rmi {IMAGE}"));
    }
    // The first that has a folder for the registry counts.
    let script = format!(
        "mkdir -p /etc/docker /etc/coracle/certs.d/{TLS} && cp -r {} /etc/docker/certs.d",
        certs.display()
    );
    let output = world.with_own_etc(&script, &["pull", IMAGE]);
    output.exits(1).complains("unknown authority");
    let config = world.folder("config.toml");
    fs::write(&config, format!("cert-dir = {certs:?}\n")).unwrap();
    world.pulls(&["--config", config.to_str().unwrap()], IMAGE);
    let command = world.host.command(["pull", IMAGE]);
    let command = command.env("CORACLE_CERT_DIR", &certs);
    command.run_in(&world.host.netns).ok();
}

#[test]
fn wrong_names_and_expired_certificates_are_refused() {
    let world = World::new();
    let ca = Authority::new("a company");
    let certs = world.certificates(TLS, &[("ca.crt", &ca.pem)]);
    let with = ["--cert-dir", certs.to_str().unwrap()];
    for (pair, why) in [
        (
            ca.server(&["other.example"]),
            "its certificate is for another name",
        ),
        (ca.expired(&[HOST]), "its certificate has expired"),
    ] {
        let _registry = world.serve_tls(TLS, &pair);
        world.refuses(&with, IMAGE).complains(why);
    }
    // On loopback certificates count once there is a CA for the name.
    let local = "127.0.0.1:5443";
    let pair = ca.server(&["other.example"]);
    let _registry = world.serve_tls(local, &pair);
    let image = format!("{local}/library/bb:1");
    world.pulls(&with, &image);
    world.certificates(local, &[("ca.crt", &ca.pem)]);
    world.refuses(&with, &image).complains("for another name");
}

#[test]
fn a_client_certificate_is_shown_where_one_is_wanted() {
    let world = World::new();
    let (ca, clients) = (Authority::new("servers"), Authority::new("clients"));
    let pair = ca.server(&[HOST]);
    let how = Serve {
        tls: Some(&pair),
        client_ca: Some(&clients.pem),
        ..Serve::default()
    };
    let _registry = world.serve(TLS, &how);
    let (client, other) = (clients.client(), clients.client());
    let certs = world.certificates(TLS, &[("ca.crt", &ca.pem)]);
    let folder = certs.join(TLS).display().to_string();
    let with = ["--cert-dir", certs.to_str().unwrap()];
    world
        .refuses(&with, IMAGE)
        .complains("it wants a client certificate")
        .complains(&format!(
            "put yours into {folder} as client.cert and client.key"
        ));
    let ca_file = ("ca.crt", ca.pem.as_str());
    let full = [
        ca_file,
        ("c.cert", &client.certificate),
        ("c.key", &client.key),
    ];
    world.certificates(TLS, &full);
    world.pulls(&with, IMAGE);
    for (files, file, why) in [
        (
            &full[..2],
            "c.cert",
            "missing key c.key for this client certificate",
        ),
        (
            &[ca_file, full[2]],
            "c.key",
            "missing client certificate c.cert for this key",
        ),
        (
            &[ca_file, full[1], ("c.key", &other.key)],
            "c.key",
            "it is not the key of its certificate",
        ),
        (
            &[ca_file, full[1], ("c.key", "x")],
            "c.key",
            "there is no unencrypted private key in it",
        ),
        (
            &[ca_file, full[2], ("c.cert", "x")],
            "c.cert",
            "there is no certificate in it",
        ),
    ] {
        world.certificates(TLS, files);
        world
            .refuses(&with, IMAGE)
            .complains(&format!("{folder}/{file}: {why}"));
    }
    // One of a CA that the registry does not know.
    let stranger = Authority::new("strangers").client();
    let files = [
        ca_file,
        ("c.cert", &stranger.certificate),
        ("c.key", &stranger.key),
    ];
    world.certificates(TLS, &files);
    world
        .refuses(&with, IMAGE)
        .complains("if it wants a client certificate");
}
