//! The tables of this crate: networks, endpoints with their addresses, and published ports.
//!
//! Names, bridges, subnets, addresses and host ports are unique by the schema. What a constraint cannot say (ranges that
//! overlap, `0.0.0.0` against one address) is checked inside the same transaction. Nothing here decides a default.

use std::net::{IpAddr, Ipv4Addr};

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::error::Error;
use crate::model::{Endpoint, Model, Network, PortMap, Profile, Protocol};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS networks (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    id       TEXT NOT NULL UNIQUE,
    name     TEXT NOT NULL UNIQUE,
    bridge   TEXT NOT NULL UNIQUE,
    subnet   TEXT NOT NULL UNIQUE,
    gateway  TEXT NOT NULL,
    ip_range TEXT,
    v6       TEXT,
    aux_addresses TEXT NOT NULL,
    internal INTEGER NOT NULL,
    icc      INTEGER NOT NULL,
    created  TEXT NOT NULL,
    labels   TEXT NOT NULL,
    options  TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS endpoints (
    seq            INTEGER PRIMARY KEY AUTOINCREMENT,
    id             TEXT NOT NULL UNIQUE,
    network_id     TEXT NOT NULL REFERENCES networks (id),
    container_id   TEXT NOT NULL,
    container_name TEXT NOT NULL,
    address        TEXT NOT NULL,
    address6       TEXT,
    mac            TEXT NOT NULL,
    host_interface TEXT NOT NULL UNIQUE,
    interface      TEXT NOT NULL,
    aliases        TEXT NOT NULL,
    UNIQUE (network_id, address),
    UNIQUE (network_id, address6),
    UNIQUE (network_id, container_id),
    UNIQUE (container_id, interface)
) STRICT;
CREATE TABLE IF NOT EXISTS ports (
    endpoint_id    TEXT NOT NULL REFERENCES endpoints (id),
    position       INTEGER NOT NULL,
    protocol       TEXT NOT NULL,
    host_ip        TEXT NOT NULL,
    host_port      INTEGER NOT NULL CHECK (host_port BETWEEN 1 AND 65535),
    container_port INTEGER NOT NULL CHECK (container_port BETWEEN 1 AND 65535),
    count          INTEGER NOT NULL CHECK (count >= 1 AND host_port + count <= 65536
                                           AND container_port + count <= 65536),
    listener       INTEGER CHECK (listener BETWEEN 1 AND 65535),
    PRIMARY KEY (endpoint_id, position),
    UNIQUE (protocol, host_ip, host_port)
) STRICT, WITHOUT ROWID;
";

/// Makes the tables where they are missing. Cheap when they are there.
pub fn create_tables(conn: &Connection) -> Result<(), Error> {
    conn.execute_batch(SCHEMA)
        .map_err(failed("create the network tables"))
}

/// Everything that should be there, in order of creation; the default network first.
pub fn load_model(conn: &Connection, profile: Profile) -> Result<Model, Error> {
    Ok(Model {
        profile,
        networks: networks(conn)?,
        endpoints: endpoints_where(conn, "1 = 1", "")?,
    })
}

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
    conn.query_row(&query, [name], |row| Ok(network(row)))
        .optional()
        .map_err(failed("find a network"))?
        .transpose()
}

/// All endpoints of a container, in order of attachment.
pub fn endpoints_of(conn: &Connection, container_id: &str) -> Result<Vec<Endpoint>, Error> {
    endpoints_where(conn, "container_id = ?1", container_id)
}

/// All endpoints of a network, in order of attachment.
pub fn endpoints_on(conn: &Connection, network_id: &str) -> Result<Vec<Endpoint>, Error> {
    endpoints_where(conn, "network_id = ?1", network_id)
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
        "SELECT id, network_id, container_id, container_name, address, address6, mac, host_interface, interface, aliases
         FROM endpoints WHERE {condition} ORDER BY seq"
    );
    let mut statement = conn.prepare_cached(&query).map_err(fail)?;
    let rows = statement
        .query_map(arguments, |row| Ok(endpoint(row)))
        .map_err(fail)?;
    let mut endpoints: Vec<Endpoint> = rows
        .map(|row| row.map_err(fail)?)
        .collect::<Result<_, _>>()?;

    let query = format!(
        "SELECT endpoint_id, protocol, host_ip, host_port, container_port, count, listener
         FROM ports JOIN endpoints ON endpoints.id = ports.endpoint_id WHERE {condition} ORDER BY seq, position"
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

/// Enters an endpoint with its ports. The ports must have been checked with [`allocated_port`].
pub(crate) fn insert_endpoint(conn: &Connection, endpoint: &Endpoint) -> Result<(), Error> {
    let fail = failed("enter an endpoint");
    let aliases = to_json(&endpoint.aliases, &endpoint.container_name)?;
    let mac: Vec<String> = endpoint.mac.iter().map(|b| format!("{b:02x}")).collect();
    conn.prepare_cached(
        "INSERT INTO endpoints (id, network_id, container_id, container_name, address, address6, mac, host_interface,
                                interface, aliases)
         VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)",
    )
    .and_then(|mut insert| {
        insert.execute(params![
            endpoint.id,
            endpoint.network_id,
            endpoint.container_id,
            endpoint.container_name,
            endpoint.address.to_string(),
            endpoint.address6.map(|address| address.to_string()),
            mac.join(":"),
            endpoint.host_interface,
            endpoint.interface,
            aliases,
        ])
    })
    .map_err(fail)?;
    for (position, map) in endpoint.ports.iter().enumerate() {
        let host_ip = map.host_ip.map_or_else(String::new, |ip| ip.to_string());
        conn.prepare_cached("INSERT INTO ports VALUES (?1,?2,?3,?4,?5,?6,?7,?8)")
            .and_then(|mut insert| {
                insert.execute(params![
                    endpoint.id,
                    position as i64,
                    map.protocol.as_str(),
                    host_ip,
                    map.host_port,
                    map.container_port,
                    map.count,
                    map.listener,
                ])
            })
            .map_err(failed("enter a published port"))?;
    }
    Ok(())
}

