//! How registries are reached: certificates, insecure ones, mirrors, tokens, proxies. Each against a real `docker-registry`, or a server of
//! the test's own where faults or answers of its own making are due.

#[path = "registries/certificates.rs"]
mod certificates;
#[path = "registries/mock.rs"]
mod mock;
#[path = "registries/tokens.rs"]
mod tokens;
#[path = "registries/world.rs"]
mod world;

use std::fs;

use certificates::Authority;
use harness::host::HOST;
use harness::registry::{PASSWORD, USER};
use mock::Answer;
use tokens::{StoreFront, with_tokens};
use world::{Serve, World, base64};

/// Not on loopback: nothing is forgiven there.
const TLS: &str = "192.0.2.1:5443";
const IMAGE: &str = "192.0.2.1:5443/library/bb:1";

#[test]
fn a_certificate_of_an_unknown_ca_is_refused_until_the_ca_is_there() {
    let world = World::new();
    let ca = Authority::new("a company");
    let pair = ca.server(&[HOST]);
    let _registry = world.serve(
        TLS,
        &Serve {
            tls: Some(&pair),
            ..Serve::default()
        },
    );
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
    let _registry = world.serve(
        TLS,
        &Serve {
            tls: Some(&pair),
            ..Serve::default()
        },
    );
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
        let _registry = world.serve(
            TLS,
            &Serve {
                tls: Some(&pair),
                ..Serve::default()
            },
        );
        world.refuses(&with, IMAGE).complains(why);
    }
    // On loopback certificates count once there is a CA for the name.
    let local = "127.0.0.1:5443";
    let pair = ca.server(&["other.example"]);
    let _registry = world.serve(
        local,
        &Serve {
            tls: Some(&pair),
            ..Serve::default()
        },
    );
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

