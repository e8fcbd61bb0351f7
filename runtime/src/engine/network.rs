//! A container's places in networks: at its start, and by `network connect` and `disconnect` while it runs or is stopped.
//!
//! A stopped container's networks are only in its record. A running one's namespace is reached by its first process.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netmgr::dns::{self, Listening};
use netmgr::plan::Tool;
use netmgr::{AttachRequest, Attachment, Edit, Endpoint, Netns, Network, PortRequest, VethRemoval};
use rusqlite::Connection as Database;
use rustix::fs::{Mode, OFlags, fstat};

use super::mark::Mark;
use super::network_options::{check_connection, is_user_network};
use super::untold;
use super::{Engine, end, etc_files, finish};
use crate::error::Error;
use crate::events;
use crate::monitor;
use crate::process::Identity;
use crate::record::Container;
use crate::request::{Connection, NO_NETWORK, NetworkMode};
use crate::store::{self, Stored};

/// How long a change waits for starts that come in between.
const STARTS: Duration = Duration::from_secs(20);

/// What a container of the mode `container:NAME` has from the other one.
#[derive(Debug)]
pub(super) struct Joined {
    /// `None`: the host's own.
    pub(super) netns: Option<Netns>,
    /// Where the other's files in /etc are.
    pub(super) storage: PathBuf,
    pub(super) hostname: String,
}

/// Opens the namespace of the container `name`, which must be running.
pub(super) fn join(engine: &Engine, container: &Container, name: &str) -> Result<Joined, Error> {
    let other = end::settled(engine, name)?;
    let id = &other.container.id;
    if *id == container.id {
        return Err(Error::JoinSelf);
    }
    let failed = |source| Error::Io {
        step: "open the network namespace",
        container: id.clone(),
        source,
    };
    let netns = match other.init {
        Some(init) => namespace_of(init).map_err(failed)?,
        None => None,
    };
    let netns = netns.ok_or_else(|| Error::JoinNotRunning(id.clone()))?;
    let own = netmgr::kernel::netns::current().map_err(netmgr::Error::from)?;
    let is_own = is_same(&netns, &own).map_err(failed)?;
    Ok(Joined {
        netns: (!is_own).then_some(netns),
        storage: finish::storage(&engine.settings.root, id),
        hostname: other.container.resolved.hostname,
    })
}

/// The network namespace of a process; `None` if it has ended.
pub(super) fn namespace_of(process: Identity) -> io::Result<Option<Netns>> {
    let Some(_pinned) = process.open() else {
        return Ok(None);
    };
    let path = format!("/proc/{}/ns/net", process.pid);
    let fd = match rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::SRCH) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // Looked at once more after opening: the number may have gone to another process in between.
    Ok(process.is_alive().then(|| Netns(Arc::new(fd))))
}

/// For [`netmgr::Settings::namespace_of`].
pub(crate) fn namespace_by_row(conn: &Database, id: &str) -> Option<Netns> {
    let init = store::get(conn, id).ok()??.init?;
    namespace_of(init).ok()?
}