pub(crate) fn delete_endpoint(conn: &Connection, id: &str) -> Result<(), Error> {
    let fail = failed("remove an endpoint");
    conn.execute("DELETE FROM ports WHERE endpoint_id = ?1", [id])
        .map_err(fail)?;
    conn.execute("DELETE FROM endpoints WHERE id = ?1", [id])
        .map_err(fail)?;
    Ok(())
}

/// The first of a run of host ports that another endpoint has, if one has: on the same address, or where either side
/// means all addresses.
pub(crate) fn allocated_port(conn: &Connection, map: &PortMap) -> Result<Option<u16>, Error> {
    let fail = failed("look up published ports");
    let last = map.host_port + (map.count - 1);
    // Ports of one protocol that overlap the run; the addresses are compared below.
    let mut statement = conn
        .prepare_cached(
            "SELECT endpoint_id, protocol, host_ip, host_port, container_port, count, listener FROM ports
             WHERE protocol = ?1 AND host_port <= ?2 AND host_port + count > ?3 ORDER BY host_port",
        )
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

fn endpoint(row: &Row<'_>) -> Result<Endpoint, Error> {
    let text = |column: &str| {
        row.get::<_, String>(column)
            .map_err(failed("read an endpoint"))
    };
    let address: Ipv4Addr = parse("address", &text("address")?)?;
    let mac_text = text("mac")?;
    let bytes: Vec<u8> = mac_text
        .split(':')
        .filter_map(|b| u8::from_str_radix(b, 16).ok())
        .collect();
    Ok(Endpoint {
        id: text("id")?,
        network_id: text("network_id")?,
        container_id: text("container_id")?,
        container_name: text("container_name")?,
        address,
        address6: optional(row, "address6")?,
        mac: bytes.try_into().map_err(|_| malformed("mac", &mac_text))?,
        host_interface: text("host_interface")?,
        interface: text("interface")?,
        aliases: from_json("aliases", &text("aliases")?)?,
        ports: Vec::new(),
    })
}

fn port_map(row: &Row<'_>) -> Result<PortMap, Error> {
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

fn optional<T: std::str::FromStr>(row: &Row<'_>, column: &'static str) -> Result<Option<T>, Error> {
    let text: Option<String> = row.get(column).map_err(failed("read a column"))?;
    text.map(|text| parse(column, &text)).transpose()
}

fn to_json(value: &impl serde::Serialize, of: &str) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|_| malformed("value", of))
}

fn from_json<T: serde::de::DeserializeOwned>(what: &'static str, json: &str) -> Result<T, Error> {
    serde_json::from_str(json).map_err(|_| malformed(what, json))
}

fn parse<T: std::str::FromStr>(what: &'static str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| malformed(what, text))
}

fn malformed(what: &'static str, value: &str) -> Error {
    Error::Malformed {
        what,
        value: value.to_owned(),
    }
}

