//! Writing images by hand as OCI layouts, so that a test knows every byte of what is pulled (image-spec, Image Layout).

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::Cmd;

/// What of an image's configuration the tests set.
#[derive(Clone, Copy, Debug, Default)]
pub struct Config<'a> {
    pub entrypoint: &'a [&'a str],
    pub cmd: &'a [&'a str],
    pub env: &'a [&'a str],
    pub exposed_ports: &'a [&'a str],
    pub working_dir: &'a str,
    pub user: &'a str,
}

/// A shell in the root.
pub const SHELL: Config = Config {
    entrypoint: &[],
    cmd: &["sh"],
    env: &[],
    exposed_ports: &[],
    working_dir: "/",
    user: "",
};

/// One image: its layers, as tars from the lowest up.
#[derive(Clone, Debug)]
pub struct Image<'a> {
    pub layers: Vec<PathBuf>,
    pub config: Config<'a>,
    pub architecture: &'a str,
}

impl<'a> Image<'a> {
    /// An image for this machine.
    pub fn of(layers: &[PathBuf], config: Config<'a>) -> Image<'a> {
        Image {
            layers: layers.to_vec(),
            config,
            architecture: this_architecture(),
        }
    }
}

/// This machine's architecture, by the name that Go and so the specification gives it.
pub fn this_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Writes a layout: one image as it is, several under an index with a platform each. `tag` is its name for `skopeo copy oci:DIR:TAG`.
pub fn write_layout(folder: &Path, tag: &str, images: &[Image]) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a folder for blobs");
    let manifests: Vec<Value> = images
        .iter()
        .map(|image| write_image(&blobs, image))
        .collect();
    let mut top = match manifests.as_slice() {
        [one] => one.clone(),
        several => {
            let index = json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "manifests": several,
            });
            put_json(&blobs, "application/vnd.oci.image.index.v1+json", &index)
        }
    };
    top["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    let index = json!({ "schemaVersion": 2, "manifests": [top] });
    fs::write(folder.join("index.json"), index.to_string()).expect("write index.json");
    fs::write(
        folder.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .expect("write oci-layout");
}

fn write_image(blobs: &Path, image: &Image) -> Value {
    let mut diff_ids = Vec::new();
    let mut layers = Vec::new();
    for tar in &image.layers {
        diff_ids.push(format!("sha256:{}", digest_of(tar)));
        let packed = blobs.join("packed");
        Cmd::new("sh")
            .args(["-c", r#"gzip -n -1 <"$1" >"$2""#, "sh"])
            .arg(tar)
            .arg(&packed)
            .run()
            .ok();
        let digest = digest_of(&packed);
        let size = fs::metadata(&packed).expect("a packed layer").len();
        fs::rename(&packed, blobs.join(&digest)).expect("name a blob");
        layers.push(descriptor(
            "application/vnd.oci.image.layer.v1.tar+gzip",
            &digest,
            size,
        ));
    }
    let Config {
        entrypoint,
        cmd,
        env,
        exposed_ports,
        working_dir,
        user,
    } = image.config;
    let ports: serde_json::Map<_, _> = exposed_ports
        .iter()
        .map(|port| ((*port).to_owned(), json!({})))
        .collect();
    let mut settings =
        json!({ "Env": env, "ExposedPorts": ports, "WorkingDir": working_dir, "User": user });
    for (key, words) in [("Entrypoint", entrypoint), ("Cmd", cmd)] {
        if !words.is_empty() {
            settings[key] = json!(words);
        }
    }
    let config = json!({
        "architecture": image.architecture,
        "os": "linux",
        "config": settings,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": image.layers.iter().map(|_| json!({ "created_by": "a test" })).collect::<Vec<_>>(),
    });
    let config = put_json(blobs, "application/vnd.oci.image.config.v1+json", &config);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": layers,
    });
    let mut manifest = put_json(
        blobs,
        "application/vnd.oci.image.manifest.v1+json",
        &manifest,
    );
    manifest["platform"] = json!({ "os": "linux", "architecture": image.architecture });
    manifest
}

fn put_json(blobs: &Path, media_type: &str, value: &Value) -> Value {
    let bytes = value.to_string();
    let digest = hex(&Sha256::digest(&bytes));
    fs::write(blobs.join(&digest), &bytes).expect("write a blob");
    descriptor(media_type, &digest, bytes.len() as u64)
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size })
}

/// The SHA-256 of a file, in hexadecimal digits.
pub fn digest_of(file: &Path) -> String {
    let mut hasher = Sha256::new();
    let mut file = fs::File::open(file)
        .unwrap_or_else(|error| panic!("cannot open {}: {error}", file.display()));
    std::io::copy(&mut file, &mut hasher).expect("read a file");
    hex(&hasher.finalize())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
