//! The database's log on the disk, before content goes for good that its rows have told of.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use rusqlite::Connection;

use crate::error::Error;

/// Where the commits of a database stand first. A commit does not wait for the disk (`synchronous` is NORMAL): a power cut may bring rows
/// back. That is well, as long as what they tell of has not been deleted.
pub(super) struct Log(Option<PathBuf>);

impl Log {
    pub(super) fn of(conn: &Connection) -> Log {
        // A database in memory has an empty path.
        let path = conn.path().filter(|path| !path.is_empty());
        Log(path.map(|path| format!("{path}-wal").into()))
    }

    /// Waits until all that is committed is on the disk.
    pub(super) fn sync(self) -> Result<(), Error> {
        let Some(path) = self.0 else { return Ok(()) };
        match File::open(&path).and_then(|log| log.sync_data()) {
            // In another mode of journal a commit waits by itself.
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("write to disk", path)(e))
            }
            _ => Ok(()),
        }
    }
}
