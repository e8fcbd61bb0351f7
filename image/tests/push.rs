//! Pushes to a registry that misbehaves: cuts, refusals, lost uploads, and where credentials go.

mod common;
#[path = "push/server.rs"]
mod server;

use common::server::{Answer, Server};
use common::*;
use image::push::{PushEvent, PushOptions, push};
use image::registry::Registries;
use image::{Error, ErrorKind, Reference, archive};
use serde_json::Value;
use server::{Fault, Registry};

const MIB: usize = 1 << 20;

/// A store with an image of one layer that does not shrink, of some 10 MiB.
fn image_for(server: &Registry) -> (Store, Reference) {
    let mut store = Store::new();
    let root = store.path().to_owned();
    let name = server.reference();
    let tar = Tar::new()
        .add(
            Tar::header(tar::EntryType::Regular, "noise", 0o644),
            &noise(10 * MIB),
        )
        .finish();
    let options = archive::ImportOptions {
        name: Some(&name),
        ..archive::ImportOptions::default()
    };
    archive::import(&mut store.conn, &root, &mut &*tar, &options).unwrap();
    (store, name)
}

fn push_with(
    store: &mut Store,
    name: &Reference,
    change: impl FnOnce(&mut PushOptions),
) -> (Result<(), Error>, Vec<PushEvent>) {
    let root = store.path().to_owned();
    let mut options = PushOptions::default();
    change(&mut options);
    let mut events = Vec::new();
    let result = push(&mut store.conn, &root, name, &options, &mut |event| {
        events.push(event);
    });
    (result, events)
}

/// Pushes, and finds all that the manifest promises.
#[track_caller]
fn arrives(server: &Registry, change: impl FnOnce(&mut PushOptions)) {
    let (mut store, name) = image_for(server);
    push_with(&mut store, &name, change).0.unwrap();
    is_whole(server);
}

#[track_caller]
fn is_whole(server: &Registry) {
    let state = server.state();
    let manifest: Value = serde_json::from_slice(&state.manifests["1"]).unwrap();
    for part in [&manifest["config"], &manifest["layers"][0]] {
        let blob = &state.blobs[part["digest"].as_str().unwrap()];
        assert_eq!(part["size"], blob.len());
    }
}

fn refused(status: u16) -> Option<Fault> {
    Some(Fault::Answer(Answer::of(status)))
}

/// True for the one request that this has been asked about `n` requests before.
fn nth(n: usize) -> impl Fn() -> bool {
    let seen = std::sync::atomic::AtomicUsize::new(0);
    move || seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == n
}

#[test]
fn an_upload_that_was_cut_goes_on_where_it_was() {
    let second = nth(1);
    let server = Registry::start(move |request, _| {
        (request.is("PATCH", "/uploads/") && second()).then_some(Fault::CutAfter(1_000_001))
    });
    arrives(&server, |_| {});
    assert_eq!(
        server.asked("POST", "/uploads/"),
        2,
        "of the layer and of the config"
    );
    let sent: usize = server.lengths("PATCH").iter().sum();
    assert!((10 * MIB..15 * MIB).contains(&sent), "{sent}");
}

#[test]
fn an_upload_that_was_lost_begins_again() {
    let (second, first) = (nth(1), nth(0));
    let server = Registry::start(move |request, _| {
        if request.is("PATCH", "/uploads/") && second() {
            return Some(Fault::CutAfter(0));
        }
        (request.is("GET", "/uploads/") && first()).then(|| Fault::Answer(Answer::of(404)))
    });
    arrives(&server, |_| {});
    assert_eq!(server.asked("POST", "/uploads/"), 3);
}

