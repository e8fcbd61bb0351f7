//! Holding a layer: what whoever is going to make or use one takes, the lowest of a chain first.

use std::path::Path;

use rusqlite::Connection;

use super::has_layer;
use crate::digest::Digest;
use crate::error::Error;
use crate::lock::{LayerLock, Mode};

/// The lock, and whether the layer is there: then it is shared, else exclusive. `waiting` is called before a wait for another process.
pub(crate) fn hold_layer(
    conn: &Connection,
    root: &Path,
    chain_id: &Digest,
    waiting: &mut dyn FnMut(),
) -> Result<(LayerLock, bool), Error> {
    let mut take = |mode| match LayerLock::try_take(root, chain_id, mode)? {
        Some(lock) => Ok(lock),
        None => {
            waiting();
            LayerLock::take(root, chain_id, mode)
        }
    };
    loop {
        if has_layer(conn, root, chain_id)? {
            let lock = take(Mode::Shared)?;
            if has_layer(conn, root, chain_id)? {
                return Ok((lock, true));
            }
        } else {
            let lock = take(Mode::Exclusive)?;
            if !has_layer(conn, root, chain_id)? {
                return Ok((lock, false));
            }
        }
        // It came or went while we waited: once more, with the other kind of lock.
    }
}
