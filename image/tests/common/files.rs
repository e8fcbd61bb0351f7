//! An image as a registry has it: documents and blobs by path.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::server::{Answer, Request, Server};
use super::{PackedLayer, host_architecture, sha256};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const PLAIN_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

#[derive(Clone)]
pub struct Files {
    /// Their media types and bytes.
    pub by_path: HashMap<String, (String, Vec<u8>)>,
    /// The paths of the layers' blobs, the lowest first.
    pub layers: Vec<String>,
    pub manifest: Value,
}

impl Files {
    pub fn new(layers: &[PackedLayer]) -> Files {
        Files::changed(layers, |_| {})
    }

    /// With a manifest that the test has changed.
    pub fn changed(layers: &[PackedLayer], change: impl FnOnce(&mut Value)) -> Files {
        let config = json!({
            "architecture": host_architecture(), "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| &l.diff_id).collect::<Vec<_>>()},
        })
        .to_string()
        .into_bytes();
        let descriptors: Vec<_> = layers
            .iter()
            .map(|l| json!({"mediaType": l.media_type, "digest": sha256(&l.blob), "size": l.blob.len()}))
            .collect();
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": descriptors,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(&config), "size": config.len()},
        });
        change(&mut manifest);
        let mut files = Files {
            by_path: HashMap::new(),
            layers: Vec::new(),
            manifest,
        };
        let text = files.manifest.to_string().into_bytes();
        files.put("/v2/x/manifests/1", MANIFEST, text);
        files.put("/v2/", "text/plain", Vec::new());
        files.put_blob(config);
        for layer in layers {
            let path = files.put_blob(layer.blob.clone());
            files.layers.push(path);
        }
        files
    }

    pub fn put(&mut self, path: &str, content_type: &str, bytes: Vec<u8>) {
        self.by_path
            .insert(path.to_owned(), (content_type.to_owned(), bytes));
    }

    fn put_blob(&mut self, bytes: Vec<u8>) -> String {
        let path = format!("/v2/x/blobs/{}", sha256(&bytes));
        self.put(&path, "application/octet-stream", bytes);
        path
    }

    /// What a plain web server answers.
    pub fn get(&self, path: &str) -> Answer {
        match self.by_path.get(path) {
            Some((content_type, bytes)) => Answer::new(200, content_type, bytes.clone()),
            None => Answer::new(404, "text/plain", "no"),
        }
    }

    /// What an honest registry answers, ranges included.
    pub fn answer(&self, request: &Request) -> Answer {
        let mut answer = self.get(&request.path);
        if answer.status != 200 {
            return answer;
        }
        if let Some((first, last)) = request.range {
            let range = format!("bytes {first}-{last}/{}", answer.body.len());
            answer = answer.with("Content-Range", &range);
            answer.body = answer.body[first..=last].to_vec();
            answer.status = 206;
        }
        answer
            .with("Accept-Ranges", "bytes")
            .with("ETag", "\"one\"")
    }

    pub fn serve(self) -> Server {
        Server::start(move |request| self.get(&request.path))
    }
}
