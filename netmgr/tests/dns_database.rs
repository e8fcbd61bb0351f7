//! The responder's names as they are in the database, at once.

use std::path::{Path, PathBuf};

use netmgr::dns::{Database, Source};
use netmgr::store;
use rusqlite::{Connection, params};

const ME: u8 = 0xaa;

struct Store {
    _directory: tempfile::TempDir,
    path: PathBuf,
    writer: Connection,
}

/// As the runtime opens it.
fn writer(path: &Path) -> Connection {
    let conn = Connection::open(path).unwrap();
    conn.pragma_update(None, "journal_mode", "WAL").unwrap();
    conn
}

fn id(digit: u8) -> String {
    format!("{digit:02x}").repeat(32)
}

impl Store {
    fn new() -> Store {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("coracle.db");
        let conn = writer(&path);
        store::create_tables(&conn).unwrap();
        let store = Store {
            _directory: directory,
            path,
            writer: conn,
        };
        for (number, name, internal) in [
            (0, "bridge", false),
            (1, "shop", false),
            (2, "inside", true),
        ] {
            store
                .writer
                .execute(
                    "INSERT INTO networks (id, name, bridge, subnet, gateway, aux_addresses, internal, icc, created, labels, options)
                     VALUES (?1, ?2, ?2, ?3, '', '[]', ?4, 1, '', '[]', '[]')",
                    params![id(number), name, format!("10.{number}.0.0/16"), internal],
                )
                .unwrap();
        }
        store
    }

    fn attach(&self, network: u8, container: u8, name: &str, aliases: &str, v6: Option<&str>) {
        self.writer
            .execute(
                "INSERT INTO endpoints (id, network_id, container_id, container_name, address, address6, mac,
                                        host_interface, interface, aliases)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?1, ?1, ?2, ?7)",
                params![
                    format!("{network}-{container}"),
                    id(network),
                    id(container),
                    name,
                    format!("10.{network}.0.{container}"),
                    v6,
                    aliases
                ],
            )
            .unwrap();
    }

    fn detach(&self, network: u8, container: u8) {
        let removed = self
            .writer
            .execute(
                "DELETE FROM endpoints WHERE id = ?1",
                [format!("{network}-{container}")],
            )
            .unwrap();
        assert_eq!(removed, 1);
    }

    fn source(&self) -> Database {
        Database::new(self.path.clone(), id(ME))
    }
}

fn found(source: &mut Database, name: &str) -> Option<Vec<String>> {
    let zone = source.zone().unwrap();
    let found = zone.look_up(name)?;
    let v4 = found.v4.iter().map(|address| address.to_string());
    let v6 = found.v6.iter().map(|address| address.to_string());
    Some(v4.chain(v6).collect())
}

fn some(addresses: &[&str]) -> Option<Vec<String>> {
    Some(
        addresses
            .iter()
            .map(|address| (*address).to_owned())
            .collect(),
    )
}