#[test]
fn a_registry_without_pieces_gets_blobs_whole() {
    for status in [405, 501] {
        let server = Registry::start(move |request, _| {
            request
                .is("PATCH", "")
                .then(|| Fault::Answer(Answer::of(status)))
        });
        arrives(&server, |_| {});
        assert_eq!(server.asked("PATCH", ""), 1);
    }
    let server = Registry::honest();
    arrives(&server, |options| options.whole = true);
    assert_eq!(server.asked("PATCH", ""), 0);
}

#[test]
fn a_blob_whole_is_packed_and_sent_again_after_a_cut() {
    let first = nth(0);
    let server = Registry::start(move |request, _| {
        (request.length > MIB && first()).then_some(Fault::CutAfter(3 * MIB))
    });
    arrives(&server, |options| options.whole = true);
    assert_eq!(server.asked("PUT", "/uploads/"), 3);
}

#[test]
fn pieces_shrink_to_what_a_proxy_lets_through() {
    let server = Registry::start(|request, _| {
        (request.length > MIB).then(|| Fault::Answer(Answer::of(413)))
    });
    arrives(&server, |_| {});
    assert!(
        server
            .lengths("PATCH")
            .iter()
            .filter(|length| **length <= MIB)
            .count()
            >= 10
    );

    let server = Registry::start(|request, _| {
        (request.length > 1000).then(|| Fault::Answer(Answer::of(413)))
    });
    let (mut store, name) = image_for(&server);
    let error = push_with(&mut store, &name, |_| {}).0.unwrap_err();
    assert!(
        error.to_string().contains("client_max_body_size"),
        "{error}"
    );
}

#[test]
fn the_length_that_a_registry_wants_pieces_to_have_is_kept() {
    let server = Registry::honest();
    server.state().least = Some(5 * MIB);
    arrives(&server, |_| {});
    let lengths = server.lengths("PATCH");
    let (_, before) = lengths.split_last().unwrap();
    assert!(
        before.iter().all(|length| *length >= 5 * MIB),
        "{lengths:?}"
    );

    let server = Registry::honest();
    server.state().least = Some(100 * MIB);
    arrives(&server, |_| {});
    assert_eq!(server.asked("PATCH", ""), 0);
}

#[test]
fn a_busy_registry_is_waited_for() {
    let (first, second) = (nth(0), nth(0));
    let server = Registry::start(move |request, _| {
        let due =
            request.is("PATCH", "") && first() || request.is("PUT", "/manifests/") && second();
        due.then(|| Fault::Answer(Answer::of(503).with("Retry-After", "0")))
    });
    arrives(&server, |_| {});
}

#[test]
fn a_storage_server_sees_no_credentials() {
    let storage = Registry::honest();
    let there = storage.clone();
    let registry = Registry::start(move |request, _| {
        if request.authorization().is_none() {
            let ask = Answer::of(401).with("WWW-Authenticate", "Basic realm=\"x\"");
            return Some(Fault::Answer(ask));
        }
        if request.is("POST", "/uploads/") {
            // The other server has it from here on.
            let upload = format!("{}?state={}", request.path, there.state().uploads.len());
            there.state().uploads.insert(upload.clone(), Vec::new());
            there.state().host = format!("http://127.0.0.1:{}", there.port);
            let location = format!("http://127.0.0.1:{}{upload}", there.port);
            return Some(Fault::Answer(Answer::of(202).with("Location", &location)));
        }
        None
    });
    let (mut store, name) = image_for(&registry);
    let credentials = |options: &mut PushOptions| {
        options.registries = Registries {
            credentials: Some(("user".into(), "secret".into())),
            ..Registries::default()
        };
    };
    push_with(&mut store, &name, credentials).0.unwrap();
    assert_eq!(storage.state().blobs.len(), 2);
    let seen = storage.requests();
    assert!(seen.iter().all(|it| it.authorization().is_none()));
}

