//! Removal of names, images and layers, with Docker's rules about what is in the way; and of rubbish.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::log::Log;
use super::{Removal, image_path, layer_path, not_found, resolve};
use crate::digest::Digest;
use crate::error::Error;
use crate::layer::recipe;
use crate::lock::{LayerLock, Mode};
use crate::staging::{self, Staging};

const REMOVE: &str = "remove an image";

/// A row of `image_names`.
pub(super) struct Name {
    pub(super) full: String,
    repository: String,
    pub(super) tag: Option<String>,
    digest: Option<String>,
}

impl Name {
    /// As `Untagged:` shows it.
    pub(super) fn familiar(&self) -> String {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => format!("{}:{tag}", self.repository),
            (None, Some(digest)) => format!("{}@{digest}", self.repository),
            (None, None) => self.repository.clone(),
        }
    }
}

/// Who holds images: the ID of an image and that of a container, for each container. It is asked inside the transaction that
/// removes, so that no container can come in between.
pub type InUse<'a> = &'a dyn Fn(&Connection) -> rusqlite::Result<Vec<(String, String)>>;

/// Takes away a name, and the image and its unshared layers with the last one. An image that is `in_use` is a conflict, as in
/// Docker. `force` takes the names away all the same, and leaves the image nameless for as long as a container holds it.
pub fn remove(
    conn: &mut Connection,
    root: &Path,
    name: &str,
    force: bool,
    in_use: InUse<'_>,
) -> Result<Vec<Removal>, Error> {
    let id = resolve(conn, name)?.ok_or_else(|| not_found(name))?.id;
    let id_digest = Digest::expect(&id, "an image's row")?;
    let image_lock = LayerLock::take(root, &id_digest, Mode::Exclusive)?;
    // Made before the transaction, because it may wait.
    let staging = Staging::create(root)?;
    let transaction = conn
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(Error::db(REMOVE))?;
    // Somebody may have been faster.
    let resolved = resolve(&transaction, name)?.filter(|found| found.id == id);
    let resolved = resolved.ok_or_else(|| not_found(name))?;
    let names = names_of(&transaction, &id)?;
    let holders = in_use(&transaction).map_err(Error::db(REMOVE))?;
    let holder = holders.iter().find(|(image, _)| *image == id);
    // The refusal names the container as people write it.
    let holder = holder.map(|(_, container)| container.get(..12).unwrap_or(container));
    let going = match &resolved.name {
        Some(wanted) => names_going_by_name(&names, wanted),
        None => names.iter().collect(),
    };
    let is_last = going.len() == names.len();
    if is_last {
        check_conflicts(
            name,
            &id_digest,
            &names,
            resolved.name.is_none(),
            force,
            holder,
        )?;
    }
    let mut removals = Vec::new();
    for name in going {
        transaction
            .execute("DELETE FROM image_names WHERE name = ?1", [&name.full])
            .map_err(Error::db(REMOVE))?;
        removals.push(Removal::Untagged(name.familiar()));
    }
    if !is_last || holder.is_some() {
        transaction.commit().map_err(Error::db(REMOVE))?;
        return Ok(removals);
    }
    removals.extend(delete(transaction, root, &staging, &id_digest)?);
    drop(image_lock);
    Ok(removals)
}

/// Deletes an image that nothing names and nobody holds, with the layers that no other image has, by way of `staging`. Commits.
pub(super) fn delete(
    transaction: Transaction<'_>,
    root: &Path,
    staging: &Staging,
    id: &Digest,
) -> Result<Vec<Removal>, Error> {
    let layers = delete_rows(&transaction, root, id.as_str())?;
    let log = Log::of(&transaction);
    transaction.commit().map_err(Error::db(REMOVE))?;
    log.sync()?;
    // A kill from here on leaves directories without rows, which the next sweep takes.
    let mut removals = vec![Removal::Deleted(id.to_string())];
    discard(staging, &image_path(root, id), id.hex())?;
    for (chain_id, _lock) in &layers {
        discard_layer(staging, &layer_path(root, chain_id))?;
        removals.push(Removal::Deleted(chain_id.to_string()));
    }
    Ok(removals)
}

/// The name itself, and the digests of its repository if it was the last tag there: nobody would miss them otherwise.
fn names_going_by_name<'a>(names: &'a [Name], wanted: &str) -> Vec<&'a Name> {
    let Some(name) = names.iter().find(|name| name.full == wanted) else {
        return Vec::new();
    };
    let same_repository = |other: &&Name| other.repository == name.repository;
    let other_tags = names
        .iter()
        .filter(same_repository)
        .any(|other| other.tag.is_some() && other.full != wanted);
    let mut going = vec![name];
    if name.tag.is_some() && !other_tags {
        going.extend(
            names
                .iter()
                .filter(same_repository)
                .filter(|n| n.tag.is_none()),
        );
    }
    going
}

