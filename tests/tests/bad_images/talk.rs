//! Registries that misbehave: in what they send, and in where they want credentials to go.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::Netns;
use harness::mock::{Answer, Mock, Request};

use super::image::{Image, MANIFEST, TOP, reference};
use super::layers::ADVICE;
use super::machine::{Machine, says_no_line_of};
use super::{ELSEWHERE, REGISTRY, Row, row};

/// `sailor:secret`.
const BASIC: &str = "c2FpbG9yOnNlY3JldA==";

pub fn rows() -> Vec<Row> {
    vec![
        row("blob-damaged", |netns| {
            faulty_layer(
                netns,
                |answer| {
                    let mut body = answer.body().to_vec();
                    body[700] ^= 1;
                    octets(body)
                },
                &[
                    "its content has the digest sha256:",
                    "the registry's copy is damaged",
                    ADVICE,
                ],
            );
        }),
        row("blob-longer", |netns| {
            faulty_layer(
                netns,
                |answer| octets([answer.body(), b"more"].concat()),
                &["bytes and the manifest says", ADVICE],
            );
        }),
        row("blob-longer-without-a-length", |netns| {
            faulty_layer(
                netns,
                |answer| octets([answer.body(), b"more"].concat()).chunked(),
                &["it is longer than the", ADVICE],
            );
        }),
        row("blob-shorter", |netns| {
            faulty_layer(
                netns,
                |answer| octets(&answer.body()[..5000]),
                &["sends 5000 bytes and the manifest says"],
            );
        }),
        row("blob-shorter-without-a-length", |netns| {
            faulty_layer(
                netns,
                |answer| octets(&answer.body()[..5000]).chunked(),
                &["it ended too early, after 5000 of"],
            );
        }),
        row("blob-always-cut", |netns| {
            faulty_layer(
                netns,
                |answer| octets(answer.body()).cut_at(1000),
                &["broke off while sending blob sha256:"],
            );
        }),
        row("header-with-a-control-byte", |netns| {
            let good = Image::good().files();
            let mock = Mock::start(netns, "127.0.0.1", move |request| {
                let answer = good.get(request)?;
                Some(match is_layer(request) {
                    true => answer.with("X-Served-By", "a\u{1b}[2Jb"),
                    false => answer,
                })
            });
            Machine::new(netns).refuses(&reference(&mock), &["its answer is not HTTP"]);
            let asked = mock.asked(&Image::good().layers[0].digest());
            assert_eq!(asked.len(), 1, "it was tried again");
        }),
        row("blob-missing", |netns| {
            faulty_layer(
                netns,
                |_| Answer::new(404, "text/plain", "no"),
                &["blob unknown to registry"],
            );
        }),
        row("blob-without-end", |netns| {
            // A body that is not asked for at all: nobody reads it for ever.
            faulty_layer(
                netns,
                |_| octets(vec![0; 1 << 20]).repeated(2000).chunked(),
                &["it is longer than the"],
            );
        }),
        row("cut-at-99-percent", |netns| {
            let cuts = AtomicUsize::new(2);
            eventually_pulled(netns, move |request, answer| {
                // A server that knows no ranges.
                if is_layer(request)
                    && cuts
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                        .is_ok()
                {
                    let most = answer.body().len() * 99 / 100;
                    return answer.cut_at(most);
                }
                answer
            });
        }),
        row("ranges-ignored", |netns| {
            let cuts = AtomicUsize::new(1);
            eventually_pulled(netns, move |request, answer| {
                if !is_layer(request) {
                    return answer;
                }
                // It says that it has ranges, and answers with the whole.
                let answer = answer.with("Accept-Ranges", "bytes");
                match cuts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                {
                    Ok(_) => answer.cut_at(50_000),
                    Err(_) => answer,
                }
            });
        }),
        row("ranges-that-lie", |netns| {
            let cuts = AtomicUsize::new(1);
            let good = Image::good().files();
            let mock = Mock::start(netns, "127.0.0.1", move |request| {
                let answer = good.get(request)?;
                if !is_layer(request) {
                    return Some(answer);
                }
                let answer = answer.with("Accept-Ranges", "bytes");
                if cuts
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                    .is_ok()
                {
                    return Some(answer.cut_at(50_000));
                }
                // Another part than was asked for.
                let (all, part) = (answer.body().len(), answer.body()[..100].to_vec());
                let range = format!("bytes 0-99/{all}");
                Some(
                    Answer::new(206, "application/octet-stream", part)
                        .with("Content-Range", &range),
                )
            });
            let says = [
                "asked for bytes=50000-",
                "the registry sent \"bytes 0-99/",
                ADVICE,
            ];
            Machine::new(netns).refuses(&reference(&mock), &says);
        }),
        row("busy", |netns| {
            let tries = AtomicUsize::new(0);
            let output =
                eventually_pulled(netns, move |request, answer| match request.path == TOP {
                    true if tries.fetch_add(1, Ordering::Relaxed) == 0 => {
                        Answer::new(429, "text/plain", "").with("Retry-After", "1")
                    }
                    _ => answer,
                });
            assert!(output.contains("retrying in 1.0 s"), "{output}");
        }),
        row("busy-for-an-hour", |netns| {
            let mock = Mock::start(netns, "127.0.0.1", |request| {
                Some(match request.path == "/v2/" {
                    true => Answer::new(200, "text/plain", ""),
                    false => Answer::new(429, "text/plain", "").with("Retry-After", "3600"),
                })
            });
            Machine::new(netns).refuses(
                &reference(&mock),
                &[
                    "toomanyrequests",
                    "asks to wait 3600 s",
                    "log in for a higher limit",
                ],
            );
        }),
        row("broken-inside", |netns| {
            let mock = Mock::start(netns, "127.0.0.1", |request| {
                Some(match request.path == "/v2/" {
                    true => Answer::new(200, "text/plain", ""),
                    false => Answer::new(500, "text/plain", "\x1b[31mboom\n"),
                })
            });
            Machine::new(netns).refuses(&reference(&mock), &["answered 500"]);
        }),
        row("not-http", |netns| {
            let mock = Mock::start(netns, "127.0.0.1", |_| {
                Some(Answer::new(200, "text/html\r\nX: \x1b[31m", "<html>"))
            });
            Machine::new(netns).refuses(&reference(&mock), &[]);
        }),
        row("errors-that-a-terminal-would-obey", |netns| {
            let body = r#"{"errors":[{"code":"\u001b[31mDENIED","message":"\u001b]0;evil\u0007\ncoracle: all is well"}]}"#;
            let mock = Mock::start(netns, "127.0.0.1", move |request| {
                Some(match request.path == "/v2/" {
                    true => Answer::new(200, "text/plain", ""),
                    false => Answer::new(403, "application/json", body),
                })
            });
            let output = Machine::new(netns).refuses(&reference(&mock), &["pull access denied"]);
            says_no_line_of(&output, "coracle: all");
        }),
        row("redirects-without-end", |netns| {
            let mock = Mock::start(netns, "127.0.0.1", |_| {
                Some(Answer::new(302, "text/plain", "").with("Location", "/v2/again"))
            });
            Machine::new(netns).refuses(&reference(&mock), &["redirects"]);
        }),
        row("redirect-to-a-file", |netns| {
            let good = Image::good().files();
            let mock = Mock::start(netns, "127.0.0.1", move |request| {
                Some(match is_layer(request) {
                    true => {
                        Answer::new(307, "text/plain", "").with("Location", "file:///etc/shadow")
                    }
                    false => good.get(request)?,
                })
            });
            Machine::new(netns).refuses(
                &reference(&mock),
                &["its redirect to \"file:///etc/shadow\" is malformed"],
            );
        }),
        row("redirect-to-another-host", redirect_to_another_host),
        row("realm-on-another-host-in-the-clear", realm_in_the_clear),
        row("realm-that-is-none", |netns| {
            let mock = challenge(netns, "127.0.0.1", "Bearer realm=\"not a url\"".to_owned());
            let machine = logged_in(netns, &mock.address);
            machine.refuses(&reference(&mock), &["is not a URL"]);
        }),
        row("token-of-two-lines", |netns| {
            // A token that would be a header of its own.
            let tokens = Mock::start(netns, "127.0.0.1", |_| {
                Some(Answer::new(
                    200,
                    "application/json",
                    "{\"token\": \"abc\\r\\nX-Evil: 1\"}",
                ))
            });
            let mock = challenge(
                netns,
                "127.0.0.1",
                format!("Bearer realm=\"http://{}/token\"", tokens.address),
            );
            Machine::new(netns).refuses(&reference(&mock), &["sent no token"]);
            assert!(
                mock.requests()
                    .iter()
                    .all(|request| request.header("x-evil").is_none())
            );
        }),
        row("password-wanted", |netns| {
            let mock = challenge(netns, "127.0.0.1", "Basic realm=\"x\"".to_owned());
            Machine::new(netns).refuses(
                &reference(&mock),
                &["docker login", "no basic auth credentials"],
            );
        }),
        row("credentials-of-another-registry", |netns| {
            let good = Image::good().files();
            let mock = Mock::start(netns, "127.0.0.1", move |request| good.get(request));
            let machine = logged_in(netns, "127.0.0.1:1");
            machine.pulls(&reference(&mock));
            assert_silent(&mock);
        }),
        row("slow", |netns| {
            let output = eventually_pulled(netns, |request, answer| match is_layer(request) {
                true => answer.after(Duration::from_secs(2)),
                false => answer,
            });
            assert!(output.contains("Pull complete"), "{output}");
        }),
    ]
}

