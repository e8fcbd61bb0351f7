//! Rows of networks, and this host's own IPv6 prefix.

use ipnet::{Ipv4Net, Ipv6Net};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::columns::{failed, from_json, optional, parse, to_json};
use crate::error::Error;
use crate::model::{Network, V6};

pub fn networks(conn: &Connection) -> Result<Vec<Network>, Error> {
    let query = format!("SELECT {NETWORK} FROM networks ORDER BY name <> '{DEFAULT}', seq");
    let mut statement = conn
        .prepare_cached(&query)
        .map_err(failed("read networks"))?;
    let rows = statement
        .query_map([], |row| Ok(network(row)))
        .map_err(failed("read networks"))?;
    rows.map(|row| row.map_err(failed("read networks"))?)
        .collect()
}

const DEFAULT: &str = Network::DEFAULT;
const NETWORK: &str = "id, name, bridge, subnet, gateway, ip_range, v6, aux_addresses, internal, icc, created, labels, options";

/// By full ID, by name, or by a prefix of an ID that fits one network only; in this order, as Docker does.
pub fn find_network(conn: &Connection, name: &str) -> Result<Network, Error> {
    let query = format!(
        "SELECT {NETWORK}, CASE ?1 WHEN id THEN 0 WHEN name THEN 1 ELSE 2 END AS rank FROM networks
         WHERE id = ?1 OR name = ?1 OR substr(id, 1, length(?1)) = ?1 ORDER BY rank, seq"
    );
    let mut statement = conn
        .prepare_cached(&query)
        .map_err(failed("find a network"))?;
    let rows = statement
        .query_map([name], |row| Ok((network(row), row.get::<_, i64>("rank")?)))
        .map_err(failed("find a network"))?;
    let found: Vec<_> = rows
        .collect::<Result<_, _>>()
        .map_err(failed("find a network"))?;
    let matches = found.len();
    match found.into_iter().next() {
        None => Err(Error::NetworkNotFound(name.to_owned())),
        Some(_) if name.is_empty() => Err(Error::NetworkNotFound(name.to_owned())),
        Some((_, 2)) if matches > 1 => Err(Error::AmbiguousNetwork {
            prefix: name.to_owned(),
            matches,
        }),
        Some((network, _)) => network,
    }
}

/// Whether a network has exactly this name.
pub fn network_named(conn: &Connection, name: &str) -> Result<Option<Network>, Error> {
    let query = format!("SELECT {NETWORK} FROM networks WHERE name = ?1");
    conn.prepare_cached(&query)
        .and_then(|mut statement| {
            statement
                .query_row([name], |row| Ok(network(row)))
                .optional()
        })
        .map_err(failed("find a network"))?
        .transpose()
}

/// What of a network no other may have.
pub(crate) struct Taken {
    pub(crate) name: String,
    pub(crate) subnet: Ipv4Net,
    pub(crate) subnet6: Option<Ipv6Net>,
}

/// Of all networks; a small part of what [`networks`] reads, because a creation among thousands asks for it.
pub(crate) fn taken(conn: &Connection) -> Result<Vec<Taken>, Error> {
    let fail = failed("read subnets");
    let mut statement = conn
        .prepare_cached("SELECT name, subnet, v6 FROM networks")
        .map_err(fail)?;
    let mut rows = statement.query([]).map_err(fail)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next().map_err(fail)? {
        let v6 = match row.get_ref(2).and_then(|v6| Ok(v6.as_str_or_null()?)) {
            Ok(None) => None,
            Ok(Some(json)) => Some(from_json::<V6>("v6", json)?.subnet),
            Err(error) => return Err(fail(error)),
        };
        let subnet = row.get_ref(1).and_then(|text| Ok(text.as_str()?));
        all.push(Taken {
            name: row.get(0).map_err(fail)?,
            subnet: parse("subnet", subnet.map_err(fail)?)?,
            subnet6: v6,
        });
    }
    Ok(all)
}

/// Whether a network of ours has a bridge of this name.
pub(crate) fn has_bridge(conn: &Connection, bridge: &str) -> Result<bool, Error> {
    conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM networks WHERE bridge = ?1)")
        .and_then(|mut statement| statement.query_row([bridge], |row| row.get(0)))
        .map_err(failed("look for a bridge"))
}

pub(crate) fn insert_network(conn: &Connection, network: &Network) -> Result<(), Error> {
    let json = |pairs: &[(String, String)]| to_json(&pairs, &network.name);
    let query = format!(
        "INSERT INTO networks ({NETWORK}) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13)"
    );
    conn.execute(
        &query,
        params![
            network.id,
            network.name,
            network.bridge,
            network.subnet.to_string(),
            network.gateway.to_string(),
            network.ip_range.map(|range| range.to_string()),
            network
                .v6
                .map(|v6| to_json(&v6, &network.name))
                .transpose()?,
            to_json(&network.aux_addresses, &network.name)?,
            network.internal,
            network.icc,
            network.created,
            json(&network.labels)?,
            json(&network.options)?,
        ],
    )
    .map_err(failed("enter a network"))?;
    Ok(())
}

pub(crate) fn delete_network(conn: &Connection, id: &str) -> Result<(), Error> {
    conn.execute("DELETE FROM networks WHERE id = ?1", [id])
        .map_err(failed("remove a network"))?;
    Ok(())
}

/// This host's own IPv6 prefix, if one was chosen yet.
pub(crate) fn unique_local(conn: &Connection) -> Result<Option<Ipv6Net>, Error> {
    let prefix: Option<String> = conn
        .query_row("SELECT prefix FROM unique_local", [], |row| row.get(0))
        .optional()
        .map_err(failed("read the unique local prefix"))?;
    prefix
        .map(|prefix| parse("unique local prefix", &prefix))
        .transpose()
}

/// For as long as this database lives: networks made later stay together with those made now.
pub(crate) fn enter_unique_local(conn: &Connection, prefix: Ipv6Net) -> Result<(), Error> {
    let insert = "INSERT INTO unique_local VALUES (1, ?1)";
    conn.execute(insert, [prefix.to_string()])
        .map_err(failed("enter the unique local prefix"))?;
    Ok(())
}

fn network(row: &Row<'_>) -> Result<Network, Error> {
    let fail = failed("read a network");
    let text = |column: &str| row.get::<_, String>(column).map_err(fail);
    let pairs = |column: &'static str| from_json(column, &text(column)?);
    Ok(Network {
        id: text("id")?,
        name: text("name")?,
        bridge: text("bridge")?,
        subnet: parse("subnet", &text("subnet")?)?,
        gateway: parse("gateway", &text("gateway")?)?,
        ip_range: optional(row, "ip_range")?,
        v6: match row.get::<_, Option<String>>("v6").map_err(fail)? {
            None => None,
            Some(json) => Some(from_json("v6", &json)?),
        },
        aux_addresses: from_json("aux_addresses", &text("aux_addresses")?)?,
        internal: row.get("internal").map_err(fail)?,
        icc: row.get("icc").map_err(fail)?,
        created: text("created")?,
        labels: pairs("labels")?,
        options: pairs("options")?,
    })
}
