//! The rows of containers: entering, finding and changing them. Who answers for one is `owners`'s to say.

use rusqlite::{Connection, OptionalExtension, Row, params};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::owners::{Owner, Restarting, Stopped};
use crate::error::Error;
use crate::process::Identity;
use crate::record::{Container, Health, Resolved, State};
use crate::request::ContainerRequest;

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

/// The short ID of a container that starts or runs on an image, if one does. One of which nothing is known counts.
pub fn runs_on(conn: &Connection, image_id: &str) -> Option<String> {
    let found = conn.query_row(
        "SELECT substr(id, 1, 12) FROM containers WHERE image_id = ?1 AND owner_pid IS NOT NULL LIMIT 1",
        [image_id],
        |row| row.get(0),
    );
    match found {
        Ok(id) => Some(id),
        Err(rusqlite::Error::QueryReturnedNoRows) => None,
        Err(_) => Some("?".to_owned()),
    }
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

pub(super) fn several(
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

pub(super) fn text(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}

fn parse_time(text: &str) -> Result<OffsetDateTime, Error> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|e| Error::CorruptRow {
        what: "a time",
        source: e.into(),
    })
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> Result<String, Error> {
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
