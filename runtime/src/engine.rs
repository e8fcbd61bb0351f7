//! The one orchestrator: each command of a front end is one call here.

use std::io::Write;
use std::path::PathBuf;

use crate::attach::{Outcome, Session, Streams};
use crate::error::Error;
use crate::record::Container;
use crate::request::{ContainerRequest, ExecRequest};

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
}

/// How `start` and `run` leave the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartMode {
    Detached,
    /// The caller keeps the container's streams.
    Attached,
}

/// Which lines `logs` prints.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    pub follow: bool,
    pub timestamps: bool,
    /// The last so many lines; `None`: all.
    pub tail: Option<usize>,
}

impl Engine {
    /// Opens the database (and makes it on first use), and repairs what a killed command or monitor has left.
    pub fn open(settings: Settings) -> Result<Engine, Error> {
        Ok(Engine { settings })
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    // Containers. `name` is a name, a full ID or a unique prefix of an ID, everywhere.

    /// `create`: the record and the writable layer; nothing runs. The image must be present (see [`Engine::find_image`]).
    pub fn create(&mut self, request: &ContainerRequest) -> Result<Container, Error> {
        todo!("{request:?}")
    }

    /// `start`, and the second half of `run`. With [`StartMode::Attached`] the answer carries the streams.
    pub fn start(&mut self, name: &str, mode: StartMode) -> Result<Option<Session>, Error> {
        todo!("{name} {mode:?}")
    }

    /// Runs a command in a running container. `Ok(None)` when detached.
    pub fn exec(&mut self, request: &ExecRequest) -> Result<Option<Session>, Error> {
        todo!("{request:?}")
    }

    /// Relays between the caller's streams and a session until the program ends or the user detaches.
    pub fn relay(&mut self, session: Session, streams: Streams) -> Result<Outcome, Error> {
        let _ = (session, streams);
        todo!()
    }

    /// `stop`: the stop signal, then SIGKILL after `timeout` seconds (`None`: the container's own). Returns when it has ended
    /// and its network is released. A container that does not run is no error.
    pub fn stop(&mut self, name: &str, timeout: Option<u32>) -> Result<(), Error> {
        todo!("{name} {timeout:?}")
    }

    /// `kill`: sends a signal (`KILL`, `SIGHUP`, `9`). "Container ID is not running" is a conflict.
    pub fn kill(&mut self, name: &str, signal: &str) -> Result<(), Error> {
        todo!("{name} {signal}")
    }

    /// `rm`: a running container is a conflict unless `force`. `volumes` takes its anonymous volumes along.
    pub fn remove(&mut self, name: &str, force: bool, volumes: bool) -> Result<(), Error> {
        todo!("{name} {force} {volumes}")
    }

    /// `wait`: blocks until the container has ended and is cleaned up; its exit code.
    pub fn wait(&mut self, name: &str) -> Result<i32, Error> {
        todo!("{name}")
    }

    /// All containers, newest first.
    pub fn list(&mut self) -> Result<Vec<Container>, Error> {
        todo!()
    }

    pub fn find(&mut self, name: &str) -> Result<Container, Error> {
        Err(Error::NoSuchContainer(name.to_owned()))
    }

    /// `logs`: writes to the two streams; returns at the end of the log, or with `follow` when the container ends.
    pub fn logs(
        &mut self,
        name: &str,
        options: &LogOptions,
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> Result<(), Error> {
        let _ = (name, options, out, err);
        todo!()
    }

    // Images: image's own calls, with this engine's database.

    pub fn pull(
        &mut self,
        reference: &image::Reference,
        options: &image::pull::PullOptions,
        progress: &mut dyn FnMut(image::pull::PullEvent),
    ) -> Result<image::Image, Error> {
        let _ = (reference, options, progress);
        todo!()
    }

    /// `None` if there is no such image.
    pub fn find_image(&mut self, name: &str) -> Result<Option<image::Image>, Error> {
        todo!("{name}")
    }

    pub fn images(&mut self) -> Result<Vec<image::ImageSummary>, Error> {
        todo!()
    }

    pub fn remove_image(&mut self, name: &str, force: bool) -> Result<Vec<image::Removal>, Error> {
        todo!("{name} {force}")
    }

    pub fn import(
        &mut self,
        tar: &mut dyn std::io::Read,
        name: Option<&image::Reference>,
        changes: &[String],
        message: Option<&str>,
    ) -> Result<image::Image, Error> {
        let _ = (tar, name, changes, message);
        todo!()
    }

    // Networks: netmgr's own calls.

    pub fn create_network(
        &mut self,
        request: &netmgr::NetworkRequest,
    ) -> Result<netmgr::Network, Error> {
        todo!("{request:?}")
    }

    /// Returns the network that was removed.
    pub fn remove_network(&mut self, name: &str) -> Result<netmgr::Network, Error> {
        todo!("{name}")
    }

    /// With the endpoints attached to each.
    pub fn networks(&mut self) -> Result<Vec<(netmgr::Network, Vec<netmgr::Endpoint>)>, Error> {
        todo!()
    }

    // The system.

    pub fn system_up(&mut self) -> Result<(), Error> {
        todo!()
    }

    /// Stops every container, then takes everything of ours off the host.
    pub fn system_down(&mut self) -> Result<(), Error> {
        todo!()
    }

    pub fn system_reload(&mut self) -> Result<(), Error> {
        todo!()
    }

    /// The rules of ours as the model has them, each with what it is for: what `system rules` prints.
    pub fn rules(&mut self) -> Result<Vec<ExplainedRule>, Error> {
        todo!()
    }
}

/// One rule and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedRule {
    pub table: String,
    /// `-A CHAIN ...`, as `iptables-save` would print it.
    pub rule: String,
    pub why: String,
}
