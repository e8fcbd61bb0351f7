//! The manifest that is pushed: the one that the image was pulled with, if it still says the truth, or a new one.

use std::path::Path;

use serde_json::{Value, json};

use crate::digest::Digest;
use crate::error::Error;
use crate::registry::Document;
use crate::registry::manifest::{
    self, Blob, CONFIGS, Compression, DOCKER_MANIFEST, Layer, Manifest, OCI_MANIFEST, Parsed,
};
use crate::store;

pub(super) use manifest::compression;

/// The manifest that an image came with.
pub struct Original {
    bytes: Vec<u8>,
    media_type: String,
    parsed: Manifest,
}

impl Original {
    /// `None` where the image was made here. One that does not fit the image is none: a new one will.
    pub fn read(root: &Path, id: &Digest, layers: usize) -> Result<Option<Original>, Error> {
        let Some(bytes) = store::manifest_bytes(root, id)? else {
            return Ok(None);
        };
        let document = Document {
            digest: Digest::of(&bytes),
            content_type: String::new(),
            bytes,
        };
        let Ok(Parsed::Manifest(parsed)) = manifest::parse(&document, id.as_str()) else {
            return Ok(None);
        };
        if parsed.layers.len() != layers || parsed.config.digest != *id {
            return Ok(None);
        }
        let said: Value = serde_json::from_slice(&document.bytes).unwrap_or_default();
        let media_type = said["mediaType"]
            .as_str()
            .unwrap_or(OCI_MANIFEST)
            .to_owned();
        Ok(Some(Original {
            bytes: document.bytes,
            media_type,
            parsed,
        }))
    }

    pub fn layer(&self, i: usize) -> &Layer {
        &self.parsed.layers[i]
    }

    fn is_of(&self, blobs: &[(Blob, Compression)]) -> bool {
        let theirs = self.parsed.layers.iter().map(|layer| &layer.blob.digest);
        theirs.eq(blobs.iter().map(|(blob, _)| &blob.digest))
    }
}

/// The media type and the bytes. The original stays as it is to the byte, so that its digest does; else Docker's schema 2 as
/// Docker makes it, and the OCI's where the image came with that or a layer is packed in a way that only it knows.
pub fn of_image(
    original: Option<&Original>,
    id: &Digest,
    config: &[u8],
    blobs: &[(Blob, Compression)],
) -> (String, Vec<u8>) {
    if let Some(original) = original
        && original.is_of(blobs)
    {
        return (original.media_type.clone(), original.bytes.clone());
    }
    let zstd = blobs.iter().any(|(_, kind)| *kind == Compression::Zstd);
    let oci = zstd || original.is_some_and(|original| original.media_type == OCI_MANIFEST);
    let (media_type, config_type) = match oci {
        true => (OCI_MANIFEST, CONFIGS[0]),
        false => (DOCKER_MANIFEST, CONFIGS[1]),
    };
    let layers: Vec<Value> = blobs
        .iter()
        .map(|(blob, kind)| {
            let media_type = if oci {
                oci_layer(*kind)
            } else {
                docker_layer(*kind)
            };
            json!({"mediaType": media_type, "size": blob.size, "digest": blob.digest.as_str()})
        })
        .collect();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {"mediaType": config_type, "size": config.len(), "digest": id.as_str()},
        "layers": layers,
    });
    (media_type.to_owned(), manifest.to_string().into_bytes())
}

pub fn oci_layer(kind: Compression) -> &'static str {
    match kind {
        Compression::None => "application/vnd.oci.image.layer.v1.tar",
        Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
    }
}

fn docker_layer(kind: Compression) -> &'static str {
    match kind {
        Compression::None => "application/vnd.docker.image.rootfs.diff.tar",
        Compression::Gzip => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        Compression::Zstd => "application/vnd.docker.image.rootfs.diff.tar.zstd",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(text: &str) -> Blob {
        Blob {
            digest: Digest::of(text.as_bytes()),
            size: text.len() as u64,
        }
    }

    fn original(media_type: &str, layer: &str) -> Original {
        let kind = Compression::Gzip;
        Original {
            bytes: b"as it came".to_vec(),
            media_type: media_type.to_owned(),
            parsed: Manifest {
                config: blob("{}"),
                layers: vec![Layer {
                    blob: blob(layer),
                    media_type: oci_layer(kind).to_owned(),
                    compression: kind,
                }],
            },
        }
    }

    #[track_caller]
    fn check(original: Option<&Original>, kind: Compression, expect: &str) -> Vec<u8> {
        let id = Digest::of(b"{}");
        let (media_type, bytes) = of_image(original, &id, b"{}", &[(blob("layer"), kind)]);
        assert_eq!(media_type, expect);
        bytes
    }

    #[test]
    fn the_original_is_kept_as_long_as_it_is_true() {
        let came = original(OCI_MANIFEST, "layer");
        assert_eq!(
            check(Some(&came), Compression::Gzip, OCI_MANIFEST),
            b"as it came"
        );
        let other = original(OCI_MANIFEST, "another form");
        let made = check(Some(&other), Compression::Gzip, OCI_MANIFEST);
        let made: Value = serde_json::from_slice(&made).unwrap();
        assert_eq!(made["layers"][0]["mediaType"], oci_layer(Compression::Gzip));
    }

    #[test]
    fn the_family_is_dockers_unless_the_oci_is_needed() {
        check(None, Compression::Gzip, DOCKER_MANIFEST);
        check(None, Compression::Zstd, OCI_MANIFEST);
        let came = original(DOCKER_MANIFEST, "another form");
        check(Some(&came), Compression::Gzip, DOCKER_MANIFEST);
        check(Some(&came), Compression::Zstd, OCI_MANIFEST);
    }
}
