//! Images and layers on disk and their rows in the database.
//!
//! A layer is `ROOT/layers/KEY`, the unpacked tree itself, where KEY is the first 32 digits of its chain ID: short, because
//! a mount's options must fit a page. The chain ID names it rather than the diff ID because a layer as unpacked depends on
//! what is below it: directories that it leaves out take the lower one's metadata, hard links to lower files are copies.
//! An image is `ROOT/images/ID/config.json`, and `manifest.json` if it was pulled. A row says that a directory is whole and
//! on disk; a directory without a row is rubbish (`sweep`). Whoever uses a layer that has no image yet holds its lock.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::Reference;
use crate::digest::Digest;
use crate::error::Error;

mod blobs;
mod commit;
mod history;
mod hold;
mod log;
mod names;
mod prune;
mod remove;
mod summary;
mod tables;
pub(crate) mod tar;
mod usage;

pub(crate) use blobs::note_blob;
pub use blobs::{KnownBlob, known_blobs};
pub(crate) use commit::{ImageToCommit, LayerToCommit, commit, commit_unseen, keep};
pub use history::{Step, history};
pub(crate) use hold::hold_layer;
pub use names::name_again;
pub(crate) use names::{
    config_bytes, layer_size, manifest_bytes, note_digest, repositories_of, tags_of,
};
pub use prune::{Candidate, PrunedImages, Unused, labels, prune, prune_layers};
pub(crate) use remove::names_in;
pub use remove::{InUse, remove, sweep};
pub use summary::{ImageSummary, list};
pub use tables::create_tables;
pub use usage::{ImageUsage, Usage, usage};

/// An image that can be run.
#[derive(Clone, Debug)]
pub struct Image {
    /// `sha256:` and 64 hexadecimal digits: the digest of the config.
    pub id: String,
    pub config: oci_spec::image::ImageConfiguration,
    /// Absolute paths of the unpacked layers, the uppermost first: overlayfs's `lowerdir` order.
    pub layers: Vec<PathBuf>,
    /// `redis:latest`, as `images` shows them.
    pub names: Vec<String>,
    /// HEALTHCHECK, which is Docker's and not in the OCI's specification.
    pub healthcheck: Option<Healthcheck>,
}

/// An image's HEALTHCHECK. What is zero is left to the engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// `CMD-SHELL` and a line, `CMD` and words, or `NONE`.
    pub test: Vec<String>,
    pub interval: Duration,
    pub timeout: Duration,
    pub start_period: Duration,
    pub start_interval: Duration,
    pub retries: u32,
}

/// `config.Healthcheck` of an image's configuration: times are nanoseconds. One that makes no sense is none.
pub(crate) fn healthcheck(config: &[u8]) -> Option<Healthcheck> {
    let config: serde_json::Value = serde_json::from_slice(config).ok()?;
    let check = config.get("config")?.get("Healthcheck")?;
    let number = |name: &str| check.get(name).and_then(serde_json::Value::as_u64);
    let time = |name: &str| Duration::from_nanos(number(name).unwrap_or(0));
    let words = check.get("Test")?.as_array()?.iter();
    Some(Healthcheck {
        test: words
            .map(|word| Some(word.as_str()?.to_owned()))
            .collect::<Option<_>>()?,
        interval: time("Interval"),
        timeout: time("Timeout"),
        start_period: time("StartPeriod"),
        start_interval: time("StartInterval"),
        retries: number("Retries")
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(0),
    })
}

/// What `rmi` did, in order, for `Untagged:` and `Deleted:` lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    Untagged(String),
    Deleted(String),
}

/// The image that a name, an ID or a unique prefix of an ID stands for; `None` if there is none.
pub fn find(conn: &Connection, root: &Path, name: &str) -> Result<Option<Image>, Error> {
    let mut has_failed = false;
    while let Some(found) = resolve(conn, name)? {
        let loaded = load(conn, root, &found.id);
        // A removal takes the rows, then the files: what was read in between is of half an image. If it is there again, one more look
        // shows whether it is whole.
        let is_there = resolve(conn, name)?.is_some_and(|again| again.id == found.id);
        if is_there && (loaded.is_ok() || has_failed) {
            return loaded.map(Some);
        }
        has_failed = is_there;
    }
    Ok(None)
}

