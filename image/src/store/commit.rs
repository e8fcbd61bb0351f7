//! Makes finished layers and their image permanent: one syncfs(2), the renames, one transaction; in that order, so that
//! after a power cut there is no row for what is not there.

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rusqlite::{Connection, TransactionBehavior, params};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{KnownBlob, image_path, layer_path, load, note_blob, tag};
use crate::digest::Digest;
use crate::error::Error;
use crate::layer::recipe;
use crate::lock::{LayerLock, Mode};
use crate::staging::Staging;
use crate::{Image, Reference};

/// A layer that is whole in staging.
pub(crate) struct LayerToCommit {
    pub chain_id: Digest,
    pub diff_id: Digest,
    /// Its directory's name in staging.
    pub staged: String,
    pub size: u64,
    /// Where it was pulled from.
    pub blob: Option<KnownBlob>,
}

pub(crate) struct ImageToCommit<'a> {
    pub id: &'a Digest,
    pub config: &'a [u8],
    pub manifest: Option<&'a [u8]>,
    /// From the config, if it has one.
    pub created: Option<&'a str>,
    /// Of all its layers, the lowest first. The caller holds a lock on each.
    pub chain: &'a [Digest],
    pub names: &'a [Reference],
}

/// Returns the image as it is now: afterwards somebody may remove it.
pub(crate) fn commit(
    conn: &mut Connection,
    root: &Path,
    staging: &Staging,
    layers: &[LayerToCommit],
    image: &ImageToCommit<'_>,
) -> Result<Image, Error> {
    let _lock = commit_unseen(conn, root, staging, layers, image)?;
    load(conn, root, image.id.as_str())
}

/// As `commit`, whatever the layers that are there already look like. Nobody removes the image while the lock lives.
pub(crate) fn commit_unseen(
    conn: &mut Connection,
    root: &Path,
    staging: &Staging,
    layers: &[LayerToCommit],
    image: &ImageToCommit<'_>,
) -> Result<LayerLock, Error> {
    let images = root.join("images");
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&images)
        .map_err(Error::io("create", &images))?;
    // So that a sweep leaves the directory alone until its row is there.
    let lock = LayerLock::take(root, image.id, Mode::Exclusive)?;
    write_image(staging, image)?;
    rustix::fs::syncfs(staging.fd()).map_err(Error::io("write to disk", staging.path()))?;
    place_layers(root, staging, layers)?;
    place_image(root, staging, image.id)?;
    for dir in [root.join("layers"), images] {
        File::open(&dir)
            .and_then(|dir| dir.sync_all())
            .map_err(Error::io("write to disk", dir))?;
    }
    write_rows(conn, layers, image)?;
    Ok(lock)
}

/// Makes layers permanent that no image has yet: the next pull finds them. `sweep` lets them be for a day. The caller holds
/// their locks, exclusively.
pub(crate) fn keep(
    conn: &mut Connection,
    root: &Path,
    staging: &Staging,
    layers: &[LayerToCommit],
) -> Result<(), Error> {
    const KEEP: &str = "keep finished layers";
    rustix::fs::syncfs(staging.fd()).map_err(Error::io("write to disk", staging.path()))?;
    place_layers(root, staging, layers)?;
    let dir = root.join("layers");
    File::open(&dir)
        .and_then(|dir| dir.sync_all())
        .map_err(Error::io("write to disk", dir))?;
    let transaction = conn
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(Error::db(KEEP))?;
    write_layer_rows(&transaction, layers)?;
    for layer in layers {
        transaction
            .execute(
                "INSERT OR REPLACE INTO kept_layers (chain_id, since) VALUES (?1, unixepoch())",
                [layer.chain_id.as_str()],
            )
            .map_err(Error::db(KEEP))?;
    }
    transaction.commit().map_err(Error::db(KEEP))
}

