//! The one orchestrator: each command of a front end is one call here.

pub mod files;
pub mod finish;
pub mod mounts;
pub mod volumes;

mod again;
mod care;
mod confinement;
mod create;
mod end;
mod etc_files;
mod exec;
mod history;
mod limits;
mod network;
mod network_options;
mod prune;
mod rename;
mod repair;
mod start;
mod streams;
mod untold;
mod usage;

pub(crate) use end::signal_number;

pub use again::{is_waiting, start_again};
pub use end::StopOptions;
pub use history::EventWatch;
pub use prune::Pruned;

use std::path::PathBuf;

use rusqlite::Connection;
use time::OffsetDateTime;

pub use end::Unheard;
pub(crate) use limits::record as record_event;
pub(crate) use network::namespace_by_row;
pub use usage::{Processes, Sample};

use crate::attach::Session;
use crate::error::Error;
use crate::events;
pub use crate::logs::{Stamp, Wanted as LogOptions};
use crate::process::Identity;
use crate::record::{Container, State};
use crate::request::{Connection as NetworkConnection, ContainerRequest, ExecRequest};
use crate::reserve;
use crate::store::{self, End, Stored};

/// Where state lives. Built once by the front end.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `/var/lib/coracle`
    pub root: PathBuf,
    /// `/run/coracle`
    pub run_root: PathBuf,
    pub network: netmgr::Settings,
}

/// An open engine: the database, and what to repair has been repaired.
pub struct Engine {
    settings: Settings,
    conn: Connection,
}

/// How `start` and `run` leave the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartMode {
    Detached,
    /// The caller keeps the container's streams.
    Attached,
}

impl Engine {
    /// Opens the database (and makes it on first use), and repairs what a killed command or monitor has left.
    pub fn open(mut settings: Settings) -> Result<Engine, Error> {
        use std::os::unix::fs::DirBuilderExt;
        for directory in [&settings.root, &settings.run_root] {
            // Only root may look: images hold setuid programs of any age.
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .map_err(|source| Error::Host {
                    step: "make the state directories",
                    source,
                })?;
        }
        settings.network.namespace_of = Some(namespace_by_row);
        let conn = store::open(&settings.root)?;
        reserve::keep(&settings.root);
        let mut engine = Engine { settings, conn };
        engine.repair()?;
        Ok(engine)
    }

