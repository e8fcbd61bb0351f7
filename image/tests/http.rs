//! Pulls from a registry that misbehaves: a small HTTP server in this process, which does as each test says.

mod common;

use std::sync::Mutex;

use common::files::{Files, INDEX, MANIFEST};
use common::server::{Answer, Server};
use common::*;
use image::pull::{PullEvent, PullOptions, pull};
use image::registry::Registries;
use image::{Error, ErrorKind, Image};
use serde_json::{Value, json};

/// An image of one plain layer.
fn files() -> Files {
    changed(|_| {})
}

fn changed(change: impl FnOnce(&mut Value)) -> Files {
    let content = "content ".repeat(10_000);
    let tar = Tar::new().file("f", 0o644, &content).finish();
    Files::changed(&[plain(tar)], change)
}

struct Pulled {
    result: Result<Image, Error>,
    notices: Vec<String>,
    store: Store,
}

fn pull_with(server: &Server, credentials: Option<(&str, &str)>) -> Pulled {
    let mut store = Store::new();
    let root = store.path().to_owned();
    let options = PullOptions {
        registries: Registries {
            credentials: credentials.map(|(user, password)| (user.to_owned(), password.to_owned())),
            ..Registries::default()
        },
        ..PullOptions::default()
    };
    let mut notices = Vec::new();
    let mut note = |event| {
        if let PullEvent::Notice(text) = event {
            notices.push(text);
        }
    };
    let result = pull(
        &mut store.conn,
        &root,
        &server.reference(),
        &options,
        &mut note,
    );
    Pulled {
        result,
        notices,
        store,
    }
}

#[track_caller]
fn refused(server: &Server, why: &str) {
    let pulled = pull_with(server, None);
    let error = pulled.result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
    assert!(error.to_string().contains(why), "{error}");
    pulled.store.assert_empty();
}

#[test]
fn a_plain_tar_layer_from_a_plain_server_is_pulled() {
    let pulled = pull_with(&files().serve(), None);
    assert!(pulled.result.unwrap().layers[0].join("f").is_file());
}

#[test]
fn a_bearer_token_is_fetched_and_the_password_goes_to_the_token_server_alone() {
    let files = files();
    let tokens = Server::start(|request| {
        let basic = "Basic dXNlcjpzZWNyZXQ=";
        let ok = request.authorization() == Some(basic)
            && request.path == "/token?service=test%20service&scope=repository%3Ax%3Apull";
        let body = if ok {
            r#"{"access_token":"abc"}"#
        } else {
            "{}"
        };
        Answer::new(if ok { 200 } else { 401 }, "application/json", body)
    });
    let realm = format!("http://127.0.0.1:{}/token", tokens.port);
    let server = Server::start(move |request| {
        if request.path != "/v2/" && request.authorization() != Some("Bearer abc") {
            let challenge = format!(
                "Bearer realm=\"{realm}\",service=\"test service\",scope=\"repository:x:pull\""
            );
            return Answer::new(401, "application/json", "{}").with("WWW-Authenticate", &challenge);
        }
        files.get(&request.path)
    });
    let pulled = pull_with(&server, Some(("user", "secret")));
    pulled.result.unwrap();
    assert_eq!(tokens.count("/token"), 1, "one token serves all requests");
    let requests = server.requests();
    let mut told = requests.iter().filter_map(|it| it.authorization());
    assert!(told.all(|it| it == "Bearer abc"));

    let error = pull_with(&server, Some(("user", "wrong")))
        .result
        .unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    let error = pull_with(&server, None).result.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("pull access denied for 127.0.0.1:"),
        "{error}"
    );
}

