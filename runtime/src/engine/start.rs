//! `start`: claim, network, monitor, go; or everything back as it was.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use netmgr::{AttachRequest, Attachment, Netns};
use time::OffsetDateTime;

use super::{Engine, StartMode, end, finish};
use crate::attach::Session;
use crate::bundle;
use crate::error::Error;
use crate::monitor::{self, Descriptors, Handle, Launch, LaunchKind};
use crate::process::{self, Identity};
use crate::record::{Container, State};
use crate::request::NetworkMode;
use crate::store::{self, Owner};
use crate::wire;

/// How long a start waits for the end of the run before.
const CLEAN_UP: Duration = Duration::from_secs(20);

pub(super) fn start(
    engine: &mut Engine,
    name: &str,
    mode: StartMode,
) -> Result<Option<Session>, Error> {
    let mut stored = end::settled(engine, name)?;
    if stored.init.is_some_and(Identity::is_alive) {
        return Ok(None);
    }
    if stored.owner.is_some() {
        // It has just ended, and its monitor is still cleaning up: first that, then the new start.
        end::Waiter::connect(engine, &stored).wait(engine, Some(CLEAN_UP))?;
        stored = store::find(&engine.conn, &stored.container.id)?;
    }
    let container = stored.container;
    let host = |step| move |source| Error::Host { step, source };
    let owner = Owner {
        process: Identity::myself().map_err(host("find this process"))?,
        boot_id: process::boot_id().map_err(host("read the boot id"))?,
    };
    if !store::claim(&engine.conn, &container.id, &owner)? {
        // Another command was faster; if it succeeds, so has this one.
        let stored = end::settled(engine, &container.id)?;
        if stored.init.is_some_and(Identity::is_alive) {
            return Ok(None);
        }
        return Err(Error::BeingStarted(container.name));
    }
    let id = container.id.clone();
    match run(engine, container, &owner, mode) {
        Ok(session) => Ok(session),
        Err(error) => {
            // The first cause is what the user must see; what cannot be undone now is for the next command's repair.
            if let Err(e) = finish::bury(&engine.settings, &id) {
                tracing::warn!(container = id, "cannot clean up: {e}");
            }
            if let Err(e) = finish::release(&engine.settings, &mut engine.conn, &id) {
                tracing::warn!(container = id, "cannot release the container: {e}");
            }
            Err(error)
        }
    }
}

/// The session of a later client: the monitor tells it what comes from now on, and at last the exit code.
pub(super) fn attach_to_running(engine: &mut Engine, name: &str) -> Result<Session, Error> {
    let stored = store::find(&engine.conn, name)?;
    let container = stored.container;
    let (State::Running { .. }, Some(init)) = (&container.state, stored.init) else {
        return Err(Error::NotRunning(container.id));
    };
    let failed = |source| Error::Io {
        step: "attach",
        container: container.id.clone(),
        source,
    };
    let directory = monitor::directory(&engine.settings.run_root, &container.id);
    let socket = wire::connect(&directory.join(finish::SOCKET)).map_err(failed)?;
    wire::send(&socket, wire::Kind::Attach, &[]).map_err(failed)?;
    Ok(Session {
        socket,
        tty: container.request.tty,
        container: container.id.clone(),
        init: Some(init),
    })
}

/// The monitor, and this side of the container's streams.
struct Running {
    monitor: Handle,
    client: Option<OwnedFd>,
}

