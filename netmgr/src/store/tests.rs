use std::net::Ipv4Addr;

use super::*;
use crate::ipam;
use crate::model::{Endpoint, Network, PortMap, Protocol};

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
        internal: false,
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

/// As an edit does it.
fn enter(conn: &Connection, endpoint: &Endpoint) -> Result<(), Error> {
    insert_endpoint(conn, endpoint)?;
    insert_ports(conn, &endpoint.container_id, &endpoint.ports)
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
    all.iter().for_each(|e| enter(&conn, e).unwrap());
    let model = load_model(&conn, Profile::Docker).unwrap();
    assert_eq!(model.networks, [default, user]);
    assert_eq!(model.endpoints, all);
    assert_eq!(endpoints_of(&conn, "c9").unwrap(), all[..1]);
    delete_endpoint(&conn, &all[0].id).unwrap();
    // The ports stay the container's until they are removed.
    assert_eq!(ports_of(&conn, "c9").unwrap(), all[0].ports);
    delete_ports(&conn, "c9").unwrap();
    assert!(ports_of(&conn, "c9").unwrap().is_empty());
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
    enter(&conn, &endpoint(&user, 2, vec![port(None, 80, 1)])).unwrap();
    let mut same_address = endpoint(&user, 3, vec![]);
    same_address.address = Ipv4Addr::new(10, 4, 0, 2);
    assert!(insert_endpoint(&conn, &same_address).is_err());
    let mut same_address6 = endpoint(&user, 3, vec![]);
    same_address6.address6 = endpoint(&user, 2, vec![]).address6;
    assert!(insert_endpoint(&conn, &same_address6).is_err());
    let mut same_mac = endpoint(&user, 3, vec![]);
    same_mac.mac = endpoint(&user, 2, vec![]).mac;
    assert!(insert_endpoint(&conn, &same_mac).is_err());
    assert!(enter(&conn, &endpoint(&user, 4, vec![port(None, 80, 1)])).is_err());
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
    enter(&conn, &endpoint(&user, 2, ports)).unwrap();
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

#[test]
fn ports_lead_to_the_first_network_by_name_that_is_not_internal() {
    let conn = database();
    let (beta, alpha) = (network("1", "beta4"), network("2", "alpha"));
    let alpha = Network {
        subnet: "10.9.0.0/24".parse().unwrap(),
        ..alpha
    };
    let inner = Network {
        internal: true,
        ..network("3", "aa")
    };
    for network in [&beta, &alpha, &inner] {
        insert_network(&conn, network).unwrap();
    }
    let on = |network: &Network, n: u8| {
        let endpoint = Endpoint {
            container_id: "c".into(),
            interface: format!("eth{n}"),
            ..endpoint(network, n, vec![])
        };
        insert_endpoint(&conn, &endpoint).unwrap();
        endpoint.id
    };
    let (in_beta, in_inner) = (on(&beta, 2), on(&inner, 3));
    let ports = vec![port(None, 80, 1), port(Some("127.0.0.1"), 81, 1)];
    insert_ports(&conn, "c", &ports[..1]).unwrap();
    insert_ports(&conn, "c", &ports[1..]).unwrap();
    let holder = || {
        let all = endpoints_of(&conn, "c").unwrap();
        let model = load_model(&conn, Profile::Docker).unwrap();
        assert_eq!(model.endpoints, all);
        let with: Vec<Endpoint> = all.into_iter().filter(|e| !e.ports.is_empty()).collect();
        assert!(with.len() < 2, "{with:?}");
        let holder = with.into_iter().next()?;
        assert_eq!(holder.ports, ports);
        assert_eq!(model.primary("c").unwrap().id, holder.id);
        let there = endpoints_on(&conn, &holder.network_id).unwrap();
        assert_eq!(there, std::slice::from_ref(&holder));
        Some(holder.id)
    };
    assert_eq!(holder().as_ref(), Some(&in_beta));
    let in_alpha = on(&alpha, 4);
    assert_eq!(holder().as_ref(), Some(&in_alpha));
    delete_endpoint(&conn, &in_alpha).unwrap();
    assert_eq!(holder().as_ref(), Some(&in_beta));
    delete_endpoint(&conn, &in_beta).unwrap();
    assert_eq!(holder(), None);
    // Still nobody else's.
    assert_eq!(allocated_port(&conn, &port(None, 80, 1)).unwrap(), Some(80));
    delete_endpoint(&conn, &in_inner).unwrap();
    let again = on(&beta, 5);
    assert_eq!(holder().as_ref(), Some(&again));
}

/// The tables of version 0.1, to the letter.
const VERSION_0_1: &str = "
CREATE TABLE IF NOT EXISTS networks (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    id       TEXT NOT NULL UNIQUE,
    name     TEXT NOT NULL UNIQUE,
    bridge   TEXT NOT NULL UNIQUE,
    subnet   TEXT NOT NULL UNIQUE,
    gateway  TEXT NOT NULL,
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
    mac            TEXT NOT NULL,
    host_interface TEXT NOT NULL UNIQUE,
    interface      TEXT NOT NULL,
    UNIQUE (network_id, address),
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
    PRIMARY KEY (endpoint_id, position),
    UNIQUE (protocol, host_ip, host_port)
) STRICT, WITHOUT ROWID;
";

#[test]
fn database_of_version_0_1_is_brought_up_to_date_with_what_it_holds() {
    let conn = Connection::open_in_memory().unwrap();
    conn.pragma_update(None, "foreign_keys", true).unwrap();
    conn.execute_batch(VERSION_0_1).unwrap();
    let user = network("1", "user");
    let ports = vec![port(None, 80, 1), port(Some("127.0.0.1"), 81, 3)];
    conn.execute_batch(&format!(
        r#"INSERT INTO networks (id, name, bridge, subnet, gateway, internal, icc, created, labels, options)
           VALUES ('{}', 'user', 'br-user', '10.4.0.0/24', '10.4.0.1', 0, 0, '2026-01-01T00:00:00Z', '[["a","b"]]',
                   '[["k","v \"quoted\""]]');
           INSERT INTO endpoints (id, network_id, container_id, container_name, address, mac, host_interface, interface)
           VALUES ('{:0>64}', '{}', 'c2', 'name2', '10.4.0.2', '02:42:0a:04:00:02', 'cv2', 'eth0');
           INSERT INTO ports VALUES ('{:0>64}', 0, 'tcp', '', 80, 80, 1),
                                    ('{:0>64}', 1, 'tcp', '127.0.0.1', 81, 80, 3);"#,
        user.id, 2, user.id, 2, 2
    ))
    .unwrap();
    let old = Endpoint {
        address6: None,
        aliases: Vec::new(),
        ..endpoint(&user, 2, ports)
    };
    for _ in 0..2 {
        create_tables(&conn).unwrap();
        let model = load_model(&conn, Profile::Coracle).unwrap();
        assert_eq!(model.networks, std::slice::from_ref(&user));
        assert_eq!(model.endpoints, std::slice::from_ref(&old));
    }
    assert_eq!(tables_of(&conn), tables_of(&database()));
    enter(&conn, &endpoint(&user, 3, vec![port(None, 90, 1)])).unwrap();
    assert_eq!(
        load_model(&conn, Profile::Coracle).unwrap().endpoints.len(),
        2
    );
}

/// Names and columns of all tables, and the indexes; an upgraded table has its new columns last.
fn tables_of(conn: &Connection) -> Vec<String> {
    let mut statement = conn
        .prepare(
            "SELECT t.name || '.' || c.name || ' ' || c.type || ' ' || c.\"notnull\" || ' ' || ifnull(c.dflt_value, '')
             FROM sqlite_schema AS t, pragma_table_info(t.name) AS c WHERE t.type = 'table'
             UNION SELECT name FROM sqlite_schema WHERE type = 'index' ORDER BY 1",
        )
        .unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

#[test]
fn two_commands_that_upgrade_at_once_do_not_meet() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("coracle.db");
    let open = || {
        let conn = Connection::open(&file).unwrap();
        conn.busy_timeout(std::time::Duration::from_secs(30))
            .unwrap();
        conn
    };
    open().execute_batch(VERSION_0_1).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| create_tables(&open()).unwrap());
        }
    });
    assert_eq!(tables_of(&open()), tables_of(&database()));
}