#[test]
fn attached_and_detached_containers_are_known_at_once() {
    let store = Store::new();
    let mut source = store.source();
    assert!(!source.zone().unwrap().forwards(), "attached to nothing");
    store.attach(1, ME, "me", "[]", None);
    assert_eq!(found(&mut source, "me"), some(&["10.1.0.170"]));
    for round in 0..3 {
        assert_eq!(found(&mut source, "web"), None, "{round}");
        store.attach(1, 7, "web", r#"["front"]"#, Some("fd00::7"));
        assert_eq!(
            found(&mut source, "web"),
            some(&["10.1.0.7", "fd00::7"]),
            "{round}"
        );
        assert_eq!(
            found(&mut source, "front.shop"),
            some(&["10.1.0.7", "fd00::7"])
        );
        assert_eq!(
            found(&mut source, &id(7)[..12]),
            some(&["10.1.0.7", "fd00::7"])
        );
        store.detach(1, 7);
    }
}

#[test]
fn only_own_networks_count_and_the_way_out_follows_them() {
    let store = Store::new();
    let mut source = store.source();
    store.attach(2, 8, "db", "[]", None);
    store.attach(0, 9, "other", "[]", None);
    store.attach(1, ME, "me", "[]", None);
    assert_eq!(found(&mut source, "db"), None);
    store.attach(2, ME, "me", "[]", None);
    assert_eq!(found(&mut source, "db"), some(&["10.2.0.8"]));
    // The way out is on the network that comes first.
    assert_eq!(found(&mut source, "me"), some(&["10.1.0.170"]));
    assert!(source.zone().unwrap().forwards());
    store.detach(1, ME);
    assert_eq!(found(&mut source, "me"), some(&["10.2.0.170"]));
    assert!(!source.zone().unwrap().forwards(), "internal networks only");
    store.attach(0, ME, "me", "[]", None);
    assert!(source.zone().unwrap().forwards());
    assert_eq!(
        found(&mut source, "other"),
        None,
        "the default network has no names"
    );
}

#[test]
fn same_zone_is_given_while_nothing_changes() {
    let store = Store::new();
    store.attach(1, ME, "me", "[]", None);
    let mut source = store.source();
    let first = source.zone().unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &source.zone().unwrap()));
    store.attach(1, 7, "web", "[]", None);
    assert!(!std::sync::Arc::ptr_eq(&first, &source.zone().unwrap()));
}

#[test]
fn nothing_stays_open_at_rest() {
    let mut store = Store::new();
    store.attach(1, ME, "me", "[]", None);
    let directory = store.path.parent().unwrap().to_owned();
    let open = || {
        let links = std::fs::read_dir("/proc/self/fd").unwrap();
        let targets = links
            .flatten()
            .flat_map(|link| std::fs::read_link(link.path()));
        targets
            .filter(|target| target.starts_with(&directory))
            .count()
    };
    // SQLite keeps descriptors that it needs no more as long as another connection of the process has locks.
    store.writer = Connection::open_in_memory().unwrap();
    let mut source = store.source();
    assert_eq!(open(), 0, "opened before the first question");
    source.zone().unwrap();
    assert!(open() > 0);
    source.rest();
    assert_eq!(open(), 0);
    store.writer = writer(&store.path);
    store.attach(1, 7, "web", "[]", None);
    assert_eq!(found(&mut source, "web"), some(&["10.1.0.7"]));
}

#[test]
fn database_that_nobody_else_has_open_is_read() {
    let mut store = Store::new();
    store.attach(1, ME, "me", "[]", None);
    // The last one to close takes the log away.
    store.writer = Connection::open_in_memory().unwrap();
    assert_eq!(found(&mut store.source(), "me"), some(&["10.1.0.170"]));
}

#[test]
fn writer_in_the_middle_of_a_change_keeps_nobody_waiting() {
    let store = Store::new();
    store.attach(1, ME, "me", "[]", None);
    let mut source = store.source();
    store.writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    store.attach(1, 7, "web", "[]", None);
    let start = std::time::Instant::now();
    assert_eq!(found(&mut source, "web"), None, "not committed");
    assert!(start.elapsed() < std::time::Duration::from_secs(10));
    store.writer.execute_batch("COMMIT").unwrap();
    assert_eq!(found(&mut source, "web"), some(&["10.1.0.7"]));
}

#[test]
fn missing_or_malformed_database_is_told() {
    let store = Store::new();
    let mut missing = Database::new(store.path.with_extension("none"), id(ME));
    assert!(missing.zone().is_err());
    assert!(!store.path.with_extension("none").exists());
    store.attach(1, ME, "me", "not json", None);
    let mut source = store.source();
    let error = source.zone().unwrap_err().to_string();
    assert!(error.contains("not json"), "{error}");
    store.detach(1, ME);
    store.attach(1, ME, "me", "[]", None);
    assert_eq!(found(&mut source, "me"), some(&["10.1.0.170"]));
}
