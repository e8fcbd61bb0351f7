//! What the layout on disk has, as a server of the test's own gives it.

use std::collections::HashMap;
use std::fs;

use harness::mock::Answer;

use crate::world::World;

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
            Some((kind, bytes)) => Answer::new(200, kind, bytes.clone()),
            None => Answer::of(404),
        }
    }
}