#[test]
fn a_redirect_to_another_host_takes_no_authorization_along() {
    let files = files();
    let layer = files.layers[0].clone();
    let (path, tar) = (layer.clone(), files.by_path[&layer].1.clone());
    let storage = Server::start(move |_| Answer::new(200, "application/octet-stream", tar.clone()));
    let to = format!("http://127.0.0.1:{}/stored?signature=1", storage.port);
    let server = Server::start(move |request| {
        if request.path == "/v2/" {
            return files.get("/v2/");
        }
        if request.authorization().is_none() {
            return Answer::new(401, "text/plain", "")
                .with("WWW-Authenticate", "Basic realm=\"x\"");
        }
        match request.path == path {
            true => Answer::new(307, "text/plain", "").with("Location", &to),
            false => files.get(&request.path),
        }
    });
    pull_with(&server, Some(("user", "secret"))).result.unwrap();
    let stored = storage.requests();
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].authorization(), None);
    let asked = server.requests_for(&layer);
    assert!(!asked.is_empty() && asked.iter().all(|it| it.authorization().is_some()));
}

#[test]
fn endless_redirects_end() {
    let server =
        Server::start(|_| Answer::new(302, "text/plain", "").with("Location", "/v2/again"));
    refused(&server, "redirects");
}

#[test]
fn a_busy_registry_is_asked_again_and_the_user_is_told() {
    let files = files();
    let tries = Mutex::new(0);
    let server = Server::start(move |request| {
        let mut tries = tries.lock().unwrap();
        *tries += 1;
        match (&*request.path, *tries) {
            ("/v2/", _) => files.get("/v2/"),
            (_, 2) => Answer::new(503, "text/plain", ""),
            (_, 3) => Answer::new(429, "text/plain", "").with("Retry-After", "1"),
            (path, _) => files.get(path),
        }
    });
    let begun = std::time::Instant::now();
    let pulled = pull_with(&server, None);
    pulled.result.unwrap();
    assert!(begun.elapsed().as_millis() >= 1250);
    assert_eq!(pulled.notices.len(), 2, "{:?}", pulled.notices);
    assert!(
        pulled.notices[1].ends_with("retrying in 1.0 s"),
        "{:?}",
        pulled.notices
    );
}

#[test]
fn a_registry_that_asks_for_a_long_pause_is_an_error_that_says_so() {
    let server = Server::start(|request| match &*request.path {
        "/v2/" => Answer::new(200, "text/plain", ""),
        _ => Answer::new(429, "text/plain", "").with("Retry-After", "3600"),
    });
    let error = pull_with(&server, None).result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("asks to wait 3600 s"), "{error}");
}

#[test]
fn a_download_that_is_cut_begins_again() {
    let files = files();
    let cuts = Mutex::new(2);
    let path = files.layers[0].clone();
    let server = Server::start(move |request| {
        let mut response = files.get(&request.path);
        let mut cuts = cuts.lock().unwrap();
        if request.path == path && *cuts > 0 {
            *cuts -= 1;
            response.cut = Some(response.body.len() - 100);
        }
        response
    });
    let pulled = pull_with(&server, None);
    assert!(pulled.result.unwrap().layers[0].join("f").is_file());
    assert_eq!((pulled.notices.len(), server.count("blobs")), (2, 4));
}

#[test]
fn a_download_that_is_always_cut_fails_and_leaves_nothing() {
    let files = files();
    let path = files.layers[0].clone();
    let server = Server::start(move |request| {
        let mut response = files.get(&request.path);
        response.cut = (request.path == path).then_some(1000);
        response
    });
    let pulled = pull_with(&server, None);
    let error = pulled.result.unwrap_err();
    assert!(matches!(error, Error::BrokenOff { .. }), "{error}");
    pulled.store.assert_empty();
}