pub(crate) fn failed(operation: &'static str) -> impl Fn(rusqlite::Error) -> Error + Copy {
    move |source| Error::Database { operation, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipam;

    fn database() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        create_tables(&conn).unwrap();
        create_tables(&conn).unwrap();
        conn
    }

    fn network(id: &str, name: &str) -> Network {
        let n = name.len() as u8;
        Network {
            id: format!("{id:0<64}"),
            name: name.into(),
            bridge: format!("br-{name}"),
            subnet: format!("10.{n}.0.0/24").parse().unwrap(),
            gateway: Ipv4Addr::new(10, n, 0, 1),
            ip_range: None,
            v6: None,
            aux_addresses: Vec::new(),
            internal: true,
            icc: false,
            created: "2026-01-01T00:00:00Z".into(),
            labels: vec![("a".into(), "b".into())],
            options: vec![("k".into(), "v \"quoted\"".into())],
        }
    }

    fn endpoint(network: &Network, n: u8, ports: Vec<PortMap>) -> Endpoint {
        let address = Ipv4Addr::new(10, network.name.len() as u8, 0, n);
        Endpoint {
            id: format!("{n:0>64}"),
            network_id: network.id.clone(),
            container_id: format!("c{n}"),
            container_name: format!("name{n}"),
            address,
            mac: ipam::mac(address),
            host_interface: format!("cv{n}"),
            interface: "eth0".into(),
            address6: Some(std::net::Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(n))),
            aliases: vec!["a \"quoted\" one".into()],
            ports,
        }
    }

    fn port(host_ip: Option<&str>, host_port: u16, count: u16) -> PortMap {
        PortMap {
            protocol: Protocol::Tcp,
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_port,
            container_port: 80,
            count,
            listener: None,
        }
    }

    #[test]
    fn model_comes_back_as_it_went_in_and_the_default_network_first() {
        let conn = database();
        let (user, default) = (network("1", "user"), network("2", "bridge"));
        insert_network(&conn, &user).unwrap();
        insert_network(&conn, &default).unwrap();
        let ports = vec![port(Some("::1"), 90, 1), port(None, 80, 3)];
        let all = [
            endpoint(&user, 9, ports),
            endpoint(&default, 8, vec![]),
            endpoint(&default, 7, vec![port(Some("127.0.0.1"), 90, 1)]),
        ];
        all.iter().for_each(|e| insert_endpoint(&conn, e).unwrap());
        let model = load_model(&conn, Profile::Docker).unwrap();
        assert_eq!(model.networks, [default, user]);
        assert_eq!(model.endpoints, all);
        assert_eq!(endpoints_of(&conn, "c9").unwrap(), all[..1]);
        delete_endpoint(&conn, &all[0].id).unwrap();
        assert_eq!(
            load_model(&conn, Profile::Docker).unwrap().endpoints,
            all[1..]
        );
    }

    #[test]
    fn network_is_found_by_id_then_name_then_unique_prefix() {
        let conn = database();
        let all = [
            network("abc1", "first"),
            network("abc2", "second"),
            network("d", "abc"),
        ];
        all.iter().for_each(|n| insert_network(&conn, n).unwrap());
        let find = |name: &str| find_network(&conn, name);
        assert_eq!(find(&all[0].id).unwrap().name, "first");
        assert_eq!(find("abc1").unwrap().name, "first");
        // A name wins over the prefixes that it also is.
        assert!(find("abc").unwrap().id.starts_with('d'));
        assert!(matches!(
            find("ab"),
            Err(Error::AmbiguousNetwork { matches: 2, .. })
        ));
        for missing in ["nonet", "", "%", "ABC1"] {
            assert_eq!(
                find(missing).unwrap_err().to_string(),
                format!("network {missing} not found")
            );
        }
    }

    #[test]
    fn schema_itself_refuses_what_exists_twice() {
        let conn = database();
        let user = network("1", "user");
        insert_network(&conn, &user).unwrap();
        assert!(insert_network(&conn, &network("2", "user")).is_err());
        insert_endpoint(&conn, &endpoint(&user, 2, vec![port(None, 80, 1)])).unwrap();
        let mut same_address = endpoint(&user, 3, vec![]);
        same_address.address = Ipv4Addr::new(10, 4, 0, 2);
        assert!(insert_endpoint(&conn, &same_address).is_err());
        assert!(insert_endpoint(&conn, &endpoint(&user, 4, vec![port(None, 80, 1)])).is_err());
    }

    #[test]
    fn overlapping_ports_are_found_across_ranges_and_addresses() {
        let conn = database();
        let user = network("1", "user");
        insert_network(&conn, &user).unwrap();
        let ports = vec![
            port(None, 8000, 10),
            port(Some("127.0.0.1"), 9000, 1),
            port(Some("::"), 9500, 1),
        ];
        insert_endpoint(&conn, &endpoint(&user, 2, ports)).unwrap();
        for (asked, taken) in [
            (port(Some("127.0.0.9"), 8009, 1), Some(8009)),
            (port(None, 7990, 20), Some(8000)),
            (port(None, 8010, 5), None),
            (port(None, 9000, 1), Some(9000)),
            (port(Some("0.0.0.0"), 9000, 1), Some(9000)),
            (port(Some("127.0.0.2"), 9000, 1), None),
            (port(Some("0.0.0.0"), 9500, 1), None),
            (port(Some("::1"), 9500, 1), Some(9500)),
            (port(None, 9500, 1), Some(9500)),
        ] {
            assert_eq!(allocated_port(&conn, &asked).unwrap(), taken, "{asked:?}");
        }
        let udp = PortMap {
            protocol: Protocol::Udp,
            ..port(None, 8000, 1)
        };
        assert_eq!(allocated_port(&conn, &udp).unwrap(), None);
    }
}
