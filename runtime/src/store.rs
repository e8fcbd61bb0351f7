//! The database: opening it, and the rows of containers. Networks, images and volumes keep their own tables in it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::Error;
use crate::process::Identity;
use crate::record::{Container, Health, Resolved, State};
use crate::request::ContainerRequest;

/// Bumped with the schema; a database that says the same is not looked at again.
const SCHEMA: i64 = 3;

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

/// A container's row, with the facts about processes that only the engine and the monitor need.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its `state` is what the row says; whether the kernel agrees is for the engine to find out.
    pub container: Container,
    pub owner: Option<Owner>,
    /// The first process.
    pub init: Option<Identity>,
    pub restarting: Restarting,
    pub stopped: Stopped,
    /// The boot of its last run, or of this one.
    pub boot_id: Option<String>,
}

/// What a container's policy does for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restarting {
    /// Its last start was the user's.
    No,
    /// It has ended, and its owner starts it again after a pause.
    Waiting,
    /// It was started again, or is being started.
    Begun,
}

impl Restarting {
    fn of(number: i64) -> Restarting {
        match number {
            0 => Restarting::No,
            1 => Restarting::Waiting,
            _ => Restarting::Begun,
        }
    }
}

/// Who does not want a container to run: its policy does not start it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    No,
    ByUser,
    /// Until `system up`.
    ByDown,
}

impl Stopped {
    fn number(self) -> i64 {
        match self {
            Stopped::No => 0,
            Stopped::ByUser => 1,
            Stopped::ByDown => 2,
        }
    }

    fn of(number: i64) -> Stopped {
        match number {
            0 => Stopped::No,
            2 => Stopped::ByDown,
            _ => Stopped::ByUser,
        }
    }
}

/// The process that answers for a container, and the boot in which it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub process: Identity,
    pub boot_id: String,
}

/// Opens the database of `root` and makes it on first use.
pub fn open(root: &Path) -> Result<Connection, Error> {
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

/// Enters a new container. A name in use is a conflict.
pub fn insert(conn: &Connection, container: &Container) -> Result<(), Error> {
    if let Some(holder) = id_of_name(conn, &container.name)? {
        return Err(Error::NameInUse {
            name: container.name.clone(),
            holder,
        });
    }
    conn.execute(
        "INSERT INTO containers (id, name, created, image_id, request, resolved, auto_remove) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            container.id,
            container.name,
            text(container.created),
            container.image_id,
            json(&container.request)?,
            json(&container.resolved)?,
            container.request.auto_remove,
        ],
    )?;
    Ok(())
}

pub fn delete(conn: &Connection, id: &str) -> Result<(), Error> {
    conn.execute("DELETE FROM containers WHERE id = ?1", [id])?;
    Ok(())
}

/// The container of this name, ID or unique prefix of an ID.
pub fn find(conn: &Connection, name: &str) -> Result<Stored, Error> {
    let missing = || Error::NoSuchContainer(name.to_owned());
    if name.is_empty() {
        return Err(missing());
    }
    // As `inspect` prints it, a name begins with a slash; people paste it.
    let plain = name.strip_prefix('/').unwrap_or(name);
    let exact = one(
        conn,
        "WHERE name = ?1 OR id = ?1 ORDER BY id = ?1 DESC LIMIT 1",
        plain,
    )?;
    if let Some(stored) = exact {
        return Ok(stored);
    }
    if plain.is_empty() || !plain.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(missing());
    }
    let mut matches = several(
        conn,
        "WHERE substr(id, 1, length(?1)) = ?1 LIMIT 2",
        [plain],
    )?;
    match (matches.pop(), matches.pop()) {
        (None, _) => Err(missing()),
        (Some(stored), None) => Ok(stored),
        _ => Err(Error::AmbiguousId(name.to_owned())),
    }
}

pub fn get(conn: &Connection, id: &str) -> Result<Option<Stored>, Error> {
    one(conn, "WHERE id = ?1", id)
}

/// All containers, newest first.
pub fn list(conn: &Connection) -> Result<Vec<Stored>, Error> {
    several(conn, "ORDER BY seq DESC", [])
}