    /// Does what makes room: on a full disk with the space that is set aside for it.
    fn making_room<T>(
        &mut self,
        act: impl Fn(&mut Engine) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match act(self) {
            Err(error) if reserve::is_wanted(&error) && reserve::release(&self.settings.root) => {
                act(self)
            }
            result => result,
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    // Containers. `name` is a name, a full ID or a unique prefix of an ID, everywhere.

    /// `create`: the record; nothing runs. The image must be present (see [`Engine::find_image`]).
    pub fn create(&mut self, request: &ContainerRequest) -> Result<Container, Error> {
        create::create(self, request)
    }

    /// `run`: create and start. A container whose program never ran is removed again, so that nothing is in the way of
    /// the next try (Docker keeps it as `Created`).
    pub fn run(
        &mut self,
        request: &ContainerRequest,
        mode: StartMode,
    ) -> Result<(Container, Option<Session>), Error> {
        let container = create::create(self, request)?;
        match start::start(self, &container.id, mode) {
            Ok(session) => Ok((container, session)),
            Err(error) => {
                if let Err(e) = end::remove(self, &container.id, false, true) {
                    tracing::warn!(container = container.id, "cannot remove: {e}");
                }
                Err(error)
            }
        }
    }

    /// `start`, and the second half of `run`. With [`StartMode::Attached`] the answer carries the streams.
    /// A container that runs already is no error.
    pub fn start(&mut self, name: &str, mode: StartMode) -> Result<Option<Session>, Error> {
        start::start(self, name, mode)
    }

    /// Runs a command in a running container. `Ok(None)` when detached.
    pub fn exec(&mut self, request: &ExecRequest) -> Result<Option<Session>, Error> {
        exec::exec(self, request)
    }

    /// `stop`: the stop signal, then SIGKILL. Returns when it has ended and its network is released. A container that does
    /// not run is no error. Its policy does not start it again. Tells when it had to be killed because its first process does
    /// nothing about the stop signal.
    pub fn stop(&mut self, name: &str, options: &StopOptions) -> Result<Option<Unheard>, Error> {
        self.making_room(|engine| end::stop(engine, name, options))
    }

    /// `kill`: sends a signal (`KILL`, `SIGHUP`, `9`). "Container ID is not running" is a conflict.
    pub fn kill(&mut self, name: &str, signal: &str) -> Result<(), Error> {
        end::kill(self, name, signal)
    }

    /// `rm`: a running container is a conflict unless `force`. `volumes` takes its anonymous volumes along.
    pub fn remove(&mut self, name: &str, force: bool, volumes: bool) -> Result<(), Error> {
        self.making_room(|engine| end::remove(engine, name, force, volumes))
    }

    /// `wait`: blocks until the container has ended and is cleaned up; its exit code.
    pub fn wait(&mut self, name: &str) -> Result<i32, Error> {
        end::wait(self, name)
    }

    /// All containers, newest first.
    pub fn list(&mut self) -> Result<Vec<Container>, Error> {
        let stored = store::list(&self.conn)?;
        let mut containers: Vec<Container> = stored.into_iter().map(|s| self.seen(s)).collect();
        let model = self.model()?;
        for container in &mut containers {
            container.attachments = attachments(&model, &container.id);
            container.paused = limits::is_paused(container);
        }
        Ok(containers)
    }

    /// The record, corrected by what the kernel says: what could not be repaired, as the disk cannot be written, has ended
    /// all the same.
    fn seen(&self, stored: Stored) -> Container {
        let mut container = stored.container;
        let (State::Running { started, .. }, Some(owner)) = (&container.state, &stored.owner)
        else {
            return container;
        };
        let init_lives = stored.init.is_some_and(Identity::is_alive);
        if !init_lives && !owner.process.is_alive() {
            let noted = finish::read_note(&self.settings.run_root, &container.id, owner.process);
            let end = noted.unwrap_or(End {
                code: finish::UNKNOWN,
                ..End::default()
            });
            container.state = State::Exited {
                code: end.code,
                started: Some(*started),
                finished: end.finished.unwrap_or_else(OffsetDateTime::now_utc),
                oom_killed: end.oom_killed,
                error: end.error,
            };
        }
        container
    }

    fn model(&self) -> Result<netmgr::Model, Error> {
        let profile = self.settings.network.profile;
        Ok(netmgr::store::load_model(&self.conn, profile)?)
    }

    pub fn find(&mut self, name: &str) -> Result<Container, Error> {
        let stored = store::find(&self.conn, name)?;
        let mut container = self.seen(stored);
        container.attachments = attachments(&self.model()?, &container.id);
        container.paused = limits::is_paused(&container);
        Ok(container)
    }

    /// Where a container's files are on this host.
    pub fn paths(&self, id: &str) -> ContainerPaths {
        let storage = finish::storage(&self.settings.root, id);
        ContainerPaths {
            log: storage.join(crate::logs::Format::Json.file_name()),
            hosts: storage.join("hosts"),
            hostname: storage.join("hostname"),
            resolv_conf: storage.join("resolv.conf"),
            upper: storage.join("diff"),
            work: storage.join("work"),
        }
    }

    // Images: image's own calls, with this engine's database.

    pub fn pull(
        &mut self,
        reference: &image::Reference,
        options: &image::pull::PullOptions,
        progress: &mut dyn FnMut(image::pull::PullEvent),
    ) -> Result<image::Image, Error> {
        let image = image::pull::pull(
            &mut self.conn,
            &self.settings.root,
            reference,
            options,
            progress,
        )?;
        let (full, name) = (reference.to_string(), reference.familiar_name());
        events::record_image(&self.conn, "pull", &full, &name)?;
        Ok(image)
    }

    /// `None` if there is no such image.
    pub fn find_image(&mut self, name: &str) -> Result<Option<image::Image>, Error> {
        Ok(image::store::find(&self.conn, &self.settings.root, name)?)
    }

    pub fn images(&mut self) -> Result<Vec<image::ImageSummary>, Error> {
        Ok(image::store::list(&self.conn)?)
    }

    pub fn remove_image(&mut self, name: &str, force: bool) -> Result<Vec<image::Removal>, Error> {
        let mut in_use = store::images_in_use(&self.conn)?;
        // The refusal names the container, as people write it.
        for (_, container) in &mut in_use {
            container.truncate(12);
        }
        let id = self.find_image(name)?.map(|image| image.id);
        let removed = self.making_room(|engine| {
            let root = engine.settings.root.clone();
            let removed = image::store::remove(&mut engine.conn, &root, name, force, &in_use);
            Ok(removed?)
        })?;
        for removal in &removed {
            let (action, id) = match (removal, &id) {
                (image::Removal::Untagged(_), Some(id)) => ("untag", id),
                (image::Removal::Deleted(deleted), Some(id)) if deleted == id => ("delete", id),
                _ => continue,
            };
            events::record_image(&self.conn, action, id, id)?;
        }
        Ok(removed)
    }

    pub fn import(
        &mut self,
        tar: &mut dyn std::io::Read,
        name: Option<&image::Reference>,
        changes: &[String],
        message: Option<&str>,
    ) -> Result<image::Image, Error> {
        let image = image::archive::import(
            &mut self.conn,
            &self.settings.root,
            tar,
            name,
            changes,
            message,
        )?;
        if let Some(name) = name {
            events::record_image(&self.conn, "tag", &image.id, &name.to_string())?;
        }
        events::record_image(&self.conn, "import", &image.id, &image.id)?;
        Ok(image)
    }

    // Networks: netmgr's own calls.

    pub fn create_network(
        &mut self,
        request: &netmgr::NetworkRequest,
    ) -> Result<netmgr::Network, Error> {
        netmgr::change(&self.settings.network, &mut self.conn, |edit| {
            let network = edit.create_network(request)?;
            events::record_network(edit.transaction(), &network, "create")?;
            Ok(network)
        })
    }

    /// Returns the network that was removed.
    pub fn remove_network(&mut self, name: &str) -> Result<netmgr::Network, Error> {
        self.making_room(|engine| {
            netmgr::change(&engine.settings.network, &mut engine.conn, |edit| {
                let network = edit.remove_network(name)?;
                events::record_network(edit.transaction(), &network, "destroy")?;
                Ok(network)
            })
        })
    }

    /// `network connect`: a running container is on the network when this returns, a stopped one from its next start on.
    pub fn connect_network(
        &mut self,
        container: &str,
        connection: &NetworkConnection,
    ) -> Result<(), Error> {
        network::connect(self, container, connection)
    }

    /// `network disconnect`, likewise.
    pub fn disconnect_network(
        &mut self,
        container: &str,
        network: &str,
        force: bool,
    ) -> Result<(), Error> {
        network::disconnect(self, container, network, force)
    }

    /// `network prune`: removes the user networks without running containers that `wanted` names, and returns them.
    pub fn prune_networks(
        &mut self,
        wanted: impl Fn(&netmgr::Network) -> bool,
    ) -> Result<Vec<netmgr::Network>, Error> {
        network::prune(self, wanted)
    }

    /// `network reload`: compares the kernel with what should be there and mends every difference. All networks share
    /// their rules, so a name only has to be one.
    pub fn reload_networks(&mut self, name: Option<&str>) -> Result<Vec<String>, Error> {
        if let Some(name) = name {
            self.find_network(name)?;
        }
        self.system_reload()
    }

    /// The network of this name, ID or unique prefix of an ID, and who is attached to it.
    pub fn find_network(
        &mut self,
        name: &str,
    ) -> Result<(netmgr::Network, Vec<netmgr::Endpoint>), Error> {
        self.enter_default_network()?;
        let network = netmgr::store::find_network(&self.conn, name)?;
        let endpoints = netmgr::store::endpoints_on(&self.conn, &network.id)?;
        Ok((network, endpoints))
    }

    /// The default network is there from the first look on, as in Docker; its bridge is made when a container needs it.
    fn enter_default_network(&mut self) -> Result<(), Error> {
        let known = netmgr::store::networks(&self.conn)?;
        if known.iter().any(|n| n.name == netmgr::Network::DEFAULT) {
            return Ok(());
        }
        netmgr::change(&self.settings.network, &mut self.conn, |edit| {
            edit.default_network()?;
            Ok(())
        })
    }

    /// With the endpoints attached to each.
    pub fn networks(&mut self) -> Result<Vec<(netmgr::Network, Vec<netmgr::Endpoint>)>, Error> {
        self.enter_default_network()?;
        let model = self.model()?;
        let of = |id: &str| {
            model
                .endpoints
                .iter()
                .filter(|e| e.network_id == id)
                .cloned()
                .collect()
        };
        Ok(model
            .networks
            .iter()
            .map(|network| (network.clone(), of(&network.id)))
            .collect())
    }

    // The system.

    /// The firewall that is written, now that `auto` is decided.
    pub fn firewall(&self) -> Result<netmgr::plan::Backend, Error> {
        Ok(netmgr::change::backend(&self.settings.network)?)
    }

    /// Puts the default network up and starts what should run by its policy. Returns what could not be started, and why.
    pub fn system_up(&mut self) -> Result<Vec<(String, Error)>, Error> {
        netmgr::up(&self.settings.network, &mut self.conn)?;
        self.start_what_should_run()
    }

    /// Stops every container, then takes everything of ours off the host.
    /// Returns what was left in place on purpose, in words.
    pub fn system_down(&mut self) -> Result<Vec<String>, Error> {
        let running = store::owned(&self.conn)?;
        end::stop_all(self, &running)?;
        let notes = netmgr::down(&self.settings.network, &mut self.conn)?;
        crate::cgroup::sweep(|id| crate::monitor::processes(id).is_empty());
        crate::cgroup::remove_parent();
        Ok(notes)
    }

    /// Returns what the user is to be told.
    pub fn system_reload(&mut self) -> Result<Vec<String>, Error> {
        care::reload(self)
    }

    /// What is amiss with the networks, the worst first; with `fix`, what remains after mending.
    pub fn network_doctor(&mut self, fix: bool) -> Result<Vec<netmgr::doctor::Finding>, Error> {
        care::doctor(self, fix)
    }

    /// Watches the kernel and mends until `stop` is readable.
    pub fn network_watch(
        &self,
        stop: std::os::fd::OwnedFd,
        report: &mut dyn FnMut(netmgr::watch::Event),
    ) -> Result<(), Error> {
        care::watch(self, stop, report)
    }

    /// `network create --dry-run`.
    pub fn preview_create_network(
        &mut self,
        request: &netmgr::NetworkRequest,
    ) -> Result<netmgr::preview::Preview<()>, Error> {
        care::preview(self, |edit| {
            edit.create_network(request)?;
            Ok(())
        })
    }

    /// `network rm --dry-run`.
    pub fn preview_remove_network(
        &mut self,
        name: &str,
    ) -> Result<netmgr::preview::Preview<()>, Error> {
        care::preview(self, |edit| {
            edit.remove_network(name)?;
            Ok(())
        })
    }

    /// `run --dry-run`: what a container of this request would need of networks and rules.
    pub fn preview_run(
        &mut self,
        request: &ContainerRequest,
    ) -> Result<netmgr::preview::Preview<()>, Error> {
        care::preview_run(self, request)
    }

    /// `network reload --dry-run`, `system reload --dry-run`.
    pub fn preview_reload(&mut self) -> Result<netmgr::preview::Preview<()>, Error> {
        care::preview_reload(self)
    }

    /// The rules of ours as the model has them, each with what it is for: what `system rules` prints.
    pub fn rules(&mut self) -> Result<Vec<ExplainedRule>, Error> {
        let model = self.model()?;
        let rules = netmgr::explain::explain(&self.settings.network, &model)?;
        Ok(rules
            .into_iter()
            .map(|rule| ExplainedRule {
                table: rule.table,
                rule: rule.rule,
                why: rule.why,
            })
            .collect())
    }
}

fn attachments(model: &netmgr::Model, id: &str) -> Vec<(netmgr::Network, netmgr::Endpoint)> {
    let mine = model.endpoints.iter().filter(|e| e.container_id == id);
    mine.filter_map(|e| {
        let network = model.network(&e.network_id)?;
        Some((network.clone(), e.clone()))
    })
    .collect()
}

/// Where a container's files are on this host; they exist once it has been started.
#[derive(Clone, Debug)]
pub struct ContainerPaths {
    pub log: PathBuf,
    pub hosts: PathBuf,
    pub hostname: PathBuf,
    pub resolv_conf: PathBuf,
    /// The container's own layer, and overlayfs's working directory.
    pub upper: PathBuf,
    pub work: PathBuf,
}

/// One rule and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedRule {
    pub table: String,
    /// `-A CHAIN ...`, as `iptables-save` would print it.
    pub rule: String,
    pub why: String,
}