/// Docker's refusals, in its words.
fn check_conflicts(
    name: &str,
    id: &Digest,
    names: &[Name],
    by_id: bool,
    force: bool,
    holder: Option<&str>,
) -> Result<(), Error> {
    let short = id.short();
    if by_id {
        let tags = names.iter().filter(|name| name.tag.is_some()).count();
        let repositories: BTreeSet<_> = names.iter().map(|name| &name.repository).collect();
        if !force && (tags > 1 || repositories.len() > 1) {
            return Err(Error::Conflict(format!(
                "unable to delete {short} (must be forced) - image is referenced in multiple repositories"
            )));
        }
        // Force takes names away; where there are none it could only break the container.
        return match holder {
            Some(container) if !force => Err(Error::Conflict(format!(
                "unable to delete {short} (must be forced) - image is being used by container {container}"
            ))),
            Some(container) if names.is_empty() => Err(Error::Conflict(format!(
                "unable to delete {short} (cannot be forced) - image is being used by container {container}"
            ))),
            _ => Ok(()),
        };
    }
    match holder {
        Some(container) if !force => Err(Error::Conflict(format!(
            "unable to remove repository reference \"{name}\" (must force) - container {container} is using its referenced image {short}"
        ))),
        _ => Ok(()),
    }
}

pub(super) fn names_of(conn: &Connection, id: &str) -> Result<Vec<Name>, Error> {
    conn.prepare_cached(
        "SELECT name, repository, tag, digest FROM image_names WHERE image_id = ?1 ORDER BY tag IS NULL, name",
    )
    .and_then(|mut statement| {
        let rows = statement.query_map([id], |row| {
            Ok(Name {
                full: row.get(0)?,
                repository: row.get(1)?,
                tag: row.get(2)?,
                digest: row.get(3)?,
            })
        })?;
        rows.collect()
    })
    .map_err(Error::db(REMOVE))
}

/// Deletes the image's rows and those of layers that no other image has, the uppermost first. A layer that a pull is
/// just about to use stays; if the pull comes to nothing, a sweep takes it.
fn delete_rows(
    transaction: &Transaction<'_>,
    root: &Path,
    id: &str,
) -> Result<Vec<(Digest, LayerLock)>, Error> {
    let chain: Vec<String> = transaction
        .prepare_cached(
            "SELECT chain_id FROM image_layers WHERE image_id = ?1 ORDER BY position DESC",
        )
        .and_then(|mut statement| statement.query_map([id], |row| row.get(0))?.collect())
        .map_err(Error::db(REMOVE))?;
    for table_and_column in ["image_layers WHERE image_id", "images WHERE id"] {
        transaction
            .execute(&format!("DELETE FROM {table_and_column} = ?1"), [id])
            .map_err(Error::db(REMOVE))?;
    }
    let mut gone = Vec::new();
    for chain_id in chain {
        gone.extend(delete_layer_row(
            transaction,
            root,
            &Digest::expect(&chain_id, "a layer's row")?,
        )?);
    }
    Ok(gone)
}

/// Deletes a layer's row if no image has it and nobody holds it.
pub(super) fn delete_layer_row(
    conn: &Connection,
    root: &Path,
    chain_id: &Digest,
) -> Result<Option<(Digest, LayerLock)>, Error> {
    let Some(lock) = LayerLock::try_take(root, chain_id, Mode::Exclusive)? else {
        return Ok(None);
    };
    let deleted = conn
        .execute(
            "DELETE FROM layers WHERE chain_id = ?1 AND NOT EXISTS
                 (SELECT 1 FROM image_layers WHERE image_layers.chain_id = layers.chain_id)",
            params![chain_id.as_str()],
        )
        .map_err(Error::db(REMOVE))?;
    if deleted > 0 {
        for table in ["layer_blobs", "kept_layers"] {
            let sql = format!("DELETE FROM {table} WHERE chain_id = ?1");
            conn.execute(&sql, [chain_id.as_str()])
                .map_err(Error::db(REMOVE))?;
        }
    }
    Ok((deleted > 0).then(|| (chain_id.clone(), lock)))
}

/// Moves a directory to where it is deleted.
fn discard(staging: &Staging, path: &Path, name: &str) -> Result<(), Error> {
    match fs::rename(path, staging.path().join(name)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(e)),
        _ => Ok(()),
    }
}

