//! What the monitor does for a container's limits, beyond what libcontainer does with the spec.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use rustix::event::PollFlags;

use super::creation::invalid;
use super::launch::Launch;
use crate::cgroup::{self, Group};
use crate::error::{Error, ErrorKind};
use crate::events;
use crate::limits;
use crate::oci::Failure;
use crate::process;
use crate::record::Container;
use crate::store;

/// Holds while libcontainer makes the container. It sets the readiness to be killed for want of memory in its caller, which the
/// container inherits: with this, the monitor has its own again.
pub(super) struct Limiter {
    own_score: Option<String>,
}

impl Limiter {
    /// Refuses what this process has no right to give: the limits may have been asked for under another one.
    pub(super) fn prepare(container: &Container) -> Result<Limiter, Failure> {
        let wanted = &container.request.resources;
        limits::check_ulimits(&wanted.ulimits, process::own_hard_limit)
            .map_err(|e| invalid(e.into()))?;
        let Some(score) = wanted.oom_score_adj else {
            return Ok(Limiter { own_score: None });
        };
        let own_score = process::oom_score_adj()
            .map_err(|e| Failure::internal("read the oom score adj", &e))?;
        process::set_oom_score_adj(&score.to_string()).map_err(|_| Failure {
            kind: ErrorKind::Invalid,
            message: format!(
                "cannot set the oom score adj to {score}: below this host's own of {} only a process with CAP_SYS_RESOURCE may go",
                own_score.trim()
            ),
        })?;
        Ok(Limiter {
            own_score: Some(own_score),
        })
    }

    /// The limits once more, by our own hand, before the program runs: see `cgroup::limits`.
    pub(super) fn complete(self, container: &Container) -> Result<(), Failure> {
        let wanted = &container.request.resources;
        if *wanted == Default::default() {
            return Ok(());
        }
        let group = Group::of(container);
        cgroup::apply(&group, wanted)
            .and_then(|_| cgroup::throttle(&group, wanted))
            .map_err(|e| Failure::internal("limit the container", &e))
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        if let Some(score) = &self.own_score
            && let Err(e) = process::set_oom_score_adj(score)
        {
            eprintln!("the monitor keeps the container's oom score adj: {e}");
        }
    }
}

/// Records an `oom` event when a process of the container is killed for want of memory.
pub(super) struct MemoryWatch {
    watch: cgroup::Watch,
    root: PathBuf,
    container: String,
}

impl MemoryWatch {
    /// `seen` kills are no news: somebody else has recorded them.
    pub(super) fn new(launch: &Launch, seen: u64) -> Option<MemoryWatch> {
        match cgroup::Watch::new(&Group::of(&launch.container), seen) {
            Ok(watch) => Some(MemoryWatch {
                watch,
                root: launch.root.clone(),
                container: launch.container.id.clone(),
            }),
            Err(e) => {
                eprintln!("cannot watch the container's memory: {e}");
                None
            }
        }
    }

    /// What to poll, and for what.
    pub(super) fn source(&self) -> (BorrowedFd<'_>, PollFlags) {
        (self.watch.fd(), self.watch.flags())
    }

    /// Looks for news, when the descriptor says that there may be some, and at the end.
    pub(super) fn look(&mut self) {
        if self.watch.news() > 0
            && let Err(e) = self.record()
        {
            eprintln!("cannot record that memory ran out: {e}");
        }
    }

    fn record(&self) -> Result<(), Error> {
        let conn = store::open(&self.root)?;
        match store::get(&conn, &self.container)? {
            Some(stored) => events::record_container(&conn, &stored.container, "oom", &[]),
            None => Ok(()),
        }
    }
}
