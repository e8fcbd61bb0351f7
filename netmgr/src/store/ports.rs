//! Rows of published ports: a container's, whichever of its networks they lead into.

use std::net::IpAddr;

use rusqlite::{Connection, Row, params};

use super::columns::{failed, malformed, parse};
use crate::error::Error;
use crate::model::{PortMap, Protocol};

pub(super) const PORT: &str = "protocol, host_ip, host_port, container_port, count, listener";

/// All published ports of a container, in the order asked for; also while it is in no network that could lead to them.
pub fn ports_of(conn: &Connection, container_id: &str) -> Result<Vec<PortMap>, Error> {
    let fail = failed("read published ports");
    let query = format!("SELECT {PORT} FROM ports WHERE container_id = ?1 ORDER BY position");
    let mut statement = conn.prepare_cached(&query).map_err(fail)?;
    let rows = statement
        .query_map([container_id], |row| Ok(port_map(row)))
        .map_err(fail)?;
    rows.map(|row| row.map_err(fail)?).collect()
}

/// Enters ports behind those that the container has. They must have been checked with [`allocated_port`].
pub(crate) fn insert_ports(
    conn: &Connection,
    container_id: &str,
    maps: &[PortMap],
) -> Result<(), Error> {
    let fail = failed("enter a published port");
    let query = format!(
        "INSERT INTO ports (container_id, position, {PORT})
         SELECT ?1, (SELECT count(*) FROM ports WHERE container_id = ?1), ?2, ?3, ?4, ?5, ?6, ?7"
    );
    let mut insert = conn.prepare_cached(&query).map_err(fail)?;
    for map in maps {
        let host_ip = map.host_ip.map_or_else(String::new, |ip| ip.to_string());
        insert
            .execute(params![
                container_id,
                map.protocol.as_str(),
                host_ip,
                map.host_port,
                map.container_port,
                map.count,
                map.listener,
            ])
            .map_err(fail)?;
    }
    Ok(())
}

pub(crate) fn delete_ports(conn: &Connection, container_id: &str) -> Result<(), Error> {
    conn.execute("DELETE FROM ports WHERE container_id = ?1", [container_id])
        .map_err(failed("remove published ports"))?;
    Ok(())
}

/// The first of a run of host ports that a container has, if one has: on the same address, or where either side
/// means all addresses.
pub(crate) fn allocated_port(conn: &Connection, map: &PortMap) -> Result<Option<u16>, Error> {
    let fail = failed("look up published ports");
    let last = map.host_port + (map.count - 1);
    // Ports of one protocol that overlap the run; the addresses are compared below.
    let mut statement = conn
        .prepare_cached(&format!(
            "SELECT {PORT} FROM ports
             WHERE protocol = ?1 AND host_port <= ?2 AND host_port + count > ?3 ORDER BY host_port",
        ))
        .map_err(fail)?;
    let mut rows = statement
        .query(params![map.protocol.as_str(), last, map.host_port])
        .map_err(fail)?;
    while let Some(row) = rows.next().map_err(fail)? {
        let found = clash(map, &[port_map(row)?]);
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The first port of a map that one of the others has as well.
pub(crate) fn clash(map: &PortMap, others: &[PortMap]) -> Option<u16> {
    let last = |m: &PortMap| m.host_port + (m.count - 1);
    others
        .iter()
        .filter(|o| o.protocol == map.protocol && addresses_clash(map.host_ip, o.host_ip))
        .filter(|o| o.host_port <= last(map) && map.host_port <= last(o))
        .map(|o| o.host_port.max(map.host_port))
        .min()
}

/// Whether the same port cannot be had on both. `None` is every address of both families; `0.0.0.0` and `::` are every
/// address of theirs.
pub(crate) fn addresses_clash(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    match (a, b) {
        (None, _) | (_, None) => true,
        (Some(a), Some(b)) => {
            a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
        }
    }
}

pub(super) fn port_map(row: &Row<'_>) -> Result<PortMap, Error> {
    let fail = failed("read a published port");
    let protocol: String = row.get("protocol").map_err(fail)?;
    let host_ip: String = row.get("host_ip").map_err(fail)?;
    Ok(PortMap {
        protocol: [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .into_iter()
            .find(|p| p.as_str() == protocol)
            .ok_or_else(|| malformed("protocol", &protocol))?,
        host_ip: match host_ip.as_str() {
            "" => None,
            ip => Some(parse("host_ip", ip)?),
        },
        host_port: row.get("host_port").map_err(fail)?,
        container_port: row.get("container_port").map_err(fail)?,
        count: row.get("count").map_err(fail)?,
        listener: row.get("listener").map_err(fail)?,
    })
}