#[test]
fn bodies_of_the_wrong_length_are_refused() {
    for (change, why) in [(1_i64, "the manifest says"), (-1, "the manifest says")] {
        let files = changed(|manifest| {
            let size = manifest["layers"][0]["size"].as_i64().unwrap();
            manifest["layers"][0]["size"] = (size + change).into();
        });
        refused(&files.serve(), why);
    }
    // Without a Content-Length the bytes are counted.
    let files = changed(|manifest| {
        let size = manifest["layers"][0]["size"].as_i64().unwrap();
        manifest["layers"][0]["size"] = (size - 512).into();
    });
    let path = files.layers[0].clone();
    let server = Server::start(move |request| {
        let mut response = files.get(&request.path);
        if request.path == path {
            response = response.chunked();
        }
        response
    });
    refused(&server, "it is longer than the");
    let config = changed(|manifest| manifest["config"]["size"] = 10.into());
    refused(&config.serve(), "longer than 10 bytes");
}

#[test]
fn a_manifest_that_is_not_what_its_digest_says_is_refused() {
    let mut files = files();
    let manifest = files.manifest.to_string().into_bytes();
    let wanted = sha256(b"another");
    files.put(
        &format!("/v2/x/manifests/{wanted}"),
        MANIFEST,
        manifest.clone(),
    );
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{
        "mediaType": MANIFEST, "digest": wanted, "size": manifest.len(),
        "platform": {"os": "linux", "architecture": host_architecture()},
    }]});
    files.put("/v2/x/manifests/1", INDEX, index.to_string().into_bytes());
    refused(&files.serve(), "the registry sent sha256:");
}

#[test]
fn documents_that_mean_harm_are_refused() {
    let with = |content_type: &str, bytes: Vec<u8>| {
        let mut files = files();
        files.put("/v2/x/manifests/1", content_type, bytes);
        files.serve()
    };
    let both = changed(|manifest| manifest["manifests"] = json!([]));
    refused(&both.serve(), "both manifests and layers");
    let json = files().manifest.to_string().into_bytes();
    refused(&with(INDEX, json), "was sent as");
    refused(
        &with(MANIFEST, vec![b' '; 5 << 20]),
        "longer than 4194304 bytes",
    );
    refused(&with(MANIFEST, b"<html>".to_vec()), "not a manifest");
    let traversal = changed(|m| m["layers"][0]["digest"] = "sha256:../../x".into());
    refused(&traversal.serve(), "not a sha256 digest");
    let foreign = changed(|m| m["layers"][0]["urls"] = json!(["http://127.0.0.1:1/"]));
    refused(&foreign.serve(), "come from elsewhere");
    let twice = changed(|m| {
        let layer = m["layers"][0].clone();
        m["layers"].as_array_mut().unwrap().push(layer);
    });
    refused(&twice.serve(), "names 1 layers and the manifest 2");
}

#[test]
fn indexes_nested_too_deeply_are_refused() {
    let mut files = files();
    let manifest = files.manifest.to_string().into_bytes();
    let mut inner = (MANIFEST, manifest);
    for _ in 0..3 {
        files.put(
            &format!("/v2/x/manifests/{}", sha256(&inner.1)),
            inner.0,
            inner.1.clone(),
        );
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{
            "mediaType": inner.0, "digest": sha256(&inner.1), "size": inner.1.len(),
            "platform": {"os": "linux", "architecture": host_architecture()},
        }]});
        inner = (INDEX, index.to_string().into_bytes());
    }
    files.put("/v2/x/manifests/1", INDEX, inner.1);
    refused(&files.serve(), "nested too deeply");
}

#[test]
fn a_killed_pulls_staging_goes_with_the_next_one() {
    let server = files().serve();
    let mut store = Store::new();
    let root = store.path().to_owned();
    let dead = root.join("layers/.staging/dead/0");
    std::fs::create_dir_all(&dead).unwrap();
    std::fs::write(dead.join("half"), "x").unwrap();
    pull(
        &mut store.conn,
        &root,
        &server.reference(),
        &PullOptions::default(),
        &mut |_| {},
    )
    .unwrap();
    assert!(!dead.exists());
    // The layer, its recipe, and the image.
    assert_eq!(store.left_overs().len(), 3, "{:?}", store.left_overs());
}
