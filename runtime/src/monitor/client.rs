//! One client of a relay: what waits for it, and when it has waited for too long.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use crate::wire::{self, Kind};

/// Output that waits for a client: beyond this the program waits (first client), or the client is cut off (others).
const MOST_OUTPUT: usize = 256 * 1024;

#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: OwnedFd,
    queue: VecDeque<(Kind, Vec<u8>)>,
    queued: usize,
    /// Started the program: its pace counts, and its end is the end of the program's input.
    pub(super) first: bool,
    /// Wants the program's output; others only wait for its end.
    pub(super) attached: bool,
    pub(super) gone: bool,
    /// Descriptors of a message in several parts.
    pub(super) handed: Vec<OwnedFd>,
}

impl Client {
    pub(super) fn new(socket: OwnedFd, first: bool) -> io::Result<Client> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Client {
            socket,
            queue: VecDeque::new(),
            queued: 0,
            first,
            attached: first,
            gone: false,
            handed: Vec::new(),
        })
    }

    /// Whether something waits for it.
    pub(super) fn is_behind(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether the program has to wait for it.
    pub(super) fn holds_up(&self) -> bool {
        self.first && self.queued > MOST_OUTPUT
    }

    pub(super) fn push(&mut self, kind: Kind, bytes: &[u8]) {
        if self.queue.is_empty() {
            match wire::send(&self.socket, kind, bytes) {
                Ok(()) => return,
                Err(e) if would_block(&e) => {}
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
        if !self.first && self.queued > MOST_OUTPUT {
            self.gone = true;
            return;
        }
        self.queued += bytes.len();
        self.queue.push_back((kind, bytes.to_vec()));
    }

    pub(super) fn flush(&mut self) {
        while let Some((kind, bytes)) = self.queue.front() {
            match wire::send(&self.socket, *kind, bytes) {
                Ok(()) => {
                    self.queued -= bytes.len();
                    self.queue.pop_front();
                }
                Err(e) if would_block(&e) => return,
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
    }
}

/// A full socket buffer is EAGAIN; the kernel says ENOBUFS where memory is short for the moment.
fn would_block(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::WouldBlock || e.raw_os_error() == Some(libc::ENOBUFS)
}
