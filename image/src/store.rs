//! Images and layers on disk and their rows in the database.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::Reference;
use crate::error::Error;

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
}

/// One row of `images`.
#[derive(Clone, Debug)]
pub struct ImageSummary {
    pub id: String,
    /// `<none>` where the image has no name.
    pub repository: String,
    pub tag: String,
    /// RFC 3339, from the config; the import's time where the config has none.
    pub created: String,
    /// Bytes of all layers, unpacked.
    pub size: u64,
}

/// What `rmi` did, in order, for `Untagged:` and `Deleted:` lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    Untagged(String),
    Deleted(String),
}

/// Creates this crate's tables where they are missing. Cheap when they are there.
pub fn create_tables(conn: &Connection) -> Result<(), Error> {
    todo!("{conn:?}")
}

/// The image that a name, an ID or a unique prefix of an ID stands for; `None` if there is none.
pub fn find(conn: &Connection, root: &Path, name: &str) -> Result<Option<Image>, Error> {
    todo!("{conn:?} {root:?} {name}")
}

/// All images, newest first, a row for each name.
pub fn list(conn: &Connection) -> Result<Vec<ImageSummary>, Error> {
    todo!("{conn:?}")
}

/// Takes away a name, and the image and its unshared layers with the last one. `in_use` are the image IDs that
/// containers hold, each with the container's short ID; such an image is a conflict, as in Docker.
pub fn remove(
    conn: &mut Connection,
    root: &Path,
    name: &str,
    force: bool,
    in_use: &[(String, String)],
) -> Result<Vec<Removal>, Error> {
    todo!("{conn:?} {root:?} {name} {force} {in_use:?}")
}

/// Gives an image another name (used by pull and import; `tag` later).
pub fn tag(conn: &Connection, id: &str, name: &Reference) -> Result<(), Error> {
    todo!("{conn:?} {id} {name:?}")
}