fn run(
    engine: &mut Engine,
    container: Container,
    owner: &Owner,
    mode: StartMode,
) -> Result<Option<Session>, Error> {
    let id = container.id.clone();
    let failed = |step| {
        let container = id.clone();
        move |source| Error::Io {
            step,
            container,
            source,
        }
    };
    let image = image::store::find(&engine.conn, &engine.settings.root, &container.image_id)?
        .ok_or_else(|| Error::NoSuchImage(container.image_id.clone()))?;
    let populate = volumes_to_fill(&container);
    prepare_mount_sources(&container).map_err(failed("make a host directory for a mount"))?;
    let storage = finish::storage(&engine.settings.root, &id);
    let directory = monitor::directory(&engine.settings.run_root, &id);
    monitor::remove_directories(&engine.settings.run_root, &id)
        .map_err(failed("remove the last run's directory"))?;
    make_directories(&storage, &directory, image.layers.first())
        .map_err(failed("make the container's directories"))?;
    let netns = match container.request.network {
        NetworkMode::Host => None,
        _ => Some(netmgr::kernel::netns::create().map_err(netmgr::Error::from)?),
    };
    let launch = Launch::new(
        &engine.settings,
        container.clone(),
        LaunchKind::Run {
            layers: image.layers,
            populate,
        },
    );
    let running = netmgr::change(&engine.settings.network, &mut engine.conn, |edit| {
        let attachment = attach(edit, &container, netns.as_ref())?;
        write_files(&storage, &container, attachment.as_ref())
            .map_err(failed("write hosts and resolv.conf"))?;
        // From here the monitor prepares the container while this process writes links and rules.
        let running = spawn(launch, attachment, netns.as_ref(), mode, &directory)?;
        let owner = Owner {
            process: running.monitor.process,
            boot_id: owner.boot_id.clone(),
        };
        store::hand_over(edit.transaction(), &id, &owner)?;
        Ok::<_, Error>(running)
    })?;
    drop(netns);
    let begun = running.monitor.created().and_then(|init| {
        store::set_running(&engine.conn, &id, init, OffsetDateTime::now_utc())?;
        running.monitor.go()?;
        Ok(init)
    });
    match begun {
        Ok(init) => Ok(running.into_session(&container, init)),
        Err(error) => {
            // Dropped, the monitor ends; it has when this returns.
            drop(running);
            Err(error)
        }
    }
}

impl Running {
    fn into_session(self, container: &Container, init: Identity) -> Option<Session> {
        self.monitor.release();
        let socket = self.client?;
        Some(Session {
            socket,
            tty: container.request.tty,
            container: container.id.clone(),
            init: Some(init),
        })
    }
}

fn attach(
    edit: &mut netmgr::Edit<'_>,
    container: &Container,
    netns: Option<&Netns>,
) -> Result<Option<Attachment>, Error> {
    let network = match &container.request.network {
        NetworkMode::Host => return Ok(None),
        NetworkMode::None => {
            if let Some(netns) = netns {
                netmgr::kernel::netns::loopback_up(netns).map_err(netmgr::Error::from)?;
            }
            return Ok(None);
        }
        NetworkMode::Bridge => "bridge",
        NetworkMode::Named(name) => name,
    };
    let Some(netns) = netns else { return Ok(None) };
    let attachment = edit.attach(&AttachRequest {
        address: None,
        address6: None,
        aliases: Vec::new(),
        mac: None,
        container_id: container.id.clone(),
        container_name: container.name.clone(),
        network: network.to_owned(),
        netns: netns.clone(),
        ports: container.request.ports.clone(),
    })?;
    Ok(Some(attachment))
}

fn spawn(
    launch: Launch,
    attachment: Option<Attachment>,
    netns: Option<&Netns>,
    mode: StartMode,
    directory: &Path,
) -> Result<Running, Error> {
    let id = launch.container.id.clone();
    let failed = |source| Error::Io {
        step: "make the container's stream socket",
        container: id.clone(),
        source,
    };
    let (client, theirs) = match mode {
        StartMode::Detached => (None, None),
        StartMode::Attached => {
            let (ours, theirs) = wire::pair().map_err(failed)?;
            (Some(ours), Some(theirs))
        }
    };
    let netns = netns
        .map(|netns| netns.0.try_clone())
        .transpose()
        .map_err(failed)?;
    let forwards = attachment.map(|a| a.forwards).unwrap_or_default();
    let monitor = monitor::spawn(
        launch,
        Descriptors {
            netns,
            client: theirs,
            forwards,
        },
        directory,
    )?;
    Ok(Running { monitor, client })
}