#[test]
fn mirrors_of_docker_io_are_asked_in_their_order_and_passed_over_when_they_fail() {
    let world = World::new();
    let _mirror = world.serve("127.0.0.1:5000", &Serve::default());
    world.logged_in(&["https://index.docker.io/v1/"]);
    let answers = |status: u16| move |_: &mock::Request| Answer(status, vec![], vec![]);
    let broken = mock::serve(&world.host, "127.0.0.1:5001", answers(500));
    let empty = mock::serve(&world.host, "127.0.0.1:5002", answers(404));
    let closed = mock::serve(&world.host, "127.0.0.1:5003", |_| {
        let challenge = "Basic realm=\"mirror\"".to_owned();
        Answer(401, vec![("WWW-Authenticate", challenge)], vec![])
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
    for seen in [broken, empty, closed] {
        assert!(!seen.all().is_empty());
        assert!(seen.all().iter().all(|it| it.authorization().is_none()));
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
    let lacking = mock::serve(&world.host, "127.0.0.1:5001", move |request| {
        match request.path == manifest {
            true => front.answer(manifest),
            false => Answer(404, vec![], vec![]),
        }
    });
    let front = StoreFront::new(&world);
    let lying = mock::serve(&world.host, "127.0.0.1:5002", move |request| {
        let mut answer = front.answer(&request.path);
        if request.path != manifest
            && let Some(last) = answer.2.last_mut()
        {
            *last ^= 1;
        }
        answer
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
    assert_eq!(
        lacking
            .all()
            .iter()
            .filter(|it| it.path == manifest)
            .count(),
        1
    );
    let first = mirrors(5002);
    let output = world.refuses(&[&first, &second], "bb:1");
    assert!(output.stderr.contains("digest"), "{output}");
    assert!(lying.all().len() >= 2);
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
    let answer = |_: &mock::Request| Answer(404, vec![], vec![]);
    let mirror = mock::serve(&world.host, "127.0.0.1:5001", answer);
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
    assert!(mirror.all().iter().all(|it| it.authorization().is_none()));
}

const LOCAL: &str = "127.0.0.1:5000/library/bb:1";

#[test]
fn an_expired_token_is_asked_for_again_and_an_identity_token_is_exchanged() {
    let world = World::new();
    let given = std::sync::Mutex::new(0);
    let tokens = mock::serve(&world.host, "127.0.0.1:5001", move |request| {
        let mut given = given.lock().unwrap();
        let asked = [
            "grant_type=refresh_token&refresh_token=identity%2F1&service=store&scope=",
            "grant_type=refresh_token&refresh_token=identity%2F1&service=store&scope=repository%3Alibrary%2Fbb%3Apull&client_id=",
        ];
        let fits = asked.iter().any(|it| request.body.starts_with(it));
        if request.method != "POST" || request.authorization().is_some() || !fits {
            return Answer(401, vec![], b"{}".to_vec());
        }
        *given += 1;
        let token = format!("{{\"access_token\":\"token-{}\",\"expires_in\":1}}", *given);
        Answer(200, vec![], token.into_bytes())
    });
    let registry = with_tokens(&world, "http://127.0.0.1:5001/token");
    let auth = base64("me:");
    world.write_config(&format!(
        "{{\"auths\":{{\"127.0.0.1:5000\":{{\"auth\":\"{auth}\",\"identitytoken\":\"identity/1\"}}}}}}"
    ));
    world.pulls(&[], LOCAL);
    assert_eq!(tokens.all().len(), 2, "three documents, two for each token");
    let refused = registry
        .all()
        .iter()
        .filter(|it| it.authorization().is_none())
        .count();
    assert!(refused <= 2, "the probe and the first request: {refused}");
    // One that is not taken any more is not turned into nobody.
    world.write_config(&format!(
        "{{\"auths\":{{\"127.0.0.1:5000\":{{\"auth\":\"{auth}\",\"identitytoken\":\"old\"}}}}}}"
    ));
    world
        .refuses(&[], LOCAL)
        .complains("registry 127.0.0.1:5000 refused the credentials: the token server 127.0.0.1:5001 answered 401");
    assert!(tokens.all().iter().all(|it| it.method == "POST"));
}

#[test]
fn a_token_servers_identity_token_is_kept_in_place_of_the_password() {
    let world = World::new();
    let tokens = mock::serve(&world.host, "127.0.0.1:5001", |request| {
        let basic = format!("Basic {}", base64("me:secret"));
        match (request.method.as_str(), request.authorization()) {
            ("GET", Some(given)) if given == basic => {
                let both = br#"{"token":"token-1","refresh_token":"identity"}"#;
                Answer(200, vec![], both.to_vec())
            }
            ("POST", None) if request.body.contains("refresh_token=identity&") => {
                Answer(200, vec![], br#"{"access_token":"token-1"}"#.to_vec())
            }
            _ => Answer(401, vec![], b"{}".to_vec()),
        }
    });
    let _registry = with_tokens(&world, "http://127.0.0.1:5001/token?a=b");
    let login = |password: &str| {
        let words = ["login", "-u", "me", "-p", password, "127.0.0.1:5000"];
        world.host.coracle(words)
    };
    login("wrong").exits(1).complains(
        "login attempt to http://127.0.0.1:5000/v2/ failed: the token server 127.0.0.1:5001 answered 401",
    );
    assert!(!world.folder(".docker").exists());
    login("secret").ok().says("Login Succeeded");
    let asked = "/token?a=b&service=store&offline_token=true&client_id=coracle";
    assert_eq!(tokens.all().last().unwrap().path, asked);
    let kept = &world.config()["auths"]["127.0.0.1:5000"];
    assert_eq!(kept["identitytoken"], "identity");
    assert_eq!(kept["auth"], base64("me:").as_str(), "without the password");
    // It counts for the next login.
    world
        .host
        .run("login 127.0.0.1:5000")
        .says("Login Succeeded")
        .complains("Authenticating with existing credentials... [Username: me]");
    assert_eq!(tokens.all().last().unwrap().method, "POST");
}

#[test]
fn a_token_server_elsewhere_sees_no_password_in_the_clear() {
    let world = World::new();
    let answer = |_: &mock::Request| Answer(200, vec![], b"{\"token\":\"token-1\"}".to_vec());
    let tokens = mock::serve(&world.host, "192.0.2.1:5001", answer);
    let _registry = with_tokens(&world, "http://192.0.2.1:5001/token");
    world.logged_in(&["127.0.0.1:5000"]);
    world.refuses(&[], LOCAL).complains(
        "its token server 192.0.2.1:5001 is another host without encryption, and would see them",
    );
    assert!(tokens.all().is_empty());
    // It was listed: then it may.
    let output = world
        .host
        .coracle(["--insecure-registry", "192.0.2.1:5001", "pull", LOCAL]);
    drop(output);
    let basic = format!("Basic {}", base64(&format!("{USER}:{PASSWORD}")));
    assert!(
        tokens
            .all()
            .iter()
            .all(|it| it.authorization() == Some(&basic))
    );
    assert!(!tokens.all().is_empty());
}

#[test]
fn proxies_of_the_environment_are_gone_through() {
    let world = World::new();
    let ca = Authority::new("a company");
    let pair = ca.server(&[HOST]);
    let _registry = world.serve(
        TLS,
        &Serve {
            tls: Some(&pair),
            ..Serve::default()
        },
    );
    let certs = world.certificates(TLS, &[("ca.crt", &ca.pem)]);
    let proxy = mock::proxy(&world.host, "127.0.0.1:3128", Some("Basic bWU6czpj"));
    let pull = |image: &str, variables: &[(&str, &str)]| {
        let words = ["--cert-dir", certs.to_str().unwrap(), "pull", image];
        let command = world.host.command(words);
        let command = variables
            .iter()
            .fold(command, |command, (name, value)| command.env(name, value));
        let output = command.run_in(&world.host.netns);
        world.host.coracle(["rmi", image]);
        output
    };
    let through = |variables: &[(&str, &str)]| {
        let before = proxy.all().len();
        pull(IMAGE, variables).ok();
        proxy.all()[before..].to_vec()
    };
    let known = "http://me:s%3Ac@127.0.0.1:3128";
    for name in ["HTTPS_PROXY", "https_proxy"] {
        let seen = through(&[(name, known)]);
        assert!(!seen.is_empty(), "{name}");
        assert!(
            seen.iter()
                .all(|it| it.method == "CONNECT" && it.path == TLS)
        );
    }
    for exception in ["192.0.2.1", "192.0.2.0/24", "x.io, 192.0.2.1:5443", "*"] {
        let seen = through(&[("HTTPS_PROXY", known), ("no_proxy", exception)]);
        assert!(seen.is_empty(), "{exception}");
    }
    assert!(!through(&[("HTTPS_PROXY", known), ("NO_PROXY", "192.0.2.1:1")]).is_empty());
    // It is for the other scheme, or for this machine.
    assert!(through(&[("HTTP_PROXY", known)]).is_empty());
    let _local = world.serve("127.0.0.1:5000", &Serve::default());
    pull(
        LOCAL,
        &[
            ("HTTP_PROXY", "http://127.0.0.1:1"),
            ("HTTPS_PROXY", "http://127.0.0.1:1"),
        ],
    )
    .ok();
    for (value, why, name) in [
        (
            "http://127.0.0.1:3128",
            "407",
            "the proxy http://127.0.0.1:3128 (from HTTPS_PROXY)",
        ),
        (
            "http://me:wrong@127.0.0.1:3128",
            "407",
            "http://me:xxxxx@127.0.0.1:3128",
        ),
        (
            "http://127.0.0.1:3129",
            "connection refused",
            "http://127.0.0.1:3129",
        ),
        (
            "socks5://127.0.0.1:3128",
            "only http:// and https:// proxies",
            "HTTPS_PROXY: socks5://",
        ),
    ] {
        let output = pull(IMAGE, &[("HTTPS_PROXY", value)]).exits(1);
        assert!(!output.stderr.contains("wrong"), "{output}");
        output.complains(why).complains(name);
    }
    // What speaks plain HTTP is led to through CONNECT, too.
    let plain = "192.0.2.1:5000";
    let _plain = world.serve(plain, &Serve::default());
    let before = proxy.all().len();
    let command = world.host.command([
        "--insecure-registry",
        plain,
        "pull",
        "192.0.2.1:5000/library/bb:1",
    ]);
    let command = command.env("HTTP_PROXY", known);
    command.run_in(&world.host.netns).ok();
    let seen = proxy.all()[before..].to_vec();
    assert!(
        !seen.is_empty()
            && seen
                .iter()
                .all(|it| it.method == "CONNECT" && it.path == plain)
    );
}
