//! Downloads that break off, and how a pull goes on: resumed, in ranges, shared with another pull, or kept for the next one. The
//! registry is a small HTTP server in this process, which does as each test says.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::files::Files;
use common::server::{Answer, Gate, Request, Server};
use common::*;
use image::pull::{PullEvent, PullOptions, pull};
use image::{Error, ErrorKind, Image, store};

struct Pulled {
    result: Result<Image, Error>,
    events: Vec<PullEvent>,
    store: Store,
}

impl Pulled {
    fn notices(&self) -> Vec<&str> {
        let events = self.events.iter();
        events
            .filter_map(|event| match event {
                PullEvent::Notice(text) => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }
}

fn pull_from(registry: &Server) -> Pulled {
    pull_into(Store::new(), registry)
}

fn pull_into(mut store: Store, registry: &Server) -> Pulled {
    let root = store.path().to_owned();
    let (reference, options) = (registry.reference(), PullOptions::default());
    let mut events = Vec::new();
    let result = pull(&mut store.conn, &root, &reference, &options, &mut |event| {
        events.push(event);
    });
    Pulled {
        result,
        events,
        store,
    }
}

fn tar_of(name: &str, length: usize) -> Vec<u8> {
    let header = Tar::header(tar::EntryType::Regular, name, 0o644);
    Tar::new().add(header, &noise(length)).finish()
}

/// A layer of one file of that many bytes.
fn layer(name: &str, length: usize) -> PackedLayer {
    packed(tar_of(name, length))
}

#[track_caller]
fn assert_file(pulled: &Pulled, name: &str, length: usize) {
    let image = pulled.result.as_ref().unwrap();
    let bytes = std::fs::read(image.layers[0].join(name)).unwrap();
    assert!(bytes == noise(length));
}

#[test]
fn a_download_that_is_cut_at_99_percent_goes_on_there() {
    let files = Files::new(&[layer("f", 1_000_000)]);
    let path = files.layers[0].clone();
    let (watched, size) = (path.clone(), files.by_path[&path].1.len());
    let cut = size / 100 * 99;
    let registry = Server::start(move |request| {
        let mut answer = files.answer(request);
        if request.path == watched && request.number == 0 {
            answer.cut = Some(cut);
        }
        answer
    });
    let pulled = pull_from(&registry);
    assert_file(&pulled, "f", 1_000_000);
    let requests = registry.requests_for(&path);
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].range, Some((cut, size - 1)));
    assert_eq!(requests[1].header("if-range"), Some("\"one\""));
    assert_eq!(pulled.notices().len(), 1);
    assert!(pulled.notices()[0].contains(&format!("after {cut} of {size} bytes")));
}

#[test]
fn a_body_that_ends_early_in_good_order_goes_on_too_and_so_does_a_short_range() {
    let files = Files::new(&[layer("f", 1_000_000)]);
    let path = files.layers[0].clone();
    let watched = path.clone();
    let registry = Server::start(move |request| {
        let mut answer = files.answer(request);
        match (request.path == watched, request.number) {
            (true, 0) => {
                answer.body.truncate(500_000);
                answer.chunked()
            }
            // Less than it was asked for, and it says so.
            (true, 1) => files.answer(&Request {
                range: Some((500_000, 599_999)),
                ..request.clone()
            }),
            _ => answer,
        }
    });
    let pulled = pull_from(&registry);
    assert_file(&pulled, "f", 1_000_000);
    let starts: Vec<_> = registry
        .requests_for(&path)
        .iter()
        .map(|r| r.range.map(|r| r.0))
        .collect();
    assert_eq!(starts, [None, Some(500_000), Some(600_000)]);
    assert_eq!(pulled.notices().len(), 1, "a short range is no failure");
}

#[test]
fn a_registry_that_ignores_ranges_is_read_from_the_start() {
    let files = Files::new(&[layer("f", 1_000_000)]);
    let path = files.layers[0].clone();
    let watched = path.clone();
    let registry = Server::start(move |request| {
        let mut answer = files.answer(&Request {
            range: None,
            ..request.clone()
        });
        if request.path == watched && request.number == 0 {
            answer.cut = Some(700_000);
        }
        answer
    });
    let pulled = pull_from(&registry);
    assert_file(&pulled, "f", 1_000_000);
    assert_eq!(registry.requests_for(&path).len(), 2);
}

