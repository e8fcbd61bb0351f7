//! The tables themselves, and the way to them from those of an earlier version.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::columns::failed;
use crate::error::Error;

/// Published ports are a container's: which of its endpoints they lead to follows from its networks
/// ([`crate::Model::primary`]), and they stay its own while it is in none.
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
    aux_addresses TEXT NOT NULL DEFAULT '[]',
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
    aliases        TEXT NOT NULL DEFAULT '[]',
    UNIQUE (network_id, address),
    UNIQUE (network_id, container_id),
    UNIQUE (container_id, interface)
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS endpoints_address6 ON endpoints (network_id, address6);
CREATE UNIQUE INDEX IF NOT EXISTS endpoints_mac ON endpoints (network_id, mac);
CREATE TABLE IF NOT EXISTS ports (
    container_id   TEXT NOT NULL,
    position       INTEGER NOT NULL,
    protocol       TEXT NOT NULL,
    host_ip        TEXT NOT NULL,
    host_port      INTEGER NOT NULL CHECK (host_port BETWEEN 1 AND 65535),
    container_port INTEGER NOT NULL CHECK (container_port BETWEEN 1 AND 65535),
    count          INTEGER NOT NULL CHECK (count >= 1 AND host_port + count <= 65536
                                           AND container_port + count <= 65536),
    listener       INTEGER CHECK (listener BETWEEN 1 AND 65535),
    PRIMARY KEY (container_id, position),
    UNIQUE (protocol, host_ip, host_port)
) STRICT, WITHOUT ROWID;
-- This host's own IPv6 prefix, from the first network that needed one.
CREATE TABLE IF NOT EXISTS unique_local (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    prefix TEXT NOT NULL
) STRICT;
";

/// What the tables of version 0.1 lack.
const ADDED: [(&str, &str, &str); 6] = [
    ("networks", "ip_range", "TEXT"),
    ("networks", "v6", "TEXT"),
    ("networks", "aux_addresses", "TEXT NOT NULL DEFAULT '[]'"),
    ("endpoints", "address6", "TEXT"),
    ("endpoints", "aliases", "TEXT NOT NULL DEFAULT '[]'"),
    ("ports", "listener", "INTEGER"),
];

/// The ports of version 0.1 were an endpoint's.
const REGROUP_PORTS: &str = "
INSERT INTO ports
SELECT container_id, row_number() OVER (PARTITION BY container_id ORDER BY seq, position) - 1,
       protocol, host_ip, host_port, container_port, count, listener
FROM ports_of_endpoints JOIN endpoints ON endpoints.id = endpoint_id;
DROP TABLE ports_of_endpoints;
";

/// Makes the tables where they are missing, and brings those of an earlier version up to date. Cheap when there is
/// nothing to do.
pub fn create_tables(conn: &Connection) -> Result<(), Error> {
    let fail = failed("create the network tables");
    if !is_old(conn)? {
        return conn.execute_batch(SCHEMA).map_err(fail);
    }
    if !conn.is_autocommit() {
        return upgrade(conn);
    }
    // Another command may be about to do the same: whoever comes second finds nothing to do.
    let tx = Transaction::new_unchecked(conn, TransactionBehavior::Immediate).map_err(fail)?;
    if is_old(&tx)? {
        upgrade(&tx)?;
    }
    tx.commit().map_err(fail)
}

fn is_old(conn: &Connection) -> Result<bool, Error> {
    has_column(conn, "ports", "endpoint_id")
}

fn upgrade(conn: &Connection) -> Result<(), Error> {
    let fail = failed("bring the network tables up to date");
    for (table, column, definition) in ADDED {
        if !has_column(conn, table, column)? {
            let add = format!("ALTER TABLE {table} ADD COLUMN {column} {definition}");
            conn.execute_batch(&add).map_err(fail)?;
        }
    }
    conn.execute_batch("ALTER TABLE ports RENAME TO ports_of_endpoints")
        .and_then(|()| conn.execute_batch(SCHEMA))
        .and_then(|()| conn.execute_batch(REGROUP_PORTS))
        .map_err(fail)
}

fn has_column(conn: &Connection, table: &str, column: &str) -> Result<bool, Error> {
    conn.query_row(
        "SELECT EXISTS (SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2)",
        [table, column],
        |row| row.get(0),
    )
    .map_err(failed("look at the network tables"))
}
