//! Proxies of the environment.

use std::io::{BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use harness::host::HOST;
use harness::mock::{Request, read_request};
use harness::{Cmd, Host, eventually, net};

use crate::authority::Authority;
use crate::world::{Serve, World};
use crate::{IMAGE, LOCAL, TLS};

#[test]
fn proxies_of_the_environment_are_gone_through() {
    let world = World::new();
    let ca = Authority::new("a company");
    let pair = ca.server(&[HOST]);
    let _registry = world.serve_tls(TLS, &pair);
    let certs = world.certificates(TLS, &[("ca.crt", &ca.pem)]);
    let proxy = proxy(&world.host, "127.0.0.1:3128", Some("Basic bWU6czpj"));
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

#[test]
fn a_proxy_that_speaks_tls_proves_itself_even_where_the_registry_need_not() {
    let world = World::new();
    // The registry's certificate is of nobody that is known, and it is listed as insecure.
    let _registry = world.serve_tls(TLS, &Authority::new("nobody").server(&[HOST]));
    let ca = Authority::new("a company");
    let (certificate, key) = ca.server(&[HOST]).write(&world.folder("proxy"), "proxy");
    let proxy = proxy(&world.host, "127.0.0.1:3128", None);
    let listen = format!(
        "OPENSSL-LISTEN:3443,bind={HOST},reuseaddr,fork,verify=0,cert={},key={}",
        certificate.display(),
        key.display()
    );
    let _tls = Cmd::new("socat")
        .args([&listen, "TCP:127.0.0.1:3128"])
        .spawn_in(&world.host.netns);
    eventually("the proxy listens", || {
        net::connect(&world.host.netns, "192.0.2.1:3443")
    });
    let pull = |certs: &Path| {
        let certs = certs.to_str().unwrap();
        let words = [
            "--cert-dir",
            certs,
            "--insecure-registry",
            TLS,
            "pull",
            IMAGE,
        ];
        let command = world.host.command(words);
        let command = command.env("HTTPS_PROXY", "https://192.0.2.1:3443");
        command.run_in(&world.host.netns)
    };
    let unknown = pull(&world.certificates(TLS, &[])).exits(1);
    unknown
        .complains("https://192.0.2.1:3443")
        .complains("certificate");
    assert!(proxy.all().is_empty(), "{:?}", proxy.all());
    pull(&world.certificates("192.0.2.1:3443", &[("ca.crt", &ca.pem)])).ok();
    let seen = proxy.all();
    let all_go_through = seen
        .iter()
        .all(|it| it.method == "CONNECT" && it.path == TLS);
    assert!(!seen.is_empty() && all_go_through, "{seen:?}");
}

/// What a proxy was asked, in order.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Request>>>);

impl Seen {
    fn all(&self) -> Vec<Request> {
        self.0.lock().unwrap().clone()
    }

    fn note(&self, request: Request) {
        self.0.lock().unwrap().push(request);
    }
}

/// A proxy that knows `CONNECT`, and leads wherever it is asked to.
fn proxy(host: &Host, address: &str, password: Option<&'static str>) -> Seen {
    let listener = host.netns.enter(|| TcpListener::bind(address)).unwrap();
    let seen = Seen::default();
    let noted = seen.clone();
    let work = move || {
        for mut stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let Some(request) = read_request(&mut reader) else {
                continue;
            };
            let known = password.is_none_or(|it| request.header("proxy-authorization") == Some(it));
            let target = request.path.clone();
            let connects = request.method == "CONNECT";
            noted.note(request);
            if !known || !connects {
                let status = if connects { 407 } else { 405 };
                let _ = stream.write_all(
                    format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n").as_bytes(),
                );
                continue;
            }
            let Ok(onward) = TcpStream::connect(&target) else {
                let _ = stream.write_all(b"HTTP/1.1 502 X\r\nContent-Length: 0\r\n\r\n");
                continue;
            };
            stream.write_all(b"HTTP/1.1 200 X\r\n\r\n").unwrap();
            relay(stream.try_clone().unwrap(), onward.try_clone().unwrap());
            relay(onward, stream);
        }
    };
    // A thread begins in the namespace of the one that has made it.
    host.netns.enter(|| drop(std::thread::spawn(work)));
    seen
}

fn relay(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
}