fn place_layers(root: &Path, staging: &Staging, layers: &[LayerToCommit]) -> Result<(), Error> {
    for layer in layers {
        let to = layer_path(root, &layer.chain_id);
        if to.exists() {
            // What a killed process has left without a row. It goes when this staging directory does.
            let aside = staging.path().join(format!("{}-old", layer.staged));
            fs::rename(&to, &aside).map_err(Error::io("move away", &to))?;
        }
        let from = staging.path().join(&layer.staged);
        // A directory is whole only with its recipe.
        let (from_recipe, to_recipe) = (recipe::path(&from), recipe::path(&to));
        fs::rename(&from_recipe, &to_recipe).map_err(Error::io("commit", &to_recipe))?;
        fs::rename(&from, &to).map_err(Error::io("commit", &to))?;
    }
    Ok(())
}

fn write_image(staging: &Staging, image: &ImageToCommit<'_>) -> Result<(), Error> {
    let dir = staging.path().join("image");
    fs::create_dir(&dir).map_err(Error::io("create", &dir))?;
    let config = dir.join("config.json");
    fs::write(&config, image.config).map_err(Error::io("write", &config))?;
    if let Some(manifest) = image.manifest {
        let path = dir.join("manifest.json");
        fs::write(&path, manifest).map_err(Error::io("write", &path))?;
    }
    Ok(())
}

/// In one step, also where the image is there already: its row is as well, and a kill between two steps would leave it without a config.
fn place_image(root: &Path, staging: &Staging, id: &Digest) -> Result<(), Error> {
    let (from, to) = (staging.path().join("image"), image_path(root, id));
    let flags = match to.exists() {
        true => RenameFlags::EXCHANGE,
        false => RenameFlags::empty(),
    };
    renameat_with(CWD, &from, CWD, &to, flags).map_err(Error::io("commit", &to))
}

fn write_rows(
    conn: &mut Connection,
    layers: &[LayerToCommit],
    image: &ImageToCommit<'_>,
) -> Result<(), Error> {
    const COMMIT: &str = "commit an image";
    let transaction = conn
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(Error::db(COMMIT))?;
    write_layer_rows(&transaction, layers)?;
    let id = image.id.as_str();
    transaction
        .execute(
            "INSERT OR IGNORE INTO images (id, created) VALUES (?1, ?2)",
            params![id, created(image.created)],
        )
        .map_err(Error::db(COMMIT))?;
    for (position, chain_id) in image.chain.iter().enumerate() {
        transaction
            .execute(
                "INSERT OR IGNORE INTO image_layers (image_id, position, chain_id) VALUES (?1, ?2, ?3)",
                params![id, position, chain_id.as_str()],
            )
            .map_err(Error::db(COMMIT))?;
        transaction
            .execute(
                "DELETE FROM kept_layers WHERE chain_id = ?1",
                [chain_id.as_str()],
            )
            .map_err(Error::db(COMMIT))?;
    }
    for name in image.names {
        tag(&transaction, id, name)?;
    }
    transaction.commit().map_err(Error::db(COMMIT))
}

fn write_layer_rows(transaction: &Connection, layers: &[LayerToCommit]) -> Result<(), Error> {
    const COMMIT: &str = "commit layers";
    for layer in layers {
        transaction
            .execute(
                "INSERT OR REPLACE INTO layers (chain_id, diff_id, size) VALUES (?1, ?2, ?3)",
                params![layer.chain_id.as_str(), layer.diff_id.as_str(), layer.size],
            )
            .map_err(Error::db(COMMIT))?;
        if let Some(blob) = &layer.blob {
            note_blob(transaction, &layer.chain_id, blob)?;
        }
    }
    Ok(())
}

/// The config's time in UTC; now, where it has none that can be read.
fn created(config: Option<&str>) -> String {
    config
        .and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok())
        .unwrap_or_else(OffsetDateTime::now_utc)
        .to_offset(time::UtcOffset::UTC)
        .format(&Rfc3339)
        .unwrap_or_else(|_| "1970-01-01T00:00:00Z".to_owned())
}
