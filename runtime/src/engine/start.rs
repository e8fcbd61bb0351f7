//! `start`: claim, network, monitor, go; or everything back as it was.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use netmgr::proxy::Forward;
use netmgr::{Endpoint, Netns, Network};
use time::OffsetDateTime;

use super::{
    Engine, StartMode, confinement, end, etc_files, files, finish, limits, mounts, network,
    network_options, volumes,
};
use crate::attach::Session;
use crate::bundle;
use crate::cgroup::Group;
use crate::error::Error;
use crate::events;
use crate::monitor::{self, Descriptors, Handle, Launch, LaunchKind};
use crate::process::{self, Identity};
use crate::record::{Container, Health};
use crate::request::NetworkMode;
use crate::store::{self, Owner, Restarting};
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
        return match limits::is_paused(&stored.container) {
            true => Err(Error::StartPaused),
            false => Ok(None),
        };
    }
    // As with Docker, one that waits for its restart counts as running.
    if stored.restarting == Restarting::Waiting {
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
    start_claimed(engine, container, &owner, mode, None)
}

/// Starts a container that `owner`, this process, has claimed; or everything is as it was. `paused`: how long its policy has waited.
pub(super) fn start_claimed(
    engine: &mut Engine,
    container: Container,
    owner: &Owner,
    mode: StartMode,
    paused: Option<Duration>,
) -> Result<Option<Session>, Error> {
    // `cp` and the like have the root filesystem of a stopped container mounted for a moment. From now on they do not.
    drop(files::lock(&engine.settings, &container.id));
    let id = container.id.clone();
    let group = Group::of(&container);
    match run(engine, container, owner, mode, paused) {
        Ok(session) => Ok(session),
        Err(error) => {
            // Where its monitor was killed, another command may have mended that already, and have it in hand.
            let now = store::get(&engine.conn, &id)?;
            let other = now.filter(|now| now.owner.as_ref().is_some_and(|o| o != owner));
            if other.is_some_and(|now| finish::is_answered_for(&now)) {
                return Err(error);
            }
            // The first cause is what the user must see; what cannot be undone now is for the next command's repair.
            if let Err(e) = finish::bury(&engine.settings, &id, &group) {
                tracing::warn!(container = id, "cannot clean up: {e}");
            }
            if let Err(e) = finish::release(&engine.settings, &mut engine.conn, &id) {
                tracing::warn!(container = id, "cannot release the container: {e}");
            }
            Err(error)
        }
    }
}

/// The monitor, and this side of the container's streams.
struct Running {
    monitor: Handle,
    client: Option<OwnedFd>,
}

fn run(
    engine: &mut Engine,
    mut container: Container,
    owner: &Owner,
    mode: StartMode,
    paused: Option<Duration>,
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
    mounts::prepare_sources(&container)?;
    if container.request.init {
        bundle::place_init(&engine.settings.root).map_err(failed("write the init program"))?;
    }
    let storage = finish::storage(&engine.settings.root, &id);
    let directory = monitor::directory(&engine.settings.run_root, &id);
    monitor::remove_directories(&engine.settings.run_root, &id)
        .map_err(failed("remove the last run's directory"))?;
    make_directories(&storage, &directory, image.layers.first())
        .map_err(failed("make the container's directories"))?;
    let place = Place::find(engine, &container)?;
    if let Place::Joined(joined) = &place {
        container.resolved.hostname = joined.hostname.clone();
    }
    let mut prepared = container.clone();
    volumes::redirect(&engine.conn, &engine.settings.root, &mut prepared)?;
    let populate = volumes::to_fill(&engine.settings.root, &prepared);
    let mut launch = Launch::new(
        &engine.settings,
        container.clone(),
        LaunchKind::Run {
            layers: image.layers,
            populate,
        },
    );
    launch.joined = confinement::joined(engine, &container)?;
    launch.paused = paused;
    let running = netmgr::change(&engine.settings.network, &mut engine.conn, |edit| {
        // It may have been connected and disconnected since it was read.
        let stored = store::get(edit.transaction(), &id)?;
        if let Some(stored) = stored {
            container.resolved.connections = stored.container.resolved.connections;
        }
        let (attached, forwards) = place.attach(edit, &container)?;
        if mode == StartMode::Attached {
            events::record_container(edit.transaction(), &container, "attach", &[])?;
        }
        for (network, _) in &attached {
            events::record_place(edit.transaction(), network, &id, "connect")?;
        }
        let written = match &place {
            Place::Joined(joined) => etc_files::share(&storage, &joined.storage),
            Place::Host | Place::Own(_) => etc_files::write(&storage, &container, &attached),
        };
        written.map_err(failed("write hosts and resolv.conf"))?;
        store::set_resolved(edit.transaction(), &id, &container.resolved)?;
        volumes::record_mounts(edit.transaction(), &container)?;
        launch.container = container.clone();
        launch.container.resolved.mounts = prepared.resolved.mounts.clone();
        // From here the monitor prepares the container while this process writes links and rules.
        let running = spawn(launch, forwards, place.netns(), mode, &directory)?;
        let owner = Owner {
            process: running.monitor.process,
            boot_id: owner.boot_id.clone(),
        };
        store::hand_over(edit.transaction(), &id, &owner)?;
        Ok::<_, Error>(running)
    })?;
    // While the monitor still prepares the container.
    let responder = match &place {
        Place::Own(netns) if wants_names(&container) => Some(network::responder(netns)),
        _ => None,
    };
    let responder = match responder.transpose() {
        Ok(responder) => responder,
        Err(error) => {
            drop(running);
            return Err(error);
        }
    };
    drop(place);
    let begun = running.monitor.created().and_then(|init| {
        let health = container
            .resolved
            .health
            .as_ref()
            .map(|_| Health::default());
        let now = OffsetDateTime::now_utc();
        let monitor = running.monitor.process;
        if !store::set_running(&engine.conn, &id, monitor, init, now, health.as_ref())? {
            return Err(running.monitor.broke("was told to go on"));
        }
        running.monitor.go(responder.as_ref())?;
        Ok(init)
    });
    match begun {
        Ok(init) => {
            // It runs: it may have filled the disk by now, and that is no reason to have it ended.
            if let Err(error) = tell_of_start(engine, &id, init) {
                tracing::warn!(container = id, %error, "no event tells of the start");
            }
            Ok(running.into_session(&container, init))
        }
        Err(error) => {
            // Dropped, the monitor ends; it has when this returns.
            drop(running);
            Err(error)
        }
    }
}

