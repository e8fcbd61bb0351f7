//! What a container's name server answers from.

use std::net::{Ipv4Addr, Ipv6Addr};

use rusqlite::Connection;

use super::columns::{failed, from_json, optional, parse};
use crate::error::Error;

/// A container in a network, by all names that it has there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub network_id: String,
    pub container_id: String,
    pub container_name: String,
    pub aliases: Vec<String>,
    pub address: Ipv4Addr,
    pub address6: Option<Ipv6Addr>,
}

/// Everyone on some networks: network by network as given, in each in order of attachment. Only reads.
pub fn names_on<S: AsRef<str>>(conn: &Connection, network_ids: &[S]) -> Result<Vec<Named>, Error> {
    let fail = failed("read names");
    let mut statement = conn
        .prepare_cached(
            "SELECT container_id, container_name, aliases, address, address6 FROM endpoints
             WHERE network_id = ?1 ORDER BY seq",
        )
        .map_err(fail)?;
    let mut names = Vec::new();
    for network_id in network_ids {
        let network_id = network_id.as_ref();
        let mut rows = statement.query([network_id]).map_err(fail)?;
        while let Some(row) = rows.next().map_err(fail)? {
            let text = |column: &str| row.get::<_, String>(column).map_err(fail);
            names.push(Named {
                network_id: network_id.to_owned(),
                container_id: text("container_id")?,
                container_name: text("container_name")?,
                aliases: from_json("aliases", &text("aliases")?)?,
                address: parse("address", &text("address")?)?,
                address6: optional(row, "address6")?,
            });
        }
    }
    Ok(names)
}

/// A number that is another one after any commit of another connection: as long as it stays, so do the answers. Of use
/// on one connection only, and blind to what that connection itself writes (SQLite, `PRAGMA data_version`).
pub fn data_version(conn: &Connection) -> Result<i64, Error> {
    conn.prepare_cached("PRAGMA data_version")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .map_err(failed("read the version of the data"))
}