/// Those that somebody answers for: starting or running.
pub fn owned(conn: &Connection) -> Result<Vec<Stored>, Error> {
    several(conn, "WHERE owner_pid IS NOT NULL", [])
}

/// The same, by ID and without the records: every command looks through all of them.
pub fn owners(conn: &Connection) -> Result<Vec<(String, Owner)>, Error> {
    let mut statement = conn.prepare(
        "SELECT id, owner_pid, owner_start, boot_id FROM containers
         WHERE owner_pid IS NOT NULL AND owner_start IS NOT NULL",
    )?;
    let rows = statement.query_map([], |row| {
        let process = Identity {
            pid: row.get(1)?,
            start: row.get::<_, i64>(2)? as u64,
        };
        let boot_id: Option<String> = row.get(3)?;
        let boot_id = boot_id.unwrap_or_default();
        Ok((row.get(0)?, Owner { process, boot_id }))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The IDs of all containers.
pub fn ids(conn: &Connection) -> Result<Vec<String>, Error> {
    let mut statement = conn.prepare("SELECT id FROM containers")?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The image of each container, with the container's ID: `rmi` must not take these.
pub fn images_in_use(conn: &Connection) -> Result<Vec<(String, String)>, Error> {
    let mut statement = conn.prepare("SELECT image_id, id FROM containers")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Claims a container for a start by the user. False if somebody answers for it already. How it ended last stays until it runs.
pub fn claim(conn: &Connection, id: &str, owner: &Owner) -> Result<bool, Error> {
    let changed = conn.execute(
        "UPDATE containers SET boot_id = ?2, owner_pid = ?3, owner_start = ?4, pid = NULL, pid_start = NULL,
             restarting = 0, restarts = 0, user_stopped = 0
         WHERE id = ?1 AND owner_pid IS NULL",
        params![
            id,
            owner.boot_id,
            owner.process.pid,
            owner.process.start as i64
        ],
    )?;
    Ok(changed == 1)
}

/// Claims a container that waits for a start by its policy, from the owner `before`. False if the user has stopped or started it
/// meanwhile.
pub fn claim_restart(
    conn: &Connection,
    id: &str,
    before: Identity,
    owner: &Owner,
) -> Result<bool, Error> {
    let changed = conn.execute(
        "UPDATE containers SET boot_id = ?2, owner_pid = ?3, owner_start = ?4, restarts = restarts + 1, restarting = 2
         WHERE id = ?1 AND owner_pid = ?5 AND owner_start = ?6 AND restarting = 1 AND user_stopped = 0",
        params![
            id,
            owner.boot_id,
            owner.process.pid,
            owner.process.start as i64,
            before.pid,
            before.start as i64
        ],
    )?;
    Ok(changed == 1)
}

/// A restart that came to nothing: as before it, with the owner that it has.
pub fn wait_again(conn: &Connection, id: &str) -> Result<(), Error> {
    conn.execute(
        "UPDATE containers SET pid = NULL, pid_start = NULL, restarting = 1 WHERE id = ?1",
        [id],
    )?;
    Ok(())
}

/// Ends the wait of a container for its restart: it stays as it ended. False if it does not wait.
pub fn end_restart(conn: &Connection, id: &str) -> Result<bool, Error> {
    let changed = conn.execute(
        "UPDATE containers SET owner_pid = NULL, owner_start = NULL, restarting = 0
         WHERE id = ?1 AND restarting = 1",
        [id],
    )?;
    Ok(changed == 1)
}

/// Before the signal that ends it: its monitor reads this when it has ended.
pub fn set_stopped(conn: &Connection, id: &str, stopped: Stopped) -> Result<(), Error> {
    conn.execute(
        "UPDATE containers SET user_stopped = ?2 WHERE id = ?1",
        params![id, stopped.number()],
    )?;
    Ok(())
}

/// A name in use is a conflict.
pub fn set_name(conn: &Connection, id: &str, name: &str) -> Result<(), Error> {
    if let Some(holder) = id_of_name(conn, name)? {
        return Err(Error::NameInUse {
            name: name.to_owned(),
            holder,
        });
    }
    conn.execute(
        "UPDATE containers SET name = ?2 WHERE id = ?1",
        params![id, name],
    )?;
    Ok(())
}

/// What the health checks have found.
pub fn set_health(conn: &Connection, id: &str, health: &Health) -> Result<(), Error> {
    conn.execute(
        "UPDATE containers SET health = ?2 WHERE id = ?1",
        params![id, json(health)?],
    )?;
    Ok(())
}

/// Hands a claimed container to its monitor.
pub fn hand_over(conn: &Connection, id: &str, owner: &Owner) -> Result<(), Error> {
    conn.execute(
        "UPDATE containers SET boot_id = ?2, owner_pid = ?3, owner_start = ?4 WHERE id = ?1",
        params![
            id,
            owner.boot_id,
            owner.process.pid,
            owner.process.start as i64
        ],
    )?;
    Ok(())
}

/// Records the first process, which waits for its start. How the container ended last stays, should it not come to that.
/// `health`: where its checks begin, if it has any. False if `monitor` answers for it no more: it was killed, and another command has
/// mended that.
pub fn set_running(
    conn: &Connection,
    id: &str,
    monitor: Identity,
    init: Identity,
    started: OffsetDateTime,
    health: Option<&Health>,
) -> Result<bool, Error> {
    let changed = conn.execute(
        "UPDATE containers SET pid = ?2, pid_start = ?3, last_started = started, started = ?4, health = ?5
         WHERE id = ?1 AND owner_pid = ?6 AND owner_start = ?7",
        params![
            id,
            init.pid,
            init.start as i64,
            text(started),
            health.map(json).transpose()?,
            monitor.pid,
            monitor.start as i64
        ],
    )?;
    Ok(changed == 1)
}

/// Writes what a container has become since it was created: its networks, the host name of the one that it joins.
pub fn set_resolved(conn: &Connection, id: &str, resolved: &Resolved) -> Result<(), Error> {
    conn.execute(
        "UPDATE containers SET resolved = ?2 WHERE id = ?1",
        params![id, json(resolved)?],
    )?;
    Ok(())
}

/// Writes what is asked for of a container from now on (`update`).
pub fn set_request(conn: &Connection, id: &str, request: &ContainerRequest) -> Result<(), Error> {
    conn.execute(
        "UPDATE containers SET request = ?2 WHERE id = ?1",
        params![id, json(request)?],
    )?;
    Ok(())
}

/// How a container ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct End {
    pub code: i32,
    pub oom_killed: bool,
    pub error: String,
    /// `None`: now.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished: Option<OffsetDateTime>,
}

/// Nobody answers for the container any more: it has ended. As in Docker, what nobody checks any more is not healthy.
pub fn set_exited(conn: &Connection, id: &str, end: &End) -> Result<(), Error> {
    conn.execute(
        &format!("UPDATE containers SET owner_pid = NULL, owner_start = NULL, restarting = 0, {ENDED} WHERE id = ?1"),
        params![id, text(end.finished.unwrap_or_else(OffsetDateTime::now_utc)), end.code, end.oom_killed, end.error],
    )?;
    Ok(())
}

/// It has ended, and its owner, which stays the same, starts it again after a pause.
pub fn set_restarting(conn: &Connection, id: &str, end: &End) -> Result<(), Error> {
    conn.execute(
        &format!("UPDATE containers SET restarting = 1, {ENDED} WHERE id = ?1"),
        params![
            id,
            text(OffsetDateTime::now_utc()),
            end.code,
            end.oom_killed,
            end.error
        ],
    )?;
    Ok(())
}

const ENDED: &str =
    "pid = NULL, pid_start = NULL, finished = ?2, exit_code = ?3, oom_killed = ?4, error = ?5,
    health = CASE WHEN health IS NULL THEN NULL ELSE json_set(health, '$.status', 'unhealthy') END";

/// A start that came to nothing: nobody answers for the container any more.
pub fn unclaim(conn: &Connection, id: &str) -> Result<(), Error> {
    conn.execute(
        "UPDATE containers SET owner_pid = NULL, owner_start = NULL, pid = NULL, pid_start = NULL,
             started = CASE WHEN pid IS NULL THEN started ELSE last_started END, restarting = 0
         WHERE id = ?1",
        [id],
    )?;
    Ok(())
}

fn id_of_name(conn: &Connection, name: &str) -> Result<Option<String>, Error> {
    let id = conn
        .query_row("SELECT id FROM containers WHERE name = ?1", [name], |row| {
            row.get(0)
        })
        .optional()?;
    Ok(id)
}

const COLUMNS: &str = "id, name, created, image_id, request, resolved, boot_id, owner_pid, owner_start, pid, pid_start,
    started, finished, exit_code, oom_killed, error, restarting, restarts, user_stopped, health";

fn one(conn: &Connection, clause: &str, name: &str) -> Result<Option<Stored>, Error> {
    Ok(several(conn, clause, [name])?.into_iter().next())
}

fn several(
    conn: &Connection,
    clause: &str,
    params: impl rusqlite::Params,
) -> Result<Vec<Stored>, Error> {
    let mut statement =
        conn.prepare_cached(&format!("SELECT {COLUMNS} FROM containers {clause}"))?;
    let mut rows = statement.query(params)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        all.push(read(row)?);
    }
    Ok(all)
}

fn read(row: &Row<'_>) -> Result<Stored, Error> {
    let process = |pid, start| -> Result<Option<Identity>, Error> {
        let pid: Option<i32> = row.get(pid)?;
        let start: Option<i64> = row.get(start)?;
        Ok(pid.zip(start).map(|(pid, start)| Identity {
            pid,
            start: start as u64,
        }))
    };
    let boot_id: Option<String> = row.get("boot_id")?;
    let stopped = Stopped::of(row.get("user_stopped")?);
    let owner = process("owner_pid", "owner_start")?.map(|process| Owner {
        process,
        boot_id: boot_id.clone().unwrap_or_default(),
    });
    let init = process("pid", "pid_start")?;
    let container = Container {
        id: row.get("id")?,
        name: row.get("name")?,
        created: parse_time(&row.get::<_, String>("created")?)?,
        request: parse_json(&row.get::<_, String>("request")?)?,
        resolved: parse_json(&row.get::<_, String>("resolved")?)?,
        image_id: row.get("image_id")?,
        state: read_state(row, init)?,
        paused: false,
        health: row
            .get::<_, Option<String>>("health")?
            .map(|text| parse_json(&text))
            .transpose()?,
        restarts: row.get("restarts")?,
        stopped_by_user: stopped == Stopped::ByUser,
        attachments: Vec::new(),
    };
    Ok(Stored {
        container,
        owner,
        init,
        restarting: Restarting::of(row.get("restarting")?),
        stopped,
        boot_id,
    })
}

fn read_state(row: &Row<'_>, init: Option<Identity>) -> Result<State, Error> {
    let time = |column| -> Result<Option<OffsetDateTime>, Error> {
        row.get::<_, Option<String>>(column)?
            .map(|text| parse_time(&text))
            .transpose()
    };
    let (started, finished) = (time("started")?, time("finished")?);
    if let (Some(init), Some(started)) = (init, started) {
        return Ok(State::Running {
            pid: init.pid,
            started,
        });
    }
    let restarting = Restarting::of(row.get("restarting")?);
    if let (Some(finished), true) = (finished, restarting != Restarting::No) {
        return Ok(State::Restarting {
            code: row.get::<_, Option<i32>>("exit_code")?.unwrap_or(0),
            started,
            finished,
        });
    }
    if let Some(finished) = finished {
        return Ok(State::Exited {
            code: row.get::<_, Option<i32>>("exit_code")?.unwrap_or(0),
            started,
            finished,
            oom_killed: row.get("oom_killed")?,
            error: row.get("error")?,
        });
    }
    Ok(State::Created)
}

fn text(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

fn parse_time(text: &str) -> Result<OffsetDateTime, Error> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|e| Error::CorruptRow {
        what: "a time",
        source: e.into(),
    })
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|e| Error::CorruptRow {
        what: "a record",
        source: e.into(),
    })
}

fn parse_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|e| Error::CorruptRow {
        what: "a record",
        source: e.into(),
    })
}