/// A layer's directory with its recipe.
pub(super) fn discard_layer(staging: &Staging, path: &Path) -> Result<(), Error> {
    for path in [path.to_owned(), recipe::path(path)] {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        discard(staging, &path, &name)?;
    }
    Ok(())
}

/// How long finished layers of a pull that was cut short wait for the next one, in seconds. A prune takes them at once.
const KEPT: u32 = 24 * 3600;

/// Deletes what killed processes have left: staging directories, layers of no image, directories of no row.
/// Leaves alone whatever a live process holds. Every pull begins with it.
pub fn sweep(conn: &mut Connection, root: &Path) -> Result<(), Error> {
    sweep_with(conn, root, None)
}

/// The same; adds the bytes on disk that were freed to `freed`, if somebody wants to know.
pub(super) fn sweep_with(
    conn: &mut Connection,
    root: &Path,
    mut freed: Option<&mut u64>,
) -> Result<(), Error> {
    const SWEEP: &str = "look for rubbish among the layers";
    staging::sweep(root, freed.as_deref_mut())?;
    let unused: Vec<String> = conn
        .prepare_cached(
            "SELECT chain_id FROM layers WHERE chain_id NOT IN (SELECT chain_id FROM image_layers)
             AND chain_id NOT IN (SELECT chain_id FROM kept_layers WHERE since > unixepoch() - ?1)",
        )
        .and_then(|mut statement| statement.query_map([KEPT], |row| row.get(0))?.collect())
        .map_err(Error::db(SWEEP))?;
    let known = |conn: &Connection, sql: &str| -> Result<BTreeSet<String>, Error> {
        conn.prepare_cached(sql)
            .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
            .map_err(Error::db(SWEEP))
    };
    // Read before the rows: what is committed in between is then known.
    let on_disk = [
        names_in(&root.join("layers"))?,
        names_in(&root.join("images"))?,
    ];
    let layers = known(conn, "SELECT substr(chain_id, 8, 32) FROM layers")?;
    let images = known(conn, "SELECT substr(id, 8) FROM images")?;
    let is_rubbish = unused.len()
        + on_disk[0].difference(&layers).count()
        + on_disk[1].difference(&images).count();
    if is_rubbish == 0 {
        return Ok(());
    }
    let staging = Staging::create(root)?;
    let mut gone = Vec::new();
    for chain_id in unused {
        let chain_id = Digest::expect(&chain_id, "a layer's row")?;
        gone.extend(delete_layer_row(conn, root, &chain_id)?);
    }
    // Also for the rows whose directories a killed process has left.
    Log::of(conn).sync()?;
    for (chain_id, _lock) in &gone {
        discard_layer(&staging, &layer_path(root, chain_id))?;
    }
    for (directory, rows, sql) in [
        (
            "layers",
            &layers,
            "SELECT 1 FROM layers WHERE substr(chain_id, 8, 32) = ?1",
        ),
        (
            "images",
            &images,
            "SELECT 1 FROM images WHERE substr(id, 8) = ?1",
        ),
    ] {
        let index = usize::from(directory == "images");
        for name in on_disk[index].difference(rows) {
            // The lock goes by the first digits, which the name has.
            let Some(digest) = Digest::parse(&format!("sha256:{name:0<64}")) else {
                continue;
            };
            let Some(_lock) = LayerLock::try_take(root, &digest, Mode::Exclusive)? else {
                continue;
            };
            let exists = conn
                .prepare_cached(sql)
                .and_then(|mut statement| statement.exists([name]))
                .map_err(Error::db(SWEEP))?;
            if !exists {
                tracing::debug!(directory, name, "deleting a directory without a row");
                let path = root.join(directory).join(name);
                match directory {
                    "layers" => discard_layer(&staging, &path)?,
                    _ => discard(&staging, &path, name)?,
                }
            }
        }
    }
    if let Some(freed) = freed {
        *freed += staging.size()?;
    }
    Ok(())
}

/// The names in a directory, without the hidden ones; a recipe goes by the name of its layer.
pub(crate) fn names_in(path: &Path) -> Result<BTreeSet<String>, Error> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(e) => return Err(Error::io("read", path)(e)),
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let name = entry.map_err(Error::io("read", path))?.file_name();
        let Ok(name) = name.into_string() else {
            continue;
        };
        if !name.starts_with('.') {
            let name = name.strip_suffix(recipe::SUFFIX).unwrap_or(&name);
            names.insert(name.to_owned());
        }
    }
    Ok(names)
}