/// For a name that `resolve` has not found: with the tag that was meant; or why it cannot be a name.
pub fn not_found(name: &str) -> Error {
    match Reference::parse(name) {
        Ok(reference) => Error::NotFound(reference.to_string()),
        Err(Error::HexName(_)) => Error::NotFound(name.to_owned()),
        Err(error) => error,
    }
}

/// Looks at an image whose rows and files are read at different moments, while others remove it and pull it again: what is half an
/// image is looked at once more. `None`: it has gone.
pub(crate) fn steady<T>(
    conn: &Connection,
    id: &str,
    mut look: impl FnMut() -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    let mut has_failed = false;
    loop {
        let seen = look();
        let is_there = conn
            .prepare_cached("SELECT 1 FROM images WHERE id = ?1")
            .and_then(|mut statement| statement.exists([id]))
            .map_err(Error::db("look up an image"))?;
        match seen {
            _ if !is_there => return Ok(None),
            Err(_) if !has_failed => has_failed = true,
            seen => return seen.map(Some),
        }
    }
}

/// The ID alone, whether its layers are whole or not.
pub fn id_of(conn: &Connection, name: &str) -> Result<Option<String>, Error> {
    Ok(resolve(conn, name)?.map(|found| found.id))
}

/// Gives an image another name (used by pull and import; `tag` later).
pub fn tag(conn: &Connection, id: &str, name: &Reference) -> Result<(), Error> {
    // A digest pins the content; a tag written beside it is only a remark, as in Docker.
    let stored = match &name.digest {
        Some(_) => Reference {
            tag: None,
            ..name.clone()
        },
        None => name.clone(),
    };
    conn.execute(
        "INSERT INTO image_names (name, repository, tag, digest, image_id) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (name) DO UPDATE SET image_id = excluded.image_id",
        params![stored.full(), stored.familiar_name(), stored.tag, stored.digest, id],
    )
    .map_err(Error::db("name an image"))?;
    Ok(())
}

/// An image, and how it was asked for.
pub(crate) struct Resolved {
    pub id: String,
    /// The full name that matched; `None` where an ID did.
    pub name: Option<String>,
}

pub(crate) fn resolve(conn: &Connection, name: &str) -> Result<Option<Resolved>, Error> {
    if let Ok(reference) = Reference::parse(name) {
        let full = stored_name(&reference);
        let id = conn
            .prepare_cached("SELECT image_id FROM image_names WHERE name = ?1")
            .and_then(|mut statement| statement.query_row([&full], |row| row.get(0)).optional())
            .map_err(Error::db("look up an image by name"))?;
        if let Some(id) = id {
            return Ok(Some(Resolved {
                id,
                name: Some(full),
            }));
        }
    }
    let prefix = name.strip_prefix("sha256:").unwrap_or(name);
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(hex) {
        return Ok(None);
    }
    let ids: Vec<String> = conn
        .prepare_cached("SELECT id FROM images WHERE id >= ?1 AND id < ?1 || 'g' LIMIT 2")
        .and_then(|mut statement| {
            let rows = statement.query_map([format!("sha256:{prefix}")], |row| row.get(0))?;
            rows.collect()
        })
        .map_err(Error::db("look up an image by ID"))?;
    match <[String; 1]>::try_from(ids) {
        Ok([id]) => Ok(Some(Resolved { id, name: None })),
        Err(ids) if ids.is_empty() => Ok(None),
        Err(_) => Err(Error::AmbiguousId(name.to_owned())),
    }
}

/// The name under which a reference is kept.
pub(crate) fn stored_name(reference: &Reference) -> String {
    match &reference.digest {
        Some(digest) => format!("{}@{digest}", reference.full_name()),
        None => reference.full(),
    }
}

