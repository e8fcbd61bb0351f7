//! What a container may use, while it runs too: the check at `create`, `update`, `pause` and `unpause`.

use std::io;

use rusqlite::TransactionBehavior;

use super::{Engine, end, files};
use crate::cgroup::{self, Group, Host, Undo};
use crate::error::{Error, ErrorKind};
use crate::events;
use crate::limits::{self, LimitError, Purpose};
use crate::process;
use crate::record::{Container, State};
use crate::request::{ContainerRequest, UpdateRequest};
use crate::reserve;
use crate::store::{self, Stored};

impl Engine {
    /// What the user is to be told of a request's limits before it is created: which of them this host cannot keep.
    pub fn warnings(&self, request: &ContainerRequest) -> Result<Vec<String>, Error> {
        Ok(self.with_checked_limits(request)?.1)
    }

    /// The request with limits that are allowed, complete and possible here; and the warnings.
    pub(super) fn with_checked_limits(
        &self,
        request: &ContainerRequest,
    ) -> Result<(ContainerRequest, Vec<String>), Error> {
        let mut request = request.clone();
        if request.resources == Default::default() {
            return Ok((request, Vec::new()));
        }
        let warnings = limits::check(&mut request.resources, &Host::find(), Purpose::Create)?;
        limits::check_ulimits(&request.resources.ulimits, process::own_hard_limit)?;
        for throttle in &request.resources.throttles {
            cgroup::block_device(&throttle.device).map_err(|e| LimitError::NoBlockDevice {
                device: throttle.device.clone(),
                why: e.to_string(),
            })?;
        }
        Ok((request, warnings))
    }

    /// `update`: the record and, where it runs, the live cgroups, both or neither. The answer is what the user is to be told.
    pub fn update(&mut self, name: &str, request: &UpdateRequest) -> Result<Vec<String>, Error> {
        let mut asked = request.resources.clone();
        let warnings = limits::check(&mut asked, &Host::find(), Purpose::Update)?;
        let id = end::settled(self, name)?.container.id;
        let tx = self
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut stored =
            store::get(&tx, &id)?.ok_or_else(|| Error::NoSuchContainer(name.to_owned()))?;
        let failed = |source: Box<dyn std::error::Error + Send + Sync>, kind| Error::Update {
            container: id.clone(),
            source,
            kind,
        };
        let container = &mut stored.container;
        container.request.resources = limits::merge(&container.request.resources, &asked)
            .map_err(|e| failed(e.into(), ErrorKind::Conflict))?;
        if let Some(policy) = request.restart {
            if container.request.auto_remove {
                let why = "Restart policy cannot be updated because AutoRemove is enabled for the container";
                return Err(failed(why.into(), ErrorKind::Conflict));
            }
            container.request.restart = policy;
        }
        store::set_request(&tx, &id, &container.request)?;
        events::record_container(&tx, container, "update", &[])?;
        let undo = apply_live(&stored).map_err(|e| failed(e.into(), ErrorKind::Internal))?;
        if let Err(error) = tx.commit() {
            undo.undo();
            return Err(error.into());
        }
        Ok(warnings)
    }

    /// `pause`: every process of the container stands still when this returns.
    pub fn pause(&mut self, name: &str) -> Result<(), Error> {
        let stored = end::settled(self, name)?;
        let container = stored.container;
        match container.state {
            State::Running { .. } => {}
            State::Restarting { .. } => return Err(Error::IsRestarting(container.id)),
            _ => return Err(Error::NotRunning(container.id)),
        }
        let group = Group::of(&container);
        if cgroup::is_frozen(&group) {
            return Err(Error::AlreadyPaused(container.id));
        }
        cgroup::freeze(&group).map_err(io_error("pause it", &container))?;
        // From a commit that was killed before it had frozen it.
        files::forget_freeze(self, &container.id);
        record_if_possible(&self.conn, "pause", &container, &[])
    }

    /// `unpause`.
    pub fn unpause(&mut self, name: &str) -> Result<(), Error> {
        let container = store::find(&self.conn, name)?.container;
        if !is_paused(&container) {
            return Err(Error::NotPaused(container.id));
        }
        cgroup::thaw(&Group::of(&container)).map_err(io_error("unpause it", &container))?;
        record_if_possible(&self.conn, "unpause", &container, &[])
    }
}

/// Whether the container stands still. The kernel says so: nothing is stored.
pub(super) fn is_paused(container: &Container) -> bool {
    matches!(container.state, State::Running { .. }) && cgroup::is_frozen(&Group::of(container))
}

/// A container that does not run gets its limits at the next start.
fn apply_live(stored: &Stored) -> io::Result<Undo> {
    let container = &stored.container;
    let running = matches!(container.state, State::Running { .. });
    match running && stored.init.is_some_and(|init| init.is_alive()) {
        true => cgroup::apply(&Group::of(container), &container.request.resources),
        false => Ok(Undo::default()),
    }
}

fn io_error(step: &'static str, container: &Container) -> impl Fn(io::Error) -> Error + use<> {
    let container = container.id.clone();
    move |source| Error::Io {
        step,
        container: container.clone(),
        source,
    }
}

/// What has been done is no failure because the disk cannot be written.
pub(super) fn record_if_possible(
    conn: &rusqlite::Connection,
    action: &str,
    container: &Container,
    more: &[(&str, &str)],
) -> Result<(), Error> {
    match events::record_container(conn, container, action, more) {
        Err(error) if reserve::is_unwritable(&error) => {
            tracing::warn!(action, "cannot record the event: {error}");
            Ok(())
        }
        other => other,
    }
}
