//! Images that come and go as files: `import` makes one of one layer from a tar of a root filesystem, `commit` one from a
//! container's changes, `load` and `save` read and write archives of whole images.

use std::io::Read;
use std::path::Path;

use rusqlite::Connection;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::digest::Digest;
use crate::error::Error;
use crate::layer::Limits;
use crate::layer::recipe::Recorder;
use crate::lock::{LayerLock, Mode};
use crate::pull::stream;
use crate::registry::platform::Platform;
use crate::staging::Staging;
use crate::store::{self, ImageToCommit, LayerToCommit};
use crate::{Image, Reference};

mod changes;
mod commit;
mod contents;
pub mod load;
mod members;
mod packed;
pub mod remote;
pub mod save;

pub use commit::{Commit, commit};

/// For the fuzz target: what `load` would load.
#[cfg(fuzzing)]
pub(crate) fn listed(
    root: &Path,
    input: std::fs::File,
) -> Result<Vec<(String, Vec<String>, Vec<u64>)>, Error> {
    let staging = Staging::create(root)?;
    let archive = members::Archive::open(input, &staging)?;
    let images = contents::images(&archive, None)?.into_iter();
    Ok(images
        .map(|image| {
            let names = image.names.iter().map(Reference::to_string).collect();
            let sizes = image.layers.iter().map(|layer| layer.extent.size).collect();
            (image.id.to_string(), names, sizes)
        })
        .collect())
}

/// What an imported image is, beside its tar.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions<'a> {
    pub name: Option<&'a Reference>,
    /// Dockerfile lines: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR, STOPSIGNAL, HEALTHCHECK.
    pub changes: &'a [String],
    pub message: Option<&'a str>,
    /// `os/arch[/variant]`; `None`: this host's.
    pub platform: Option<&'a str>,
}

/// Makes an image of one layer from a tar (plain, gzip or zstd).
pub fn import(
    conn: &mut Connection,
    root: &Path,
    tar: &mut dyn Read,
    options: &ImportOptions<'_>,
) -> Result<Image, Error> {
    let platform = options.platform.map(Platform::parse).transpose()?;
    let platform = platform.unwrap_or_else(Platform::host);
    let config = changes::apply(options.changes)?;
    let staging = Staging::create(root)?;
    let dir = staging.subdirectory("0")?;
    let layer_error = |source| Error::Layer {
        layer: "of the archive".to_owned(),
        source,
    };
    let recorder = Recorder::create(&staging.path().join("0")).map_err(layer_error)?;
    let plain = packed::open(tar)?;
    let (applied, diff_id) =
        stream::untar(plain, &dir, recorder, Limits::default()).map_err(layer_error)?;
    let size = applied.finish(&dir, &[]).map_err(layer_error)?;
    let config = image_config(
        &config,
        &diff_id,
        &platform,
        options.message.unwrap_or("Imported from -"),
    );
    let bytes = config.to_string().into_bytes();
    let id = Digest::of(&bytes);
    let layer = LayerToCommit {
        chain_id: diff_id.clone(),
        diff_id: diff_id.clone(),
        staged: "0".to_owned(),
        size,
        blob: None,
    };
    // Whoever has this very layer in hand finishes first; then ours is not needed.
    let _lock = LayerLock::take(root, &diff_id, Mode::Exclusive)?;
    let layers = match store::has_layer(conn, root, &diff_id)? {
        true => Vec::new(),
        false => vec![layer],
    };
    let to_commit = ImageToCommit {
        id: &id,
        config: &bytes,
        manifest: None,
        created: config["created"].as_str(),
        chain: std::slice::from_ref(&diff_id),
        names: options.name.map_or(&[], std::slice::from_ref),
    };
    store::commit(conn, root, &staging, &layers, &to_commit)
}

fn image_config(config: &Value, diff_id: &Digest, platform: &Platform, message: &str) -> Value {
    let created = OffsetDateTime::now_utc()
        .format(&Rfc3339)
        .unwrap_or_default();
    let mut image = json!({
        "created": created,
        "architecture": platform.architecture,
        "os": platform.os,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [diff_id.as_str()]},
        "history": [{"created": created, "comment": message}],
    });
    if let Some(variant) = &platform.variant {
        image["variant"] = variant.as_str().into();
    }
    image
}