/// Reads an image whose row is known to exist, and makes sure that its layers do.
pub(crate) fn load(conn: &Connection, root: &Path, id: &str) -> Result<Image, Error> {
    const LOAD: &str = "read an image";
    let root = std::path::absolute(root).map_err(Error::io("resolve", root))?;
    let strings = |sql: &str| -> Result<Vec<String>, Error> {
        conn.prepare_cached(sql)
            .and_then(|mut statement| statement.query_map([id], |row| row.get(0))?.collect())
            .map_err(Error::db(LOAD))
    };
    let chain =
        strings("SELECT chain_id FROM image_layers WHERE image_id = ?1 ORDER BY position DESC")?;
    let names = strings(
        "SELECT repository || ':' || tag FROM image_names WHERE image_id = ?1 AND tag IS NOT NULL ORDER BY name",
    )?;
    let mut layers = Vec::with_capacity(chain.len());
    for chain_id in chain {
        let chain_id = Digest::expect(&chain_id, "a layer's row")?;
        let path = layer_path(&root, &chain_id);
        if !path.is_dir() {
            return Err(Error::LayerMissing {
                layer: chain_id.to_string(),
                image: id.to_owned(),
                path,
            });
        }
        layers.push(path);
    }
    let path = image_path(&root, &Digest::expect(id, "an image's row")?).join("config.json");
    let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
    let config = serde_json::from_slice(&bytes)
        .map_err(|e| Error::untrusted(path.display().to_string(), e.to_string()))?;
    Ok(Image {
        id: id.to_owned(),
        config,
        layers,
        names,
        healthcheck: healthcheck(&bytes),
    })
}

/// The names with digests that an image has: `redis@sha256:...`.
pub fn digests(conn: &Connection, id: &str) -> Result<Vec<String>, Error> {
    conn.prepare_cached(
        "SELECT repository || '@' || digest FROM image_names
         WHERE image_id = ?1 AND digest IS NOT NULL ORDER BY name",
    )
    .and_then(|mut statement| statement.query_map([id], |row| row.get(0))?.collect())
    .map_err(Error::db("look up the digests of an image"))
}

/// Bytes of all layers of an image, unpacked.
pub fn size(conn: &Connection, id: &str) -> Result<u64, Error> {
    conn.query_row(
        "SELECT coalesce(sum(size), 0) FROM image_layers JOIN layers USING (chain_id) WHERE image_id = ?1",
        [id],
        |row| row.get(0),
    )
    .map_err(Error::db("add up the layers"))
}

/// An image's config as it is, with what has no place in [`Image::config`].
pub fn raw_config(root: &Path, id: &str) -> Result<serde_json::Value, Error> {
    let path = image_path(root, &Digest::expect(id, "an image's row")?).join("config.json");
    let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Error::untrusted(path.display().to_string(), e.to_string()))
}

/// A layer as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLayer {
    pub chain_id: Digest,
    pub diff_id: Digest,
}

/// The layers of an image, the lowest first.
pub fn layers_of(conn: &Connection, id: &str) -> Result<Vec<StoredLayer>, Error> {
    const LAYERS: &str = "look up the layers of an image";
    let rows: Vec<(String, String)> = conn
        .prepare_cached(
            "SELECT chain_id, diff_id FROM image_layers JOIN layers USING (chain_id)
             WHERE image_id = ?1 ORDER BY position",
        )
        .and_then(|mut statement| {
            let rows = statement.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })
        .map_err(Error::db(LAYERS))?;
    rows.into_iter()
        .map(|(chain_id, diff_id)| {
            Ok(StoredLayer {
                chain_id: Digest::expect(&chain_id, "a layer's row")?,
                diff_id: Digest::expect(&diff_id, "a layer's row")?,
            })
        })
        .collect()
}

/// The names of an image, those with a digest first: they mean it for ever.
pub(crate) fn references_of(conn: &Connection, id: &Digest) -> Result<Vec<Reference>, Error> {
    let names: Vec<String> = conn
        .prepare_cached(
            "SELECT name FROM image_names WHERE image_id = ?1 ORDER BY digest IS NULL, name",
        )
        .and_then(|mut statement| {
            let rows = statement.query_map([id.as_str()], |row| row.get(0))?;
            rows.collect()
        })
        .map_err(Error::db("look up the names of an image"))?;
    names.iter().map(|name| Reference::parse(name)).collect()
}

pub(crate) fn layer_path(root: &Path, chain_id: &Digest) -> PathBuf {
    root.join("layers").join(&chain_id.hex()[..32])
}

pub(crate) fn image_path(root: &Path, id: &Digest) -> PathBuf {
    root.join("images").join(id.hex())
}

/// Whether a layer has its row and its directory. Only its lock makes the answer last.
pub(crate) fn has_layer(conn: &Connection, root: &Path, chain_id: &Digest) -> Result<bool, Error> {
    let row = conn
        .prepare_cached("SELECT 1 FROM layers WHERE chain_id = ?1")
        .and_then(|mut statement| statement.exists([chain_id.as_str()]))
        .map_err(Error::db("look up a layer"))?;
    Ok(row && layer_path(root, chain_id).is_dir())
}

#[cfg(test)]
mod tests;
