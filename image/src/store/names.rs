//! More names for images that are there, and what a push reads of an image.

use std::io;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::{image_path, resolve, tag};
use crate::Reference;
use crate::digest::Digest;
use crate::error::Error;

/// `tag`: gives the image `source` the name `target` as well, and takes it from the image that has it. Returns the
/// image's ID and the name.
pub fn name_again(
    conn: &mut Connection,
    source: &str,
    target: &str,
) -> Result<(String, Reference), Error> {
    let bad = |text: &str, source| Error::NotAName {
        text: text.to_owned(),
        source: Box::new(source),
    };
    let written = match Reference::parse(source) {
        Ok(reference) => reference.to_string(),
        // A whole ID.
        Err(Error::HexName(id)) => id,
        Err(e) => return Err(bad(source, e)),
    };
    let target = Reference::parse(target).map_err(|e| bad(target, e))?;
    if target.digest.is_some() {
        return Err(Error::TagOfDigest);
    }
    // In one transaction, lest the image goes between the look and the name.
    let transaction = conn
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(Error::db("name an image"))?;
    let found = resolve(&transaction, source)?.ok_or(Error::NotFound(written))?;
    tag(&transaction, &found.id, &target)?;
    transaction.commit().map_err(Error::db("name an image"))?;
    Ok((found.id, target))
}

/// Notes the digest under which a repository has an image now. If the image has gone meanwhile, so has the wish to know.
pub(crate) fn note_digest(
    conn: &mut Connection,
    id: &str,
    name: &Reference,
    digest: &Digest,
) -> Result<(), Error> {
    const NOTE: &str = "note the digest of an image";
    let transaction = conn
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(Error::db(NOTE))?;
    let known = transaction
        .prepare_cached("SELECT 1 FROM images WHERE id = ?1")
        .and_then(|mut statement| statement.exists([id]))
        .map_err(Error::db(NOTE))?;
    if known {
        let name = Reference {
            tag: None,
            digest: Some(digest.to_string()),
            ..name.clone()
        };
        tag(&transaction, id, &name)?;
    }
    transaction.commit().map_err(Error::db(NOTE))
}

/// The repositories in which an image has been seen.
pub(crate) fn repositories_of(conn: &Connection, id: &str) -> Result<Vec<Reference>, Error> {
    let names: Vec<String> = conn
        .prepare_cached("SELECT name FROM image_names WHERE image_id = ?1 AND digest IS NOT NULL")
        .and_then(|mut statement| statement.query_map([id], |row| row.get(0))?.collect())
        .map_err(Error::db("look up where an image has been seen"))?;
    names.iter().map(|name| Reference::parse(name)).collect()
}

/// The tags of a repository, each with its image's ID, sorted.
pub(crate) fn tags_of(conn: &Connection, name: &Reference) -> Result<Vec<(String, String)>, Error> {
    conn.prepare_cached(
        "SELECT tag, image_id FROM image_names WHERE repository = ?1 AND tag IS NOT NULL ORDER BY tag",
    )
    .and_then(|mut statement| {
        let rows = statement.query_map([name.familiar_name()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        rows.collect()
    })
    .map_err(Error::db("list the tags of a repository"))
}

/// Bytes of a layer's files; 0 if it is not known.
pub(crate) fn layer_size(conn: &Connection, chain_id: &Digest) -> Result<u64, Error> {
    let size = conn
        .prepare_cached("SELECT size FROM layers WHERE chain_id = ?1")
        .and_then(|mut statement| {
            let row = statement.query_row([chain_id.as_str()], |row| row.get(0));
            row.optional()
        })
        .map_err(Error::db("look up a layer"))?;
    Ok(size.unwrap_or(0))
}

/// An image's config to the byte: its digest is the image's ID, or the file is damaged.
pub(crate) fn config_bytes(root: &Path, id: &Digest) -> Result<Vec<u8>, Error> {
    let path = image_path(root, id).join("config.json");
    let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
    if Digest::of(&bytes) != *id {
        let why = "it is not what the image's ID says: remove the image and pull it again";
        return Err(Error::untrusted(path.display().to_string(), why));
    }
    Ok(bytes)
}

/// The manifest that an image was pulled with, to the byte; `None` if it was made here.
pub(crate) fn manifest_bytes(root: &Path, id: &Digest) -> Result<Option<Vec<u8>>, Error> {
    let path = image_path(root, id).join("manifest.json");
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path)(e)),
    }
}