#[test]
fn names_are_those_of_the_networks_asked_for() {
    let conn = database();
    let (user, other) = (network("1", "user"), network("2", "other"));
    for network in [&user, &other] {
        insert_network(&conn, network).unwrap();
    }
    let all = [
        endpoint(&user, 9, vec![]),
        endpoint(&other, 3, vec![]),
        endpoint(&user, 4, vec![]),
    ];
    all.iter().for_each(|e| enter(&conn, e).unwrap());
    let named = |e: &Endpoint| Named {
        network_id: e.network_id.clone(),
        container_id: e.container_id.clone(),
        container_name: e.container_name.clone(),
        aliases: e.aliases.clone(),
        address: e.address,
        address6: e.address6,
    };
    let on = |networks: &[&str]| names_on(&conn, networks).unwrap();
    assert_eq!(on(&[&user.id]), [named(&all[0]), named(&all[2])]);
    assert_eq!(on(&[&other.id, &user.id])[0], named(&all[1]));
    assert_eq!(on(&[&other.id, &user.id]).len(), 3);
    assert!(on(&[]).is_empty() && on(&["gone"]).is_empty());
}

#[test]
fn version_of_the_data_changes_with_anothers_commit_only() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("coracle.db");
    let writer = Connection::open(&file).unwrap();
    writer.pragma_update(None, "journal_mode", "WAL").unwrap();
    create_tables(&writer).unwrap();
    let reader = Connection::open(&file).unwrap();
    let first = data_version(&reader).unwrap();
    assert_eq!(data_version(&reader).unwrap(), first);
    insert_network(&writer, &network("1", "user")).unwrap();
    assert_ne!(data_version(&reader).unwrap(), first);
}