fn is_same(a: &Netns, b: &Netns) -> io::Result<bool> {
    let (a, b) = (fstat(&a.0)?, fstat(&b.0)?);
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

/// Attaches a container that starts to all of its networks.
pub(super) fn attach_all(
    edit: &mut Edit<'_>,
    container: &Container,
    netns: &Netns,
) -> Result<Vec<Attachment>, Error> {
    let connections: Vec<&Connection> = real(&container.resolved.connections).collect();
    if connections.is_empty() {
        netmgr::kernel::netns::loopback_up(netns).map_err(netmgr::Error::from)?;
        return Ok(Vec::new());
    }
    edit.default_network()?;
    let primary = primary(edit.transaction(), &connections)?;
    let mut attachments = Vec::with_capacity(connections.len());
    for connection in connections {
        let ports = match connection.network == primary {
            true => container.ports(),
            false => Vec::new(),
        };
        attachments.push(edit.attach(&attach_request(container, connection, netns, ports))?);
    }
    Ok(attachments)
}

/// Those that are networks; `none` is not.
fn real(connections: &[Connection]) -> impl Iterator<Item = &Connection> {
    connections.iter().filter(|c| c.network != NO_NETWORK)
}

/// The connection that publishes ports: see [`netmgr::Model::primary`].
fn primary(conn: &Database, connections: &[&Connection]) -> Result<String, Error> {
    let mut networks = Vec::new();
    for connection in connections {
        let network = netmgr::store::find_network(conn, &connection.network)?;
        networks.push((network, &connection.network));
    }
    let first = networks.iter().min_by_key(|(network, _)| network.rank());
    Ok(first.map_or_else(String::new, |(_, wish)| (*wish).clone()))
}

fn attach_request(
    container: &Container,
    connection: &Connection,
    netns: &Netns,
    ports: Vec<PortRequest>,
) -> AttachRequest {
    // The default network knows no names.
    let hostname = container.request.hostname.as_ref();
    let hostname = hostname.filter(|_| is_user_network(&connection.network));
    AttachRequest {
        container_id: container.id.clone(),
        container_name: container.name.clone(),
        network: connection.network.clone(),
        netns: netns.clone(),
        address: connection.address,
        address6: connection.address6,
        mac: connection.mac,
        // A hostname that was asked for is a name on every network, as with Docker; `inspect` does not count it among the aliases.
        aliases: connection.aliases.iter().chain(hostname).cloned().collect(),
        ports,
    }
}

/// What a change has come to.
enum Changed {
    /// The record alone.
    Stopped,
    Running(Box<Live>),
    /// Another command is starting the container: again, when it has.
    Starting,
}

/// A running container's change, which the container and its monitor are to hear of.
struct Live {
    container: Container,
    place: (Network, Endpoint),
    served: monitor::Served,
    /// Until they have.
    mark: Option<Mark>,
}

/// `network connect`. What `wish` says of the network is the name that was typed.
pub(super) fn connect(engine: &mut Engine, name: &str, wish: &Connection) -> Result<(), Error> {
    if wish.network == "host" {
        return Err(Error::HostNetwork);
    }
    let changed = change(engine, name, |edit, stored| connect_one(edit, stored, wish))?;
    if let Some(live) = changed {
        let storage = finish::storage(&engine.settings.root, &live.container.id);
        etc_files::connected(&storage, &live.container, &live.place)
            .map_err(|source| write_failed(&live.container.id, source))?;
        tell_monitor(engine, &live.container.id, &live.served);
        drop(live.mark);
    }
    Ok(())
}

fn connect_one(edit: &mut Edit<'_>, stored: Stored, wish: &Connection) -> Result<Changed, Error> {
    let mut container = stored.container;
    edit.default_network()?;
    let mut wish = wish.clone();
    if wish.network != NO_NETWORK {
        wish.network = netmgr::store::find_network(edit.transaction(), &wish.network)?.name;
    }
    check_connection(&wish)?;
    check_mode(&container)?;
    let there = &mut container.resolved.connections;
    let (is_none, has_none) = (
        wish.network == NO_NETWORK,
        there.iter().any(|c| c.network == NO_NETWORK),
    );
    if has_none || (is_none && !there.is_empty()) {
        return Err(Error::NoneIsAlone);
    }
    let running = stored.init.filter(|init| init.is_alive());
    let known = there.iter().position(|c| c.network == wish.network);
    match (known, running) {
        (Some(_), Some(_)) => {
            return Err(Error::AlreadyConnected {
                container: container.name,
                network: wish.network,
            });
        }
        // As in Docker, a stopped container takes the last word.
        (Some(at), None) => there[at] = wish.clone(),
        (None, _) => there.push(wish.clone()),
    }
    store::set_resolved(edit.transaction(), &container.id, &container.resolved)?;
    let Some(init) = running.filter(|_| !is_none) else {
        return Ok(Changed::Stopped);
    };
    let netns = live_namespace(&container, init)?;
    edit.known_netns(&container.id, netns.clone());
    // Ports are published once in a run; those that are, follow the container.
    let ports = match netmgr::store::ports_of(edit.transaction(), &container.id)?.is_empty() {
        true => container.ports(),
        false => Vec::new(),
    };
    let attachment = edit.attach(&attach_request(&container, &wish, &netns, ports))?;
    let (network, id) = (&attachment.network, &container.id);
    events::record_place(edit.transaction(), network, id, "connect")?;
    let is_first = !endpoints_have_names(edit.transaction(), &container.id, &attachment)?;
    let responder = match is_first && is_user_network(&attachment.network.name) {
        true => Some(responder(&netns)?),
        false => None,
    };
    Ok(Changed::Running(Box::new(Live {
        container,
        place: (attachment.network, attachment.endpoint),
        served: monitor::Served {
            forwards: attachment.forwards,
            responder,
        },
        mark: None,
    })))
}

/// Whether the container was on a user network before it was attached to this one, and has its responder.
fn endpoints_have_names(
    conn: &Database,
    container: &str,
    attached: &Attachment,
) -> Result<bool, Error> {
    for endpoint in netmgr::store::endpoints_of(conn, container)? {
        let network = netmgr::store::find_network(conn, &endpoint.network_id)?;
        if endpoint.id != attached.endpoint.id && is_user_network(&network.name) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The sockets of a container's DNS responder, in its namespace.
pub(super) fn responder(netns: &Netns) -> Result<Listening, Error> {
    // Sockets of 127.0.0.11 need it; on a first network it goes up with the veth only later.
    netmgr::kernel::netns::loopback_up(netns).map_err(netmgr::Error::from)?;
    let tool = [(Tool::Iptables, "iptables-restore"), (Tool::Nft, "nft")]
        .into_iter()
        .find(|(_, name)| netmgr::kernel::commands::path(name).is_some())
        .map(|(tool, _)| tool);
    Ok(dns::listen(netns, tool).map_err(netmgr::Error::from)?)
}

/// Likewise for a container whose monitor has gone, if it is on a user network.
pub(super) fn responder_again(
    conn: &Database,
    stored: &Stored,
) -> Result<Option<Listening>, Error> {
    let on_user_network = real(&stored.container.resolved.connections)
        .any(|connection| is_user_network(&connection.network));
    let (true, Some(init)) = (on_user_network, stored.init) else {
        return Ok(None);
    };
    if netmgr::store::endpoints_of(conn, &stored.container.id)?.is_empty() {
        return Ok(None);
    }
    let netns = live_namespace(&stored.container, init)?;
    responder(&netns).map(Some)
}

/// `network disconnect`. With `force`, what is not there is named as an endpoint, as in Docker.
pub(super) fn disconnect(
    engine: &mut Engine,
    name: &str,
    network: &str,
    force: bool,
) -> Result<(), Error> {
    if network == "host" {
        return Err(Error::HostNetwork);
    }
    let changed = change(engine, name, |edit, stored| {
        disconnect_one(edit, stored, network)
    });
    let changed = changed.map_err(|error| match error {
        Error::NoSuchContainer(container) if force => Error::NoSuchEndpoint { container },
        error => error,
    })?;
    if let Some(live) = changed {
        let storage = finish::storage(&engine.settings.root, &live.container.id);
        etc_files::disconnected(&storage, &live.container, &live.place)
            .map_err(|source| write_failed(&live.container.id, source))?;
        tell_monitor(engine, &live.container.id, &live.served);
        drop(live.mark);
    }
    Ok(())
}

fn disconnect_one(edit: &mut Edit<'_>, stored: Stored, network: &str) -> Result<Changed, Error> {
    let mut container = stored.container;
    if container.request.network == NetworkMode::Host {
        return Err(Error::HostNetwork);
    }
    edit.default_network()?;
    let there = &mut container.resolved.connections;
    let is_typed = |c: &Connection| c.network == network;
    // A network that has gone is still in the records of stopped containers, by its name.
    let found = match there.iter().any(is_typed) {
        true => netmgr::store::network_named(edit.transaction(), network)?,
        false => Some(netmgr::store::find_network(edit.transaction(), network)?),
    };
    let name = found.as_ref().map_or(network, |n| n.name.as_str());
    let Some(at) = there.iter().position(|c| c.network == name) else {
        return Err(Error::NotConnected {
            container: container.id,
            network: network.to_owned(),
        });
    };
    there.remove(at);
    store::set_resolved(edit.transaction(), &container.id, &container.resolved)?;
    let (Some(init), Some(network)) = (stored.init.filter(|init| init.is_alive()), found) else {
        return Ok(Changed::Stopped);
    };
    let endpoints = netmgr::store::endpoints_of(edit.transaction(), &container.id)?;
    let Some(endpoint) = endpoints.into_iter().find(|e| e.network_id == network.id) else {
        return Ok(Changed::Stopped);
    };
    edit.known_netns(&container.id, live_namespace(&container, init)?);
    edit.detach_from(&container.id, &network.name, VethRemoval::Now)?;
    events::record_place(edit.transaction(), &network, &container.id, "disconnect")?;
    Ok(Changed::Running(Box::new(Live {
        container,
        place: (network, endpoint),
        served: monitor::Served::default(),
        mark: None,
    })))
}

fn check_mode(container: &Container) -> Result<(), Error> {
    match container.request.network {
        NetworkMode::Host | NetworkMode::Container(_) => Err(Error::SharesNamespace),
        NetworkMode::Bridge | NetworkMode::None | NetworkMode::Named(_) => Ok(()),
    }
}

/// Runs a change of one container under the lock; what it has come to, if the container runs.
fn change(
    engine: &mut Engine,
    name: &str,
    work: impl Fn(&mut Edit<'_>, Stored) -> Result<Changed, Error>,
) -> Result<Option<Live>, Error> {
    let deadline = Instant::now() + STARTS;
    loop {
        let id = end::settled(engine, name)?.container.id;
        let settings = engine.settings.network.clone();
        let mark = untold::mark(&engine.settings.run_root, &id).map_err(|source| Error::Io {
            step: "mark the change",
            container: id.clone(),
            source,
        })?;
        let changed = netmgr::change(&settings, &mut engine.conn, |edit| {
            let stored = store::get(edit.transaction(), &id)?
                .ok_or_else(|| Error::NoSuchContainer(name.to_owned()))?;
            if stored.init.is_none() && finish::is_answered_for(&stored) {
                return Ok(Changed::Starting);
            }
            work(edit, stored)
        })?;
        match changed {
            Changed::Stopped => return Ok(None),
            Changed::Running(mut live) => {
                live.mark = Some(mark);
                return Ok(Some(*live));
            }
            Changed::Starting if Instant::now() > deadline => {
                return Err(Error::BeingStarted(name.to_owned()));
            }
            Changed::Starting => {}
        }
    }
}

fn live_namespace(container: &Container, init: Identity) -> Result<Netns, Error> {
    let failed = |source| Error::Io {
        step: "open the network namespace",
        container: container.id.clone(),
        source,
    };
    let netns = namespace_of(init).map_err(failed)?;
    netns.ok_or_else(|| Error::NotRunning(container.id.clone()))
}

pub(super) fn write_failed(container: &str, source: io::Error) -> Error {
    Error::Io {
        step: "write hosts and resolv.conf",
        container: container.to_owned(),
        source,
    }
}

/// The monitor relays to the addresses of now. One that was killed is replaced by the next command, which reads the tables.
pub(super) fn tell_monitor(engine: &Engine, id: &str, served: &monitor::Served) {
    let told = netmgr::store::endpoints_of(&engine.conn, id)
        .map_err(Error::from)
        .and_then(|endpoints| {
            let directory = monitor::directory(&engine.settings.run_root, id);
            monitor::tell_of_networks(&directory.join(finish::SOCKET), endpoints, served).map_err(
                |source| Error::Io {
                    step: "tell the monitor of its networks",
                    container: id.to_owned(),
                    source,
                },
            )
        });
    if let Err(e) = told {
        tracing::warn!(container = id, "{e}");
    }
}

/// `network prune`: every user network that no running container is on and that `wanted` names. Returns those removed.
pub(super) fn prune(
    engine: &mut Engine,
    wanted: impl Fn(&Network) -> bool,
) -> Result<Vec<Network>, Error> {
    let settings = engine.settings.network.clone();
    netmgr::change(&settings, &mut engine.conn, |edit| {
        let model = netmgr::store::load_model(edit.transaction(), settings.profile)?;
        let used: HashSet<&str> = model
            .endpoints
            .iter()
            .map(|endpoint| endpoint.network_id.as_str())
            .collect();
        let unused = model
            .networks
            .iter()
            .filter(|n| is_user_network(&n.name) && !used.contains(n.id.as_str()));
        unused
            .filter(|network| wanted(network))
            .map(|network| {
                let removed = edit.remove_network(&network.id)?;
                events::record_network(edit.transaction(), &removed, "destroy")?;
                Ok(removed)
            })
            .collect()
    })
}
