//! The core loop: lock -> edit the tables -> policy -> plan -> apply -> commit.
//!
//! Everything that changes a network goes through [`change`]; nothing else in this crate writes to the kernel. A command
//! may be killed at any instant: before the first operation the journal is written, and whoever finds it mends the kernel
//! to what the tables say (see [`crate::journal`]). What an edit may do is in [`crate::edit`].

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use rusqlite::{Connection, TransactionBehavior};
use serde::{Deserialize, Serialize};

pub use crate::edit::Edit;
use crate::error::Error;
use crate::firewall::mend::Goal;
use crate::journal::{Journal, State};
use crate::model::{Endpoint, Network, PortRequest, Profile};
use crate::proxy::Forward;
use crate::session::{Namespaces, Session, Step};
use crate::store;

/// Which firewall is written. `--firewall`, and `--iptables=false` for [`Firewall::None`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Firewall {
    /// iptables where its binary works, else nftables.
    #[default]
    Auto,
    Iptables,
    Nftables,
    /// No rule at all; the loopback proxy still serves published ports.
    None,
}

/// Where state lives, and how the kernel is written. Built once by the caller.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// `/var/lib/coracle`: the database and whatever must survive a reboot.
    pub root: PathBuf,
    /// `/run/coracle`: the lock, the journal of a change under way, what we changed of the host's own settings.
    pub run_root: PathBuf,
    pub firewall: Firewall,
    pub profile: Profile,
    /// Where networks without `--subnet` get theirs; empty: the profile's own pools.
    pub pools: Vec<Pool>,
    /// How the namespace of a running container is found: what a killed command has done inside of it can then be mended
    /// as well. `None`: it stays as it is until the container starts anew.
    #[serde(skip)]
    pub namespace_of: Option<NamespaceOf>,
}

/// From the database and a container's ID.
pub type NamespaceOf = fn(&Connection, &str) -> Option<Netns>;

/// One of `default-address-pools`: `base` is cut into subnets of prefix length `size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub base: Ipv4Net,
    pub size: u8,
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
    pub ip_range: Option<Ipv4Net>,
    pub ipv6: bool,
    /// `None` with `ipv6`: the next free one of this host's unique local prefix.
    pub subnet6: Option<Ipv6Net>,
    pub gateway6: Option<Ipv6Addr>,
    pub ip_range6: Option<Ipv6Net>,
    pub aux_addresses: Vec<(String, IpAddr)>,
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
    /// `--ip`, `--ip6`, `--mac-address`; `None`: chosen.
    pub address: Option<Ipv4Addr>,
    pub address6: Option<Ipv6Addr>,
    pub mac: Option<[u8; 6]>,
    pub aliases: Vec<String>,
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

/// Runs one change of the model and brings the kernel along: all of it happens, or nothing.
///
/// The edit runs under the lock and inside a transaction. When it succeeds, the difference between the models before
/// and after is planned and applied; only then the transaction commits. Any failure rolls the kernel back.
pub fn change<T, E: From<Error>>(
    settings: &Settings,
    conn: &mut Connection,
    edit: impl FnOnce(&mut Edit<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let session = Session::begin(settings)?;
    session.repair(conn)?;
    // Immediate: two commands must not both read and then both try to write.
    let tx = conn
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(store::failed("begin a change"))
        .map_err(E::from)?;
    let (value, step) = Step::of(settings, &tx, edit)?;
    let done = session.bring_along(&step)?;
    match tx.commit() {
        Ok(()) => {
            session.finish(&done, &step);
            Ok(value)
        }
        Err(source) => {
            let error = store::failed("commit a change")(source);
            Err(session.take_back(&done, error).into())
        }
    }
}

/// Cheap when nothing is wrong: mends what a killed command left half done (the journal says so).
pub fn repair(settings: &Settings, conn: &mut Connection) -> Result<(), Error> {
    if !Journal::is_pending(&settings.run_root) {
        return Ok(());
    }
    // It may also be the journal of a change that is still running: then there is nothing left once we have the lock.
    Session::begin(settings)?.repair(conn)
}

/// The backend that a command with these settings writes, now that `auto` is decided.
pub fn backend(settings: &Settings) -> Result<crate::plan::Backend, Error> {
    crate::session::standing_backend(settings)
}

/// `system up`: the default network's bridge and the base chains, whether or not a container runs.
pub fn up(settings: &Settings, conn: &mut Connection) -> Result<(), Error> {
    change(settings, conn, |edit| {
        edit.effects.needs_kernel = true;
        edit.default_network().map(|_| ())
    })?;
    // Where something was in place already, the change took it on trust.
    reload(settings, conn, &|_| None).map(|_| ())
}

/// `system reload`: compares the kernel with the model and mends every difference; `CORACLE-USER` stays as it is.
/// Where nothing is up, nothing is put up.
///
/// `netns_of` finds the namespace of a running container: what is missing inside of it can then be made anew.
pub fn reload(
    settings: &Settings,
    conn: &mut Connection,
    netns_of: &dyn Fn(&str) -> Option<Netns>,
) -> Result<Vec<String>, Error> {
    let session = Session::begin(settings)?;
    session.repair(conn)?;
    let model = store::load_model(conn, settings.profile)?;
    if session.state()? == State::Down && model.endpoints.is_empty() {
        return Ok(Vec::new());
    }
    let mut netns = Namespaces::new();
    for endpoint in &model.endpoints {
        let id = &endpoint.container_id;
        if !netns.contains_key(id)
            && let Some(found) = netns_of(id)
        {
            netns.insert(id.clone(), found);
        }
    }
    session.mend(&model, Goal::Stand, &Journal::default(), &netns)
}

/// `system down`: removes every rule, chain and bridge of ours and gives the host back its sysctls and policies.
/// The networks stay in the database. Refused while containers are attached (the caller stops them first).
///
/// Returns what was left in place on purpose, in words: the administrator's chain, if it holds rules of theirs.
pub fn down(settings: &Settings, conn: &mut Connection) -> Result<Vec<String>, Error> {
    let session = Session::begin(settings)?;
    session.repair(conn)?;
    let model = store::load_model(conn, settings.profile)?;
    if !model.endpoints.is_empty() {
        let attached: HashSet<&str> = model
            .endpoints
            .iter()
            .map(|e| e.network_id.as_str())
            .collect();
        let names: Vec<&str> = model
            .networks
            .iter()
            .filter(|n| attached.contains(n.id.as_str()))
            .map(|n| n.name.as_str())
            .collect();
        return Err(Error::StillAttached {
            networks: names.join(", "),
        });
    }
    session.mend(&model, Goal::Gone, &Journal::default(), &Namespaces::new())
}
