//! What has happened, as rows of the database: `events` reads them. A row is written in the transaction of what it tells.

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::error::Error;
use crate::record::Container;

/// So many are kept; older ones go.
pub const KEPT: i64 = 10_000;

/// How many come between two looks at what is too old.
const SWEEP: i64 = 100;

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Grows with each event.
    pub seq: i64,
    /// Nanoseconds since 1970.
    pub time: i64,
    pub subject: String,
    pub action: String,
    pub actor: String,
    /// In alphabetical order.
    pub attributes: Vec<(String, String)>,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    Container,
    Image,
    Network,
    Volume,
}

impl Subject {
    pub fn as_str(self) -> &'static str {
        match self {
            Subject::Container => "container",
            Subject::Image => "image",
            Subject::Network => "network",
            Subject::Volume => "volume",
        }
    }
}

pub fn create_tables(conn: &Connection) -> Result<(), Error> {
    conn.execute_batch(
        "CREATE TABLE IF NOT EXISTS events (
             seq        INTEGER PRIMARY KEY AUTOINCREMENT,
             -- Nanoseconds since 1970.
             time       INTEGER NOT NULL,
             subject    TEXT NOT NULL,
             -- As Docker calls it: create, start, die, health_status: healthy, ...
             action     TEXT NOT NULL,
             -- ID of a container, image or network; name of a volume.
             actor      TEXT NOT NULL,
             -- JSON: names and values as text, in Docker's words (image, name, exitCode, ...).
             attributes TEXT NOT NULL
         );
         CREATE INDEX IF NOT EXISTS events_by_actor ON events (actor, seq);",
    )?;
    Ok(())
}

/// Enters an event of now.
pub fn record(
    conn: &Connection,
    subject: Subject,
    action: &str,
    actor: &str,
    attributes: &[(&str, &str)],
) -> Result<(), Error> {
    let attributes: Map<String, Value> = attributes
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).into()))
        .collect();
    conn.execute(
        "INSERT INTO events (time, subject, action, actor, attributes) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            OffsetDateTime::now_utc().unix_timestamp_nanos() as i64,
            subject.as_str(),
            action,
            actor,
            Value::Object(attributes).to_string(),
        ],
    )?;
    let last = conn.last_insert_rowid();
    if last % SWEEP == 0 {
        conn.execute("DELETE FROM events WHERE seq <= ?1", [last - KEPT])?;
    }
    Ok(())
}

/// Enters what a container has done or suffered: with its labels, image and name, as Docker has it, and what `more` says.
pub fn record_container(
    conn: &Connection,
    container: &Container,
    action: &str,
    more: &[(&str, &str)],
) -> Result<(), Error> {
    let labels = container.resolved.labels.iter();
    let mut attributes: Vec<(&str, &str)> = labels.map(|(k, v)| (k.as_str(), v.as_str())).collect();
    attributes.push(("image", &container.request.image));
    attributes.push(("name", &container.name));
    attributes.extend(more);
    record(conn, Subject::Container, action, &container.id, &attributes)
}

/// Enters that a container's program runs, unless that is known. Whoever started it says so, or whoever sees it end before that.
pub fn record_start(conn: &Connection, container: &Container) -> Result<(), Error> {
    let last: Option<String> = conn
        .query_row(
            "SELECT action FROM events WHERE actor = ?1 AND action IN ('start', 'die') ORDER BY seq DESC LIMIT 1",
            [&container.id],
            |row| row.get(0),
        )
        .optional()?;
    match last.as_deref() {
        Some("start") => Ok(()),
        _ => record_container(conn, container, "start", &[]),
    }
}

/// Enters that a container has ended, and left its networks.
pub fn record_end(conn: &Connection, container: &Container, code: i32) -> Result<(), Error> {
    record_start(conn, container)?;
    record_container(conn, container, "die", &[("exitCode", &code.to_string())])?;
    record_departure(conn, &container.id)
}

/// Enters what has become of a network.
pub fn record_network(
    conn: &Connection,
    network: &netmgr::Network,
    action: &str,
) -> Result<(), Error> {
    let attributes = [("name", network.name.as_str()), ("type", "bridge")];
    record(conn, Subject::Network, action, &network.id, &attributes)
}

/// Enters what has become of an image.
pub fn record_image(conn: &Connection, action: &str, actor: &str, name: &str) -> Result<(), Error> {
    record(conn, Subject::Image, action, actor, &[("name", name)])
}

/// Enters that what is unused of a kind has been removed, with the bytes that are free since.
pub fn record_prune(conn: &Connection, subject: Subject, reclaimed: u64) -> Result<(), Error> {
    let reclaimed = reclaimed.to_string();
    record(conn, subject, "prune", "", &[("reclaimed", &reclaimed)])
}

/// Enters that a container has come to a network or left it.
pub fn record_place(
    conn: &Connection,
    network: &netmgr::Network,
    container: &str,
    action: &str,
) -> Result<(), Error> {
    let attributes = [
        ("container", container),
        ("name", &network.name),
        ("type", "bridge"),
    ];
    record(conn, Subject::Network, action, &network.id, &attributes)
}

/// Enters that a container leaves all the networks that it is on.
pub fn record_departure(conn: &Connection, container: &str) -> Result<(), Error> {
    for endpoint in netmgr::store::endpoints_of(conn, container)? {
        let network = netmgr::store::find_network(conn, &endpoint.network_id)?;
        record_place(conn, &network, container, "disconnect")?;
    }
    Ok(())
}

/// The number of the newest event; 0 if there is none.
pub fn newest(conn: &Connection) -> Result<i64, Error> {
    Ok(
        conn.query_row("SELECT coalesce(max(seq), 0) FROM events", [], |row| {
            row.get(0)
        })?,
    )
}

/// What came after the event `seq`, the oldest first.
pub fn after(conn: &Connection, seq: i64) -> Result<Vec<Event>, Error> {
    let mut statement = conn.prepare_cached(
        "SELECT seq, time, subject, action, actor, attributes FROM events WHERE seq > ?1 ORDER BY seq",
    )?;
    let rows = statement.query_map([seq], |row| {
        let text: String = row.get(5)?;
        let event = Event {
            seq: row.get(0)?,
            time: row.get(1)?,
            subject: row.get(2)?,
            action: row.get(3)?,
            actor: row.get(4)?,
            attributes: Vec::new(),
        };
        Ok((event, text))
    })?;
    let mut events = Vec::new();
    for row in rows {
        let (mut event, text) = row?;
        let map: Map<String, Value> =
            serde_json::from_str(&text).map_err(|e| Error::CorruptRow {
                what: "an event",
                source: e.into(),
            })?;
        let text = |value: Value| value.as_str().unwrap_or_default().to_owned();
        event.attributes = map.into_iter().map(|(k, v)| (k, text(v))).collect();
        event.attributes.sort();
        events.push(event);
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_ten_thousand_are_kept() {
        let conn = Connection::open_in_memory().unwrap();
        create_tables(&conn).unwrap();
        let seen = |n: usize| record(&conn, Subject::Image, "pull", &n.to_string(), &[("a", "b")]);
        (0..10_400).for_each(|n| seen(n).unwrap());
        let all = after(&conn, 0).unwrap();
        assert_eq!(all.len() as i64, KEPT);
        assert_eq!(all.last().unwrap().actor, "10399");
        assert_eq!(newest(&conn).unwrap(), 10_400);
        assert_eq!(after(&conn, 10_399).unwrap().len(), 1);
        assert_eq!(all[0].attributes, [("a".to_owned(), "b".to_owned())]);
    }
}
