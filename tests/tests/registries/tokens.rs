//! A registry of the test's own that wants a token with each request, and gives what the layout on disk has.

use std::collections::HashMap;
use std::fs;
use std::sync::Mutex;

use crate::mock::{self, Answer};
use crate::world::World;

/// A registry in front of the store that wants a token, from the token server at `realm`.
pub fn with_tokens(world: &World, realm: &str) -> mock::Seen {
    let realm = realm.to_owned();
    let served = Mutex::new(0);
    let store = StoreFront::new(world);
    mock::serve(&world.host, "127.0.0.1:5000", move |request| {
        let mut served = served.lock().unwrap();
        // Each token is good for two requests.
        let good = format!("Bearer token-{}", *served / 2 + 1);
        if request.authorization() != Some(&good) {
            let challenge = format!("Bearer realm=\"{realm}\",service=\"store\"");
            return Answer(401, vec![("WWW-Authenticate", challenge)], vec![]);
        }
        *served += 1;
        store.answer(&request.path)
    })
}

/// What a registry answers, from the layout.
pub struct StoreFront {
    answers: HashMap<String, (String, Vec<u8>)>,
}

impl StoreFront {
    pub fn new(world: &World) -> StoreFront {
        let layout = world.folder("layout");
        let read = |digest: &str| {
            let hex = digest.strip_prefix("sha256:").unwrap();
            fs::read(layout.join("blobs/sha256").join(hex)).unwrap()
        };
        let index: serde_json::Value =
            serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
        let top = index["manifests"][0]["digest"].as_str().unwrap();
        let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
        let manifest: serde_json::Value = serde_json::from_slice(&read(top)).unwrap();
        let mut answers = HashMap::new();
        let path = "/v2/library/bb/manifests/1".to_owned();
        answers.insert(path, (media_type, read(top)));
        let layers = manifest["layers"].as_array().unwrap();
        for blob in layers.iter().chain([&manifest["config"]]) {
            let digest = blob["digest"].as_str().unwrap();
            let bytes = ("application/octet-stream".to_owned(), read(digest));
            answers.insert(format!("/v2/library/bb/blobs/{digest}"), bytes);
        }
        answers.insert("/v2/".to_owned(), ("text/plain".to_owned(), Vec::new()));
        StoreFront { answers }
    }

    pub fn answer(&self, path: &str) -> Answer {
        match self.answers.get(path) {
            Some((kind, bytes)) => Answer(200, vec![("Content-Type", kind.clone())], bytes.clone()),
            None => Answer(404, vec![], vec![]),
        }
    }
}
