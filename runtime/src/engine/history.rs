//! `events`: what is in the table, and what comes into it.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Engine;
use crate::error::Error;
use crate::events::{self, Event};

/// Wakes whoever reads the table when somebody writes to the database.
#[derive(Debug)]
pub struct EventWatch(Inotify);

/// A writer writes its rows before it says that they count: after a write it is looked for them so often, and so long.
const AFTER_A_WRITE: Duration = Duration::from_millis(20);

/// Without any write, in case one has not been told of (a database on a network file system).
const WITHOUT_A_WRITE: Duration = Duration::from_secs(1);

impl EventWatch {
    /// Waits until there may be something new, `limit` at most.
    pub fn wait(&self, limit: Option<Duration>) {
        let most = limit.map_or(WITHOUT_A_WRITE, |limit| limit.min(WITHOUT_A_WRITE));
        let time = Timespec {
            tv_sec: most.as_secs().cast_signed(),
            tv_nsec: most.subsec_nanos().into(),
        };
        let fd = self.0.as_fd();
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        if poll(&mut fds, Some(&time)).is_ok_and(|n| n > 0) {
            std::thread::sleep(AFTER_A_WRITE.min(most));
            let _ = self.0.read_events();
        }
    }
}

impl Engine {
    /// The number of the newest event; 0 if there is none.
    pub fn newest_event(&self) -> Result<i64, Error> {
        events::newest(&self.conn)
    }

    /// What came after the event `seq`, the oldest first.
    pub fn events_after(&self, seq: i64) -> Result<Vec<Event>, Error> {
        events::after(&self.conn, seq)
    }

    pub fn watch_events(&self) -> Result<EventWatch, Error> {
        let watch = || -> nix::Result<EventWatch> {
            let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
            // The folder: the database's log is emptied, and made anew, as time goes by.
            inotify.add_watch(&self.settings.root, AddWatchFlags::IN_MODIFY)?;
            Ok(EventWatch(inotify))
        };
        watch().map_err(|e| Error::Host {
            step: "watch the database",
            source: e.into(),
        })
    }
}
