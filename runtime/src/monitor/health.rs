//! When a container's health is checked. A check is a process of its own (`probe`), which also records what it finds: the
//! monitor keeps nothing but a timer, and stays small.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::container::reap;
use super::launch::{self, Descriptors, Launch, LaunchKind};
use super::relay::timespec;
use crate::cgroup::{self, Group};
use crate::error::Error;
use crate::health;
use crate::names;
use crate::process::Identity;
use crate::record::{Container, HealthStatus, State};

/// The exit code of a probe that has found the container still starting; with any other it is not, or nobody knows.
pub(super) const STILL_STARTING: i32 = 3;

/// One check at a time: the pause begins when the last has ended.
pub(super) struct Timer {
    launch: Launch,
    begun: Instant,
    is_starting: bool,
    next: Instant,
    probe: Option<(Identity, OwnedFd)>,
}

impl Timer {
    /// `None` if the container is not checked.
    pub(super) fn new(launch: &Launch) -> Option<Timer> {
        let container = &launch.container;
        container.resolved.health.as_ref()?;
        let ran = match container.state {
            // Adopted: it runs since then.
            State::Running { started, .. } => {
                let ran = time::OffsetDateTime::now_utc() - started;
                Duration::try_from(ran).unwrap_or_default()
            }
            _ => Duration::ZERO,
        };
        let status = container.health.as_ref().map(|health| health.status);
        let now = Instant::now();
        let mut timer = Timer {
            launch: Launch {
                has_netns: false,
                has_client: false,
                forwards: Vec::new(),
                container: Container {
                    attachments: Vec::new(),
                    ..container.clone()
                },
                ..launch.clone()
            },
            begun: now.checked_sub(ran).unwrap_or(now),
            is_starting: status.is_none_or(|status| status == HealthStatus::Starting)
                || !matches!(container.state, State::Running { .. }),
            next: now,
            probe: None,
        };
        timer.schedule();
        Some(timer)
    }

    fn schedule(&mut self) {
        if let Some(check) = &self.launch.container.resolved.health {
            let pause = health::pause(check, self.is_starting, self.begun.elapsed());
            self.next = Instant::now() + pause;
        }
    }

    /// When the next check is due; a probe that runs is waited for first.
    pub(super) fn due(&self) -> Option<Instant> {
        self.probe.is_none().then_some(self.next)
    }

    /// Readable when the probe has ended.
    pub(super) fn probe(&self) -> Option<BorrowedFd<'_>> {
        self.probe.as_ref().map(|(_, ended)| ended.as_fd())
    }

    /// Does what is due now.
    pub(super) fn tick(&mut self) {
        if let Some((probe, ended)) = &self.probe {
            if !is_readable(ended) {
                return;
            }
            self.is_starting &= reap(*probe) == Some(STILL_STARTING);
            self.probe = None;
            self.schedule();
        }
        if Instant::now() < self.next {
            return;
        }
        // A command in a frozen container would hang; Docker does not check it either.
        if cgroup::is_frozen(&Group::of(&self.launch.container)) {
            return self.schedule();
        }
        match self.begin() {
            Ok(probe) => self.probe = Some(probe),
            Err(e) => {
                eprintln!("cannot check the container's health: {e}");
                self.schedule();
            }
        }
    }

    fn begin(&self) -> Result<(Identity, OwnedFd), Error> {
        let container = &self.launch.container.id;
        let failed = |source| Error::Io {
            step: "prepare the health check",
            container: container.clone(),
            source,
        };
        let id = names::new_id()?;
        let directory =
            super::exec::make_directory(&self.launch.run_root, container, &id).map_err(failed)?;
        let launch = Launch {
            kind: LaunchKind::Probe { id },
            ..self.launch.clone()
        };
        let probe = launch::spawn(launch, Descriptors::default(), &directory)?;
        let process = probe.process;
        probe.release();
        let pid = rustix::process::Pid::from_raw(process.pid);
        let ended = pid.ok_or_else(|| failed(io::Error::from(io::ErrorKind::NotFound)))?;
        // Our child: a zombie is still no one else.
        rustix::process::pidfd_open(ended, rustix::process::PidfdFlags::empty())
            .map(|ended| (process, ended))
            .map_err(|e| failed(e.into()))
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some((probe, ended)) = self.probe.take() {
            let _ = crate::pidfd::send_signal(&ended, libc::SIGKILL);
            let _ = reap(probe);
        }
    }
}

fn is_readable(fd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    poll(&mut fds, Some(&timespec(Duration::ZERO))).is_ok_and(|n| n > 0)
}
