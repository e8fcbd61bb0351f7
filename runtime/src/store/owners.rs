//! Who answers for a container, from the claim of the command that starts it to its end, and what its policy does for it.

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::containers::{Stored, json, several, text};
use crate::error::Error;
use crate::process::Identity;
use crate::record::Health;

/// The process that answers for a container, and the boot in which it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub process: Identity,
    pub boot_id: String,
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
    pub(super) fn of(number: i64) -> Restarting {
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

    pub(super) fn of(number: i64) -> Stopped {
        match number {
            0 => Stopped::No,
            2 => Stopped::ByDown,
            _ => Stopped::ByUser,
        }
    }
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

/// Before the signal that ends it: its monitor reads this when it has ended.
pub fn set_stopped(conn: &Connection, id: &str, stopped: Stopped) -> Result<(), Error> {
    conn.execute(
        "UPDATE containers SET user_stopped = ?2 WHERE id = ?1",
        params![id, stopped.number()],
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
