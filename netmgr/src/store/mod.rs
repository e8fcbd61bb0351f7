//! The tables of this crate: networks, endpoints with their addresses, and published ports.
//!
//! Names, bridges, subnets, addresses and host ports are unique by the schema. What a constraint cannot say (ranges that
//! overlap, `0.0.0.0` against one address) is checked inside the same transaction. Nothing here decides a default.

use rusqlite::Connection;

use crate::error::Error;
use crate::model::{Model, Profile};

mod columns;
mod endpoints;
mod names;
mod networks;
mod ports;
mod schema;

pub(crate) use columns::failed;
pub(crate) use endpoints::{Occupant, delete_endpoint, insert_endpoint, is_in_use, occupants};
pub use endpoints::{endpoints_of, endpoints_on, rename_container};
pub use names::{Named, data_version, names_on};
pub(crate) use networks::{
    Taken, delete_network, enter_unique_local, has_bridge, insert_network, taken, unique_local,
};
pub use networks::{find_network, network_named, networks};
pub use ports::ports_of;
pub(crate) use ports::{allocated_port, clash, delete_ports, insert_ports};
pub use schema::create_tables;

/// Everything that should be there, in order of creation; the default network first.
pub fn load_model(conn: &Connection, profile: Profile) -> Result<Model, Error> {
    Ok(Model {
        profile,
        networks: networks(conn)?,
        endpoints: endpoints::all(conn)?,
    })
}

#[cfg(test)]
mod tests;
