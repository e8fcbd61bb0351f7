//! The one orchestrator: each command of a front end is one call here.

pub mod files;
pub mod finish;
pub mod mounts;
pub mod volumes;

mod again;
mod archives;
mod care;
mod confinement;
mod create;
mod end;
mod etc_files;
mod exec;
mod history;
mod images;
mod limits;
mod look;
mod mark;
mod network;
mod network_options;
mod networks;
mod preview;
mod prune;
mod push;
mod rename;
mod repair;
mod space;
mod start;
mod streams;
mod system;
mod untold;
mod usage;

pub use crate::logs::{Stamp, Wanted as LogOptions};
pub use again::{is_waiting, start_again};
pub use end::{StopOptions, Unheard};
pub use history::EventWatch;
pub use images::InspectedImage;
pub use look::ContainerPaths;
pub use preview::ExplainedRule;
pub use prune::{Candidate, Pruned, PrunedSystem, SystemPrune};
pub use space::{Amount, ContainerUsage, DiskUsage, VolumeUsage};
pub use usage::{Processes, Sample};

pub(crate) use end::signal_number;
pub(crate) use network::namespace_by_row;

use std::path::PathBuf;

use rusqlite::Connection;

use crate::attach::Session;
use crate::error::Error;
use crate::record::Container;
use crate::request::{ContainerRequest, ExecRequest};
use crate::{reserve, store};

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

    fn model(&self) -> Result<netmgr::Model, Error> {
        let profile = self.settings.network.profile;
        Ok(netmgr::store::load_model(&self.conn, profile)?)
    }
}
