//! What the fuzz targets (`image/fuzz`) may call of this crate's insides. Built for them alone.

use oci_spec::image::ImageConfiguration;

use crate::digest::Digest;
use crate::error::Error;
use crate::registry::manifest::{self, Parsed};
use crate::registry::platform::Platform;
use crate::registry::{self, Document};
use crate::{Healthcheck, store};

/// What a manifest tells, by which the target judges it.
#[derive(Debug)]
pub enum Told {
    /// Digests and sizes of config and layers.
    Image(Vec<(String, u64)>),
    /// The digest that is chosen for a platform, if there is one.
    Index(Option<String>),
}

/// As a pull reads a manifest of this type.
pub fn manifest(content_type: &str, bytes: &[u8]) -> Result<Told, Error> {
    let document = Document {
        digest: Digest::of(bytes),
        content_type: content_type.to_owned(),
        bytes: bytes.to_vec(),
    };
    match manifest::parse(&document, "x")? {
        Parsed::Manifest(image) => {
            let layers = image.layers.into_iter().map(|layer| layer.blob);
            let blobs = [image.config].into_iter().chain(layers);
            Ok(Told::Image(
                blobs
                    .map(|blob| (blob.digest.to_string(), blob.size))
                    .collect(),
            ))
        }
        Parsed::Index(entries) => {
            let chosen = manifest::choose(entries, &Platform::host(), "x");
            Ok(Told::Index(chosen.ok().map(|blob| blob.digest.to_string())))
        }
    }
}

/// As a pull reads a config.
pub fn config(bytes: &[u8]) -> serde_json::Result<ImageConfiguration> {
    manifest::strictly(bytes)
}

/// HEALTHCHECK, as the store reads it of a config.
pub fn healthcheck(config: &[u8]) -> Option<Healthcheck> {
    store::healthcheck(config)
}

/// The value of a WWW-Authenticate header: schemes and their parameters.
pub fn challenges(text: &str) -> Vec<(String, Vec<(String, String)>)> {
    registry::challenges(text)
}