/// Named volumes that hold nothing yet get what the image has at their place, as in Docker.
fn volumes_to_fill(container: &Container) -> Vec<(PathBuf, String)> {
    let empty = |path: &str| fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    container
        .resolved
        .mounts
        .iter()
        .filter(|m| m.volume.is_some() && empty(&m.source))
        .map(|m| (PathBuf::from(&m.source), m.target.clone()))
        .collect()
}

/// `-v /host/path:...` makes the host's directory if it is not there.
fn prepare_mount_sources(container: &Container) -> io::Result<()> {
    for mount in &container.resolved.mounts {
        match fs::metadata(&mount.source) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => fs::create_dir_all(&mount.source)?,
            _ => {}
        }
    }
    Ok(())
}

fn make_directories(storage: &Path, directory: &Path, top: Option<&PathBuf>) -> io::Result<()> {
    let (upper, work) = (storage.join("diff"), storage.join("work"));
    fs::create_dir_all(&work)?;
    if !upper.exists() {
        fs::create_dir(&upper)?;
        // The root of an overlay has the mode and the owner of its uppermost layer, which is this one.
        if let Some(top) = top {
            let root = fs::metadata(top)?;
            std::os::unix::fs::chown(&upper, Some(root.uid()), Some(root.gid()))?;
            fs::set_permissions(&upper, root.permissions())?;
        }
    }
    fs::create_dir_all(directory)
}

/// `--add-host NAME:host-gateway` is the address at which the container reaches the host: the gateway of its network, or
/// loopback in the host's own. Without any network there is none, and no line.
fn extra_hosts(asked: &[(String, String)], gateway: Option<Ipv4Addr>) -> Vec<(String, String)> {
    let resolve = |(name, address): &(String, String)| match address.as_str() {
        "host-gateway" => gateway.map(|address| (name.clone(), address.to_string())),
        _ => Some((name.clone(), address.clone())),
    };
    asked.iter().filter_map(resolve).collect()
}

/// The three files that are bound over the image's own.
fn write_files(
    storage: &Path,
    container: &Container,
    attachment: Option<&Attachment>,
) -> io::Result<()> {
    let resolved = &container.resolved;
    let on_host = container.request.network == NetworkMode::Host;
    let address = attachment.map(|a| a.endpoint.address);
    let gateway = match (on_host, attachment) {
        (true, _) => Some(Ipv4Addr::LOCALHOST),
        (false, attachment) => attachment.map(|a| a.network.gateway),
    };
    let extra = extra_hosts(&container.request.extra_hosts, gateway);
    let hosts = match on_host {
        true => {
            bundle::extended_hosts(fs::read_to_string("/etc/hosts").unwrap_or_default(), &extra)
        }
        false => bundle::hosts_file(&resolved.hostname, address, &extra),
    };
    fs::write(storage.join("hosts"), hosts)?;
    fs::write(storage.join("hostname"), format!("{}\n", resolved.hostname))?;
    let resolver = match on_host {
        true => bundle::Resolver::SameAsHost,
        false => bundle::Resolver::HostsServers,
    };
    let request = &container.request;
    let host_text = bundle::host_resolv_conf(resolver)?;
    let text = bundle::resolv_conf(&host_text, &request.dns, &request.dns_search, resolver);
    fs::write(storage.join("resolv.conf"), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_goes_by_the_gateways_address() {
        let pair = |name: &str, address: &str| (name.to_owned(), address.to_owned());
        let asked = [pair("me", "host-gateway"), pair("db", "10.0.0.1")];
        let gateway = Some(Ipv4Addr::new(172, 17, 0, 1));
        assert_eq!(
            extra_hosts(&asked, gateway),
            [pair("me", "172.17.0.1"), pair("db", "10.0.0.1")]
        );
        assert_eq!(extra_hosts(&asked, None), [pair("db", "10.0.0.1")]);
    }
}