/// Cuts the first answer for the layer, and gives `second` for the next one.
fn cut_then(second: impl Fn(Answer) -> Answer + Send + Sync + 'static) -> (Server, String) {
    let files = Files::new(&[layer("f", 1_000_000)]);
    let path = files.layers[0].clone();
    let watched = path.clone();
    let registry = Server::start(move |request| {
        let mut answer = files.answer(request);
        match (request.path == watched, request.number) {
            (true, 0) => {
                answer.cut = Some(700_000);
                answer
            }
            (true, 1) => second(answer),
            _ => answer,
        }
    });
    (registry, path)
}

#[test]
fn ranges_that_were_not_asked_for_are_refused() {
    let ranged = |range: &'static str| {
        move |answer: Answer| {
            let answer = answer.without("Content-Range");
            answer.with("Content-Range", range)
        }
    };
    let (elsewhere, _) = cut_then(ranged("bytes 0-299999/1000000"));
    let (nowhere, _) = cut_then(ranged("lines 1-2/3"));
    let (without, _) = cut_then(|answer| answer.without("Content-Range"));
    let (longer, _) = cut_then(|mut answer| {
        answer.body.push(0);
        answer
    });
    let (ended, _) = cut_then(|_| Answer::of(416));
    for (registry, why) in [
        (&elsewhere, "the registry sent \"bytes 0-299999/1000000\""),
        (&nowhere, "the registry sent \"lines 1-2/3\""),
        (&without, "the registry sent \"\""),
        (&longer, "announced with a length of"),
        (&ended, "the registry has no bytes from 700000 on"),
    ] {
        let pulled = pull_from(registry);
        let error = pulled.result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
        assert!(error.to_string().contains(why), "{error}");
        pulled.store.assert_empty();
    }
}

#[test]
fn a_pause_that_the_registry_asks_for_in_the_middle_is_made_and_said() {
    for status in [429, 503] {
        let (registry, path) = cut_then(move |_| Answer::of(status).with("Retry-After", "1"));
        let pulled = pull_from(&registry);
        assert_file(&pulled, "f", 1_000_000);
        let requests = registry.requests_for(&path);
        let ranges: Vec<_> = requests.iter().map(|r| r.range.map(|r| r.0)).collect();
        assert_eq!(ranges, [None, Some(700_000), Some(700_000)]);
        let notices = pulled.notices();
        assert!(notices[1].contains(&status.to_string()), "{notices:?}");
        assert!(notices[1].ends_with("retrying in 1.0 s"), "{notices:?}");
    }
}

#[test]
fn a_token_that_expires_in_the_middle_is_renewed() {
    let given = AtomicUsize::new(0);
    let tokens = Server::start(move |_| {
        let mut answer = Answer::of(200);
        let number = given.fetch_add(1, Ordering::SeqCst);
        answer.body = format!(r#"{{"token":"t{number}"}}"#).into_bytes();
        answer
    });
    let realm = format!("Bearer realm=\"http://127.0.0.1:{}/token\"", tokens.port);
    let files = Files::new(&[layer("f", 1_000_000)]);
    let path = files.layers[0].clone();
    let (watched, expired) = (path.clone(), AtomicUsize::new(0));
    let registry = Server::start(move |request| {
        let mut answer = files.answer(request);
        let valid = format!("Bearer t{}", expired.load(Ordering::SeqCst));
        if request.path != "/v2/" && request.authorization() != Some(&valid) {
            return Answer::of(401).with("WWW-Authenticate", &realm);
        }
        if request.path == watched && request.range.is_none() {
            expired.store(1, Ordering::SeqCst);
            answer.cut = Some(700_000);
        }
        answer
    });
    let pulled = pull_from(&registry);
    assert_file(&pulled, "f", 1_000_000);
    assert_eq!(tokens.requests().len(), 2);
    let seen: Vec<_> = registry
        .requests_for(&path)
        .iter()
        .map(|r| (r.range.map(|r| r.0), r.authorization().unwrap().to_owned()))
        .collect();
    let (first, second) = ("Bearer t0".to_owned(), "Bearer t1".to_owned());
    assert_eq!(
        seen,
        [
            (None, first.clone()),
            (Some(700_000), first),
            (Some(700_000), second)
        ]
    );
}

#[test]
fn a_large_layer_from_a_slow_connection_comes_in_ranges_at_once() {
    const SIZE: usize = 24 << 20;
    let files = Files::new(&[plain(tar_of("f", SIZE))]);
    let path = files.layers[0].clone();
    let watched = path.clone();
    let registry = Server::start(move |request| {
        let mut answer = files.answer(request);
        if request.path == watched {
            answer.pause = Duration::from_millis(15);
        }
        answer
    });
    let pulled = pull_from(&registry);
    assert_file(&pulled, "f", SIZE);
    let requests = registry.requests_for(&path);
    assert_eq!(requests[0].range, None);
    let mut ranges: Vec<_> = requests.iter().filter_map(|r| r.range).collect();
    assert!(ranges.len() >= 4, "{ranges:?}");
    assert!(ranges.iter().all(|(first, last)| last - first < 4 << 20));
    ranges.sort_unstable();
    assert!(
        ranges.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0),
        "each piece is asked for once: {ranges:?}"
    );
    let parallel = registry.ranges_at_once();
    // An answer counts until this side has seen the end of its sending.
    assert!((2..=8).contains(&parallel), "{parallel}");
    assert_eq!(pulled.notices(), Vec::<&str>::new());
}

