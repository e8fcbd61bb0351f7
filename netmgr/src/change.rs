//! The core loop: lock -> edit the tables -> policy -> plan -> apply -> commit.
//!
//! Everything that changes a network goes through [`change`]; nothing else in this crate writes to the kernel.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::Ipv4Net;
use rusqlite::{Connection, Transaction};

use crate::error::Error;
use crate::model::{Endpoint, Network, PortRequest, Profile};
use crate::proxy::Forward;

/// Which firewall is written. `--firewall`, and `--iptables=false` for [`Firewall::None`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Firewall {
    /// iptables where its binary works (nftables once that backend exists).
    #[default]
    Auto,
    Iptables,
    /// No rule at all; the loopback proxy still serves published ports.
    None,
}

/// Where state lives, and how the kernel is written. Built once by the caller.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `/var/lib/coracle`: the database and whatever must survive a reboot.
    pub root: PathBuf,
    /// `/run/coracle`: the lock, the journal of a change under way, what we changed of the host's own settings.
    pub run_root: PathBuf,
    pub firewall: Firewall,
    pub profile: Profile,
}

/// A container's network namespace, held open by a descriptor: it needs no name and no mount, and it goes when its
/// last holder does.
#[derive(Clone, Debug)]
pub struct Netns(pub Arc<OwnedFd>);

/// `network create`.
#[derive(Clone, Debug, Default)]
pub struct NetworkRequest {
    pub name: String,
    /// `None`: the next free one of the address pool.
    pub subnet: Option<Ipv4Net>,
    /// `None`: the first address of the subnet.
    pub gateway: Option<Ipv4Addr>,
    pub internal: bool,
    pub labels: Vec<(String, String)>,
    /// Driver options: `com.docker.network.bridge.name`, `com.docker.network.bridge.enable_icc`,
    /// `com.docker.network.bridge.enable_ip_masquerade`, `com.docker.network.driver.mtu`.
    pub options: Vec<(String, String)>,
}

/// A container joins a network.
#[derive(Clone, Debug)]
pub struct AttachRequest {
    pub container_id: String,
    pub container_name: String,
    /// Name, full ID or unique prefix of an ID. The default network is `bridge`.
    pub network: String,
    pub netns: Netns,
    pub ports: Vec<PortRequest>,
}

/// What [`Edit::attach`] hands back.
#[derive(Debug)]
pub struct Attachment {
    pub network: Network,
    pub endpoint: Endpoint,
    /// Listening sockets on the host, one for each published port and address family; the monitor serves them
    /// (see [`crate::proxy`]). While they are open no other program can take the port.
    pub forwards: Vec<Forward>,
}

/// Who takes the veth away on detach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VethRemoval {
    /// The namespace is dying with its last process: the kernel removes the pair, off our path (17 ms saved).
    ByKernel,
    /// The namespace lives on.
    Now,
}

/// An edit of the model under way: the lock is held and a transaction is open.
pub struct Edit<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) tx: &'a Transaction<'a>,
    pub(crate) netns: Vec<(String, Netns)>,
}

impl<'a> Edit<'a> {
    /// The open transaction, for the caller's own tables: they commit together with ours.
    pub fn transaction(&self) -> &Transaction<'a> {
        self.tx
    }

    /// Enters a new network into the model.
    pub fn create_network(&mut self, request: &NetworkRequest) -> Result<Network, Error> {
        todo!("{request:?}")
    }

    /// Takes a network, by name, ID or unique prefix, out of the model; returns it.
    pub fn remove_network(&mut self, name: &str) -> Result<Network, Error> {
        todo!("{name}")
    }

    /// Allocates an address, holds the host ports, and enters the endpoint into the model.
    pub fn attach(&mut self, request: &AttachRequest) -> Result<Attachment, Error> {
        todo!("{request:?}")
    }

    /// Takes all endpoints of a container out of the model. A container without endpoints is no error.
    pub fn detach(&mut self, container_id: &str, veth: VethRemoval) -> Result<(), Error> {
        todo!("{container_id} {veth:?}")
    }
}

/// Runs one change of the model and brings the kernel along: all of it happens, or nothing.
///
/// The edit runs under the lock and inside a transaction. When it succeeds, the difference between the models before
/// and after is planned and applied; only then the transaction commits. Any failure rolls the kernel back.
pub fn change<T, E: From<Error>>(
    settings: &Settings,
    conn: &mut Connection,
    edit: impl FnOnce(&mut Edit<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let _ = (settings, conn, edit);
    todo!()
}

/// Cheap when nothing is wrong: mends what a killed command left half done (the journal says so).
pub fn repair(settings: &Settings, conn: &mut Connection) -> Result<(), Error> {
    todo!("{settings:?} {conn:?}")
}

/// `system up`: the default network's bridge and the base chains, whether or not a container runs.
pub fn up(settings: &Settings, conn: &mut Connection) -> Result<(), Error> {
    todo!("{settings:?} {conn:?}")
}

/// `system reload`: compares the kernel with the model and mends every difference; `CORACLE-USER` stays as it is.
pub fn reload(settings: &Settings, conn: &mut Connection) -> Result<(), Error> {
    todo!("{settings:?} {conn:?}")
}

/// `system down`: removes every rule, chain and bridge of ours and gives the host back its sysctls and policies.
/// The networks stay in the database. Refused while containers are attached (the caller stops them first).
pub fn down(settings: &Settings, conn: &mut Connection) -> Result<(), Error> {
    todo!("{settings:?} {conn:?}")
}
