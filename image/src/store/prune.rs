//! Removal of all images that nobody uses, and of what is left over: layers of no image, and rubbish.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::log::Log;
use super::remove::{self, InUse};
use super::{Removal, layer_path, raw_config};
use crate::digest::Digest;
use crate::error::Error;
use crate::lock::{LayerLock, Mode};
use crate::staging::Staging;

const PRUNE: &str = "look for images that nobody uses";

/// Which images go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unused {
    /// Those without a tag.
    Dangling,
    /// Those with one too.
    All,
}

/// What an image is chosen by.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub created: Option<OffsetDateTime>,
    pub labels: Vec<(String, String)>,
}

/// What has gone.
#[derive(Clone, Debug, Default)]
pub struct PrunedImages {
    /// The images' IDs, each with what was taken away for it.
    pub images: Vec<(String, Vec<Removal>)>,
    /// Layers that no image had: their chain IDs.
    pub layers: Vec<String>,
    /// Bytes on disk.
    pub reclaimed: u64,
}

/// Removes the images that nobody holds and that `wanted` names, and all rubbish.
pub fn prune(
    conn: &mut Connection,
    root: &Path,
    unused: Unused,
    wanted: &dyn Fn(&Candidate) -> bool,
    in_use: InUse<'_>,
) -> Result<PrunedImages, Error> {
    let mut pruned = PrunedImages::default();
    for (id, created) in all(conn)? {
        let candidate = Candidate {
            created: OffsetDateTime::parse(&created, &Rfc3339).ok(),
            labels: labels(root, &id),
        };
        if !wanted(&candidate) {
            continue;
        }
        let id = Digest::expect(&id, "an image's row")?;
        let (removals, freed) = remove_unused(conn, root, &id, unused, in_use)?;
        if !removals.is_empty() {
            pruned.images.push((id.to_string(), removals));
        }
        pruned.reclaimed += freed;
    }
    remove::sweep_with(conn, root, Some(&mut pruned.reclaimed))?;
    Ok(pruned)
}

/// Removes the layers that no image has: what pulls that came to nothing have kept for the next. Not those that one has in hand.
pub fn prune_layers(
    conn: &mut Connection,
    root: &Path,
    pruned: &mut PrunedImages,
) -> Result<(), Error> {
    let unused = unused_layers(conn)?;
    if unused.is_empty() {
        return Ok(());
    }
    let staging = Staging::create(root)?;
    let mut gone = Vec::new();
    for chain_id in unused {
        gone.extend(remove::delete_layer_row(conn, root, &chain_id)?);
    }
    Log::of(conn).sync()?;
    for (chain_id, _lock) in &gone {
        remove::discard_layer(&staging, &layer_path(root, chain_id))?;
        pruned.layers.push(chain_id.to_string());
    }
    pruned.reclaimed += staging.size()?;
    Ok(())
}

/// Nothing, where somebody holds it by now, or has named it.
fn remove_unused(
    conn: &mut Connection,
    root: &Path,
    id: &Digest,
    unused: Unused,
    in_use: InUse<'_>,
) -> Result<(Vec<Removal>, u64), Error> {
    let nothing = Ok((Vec::new(), 0));
    // Whom a pull is just about to commit is not unused.
    let Some(_image_lock) = LayerLock::try_take(root, id, Mode::Exclusive)? else {
        return nothing;
    };
    let staging = Staging::create(root)?;
    let transaction = conn
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(Error::db(PRUNE))?;
    let exists = transaction
        .prepare_cached("SELECT 1 FROM images WHERE id = ?1")
        .and_then(|mut statement| statement.exists([id.as_str()]))
        .map_err(Error::db(PRUNE))?;
    let holders = in_use(&transaction).map_err(Error::db(PRUNE))?;
    let names = remove::names_of(&transaction, id.as_str())?;
    let is_tagged = names.iter().any(|name| name.tag.is_some());
    let is_held = holders.iter().any(|(image, _)| image == id.as_str());
    if !exists || is_held || (is_tagged && unused == Unused::Dangling) {
        return nothing;
    }
    let mut removals = Vec::new();
    for name in names {
        transaction
            .execute("DELETE FROM image_names WHERE name = ?1", [&name.full])
            .map_err(Error::db(PRUNE))?;
        removals.push(Removal::Untagged(name.familiar()));
    }
    removals.extend(remove::delete(transaction, root, &staging, id)?);
    Ok((removals, staging.size()?))
}

/// The ID of each image and when it was made, oldest first.
fn all(conn: &Connection) -> Result<Vec<(String, String)>, Error> {
    conn.prepare_cached("SELECT id, created FROM images ORDER BY created, id")
        .and_then(|mut statement| {
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })
        .map_err(Error::db(PRUNE))
}

/// The chain IDs of the layers that no image has, the last made first.
pub(super) fn unused_layers(conn: &Connection) -> Result<Vec<Digest>, Error> {
    let ids: Vec<String> = conn
        .prepare_cached(
            "SELECT chain_id FROM layers WHERE chain_id NOT IN (SELECT chain_id FROM image_layers)",
        )
        .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
        .map_err(Error::db(PRUNE))?;
    ids.iter()
        .map(|id| Digest::expect(id, "a layer's row"))
        .collect()
}

/// An image's labels; none where its config cannot be read.
pub fn labels(root: &Path, id: &str) -> Vec<(String, String)> {
    let config = raw_config(root, id).unwrap_or_default();
    let labels = config.pointer("/config/Labels").and_then(|l| l.as_object());
    let labels = labels.into_iter().flatten();
    labels
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}