/// If it has ended already, its monitor has told, and nothing may come after the end.
fn tell_of_start(engine: &mut Engine, id: &str, init: Identity) -> Result<(), Error> {
    let tx = engine
        .conn
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    if let Some(stored) = store::get(&tx, id)?.filter(|s| s.init == Some(init)) {
        events::record_start(&tx, &stored.container)?;
    }
    tx.commit()?;
    Ok(())
}

/// On a user network containers know each other by name.
fn wants_names(container: &Container) -> bool {
    let connections = container.resolved.connections.iter();
    connections
        .map(|connection| connection.network.as_str())
        .any(network_options::is_user_network)
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
            joined: false,
        })
    }
}

/// Where in the network a container starts.
enum Place {
    Host,
    Own(Netns),
    Joined(network::Joined),
}

/// A container's places in networks, and what its monitor serves for them.
type Attached = (Vec<(Network, Endpoint)>, Vec<Forward>);

impl Place {
    fn find(engine: &Engine, container: &Container) -> Result<Place, Error> {
        Ok(match &container.request.network {
            NetworkMode::Host => Place::Host,
            NetworkMode::Container(name) => Place::Joined(network::join(engine, container, name)?),
            NetworkMode::Bridge | NetworkMode::None | NetworkMode::Named(_) => {
                Place::Own(netmgr::kernel::netns::create().map_err(netmgr::Error::from)?)
            }
        })
    }

    fn netns(&self) -> Option<&Netns> {
        match self {
            Place::Host => None,
            Place::Own(netns) => Some(netns),
            Place::Joined(joined) => joined.netns.as_ref(),
        }
    }

    fn attach(
        &self,
        edit: &mut netmgr::Edit<'_>,
        container: &Container,
    ) -> Result<Attached, Error> {
        let Place::Own(netns) = self else {
            return Ok((Vec::new(), Vec::new()));
        };
        let (mut attached, mut forwards) = (Vec::new(), Vec::new());
        for attachment in network::attach_all(edit, container, netns)? {
            attached.push((attachment.network, attachment.endpoint));
            forwards.extend(attachment.forwards);
        }
        Ok((attached, forwards))
    }
}

fn spawn(
    launch: Launch,
    forwards: Vec<Forward>,
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
    let netns = netns.map(|netns| netns.0.try_clone()).transpose();
    let netns = netns.map_err(failed)?;
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

fn make_directories(storage: &Path, directory: &Path, top: Option<&PathBuf>) -> io::Result<()> {
    make_storage(storage, top)?;
    fs::create_dir_all(directory)
}

/// The writable layer and overlayfs's working directory, for the first time they are needed.
pub(super) fn make_storage(storage: &Path, top: Option<&PathBuf>) -> io::Result<()> {
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
    Ok(())
}
