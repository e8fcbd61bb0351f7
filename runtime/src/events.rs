//! What has happened, as rows of the database: `events` reads them. A row is written in the transaction of what it tells.

use rusqlite::{Connection, params};
use time::OffsetDateTime;

use crate::error::Error;

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
         )",
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
    let attributes: serde_json::Map<String, serde_json::Value> = attributes
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
            serde_json::Value::Object(attributes).to_string(),
        ],
    )?;
    Ok(())
}
