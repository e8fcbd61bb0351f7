//! The database: opening it, its schema, and the rows of containers. Networks, images and volumes keep their own tables in it.

mod containers;
mod owners;

pub use containers::{
    Stored, delete, find, get, ids, images_in_use, insert, list, runs_on, set_health, set_name,
    set_request, set_resolved,
};
pub use owners::{
    End, Owner, Restarting, Stopped, claim, claim_restart, end_restart, hand_over, owned, owners,
    set_exited, set_restarting, set_running, set_stopped, unclaim, wait_again,
};

use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::error::Error;
use crate::reserve;

/// Bumped with the schema; a database that says the same is not looked at again.
const SCHEMA: i64 = 4;

/// How long a command waits for others that write.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of the log from which on the next command to open the database empties it: 256 pages, which take a millisecond to
/// read. Once in many commands one waits for the disk.
const LONGEST_LOG: u64 = 1 << 20;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS containers (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT NOT NULL UNIQUE,
    name        TEXT NOT NULL UNIQUE,
    created     TEXT NOT NULL,
    image_id    TEXT NOT NULL,
    request     TEXT NOT NULL,
    resolved    TEXT NOT NULL,
    auto_remove INTEGER NOT NULL,
    -- Who answers for a container that is starting or running: first the command, then the monitor. The boot stays when
    -- the owner has gone: it is the one of the last run.
    boot_id     TEXT,
    owner_pid   INTEGER,
    owner_start INTEGER,
    -- The container's first process, from the moment it exists (it may still wait for its start).
    pid         INTEGER,
    pid_start   INTEGER,
    started     TEXT,
    -- What `started` was before the start that is under way.
    last_started TEXT,
    finished    TEXT,
    exit_code   INTEGER,
    oom_killed  INTEGER NOT NULL DEFAULT 0,
    error       TEXT NOT NULL DEFAULT '',
    -- By its policy. 1: it has ended, and its owner starts it again after a pause; 2: it is being started again, or was.
    restarting  INTEGER NOT NULL DEFAULT 0,
    -- By its policy, since the user started it last.
    restarts    INTEGER NOT NULL DEFAULT 0,
    -- 0: nobody has stopped it; 1: the user has; 2: `system down` has.
    user_stopped INTEGER NOT NULL DEFAULT 0,
    -- What its health checks have found, as JSON.
    health      TEXT
);
";

/// From schema 2 to 3.
const NEW_COLUMNS: &str = "
ALTER TABLE containers ADD COLUMN last_started TEXT;
ALTER TABLE containers ADD COLUMN restarting INTEGER NOT NULL DEFAULT 0;
ALTER TABLE containers ADD COLUMN restarts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE containers ADD COLUMN user_stopped INTEGER NOT NULL DEFAULT 0;
ALTER TABLE containers ADD COLUMN health TEXT;
ALTER TABLE volumes ADD COLUMN options TEXT NOT NULL DEFAULT '[]';
";

/// Opens the database of `root` and makes it on first use; on a full disk with the space that is set aside.
pub fn open(root: &Path) -> Result<Connection, Error> {
    loop {
        match connect(root) {
            Err(error) if reserve::is_wanted(&error) && reserve::release_part(root) => {}
            opened => return opened,
        }
    }
}

fn connect(root: &Path) -> Result<Connection, Error> {
    let path = root.join("coracle.db");
    let failed = |source| Error::OpenDatabase {
        path: path.clone(),
        source,
    };
    let conn = Connection::open(&path).map_err(failed)?;
    // WAL: readers never wait. NORMAL: a power loss may cost the last moments, never the database.
    conn.busy_timeout(PATIENCE).map_err(failed)?;
    conn.pragma_update(None, "journal_mode", "WAL")
        .map_err(failed)?;
    conn.pragma_update(None, "synchronous", "NORMAL")
        .map_err(failed)?;
    // Otherwise the last command to close the database writes the whole log into it and waits for the disk, each time;
    // so does the next one to open it.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(failed)?;
    if fs::metadata(root.join("coracle.db-wal")).is_ok_and(|log| log.len() > LONGEST_LOG) {
        empty_log(&conn).map_err(failed)?;
    }
    conn.pragma_update(None, "foreign_keys", true)
        .map_err(failed)?;
    let schema: i64 = conn
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failed)?;
    if schema > SCHEMA {
        return Err(Error::NewerDatabase { path });
    }
    if schema < SCHEMA {
        create_tables(&conn)?;
    }
    Ok(conn)
}

/// Or brings them up to date. In one transaction: of two commands that find an old database, the second finds a new one.
fn create_tables(conn: &Connection) -> Result<(), Error> {
    let tx = rusqlite::Transaction::new_unchecked(conn, rusqlite::TransactionBehavior::Immediate)?;
    let schema: i64 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if schema == 2 {
        tx.execute_batch(NEW_COLUMNS)?;
    }
    if schema < SCHEMA {
        tx.execute_batch(TABLES)?;
        image::store::create_tables(&tx)?;
        netmgr::store::create_tables(&tx)?;
        crate::volume::create_tables(&tx)?;
        crate::events::create_tables(&tx)?;
        tx.pragma_update(None, "user_version", SCHEMA)?;
    }
    tx.commit()?;
    Ok(())
}

/// Writes the log into the database and begins it anew. If somebody is reading or writing just now, the next command does.
///
/// SQLite's own checkpoint after a commit does not do for commands that come and go: that the log was written is only
/// remembered as long as somebody has the database open, so the next one adds to it, it grows for ever, and whoever opens the
/// database reads all of it.
fn empty_log(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(Duration::ZERO)?;
    let emptied = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    conn.busy_timeout(PATIENCE)?;
    match emptied {
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {
            Ok(())
        }
        emptied => emptied,
    }
}
