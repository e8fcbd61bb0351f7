//! What the fuzz targets (`image/fuzz`) may call of this crate's insides. Built for them alone.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci_spec::image::ImageConfiguration;

use crate::digest::Digest;
use crate::error::Error;
use crate::layer::recipe::{self, Recorder};
use crate::layer::{LayerError, Limits};
use crate::pull::stream;
use crate::registry::manifest::{self, Parsed};
use crate::registry::platform::Platform;
use crate::registry::{self, Document};
use crate::{Healthcheck, archive, store};

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

/// Applies a tar to the empty directory `layer`, as a pull does, and makes it again from tree and recipe: then the second is the tar, or
/// why there is none. The recipe is beside the directory, until the caller removes it.
pub fn apply_and_rebuild(
    layer: &Path,
    tar: &[u8],
    below: &[OwnedFd],
    limits: Limits,
) -> Result<Result<Vec<u8>, String>, LayerError> {
    let root: OwnedFd = File::open(layer).map_err(LayerError::Read)?.into();
    let (applied, digest) = stream::untar(tar, &root, Recorder::create(layer)?, limits)?;
    assert_eq!(digest, Digest::of(tar));
    let fds: Vec<_> = below.iter().map(AsFd::as_fd).collect();
    applied.finish(&root, &fds)?;
    let recipe = File::open(recipe::path(layer)).map_err(LayerError::Read)?;
    let mut out = Vec::new();
    let rebuilt = recipe::rebuild(recipe, root.as_fd(), &mut out, &mut recipe::rebuild::strict);
    Ok(rebuilt.map(|()| out).map_err(|error| error.to_string()))
}

/// What an archive says that it has: each image's ID, names, and the sizes of its layers as they are packed. `root` is for what a packed
/// archive is unpacked to.
pub fn archive(root: &Path, input: File) -> Result<Vec<(String, Vec<String>, Vec<u64>)>, Error> {
    archive::listed(root, input)
}
