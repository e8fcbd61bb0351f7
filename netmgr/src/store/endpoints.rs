//! Rows of endpoints, joined with the ports that lead to them.

use std::net::{Ipv4Addr, Ipv6Addr};

use rusqlite::{Connection, Row, params};

use super::columns::{failed, from_json, mac_from_text, mac_to_text, optional, parse, to_json};
use super::ports::{PORT, port_map};
use crate::error::Error;
use crate::model::{Endpoint, Network};

const ENDPOINT: &str = "id, network_id, container_id, container_name, address, address6, mac, host_interface, interface,
         aliases";

/// All endpoints of a container, in order of attachment.
pub fn endpoints_of(conn: &Connection, container_id: &str) -> Result<Vec<Endpoint>, Error> {
    endpoints_where(conn, "endpoints.container_id = ?1", container_id)
}

/// Enters the name that a container goes by in all its places.
pub fn rename_container(conn: &Connection, container_id: &str, name: &str) -> Result<(), Error> {
    conn.execute(
        "UPDATE endpoints SET container_name = ?2 WHERE container_id = ?1",
        [container_id, name],
    )
    .map_err(failed("rename a container"))?;
    Ok(())
}

/// All endpoints of a network, in order of attachment.
pub fn endpoints_on(conn: &Connection, network_id: &str) -> Result<Vec<Endpoint>, Error> {
    endpoints_where(conn, "endpoints.network_id = ?1", network_id)
}

/// All endpoints, in order of attachment.
pub(super) fn all(conn: &Connection) -> Result<Vec<Endpoint>, Error> {
    endpoints_where(conn, "1 = 1", "")
}

/// One query for the endpoints and one for their ports, however many there are. `value` is bound where `condition` names
/// a parameter.
fn endpoints_where(
    conn: &Connection,
    condition: &str,
    value: &str,
) -> Result<Vec<Endpoint>, Error> {
    let fail = failed("read endpoints");
    let arguments: &[&dyn rusqlite::ToSql] = match condition.contains("?1") {
        true => &[&value],
        false => &[],
    };
    let query = format!(
        "SELECT {ENDPOINT}
         FROM endpoints WHERE {condition} ORDER BY seq"
    );
    let mut statement = conn.prepare_cached(&query).map_err(fail)?;
    let rows = statement
        .query_map(arguments, |row| Ok(endpoint(row)))
        .map_err(fail)?;
    let mut endpoints: Vec<Endpoint> = rows
        .map(|row| row.map_err(fail)?)
        .collect::<Result<_, _>>()?;

    // The same choice as `Model::primary`, but that ports never lead into an internal network.
    let rank = Network::RANK_SQL;
    let query = format!(
        "SELECT endpoints.id, {PORT}
         FROM endpoints JOIN ports ON ports.container_id = endpoints.container_id
         WHERE {condition} AND endpoints.id = (
             SELECT mine.id FROM endpoints AS mine JOIN networks ON networks.id = mine.network_id
             WHERE mine.container_id = ports.container_id AND NOT networks.internal
             ORDER BY {rank} LIMIT 1)
         ORDER BY seq, position"
    );
    let mut statement = conn.prepare_cached(&query).map_err(fail)?;
    let mut rows = statement.query(arguments).map_err(fail)?;
    // Both results are in the same order: one pass joins them.
    let mut at = 0;
    while let Some(row) = rows.next().map_err(fail)? {
        let owner: String = row.get(0).map_err(fail)?;
        while endpoints.get(at).is_some_and(|e| e.id != owner) {
            at += 1;
        }
        if let Some(endpoint) = endpoints.get_mut(at) {
            endpoint.ports.push(port_map(row)?);
        }
    }
    Ok(endpoints)
}

/// What of an endpoint no other of its network may have.
pub(crate) struct Occupant {
    pub(crate) container_id: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) address6: Option<Ipv6Addr>,
    pub(crate) mac: [u8; 6],
}

/// Of all endpoints of a network.
pub(crate) fn occupants(conn: &Connection, network_id: &str) -> Result<Vec<Occupant>, Error> {
    let fail = failed("read the addresses of a network");
    let mut statement = conn
        .prepare_cached(
            "SELECT container_id, address, address6, mac FROM endpoints WHERE network_id = ?1",
        )
        .map_err(fail)?;
    let mut rows = statement.query([network_id]).map_err(fail)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next().map_err(fail)? {
        let address: String = row.get("address").map_err(fail)?;
        let mac: String = row.get("mac").map_err(fail)?;
        all.push(Occupant {
            container_id: row.get("container_id").map_err(fail)?,
            address: parse("address", &address)?,
            address6: optional(row, "address6")?,
            mac: mac_from_text(&mac)?,
        });
    }
    Ok(all)
}

/// Whether a network has any endpoint.
pub(crate) fn is_in_use(conn: &Connection, network_id: &str) -> Result<bool, Error> {
    conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM endpoints WHERE network_id = ?1)")
        .and_then(|mut statement| statement.query_row([network_id], |row| row.get(0)))
        .map_err(failed("look for endpoints of a network"))
}

/// Enters an endpoint; its ports are the container's and are entered apart.
pub(crate) fn insert_endpoint(conn: &Connection, endpoint: &Endpoint) -> Result<(), Error> {
    let fail = failed("enter an endpoint");
    let query =
        format!("INSERT INTO endpoints ({ENDPOINT}) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)");
    let mut insert = conn.prepare_cached(&query).map_err(fail)?;
    insert
        .execute(params![
            endpoint.id,
            endpoint.network_id,
            endpoint.container_id,
            endpoint.container_name,
            endpoint.address.to_string(),
            endpoint.address6.map(|address| address.to_string()),
            mac_to_text(endpoint.mac),
            endpoint.host_interface,
            endpoint.interface,
            to_json(&endpoint.aliases, &endpoint.container_name)?,
        ])
        .map_err(fail)?;
    Ok(())
}

pub(crate) fn delete_endpoint(conn: &Connection, id: &str) -> Result<(), Error> {
    conn.execute("DELETE FROM endpoints WHERE id = ?1", [id])
        .map_err(failed("remove an endpoint"))?;
    Ok(())
}

fn endpoint(row: &Row<'_>) -> Result<Endpoint, Error> {
    let text = |column: &str| {
        row.get::<_, String>(column)
            .map_err(failed("read an endpoint"))
    };
    let address: Ipv4Addr = parse("address", &text("address")?)?;
    Ok(Endpoint {
        id: text("id")?,
        network_id: text("network_id")?,
        container_id: text("container_id")?,
        container_name: text("container_name")?,
        address,
        address6: optional(row, "address6")?,
        mac: mac_from_text(&text("mac")?)?,
        host_interface: text("host_interface")?,
        interface: text("interface")?,
        aliases: from_json("aliases", &text("aliases")?)?,
        ports: Vec::new(),
    })
}