fn octets(body: impl Into<Vec<u8>>) -> Answer {
    Answer::new(200, "application/octet-stream", body)
}

fn is_layer(request: &Request) -> bool {
    request.path.ends_with(&Image::good().layers[0].digest())
}

/// The good image, whose layer is sent with a fault.
#[track_caller]
fn faulty_layer(netns: &'static Netns, fault: fn(Answer) -> Answer, says: &[&str]) {
    let image = Image::good();
    let (digest, good) = (image.layers[0].digest(), image.files());
    let mock = Mock::start(netns, "127.0.0.1", move |request| {
        let answer = good.get(request)?;
        Some(if is_layer(request) {
            fault(answer)
        } else {
            answer
        })
    });
    let says: Vec<&str> = says.iter().copied().chain([digest.as_str()]).collect();
    Machine::new(netns).refuses(&reference(&mock), &says);
}

/// The good image is pulled whole, whatever happens on the way; what was printed on the way.
#[track_caller]
fn eventually_pulled(
    netns: &'static Netns,
    change: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static,
) -> String {
    let good = Image::good().files();
    let mock = Mock::start(netns, "127.0.0.1", move |request| {
        Some(change(request, good.get(request)?))
    });
    let machine = Machine::new(netns);
    let (layers, output) = machine.pulls_and_says(&reference(&mock));
    let text = fs::read_to_string(layers[0].join("f")).expect("the image's file");
    assert_eq!(text, "content ".repeat(10_000));
    output
}