#[test]
fn a_registry_that_only_says_that_it_takes_ranges_is_read_by_one_connection() {
    const SIZE: usize = 20 << 20;
    for says in [true, false] {
        let files = Files::new(&[plain(tar_of("f", SIZE))]);
        let path = files.layers[0].clone();
        let watched = path.clone();
        let registry = Server::start(move |request| {
            let mut answer = files.answer(&Request {
                range: None,
                ..request.clone()
            });
            if !says {
                answer = answer.without("Accept-Ranges");
            }
            if request.path == watched && request.range.is_none() {
                answer.pause = Duration::from_millis(8);
            }
            answer
        });
        let pulled = pull_from(&registry);
        assert_file(&pulled, "f", SIZE);
        assert_eq!(registry.requests_for(&path).len(), 1 + usize::from(says));
    }
}

#[test]
fn an_encoded_body_is_refused() {
    let files = Files::new(&[layer("f", 1000)]);
    let path = files.layers[0].clone();
    let registry = Server::start(move |request| {
        let answer = files.answer(request);
        match request.path == path {
            true => answer.with("Content-Encoding", "gzip"),
            false => answer,
        }
    });
    let pulled = pull_from(&registry);
    let error = pulled.result.unwrap_err();
    assert!(error.to_string().contains("encoding \"gzip\""), "{error}");
    pulled.store.assert_empty();
}

/// What is made of three layers while the second one's last byte is held back.
fn held_back() -> (Server, Arc<Gate>, Vec<String>) {
    let files = Files::new(&[layer("a", 1000), layer("b", 2000), layer("c", 3000)]);
    let paths = files.layers.clone();
    let (gate, held) = (Arc::new(Gate::default()), paths[1].clone());
    let shut = gate.clone();
    let registry = Server::start(move |request| {
        let mut answer = files.answer(request);
        if request.path == held {
            answer.gate = Some(shut.clone());
        }
        answer
    });
    (registry, gate, paths)
}

fn layers(store: &Store) -> usize {
    let sql = "SELECT count(*) FROM layers";
    let rows: i64 = store.conn.query_row(sql, [], |row| row.get(0)).unwrap();
    rows as usize
}

#[test]
fn an_interrupted_pull_ends_at_once_and_keeps_the_finished_layers() {
    let (registry, gate, paths) = held_back();
    let mut store = Store::new();
    let root = store.path().to_owned();
    let (reference, options) = (registry.reference(), PullOptions::default());
    let mut finished = 0;
    let result = pull(&mut store.conn, &root, &reference, &options, &mut |event| {
        // Two of three have come.
        finished += usize::from(matches!(event, PullEvent::Extracting { .. }));
        if finished == 2 {
            std::thread::sleep(Duration::from_millis(200));
            options.interrupt.request();
        }
    });
    assert!(matches!(result, Err(Error::Interrupted)), "{result:?}");
    assert_eq!(layers(&store), 1, "the lowest, without a gap");
    store::sweep(&mut store.conn, &root).unwrap();
    assert_eq!(layers(&store), 1, "a sweep lets it be");

    gate.open();
    let pulled = pull_into(store, &registry);
    pulled.result.unwrap();
    let there = |event: &&PullEvent| matches!(event, PullEvent::AlreadyExists { .. });
    assert_eq!(pulled.events.iter().filter(there).count(), 1);
    let counts: Vec<_> = paths
        .iter()
        .map(|p| registry.requests_for(p).len())
        .collect();
    assert_eq!(counts, [1, 2, 2]);
}

