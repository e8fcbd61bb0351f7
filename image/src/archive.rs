//! `import`: an image of one layer from a tar of a root filesystem.

use std::io::Read;
use std::path::Path;

use rusqlite::Connection;

use crate::error::Error;
use crate::{Image, Reference};

/// Makes an image of one layer from a tar (plain or gzip). `changes` are Dockerfile lines of `import --change`:
/// CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR, STOPSIGNAL.
pub fn import(
    conn: &mut Connection,
    root: &Path,
    tar: &mut dyn Read,
    name: Option<&Reference>,
    changes: &[String],
    message: Option<&str>,
) -> Result<Image, Error> {
    let _ = (conn, root, tar, name, changes, message);
    todo!()
}
