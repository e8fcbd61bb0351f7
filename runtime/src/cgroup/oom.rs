//! Which containers ran out of memory: the kernel's own counter of kills, never an exit code.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{EventfdFlags, PollFlags, eventfd};

use super::{Group, field, is_v2};

/// How many processes of the container the kernel has killed for want of memory, wherever the limit was reached. 0 once the
/// cgroup has gone.
pub fn kills(group: &Group) -> u64 {
    counter(group)
        .and_then(|file| fs::read_to_string(file).ok())
        .and_then(|text| field(&text, "oom_kill"))
        .unwrap_or(0)
}

fn counter(group: &Group) -> Option<PathBuf> {
    let directory = group.directory("memory")?;
    Some(match is_v2() {
        true => directory.join("memory.events"),
        false => directory.join("memory.oom_control"),
    })
}

/// Tells when a container runs out of memory.
#[derive(Debug)]
pub struct Watch {
    group: Group,
    /// v1: an eventfd, readable; v2: memory.events itself, which has POLLPRI after each change (cgroup-v2, memory.events).
    fd: OwnedFd,
    seen: u64,
}

impl Watch {
    /// `seen` of the kills are no news.
    pub fn new(group: &Group, seen: u64) -> io::Result<Watch> {
        let path = counter(group).ok_or(io::ErrorKind::NotFound)?;
        let file = File::open(&path)?;
        let fd = match is_v2() {
            true => OwnedFd::from(file),
            false => {
                let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
                // memory.txt, "Memory thresholds", "OOM Control".
                let line = format!("{} {}", event.as_raw_fd(), file.as_raw_fd());
                fs::write(path.with_file_name("cgroup.event_control"), line)?;
                event
            }
        };
        Ok(Watch {
            group: group.clone(),
            fd,
            seen,
        })
    }

    /// To poll for [`Watch::flags`], after [`Watch::news`] has been asked once; and then again when they come.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// A file of the kernel's is always readable: only POLLPRI says that it has changed.
    pub fn flags(&self) -> PollFlags {
        match is_v2() {
            true => PollFlags::PRI,
            false => PollFlags::IN,
        }
    }

    /// How many have been killed since this was asked last.
    pub fn news(&mut self) -> u64 {
        // Either must be read to be quiet again, v2's from its beginning.
        let mut buffer = [0; 512];
        let _ = match is_v2() {
            true => rustix::io::pread(&self.fd, &mut buffer, 0),
            false => rustix::io::read(&self.fd, &mut buffer),
        };
        let kills = kills(&self.group);
        let news = kills.saturating_sub(self.seen);
        self.seen = kills;
        news
    }
}
