//! An image as its documents and blobs, which a row changes as it wants before they are served.

use std::collections::BTreeMap;

use harness::mock::{Answer, Mock, Request};
use harness::{Netns, Tape, oci, tape};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
pub const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// Where the mock serves an image of one name and one tag.
pub const TOP: &str = "/v2/x/manifests/1";

pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", oci::hex(&Sha256::digest(bytes)))
}

/// A layer as it is sent, and what the config says of it.
#[derive(Clone, Debug)]
pub struct Layer {
    pub blob: Vec<u8>,
    pub media_type: &'static str,
    pub diff_id: String,
}

impl Layer {
    pub fn plain(tar: Vec<u8>) -> Layer {
        Layer {
            diff_id: sha256(&tar),
            blob: tar,
            media_type: PLAIN,
        }
    }

    pub fn gzip(tar: &[u8]) -> Layer {
        Layer {
            blob: tape::gzip(tar),
            media_type: GZIP,
            diff_id: sha256(tar),
        }
    }

    pub fn digest(&self) -> String {
        sha256(&self.blob)
    }

    /// As people see it: the first 12 digits.
    pub fn short(&self) -> String {
        self.digest()[7..19].to_owned()
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest(), "size": self.blob.len()})
    }
}

#[derive(Clone, Debug)]
pub struct Image {
    pub layers: Vec<Layer>,
    pub config: Value,
    /// Changed last, when all digests are known.
    pub manifest: Value,
}

impl Image {
    pub fn of(layers: Vec<Layer>) -> Image {
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let config = json!({
            "architecture": oci::this_architecture(), "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        Image::with_config(layers, config)
    }

    pub fn with_config(layers: Vec<Layer>, config: Value) -> Image {
        let bytes = config.to_string();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": sha256(bytes.as_bytes()), "size": bytes.len()},
            "layers": layers.iter().map(Layer::descriptor).collect::<Vec<_>>(),
        });
        Image {
            layers,
            config,
            manifest,
        }
    }

    /// A good image of one layer of some size.
    pub fn good() -> Image {
        Image::of(vec![Layer::plain(
            Tape::new().file("f", "content ".repeat(10_000)).finish(),
        )])
    }

    /// The good image with another manifest.
    pub fn changed(change: impl FnOnce(&mut Value)) -> Image {
        let mut image = Image::good();
        change(&mut image.manifest);
        image
    }

    pub fn files(&self) -> Files {
        let mut files = Files::default();
        files.put("/v2/", "text/plain", "");
        files.put_blob(self.config.to_string());
        for layer in &self.layers {
            files.put_blob(layer.blob.clone());
        }
        files.put(TOP, MANIFEST, self.manifest.to_string());
        files
    }
}

/// What a server has, by path: type and bytes.
#[derive(Clone, Debug, Default)]
pub struct Files {
    by_path: BTreeMap<String, (String, Vec<u8>)>,
}

impl Files {
    pub fn put(&mut self, path: &str, content_type: &str, bytes: impl Into<Vec<u8>>) {
        let file = (content_type.to_owned(), bytes.into());
        self.by_path.insert(path.to_owned(), file);
    }

    pub fn put_blob(&mut self, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        let path = format!("/v2/x/blobs/{}", sha256(&bytes));
        self.put(&path, "application/octet-stream", bytes);
    }

    pub fn get(&self, request: &Request) -> Option<Answer> {
        let (content_type, bytes) = self.by_path.get(&request.path)?;
        Some(Answer::new(200, content_type, bytes.clone()))
    }

    pub fn serve(self, netns: &Netns) -> Mock {
        Mock::start(netns, "127.0.0.1", move |request| self.get(request))
    }
}

/// What `pull` is asked for.
pub fn reference(mock: &Mock) -> String {
    format!("{}/x:1", mock.address)
}