/// A registry that always wants to know who asks.
fn challenge(netns: &Netns, ip: &str, challenge: String) -> Mock {
    Mock::start(netns, ip, move |request| {
        Some(match request.path == "/v2/" {
            true => Answer::new(200, "text/plain", ""),
            false => {
                Answer::new(401, "application/json", "{}").with("WWW-Authenticate", &challenge)
            }
        })
    })
}

/// A machine whose root has logged in to a registry.
fn logged_in(netns: &'static Netns, registry: &str) -> Machine {
    let mut machine = Machine::new(netns);
    let folder = machine.root().join("root/.docker");
    fs::create_dir_all(&folder).expect("a folder");
    let config = format!("{{\"auths\":{{\"{registry}\":{{\"auth\":\"{BASIC}\"}}}}}}");
    fs::write(folder.join("config.json"), config).expect("a login");
    machine.look_again();
    machine
}

#[track_caller]
fn assert_silent(mock: &Mock) {
    for request in mock.requests() {
        assert_eq!(request.header("authorization"), None, "{request:?}");
        assert_eq!(request.header("cookie"), None, "{request:?}");
    }
}

fn redirect_to_another_host(netns: &'static Netns) {
    let image = Image::good();
    let (layer, good) = (image.layers[0].blob.clone(), image.files());
    let storage = Mock::start(netns, ELSEWHERE, move |_| Some(octets(layer.clone())));
    let to = format!("http://{}/stored?signature=1", storage.address);
    let asked = Mutex::new(Vec::new());
    let mock = Mock::start(netns, REGISTRY, move |request| {
        asked.lock().unwrap().push(request.path.clone());
        if request.path != "/v2/"
            && request.header("authorization") != Some(&format!("Basic {BASIC}"))
        {
            return Some(
                Answer::new(401, "text/plain", "").with("WWW-Authenticate", "Basic realm=\"x\""),
            );
        }
        match is_layer(request) {
            true => Some(Answer::new(307, "text/plain", "").with("Location", &to)),
            false => good.get(request),
        }
    });
    let machine = logged_in(netns, &mock.address);
    machine.pulls_with(&["--insecure-registry", &mock.address], &reference(&mock));
    assert_eq!(storage.asked("/stored").len(), 1);
    assert_silent(&storage);
}

fn realm_in_the_clear(netns: &'static Netns) {
    let tokens = Mock::start(netns, ELSEWHERE, |_| {
        Some(Answer::new(200, "application/json", "{\"token\":\"abc\"}"))
    });
    let mock = challenge(
        netns,
        REGISTRY,
        format!(
            "Bearer realm=\"http://{}/token\",service=\"s\"",
            tokens.address
        ),
    );
    let machine = logged_in(netns, &mock.address);
    let options = ["--insecure-registry", &mock.address];
    let host = tokens.address.clone();
    machine.refuses_with(&options, &reference(&mock), &[&host, "without encryption"]);
    assert!(tokens.requests().is_empty(), "{:?}", tokens.requests());
    assert_silent(&mock);
    assert_eq!(mock.asked(MANIFEST).len(), 0);
}