#[test]
fn layers_that_are_kept_too_long_go_with_a_sweep() {
    let files = Files::new(&[layer("a", 1000), layer("b", 2000)]);
    let upper = files.layers[1].clone();
    let registry = Server::start(move |request| match request.path == upper {
        true => Answer::of(404),
        false => files.answer(request),
    });
    // The lower one may not have come when the upper one fails.
    let mut store = Store::new();
    while layers(&store) == 0 {
        let pulled = pull_into(store, &registry);
        assert!(matches!(pulled.result, Err(Error::BlobUnknown { .. })));
        store = pulled.store;
    }
    let root = store.path().to_owned();
    store::sweep(&mut store.conn, &root).unwrap();
    assert_eq!(layers(&store), 1);
    let sql = "UPDATE kept_layers SET since = since - 24 * 3600";
    store.conn.execute(sql, []).unwrap();
    store::sweep(&mut store.conn, &root).unwrap();
    store.assert_empty();
}

#[test]
fn two_pulls_at_once_share_the_layers() {
    let names = ["a", "b", "c", "d", "e"];
    let made: Vec<_> = names.iter().map(|name| layer(name, 4000)).collect();
    let files = Files::new(&made);
    let paths = files.layers.clone();
    let gate = Arc::new(Gate::default());
    let shut = gate.clone();
    let registry = Server::start(move |request| {
        let mut answer = files.answer(request);
        if files.layers.contains(&request.path) {
            answer.gate = Some(shut.clone());
        }
        answer
    });
    let store = Store::new();
    let asked = || {
        paths
            .iter()
            .filter(|path| !registry.requests_for(path).is_empty())
            .count()
    };
    let wait_for = |count| {
        while asked() < count {
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    std::thread::scope(|scope| {
        let root = store.path();
        let pull_here = || {
            let mut conn = open(root);
            let (reference, options) = (registry.reference(), PullOptions::default());
            pull(&mut conn, root, &reference, &options, &mut |_| {})
        };
        let first = scope.spawn(pull_here);
        wait_for(3);
        // What the first has no hand free for.
        let second = scope.spawn(pull_here);
        wait_for(5);
        gate.open();
        let (first, second) = (
            first.join().unwrap().unwrap(),
            second.join().unwrap().unwrap(),
        );
        assert_eq!(first.layers, second.layers);
    });
    assert!(
        paths
            .iter()
            .all(|path| registry.requests_for(path).len() == 1)
    );
    assert_eq!(
        store.left_overs().len(),
        2 * 5 + 1,
        "layers with recipes, and an image"
    );
}

#[test]
fn a_layer_that_another_pull_gives_up_is_taken_over() {
    let (registry, gate, paths) = held_back();
    let store = Store::new();
    let root = store.path();
    let options = PullOptions::default();
    let given_up = options.clone();
    let pull_here = |options: PullOptions| {
        let mut conn = open(root);
        let reference = registry.reference();
        let mut waited = false;
        let mut note = |event| {
            waited |= matches!(event, PullEvent::Notice(text) if text.starts_with("waiting for another process"));
            if waited {
                // Only the second one waits, and the first one need not go on any more.
                given_up.interrupt.request();
                gate.open();
            }
        };
        pull(&mut conn, root, &reference, &options, &mut note)
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(|| pull_here(options.clone()));
        while registry.requests_for(&paths[1]).is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let second = scope.spawn(|| pull_here(PullOptions::default()));
        let first = first.join().unwrap();
        assert!(matches!(first, Err(Error::Interrupted)), "{first:?}");
        assert_eq!(second.join().unwrap().unwrap().layers.len(), 3);
    });
}

#[test]
fn packings_of_every_name_and_of_several_parts_are_unpacked() {
    let tar = tar_of("f", 300_000);
    let (a, b) = tar.split_at(100_000);
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    // "Zstandard Compression Format", Skippable Frames.
    let skippable = [
        &0x184d_2a50_u32.to_le_bytes()[..],
        &5_u32.to_le_bytes(),
        b"hello",
    ]
    .concat();
    let members = [gzip(a), gzip(b)].concat();
    let frames = [zstd(a), skippable.clone(), zstd(b), skippable].concat();
    for (media_type, blob) in [
        ("application/vnd.oci.image.layer.v1.tar", tar.clone()),
        ("application/vnd.docker.image.rootfs.diff.tar", tar.clone()),
        (
            "application/vnd.oci.image.layer.v1.tar+gzip",
            members.clone(),
        ),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", members),
        (
            "application/vnd.oci.image.layer.v1.tar+zstd",
            frames.clone(),
        ),
        ("application/vnd.docker.image.rootfs.diff.tar.zstd", frames),
    ] {
        let files = Files::new(&[PackedLayer {
            blob,
            media_type,
            diff_id: sha256(&tar),
        }]);
        let pulled = pull_from(&Server::start(move |request| files.answer(request)));
        assert_file(&pulled, "f", 300_000);
    }
}
