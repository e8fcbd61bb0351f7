//! Token servers: what they are told, and which of their tokens is kept.

use std::sync::Mutex;

use harness::mock::{Answer, Mock};
use harness::registry::{PASSWORD, USER};

use crate::LOCAL;
use crate::front::StoreFront;
use crate::world::{World, base64};

/// A registry in front of the store that wants a token, from the token server at `realm`.
fn with_tokens(world: &World, realm: &str) -> Mock {
    let realm = realm.to_owned();
    let served = Mutex::new(0);
    let store = StoreFront::new(world);
    world.mock("127.0.0.1:5000", move |request| {
        let mut served = served.lock().unwrap();
        // Each token is good for two requests.
        let good = format!("Bearer token-{}", *served / 2 + 1);
        if request.authorization() != Some(&good) {
            let challenge = format!("Bearer realm=\"{realm}\",service=\"store\"");
            return Answer::of(401).with("WWW-Authenticate", &challenge);
        }
        *served += 1;
        store.answer(&request.path)
    })
}

#[test]
fn an_expired_token_is_asked_for_again_and_an_identity_token_is_exchanged() {
    let world = World::new();
    let given = Mutex::new(0);
    let tokens = world.mock("127.0.0.1:5001", move |request| {
        let mut given = given.lock().unwrap();
        let asked = [
            "grant_type=refresh_token&refresh_token=identity%2F1&service=store&scope=",
            "grant_type=refresh_token&refresh_token=identity%2F1&service=store&scope=repository%3Alibrary%2Fbb%3Apull&client_id=",
        ];
        let fits = asked.iter().any(|it| request.body.starts_with(it));
        if request.method != "POST" || request.authorization().is_some() || !fits {
            return Answer::json(401, "{}");
        }
        *given += 1;
        let token = format!("{{\"access_token\":\"token-{}\",\"expires_in\":1}}", *given);
        Answer::json(200, token)
    });
    let registry = with_tokens(&world, "http://127.0.0.1:5001/token");
    let auth = base64("me:");
    world.write_config(&format!(
        "{{\"auths\":{{\"127.0.0.1:5000\":{{\"auth\":\"{auth}\",\"identitytoken\":\"identity/1\"}}}}}}"
    ));
    world.pulls(&[], LOCAL);
    assert_eq!(
        tokens.requests().len(),
        2,
        "three documents, two for each token"
    );
    let refused = registry
        .requests()
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
    assert!(tokens.requests().iter().all(|it| it.method == "POST"));
}

#[test]
fn a_token_servers_identity_token_is_kept_in_place_of_the_password() {
    let world = World::new();
    let tokens = world.mock("127.0.0.1:5001", |request| {
        let basic = format!("Basic {}", base64("me:secret"));
        match (request.method.as_str(), request.authorization()) {
            ("GET", Some(given)) if given == basic => {
                Answer::json(200, r#"{"token":"token-1","refresh_token":"identity"}"#)
            }
            ("POST", None) if request.body.contains("refresh_token=identity&") => {
                Answer::json(200, r#"{"access_token":"token-1"}"#)
            }
            _ => Answer::json(401, "{}"),
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
    assert_eq!(tokens.requests().last().unwrap().path, asked);
    let kept = &world.config()["auths"]["127.0.0.1:5000"];
    assert_eq!(kept["identitytoken"], "identity");
    assert_eq!(kept["auth"], base64("me:").as_str(), "without the password");
    // It counts for the next login.
    world
        .host
        .run("login 127.0.0.1:5000")
        .says("Login Succeeded")
        .complains("Authenticating with existing credentials... [Username: me]");
    assert_eq!(tokens.requests().last().unwrap().method, "POST");
}

#[test]
fn a_token_server_elsewhere_sees_no_password_in_the_clear() {
    let world = World::new();
    let tokens = world.mock("192.0.2.1:5001", |_| {
        Answer::json(200, r#"{"token":"token-1"}"#)
    });
    let _registry = with_tokens(&world, "http://192.0.2.1:5001/token");
    world.logged_in(&["127.0.0.1:5000"]);
    world.refuses(&[], LOCAL).complains(
        "its token server 192.0.2.1:5001 is another host without encryption, and would see them",
    );
    assert!(tokens.requests().is_empty());
    // It was listed: then it may.
    let output = world
        .host
        .coracle(["--insecure-registry", "192.0.2.1:5001", "pull", LOCAL]);
    drop(output);
    let basic = format!("Basic {}", base64(&format!("{USER}:{PASSWORD}")));
    assert!(
        tokens
            .requests()
            .iter()
            .all(|it| it.authorization() == Some(&basic))
    );
    assert!(!tokens.requests().is_empty());
}
