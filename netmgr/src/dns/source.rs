//! The zone of a container, read from the database for as long as somebody asks.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Row};

use super::Source;
use super::zone::{Name, NetworkNames, Zone};
use crate::error::Error;
use crate::model::Network;

/// A writer never keeps a reader waiting, but for the moment in which the log is made anew.
const BUSY: Duration = Duration::from_millis(500);

/// In KiB: the zone is read in one pass, so pages need not be kept.
const CACHE: i64 = 64;

/// The networks that a container is on, in the order of [`crate::Model::primary`]: the one with its default route first.
fn query() -> String {
    format!(
        "SELECT networks.id, networks.name, networks.internal,
       one.container_id, one.container_name, one.aliases, one.address, one.address6
FROM endpoints AS own
JOIN networks ON networks.id = own.network_id
JOIN endpoints AS one ON one.network_id = own.network_id
WHERE own.container_id = ?1
ORDER BY {}, one.seq",
        Network::RANK_SQL
    )
}

/// The names on the networks that one container is on, from `ROOT/coracle.db`.
pub struct Database {
    path: PathBuf,
    container_id: String,
    open: Option<Open>,
}

/// A connection, and what was read by it last.
struct Open {
    connection: Connection,
    /// Changes when another connection has changed the database (`PRAGMA data_version`).
    version: i64,
    zone: Arc<Zone>,
}

impl Database {
    /// `path` is the database's; it is opened when the first question comes.
    pub fn new(path: PathBuf, container_id: String) -> Database {
        Database {
            path,
            container_id,
            open: None,
        }
    }

    fn open(&self) -> Result<Open, Error> {
        let fail = failed("open it");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags).map_err(fail)?;
        connection.busy_timeout(BUSY).map_err(fail)?;
        connection
            .pragma_update(None, "cache_size", -CACHE)
            .map_err(fail)?;
        // Before the rows: a change in between is seen the next time.
        let version = version(&connection)?;
        let zone = Arc::new(read(&connection, &self.container_id)?);
        Ok(Open {
            connection,
            version,
            zone,
        })
    }
}

impl Source for Database {
    fn zone(&mut self) -> Result<Arc<Zone>, Error> {
        if let Some(open) = &mut self.open {
            let current = version(&open.connection).and_then(|version| {
                if version != open.version {
                    open.zone = Arc::new(read(&open.connection, &self.container_id)?);
                    open.version = version;
                }
                Ok(open.zone.clone())
            });
            match current {
                Ok(zone) => return Ok(zone),
                // The next question starts from the beginning.
                Err(error) => {
                    self.open = None;
                    return Err(error);
                }
            }
        }
        let open = self.open()?;
        Ok(self.open.insert(open).zone.clone())
    }

    fn rest(&mut self) {
        self.open = None;
    }
}

fn version(connection: &Connection) -> Result<i64, Error> {
    connection
        .prepare_cached("PRAGMA data_version")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .map_err(failed("look for changes"))
}

fn read(connection: &Connection, container_id: &str) -> Result<Zone, Error> {
    let fail = failed("read the names of containers");
    let mut statement = connection.prepare_cached(&query()).map_err(fail)?;
    let mut rows = statement.query([container_id]).map_err(fail)?;
    let mut networks: Vec<NetworkNames> = Vec::new();
    let mut last_id = String::new();
    while let Some(row) = rows.next().map_err(fail)? {
        let id: String = row.get(0).map_err(fail)?;
        if id != last_id {
            networks.push(network(row).map_err(fail)?);
            last_id = id;
        }
        if let Some(network) = networks.last_mut()
            && network.named
        {
            network.containers.push(container(row)?);
        }
    }
    Ok(Zone::new(networks))
}

fn network(row: &Row<'_>) -> rusqlite::Result<NetworkNames> {
    let name: String = row.get(1)?;
    Ok(NetworkNames {
        internal: row.get(2)?,
        named: name != Network::DEFAULT,
        name,
        containers: Vec::new(),
    })
}

fn container(row: &Row<'_>) -> Result<Name, Error> {
    let fail = failed("read the names of containers");
    let malformed = |what| move |value: String| Error::Malformed { what, value };
    let aliases: String = row.get(5).map_err(fail)?;
    let address: String = row.get(6).map_err(fail)?;
    let address6: Option<String> = row.get(7).map_err(fail)?;
    Ok(Name {
        container_id: row.get(3).map_err(fail)?,
        container_name: row.get(4).map_err(fail)?,
        aliases: serde_json::from_str(&aliases).map_err(|_| malformed("aliases")(aliases))?,
        address: address.parse().map_err(|_| malformed("address")(address))?,
        address6: address6
            .map(|address| address.parse().map_err(|_| malformed("address")(address)))
            .transpose()?,
    })
}

fn failed(operation: &'static str) -> impl Fn(rusqlite::Error) -> Error + Copy {
    move |source| Error::Database { operation, source }
}
