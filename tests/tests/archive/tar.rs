//! Tars written by hand, so that a test knows every byte of an archive; and those of images, right ones and others.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use harness::oci::hex;

/// A tar in the making.
#[derive(Clone, Default)]
pub struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    pub fn new() -> Tar {
        Tar::default()
    }

    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Tar {
        let content = content.as_ref();
        let mut tar = self.header(name, b'0', "", content.len());
        tar.bytes.extend_from_slice(content);
        tar.bytes.resize(tar.bytes.len().next_multiple_of(512), 0);
        tar
    }

    pub fn json(self, name: &str, content: &Value) -> Tar {
        self.file(name, content.to_string())
    }

    pub fn symlink(self, name: &str, target: &str) -> Tar {
        self.header(name, b'2', target, 0)
    }

    pub fn hard_link(self, name: &str, target: &str) -> Tar {
        self.header(name, b'1', target, 0)
    }

    /// A header that promises `size` bytes.
    pub fn header(mut self, name: &str, kind: u8, link: &str, size: usize) -> Tar {
        let mut block = [0; 512];
        let mut put = |at: usize, text: &str| {
            block[at..at + text.len()].copy_from_slice(text.as_bytes());
        };
        put(0, name);
        put(100, "0000644\0");
        put(108, "0000000\0");
        put(116, "0000000\0");
        put(124, &format!("{size:011o}\0"));
        put(136, "00000000000\0");
        put(148, "        ");
        put(157, link);
        put(257, "ustar\x0000");
        block[156] = kind;
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend_from_slice(&block);
        self
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

pub fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub fn blob(bytes: &[u8]) -> String {
    format!("blobs/sha256/{}", digest(bytes))
}

/// One layer with one file, and the config that goes with it.
pub struct Small {
    pub layer: Vec<u8>,
    pub config: Vec<u8>,
}

impl Small {
    pub fn new(mark: &str) -> Small {
        Small::of(Tar::new().file("mark", mark).finish(), "amd64")
    }

    pub fn of(layer: Vec<u8>, architecture: &str) -> Small {
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {"Cmd": ["/mark"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))]},
        });
        Small {
            config: config.to_string().into_bytes(),
            layer,
        }
    }

    pub fn id(&self) -> String {
        format!("sha256:{}", digest(&self.config))
    }

    /// Docker's list, with what differs.
    pub fn list(&self, name: &str, layer: &str) -> Value {
        json!([{"Config": "config.json", "RepoTags": [name], "Layers": [layer]}])
    }

    /// A Docker archive that has no list yet.
    pub fn members(&self) -> Tar {
        Tar::new()
            .file("layer.tar", &self.layer)
            .file("config.json", &self.config)
    }

    /// An OCI layout's blobs, and the descriptor of the manifest.
    pub fn layout(&self, tar: Tar) -> (Tar, Value) {
        let manifest = self.manifest().to_string().into_bytes();
        let tar = tar
            .file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)
            .file(&blob(&self.layer), &self.layer)
            .file(&blob(&self.config), &self.config)
            .file(&blob(&manifest), &manifest);
        (tar, descriptor("manifest", &manifest))
    }

    pub fn manifest(&self) -> Value {
        json!({
            "schemaVersion": 2,
            "config": descriptor("config", &self.config),
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": format!("sha256:{}", digest(&self.layer)), "size": self.layer.len(),
            }],
        })
    }
}

/// Of a manifest, config or index.
pub fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({
        "mediaType": format!("application/vnd.oci.image.{kind}.v1+json"),
        "digest": format!("sha256:{}", digest(bytes)), "size": bytes.len(),
    })
}

pub fn index(manifests: &[Value]) -> Value {
    json!({"schemaVersion": 2, "manifests": manifests})
}