#[test]
fn a_mount_asks_for_a_token_that_is_good_for_both_repositories() {
    let tokens = Server::start(|request| {
        let scopes = request.path.matches("scope=").count();
        Answer::new(
            200,
            "application/json",
            format!("{{\"token\":\"{scopes}\"}}"),
        )
    });
    let realm = format!("http://127.0.0.1:{}/token", tokens.port);
    let server = Registry::start(move |request, _| {
        let needed = match request.path.contains("mount=") {
            true => "Bearer 2",
            false => "Bearer 1",
        };
        if request.path != "/v2/" && request.authorization() < Some(needed) {
            let repository = request.path.split('/').nth(2).unwrap();
            let ask =
                format!("Bearer realm=\"{realm}\",scope=\"repository:{repository}:pull,push\"");
            return Some(Fault::Answer(
                Answer::of(401).with("WWW-Authenticate", &ask),
            ));
        }
        match request.is("POST", "mount=") {
            true => refused(201),
            false => None,
        }
    });
    let (mut store, name) = image_for(&server);
    push_with(&mut store, &name, |_| {}).0.unwrap();
    let before = server.asked("PATCH", "");
    let other = Reference {
        repository: "y".into(),
        ..name.clone()
    };
    image::store::name_again(&mut store.conn, &name.full(), &other.full()).unwrap();
    // This registry shows all blobs everywhere; without that, nothing would have to be mounted.
    server.state().blobs.clear();
    let (result, events) = push_with(&mut store, &other, |_| {});
    result.unwrap();
    let mounted =
        |event: &PushEvent| matches!(event, PushEvent::Mounted { from, .. } if from == "x");
    assert!(events.iter().any(mounted), "{events:?}");
    assert_eq!(server.asked("PATCH", ""), before);
    let both = "scope=repository%3Ay%3Apull%2Cpush&scope=repository%3Ax%3Apull";
    assert_eq!(tokens.count(both), 1);
}

#[test]
fn a_mount_that_comes_to_nothing_is_an_upload() {
    // 202: the registry begins an upload in its place.
    let server = Registry::honest();
    let (mut store, name) = image_for(&server);
    push_with(&mut store, &name, |_| {}).0.unwrap();
    server.state().blobs.clear();
    let other = Reference {
        repository: "y".into(),
        ..name.clone()
    };
    image::store::name_again(&mut store.conn, &name.full(), &other.full()).unwrap();
    push_with(&mut store, &other, |_| {}).0.unwrap();
    is_whole(&server);
    assert_eq!(server.asked("POST", "mount="), 1);
    assert!(
        server.state().uploads.is_empty(),
        "nothing is left half done"
    );
}

#[test]
fn a_manifest_that_was_understood_otherwise_is_an_error() {
    let server = Registry::start(|request, _| {
        let answer = Answer::of(201).with("Docker-Content-Digest", &sha256(b"another"));
        request
            .is("PUT", "/manifests/")
            .then_some(Fault::Answer(answer))
    });
    let (mut store, name) = image_for(&server);
    let error = push_with(&mut store, &name, |_| {}).0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
}

#[test]
fn a_refusal_is_told_in_dockers_words() {
    let server = Registry::start(|request, _| match request.is("POST", "") {
        true => refused(403),
        false => None,
    });
    let (mut store, name) = image_for(&server);
    let error = push_with(&mut store, &name, |_| {}).0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    let text = error.to_string();
    assert!(
        text.starts_with("denied: requested access to the resource is denied"),
        "{text}"
    );
}

#[test]
fn a_damaged_layer_is_not_pushed() {
    let server = Registry::honest();
    let (mut store, name) = image_for(&server);
    let image = image::store::find(&store.conn, store.path(), &name.full());
    std::fs::write(image.unwrap().unwrap().layers[0].join("noise"), "other").unwrap();
    let error = push_with(&mut store, &name, |_| {}).0.unwrap_err();
    assert!(error.to_string().contains("is damaged"), "{error}");
    assert!(server.state().manifests.is_empty());
    assert!(
        server.state().uploads.is_empty(),
        "nothing is left half done"
    );
}
