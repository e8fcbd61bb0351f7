//! The kernel's notifications: which ones are listened to, and the word "something has changed" made of them.
//!
//! What a message says is of no interest but for who caused it: the comparison reads the kernel itself, so that a lost
//! message costs nothing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rtnetlink::packet_core::{NetlinkBuffer, NlasIterator};
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::sys::{Socket, SocketAddr};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::kernel::Error;

/// `RTNLGRP_LINK`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV6_IFADDR`, `_IPV6_ROUTE` (rtnetlink.h).
const ROUTE_GROUPS: [u32; 5] = [1, 5, 7, 9, 11];

/// `NFNLGRP_NFTABLES` (nfnetlink.h). What `iptables-nft` writes is announced here too.
const NFTABLES_GROUP: u32 = 7;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN`: closes each transaction, and says whose it was.
const NEW_GENERATION: u16 = 10 << 8 | 15;
const GENERATION_PID: u16 = 2;
const GENERATION_NAME: u16 = 3;
const NFGENMSG: usize = 4;

/// A burst is looked at once: this long after its last message, or that long after its first.
const QUIET: Duration = Duration::from_millis(120);
const AT_MOST: Duration = Duration::from_millis(450);

/// The kernel writes no larger notification (`NLMSG_GOODSIZE`), but a transaction's come several at a time.
const READ_SIZE: usize = 64 << 10;

/// What woke us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    Stop,
    /// Nothing was announced for as long as was to be waited.
    Quiet,
    /// Programs that wrote rules, as far as the kernel says.
    Changed {
        by: Vec<String>,
    },
}

pub(super) struct Listener {
    route: Socket,
    /// `None` on a kernel without nf_tables.
    nftables: Option<Socket>,
    stop: OwnedFd,
    buffer: Vec<u8>,
}

impl Listener {
    /// In the namespace of the calling thread.
    pub(super) fn open(stop: OwnedFd) -> Result<Listener, Error> {
        let failed = |source| Error::Listen { source };
        let route = subscribe(NETLINK_ROUTE, &ROUTE_GROUPS).map_err(failed)?;
        let nftables = match subscribe(NETLINK_NETFILTER, &[NFTABLES_GROUP]) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(%error, "this kernel announces no change of nftables: rules are compared each second");
                None
            }
        };
        Ok(Listener {
            route,
            nftables,
            stop,
            buffer: Vec::with_capacity(READ_SIZE),
        })
    }

    pub(super) fn hears_rules(&self) -> bool {
        self.nftables.is_some()
    }

    /// Waits for a burst of changes to end, or for `patience` without any.
    pub(super) fn wait(&mut self, patience: Duration) -> Result<Woken, Error> {
        let failed = |source| Error::Listen { source };
        let mut by = Vec::new();
        let mut first: Option<Instant> = None;
        loop {
            let timeout = match first {
                None => patience,
                Some(first) => QUIET.min(AT_MOST.saturating_sub(first.elapsed())),
            };
            match (self.poll(timeout).map_err(failed)?, first) {
                (Ready::Stop, _) => return Ok(Woken::Stop),
                (Ready::Nothing, None) => return Ok(Woken::Quiet),
                (Ready::Nothing, Some(_)) => return Ok(Woken::Changed { by }),
                (Ready::Messages, _) => {
                    self.drain(&mut by).map_err(failed)?;
                    let first = *first.get_or_insert_with(Instant::now);
                    if first.elapsed() >= AT_MOST {
                        return Ok(Woken::Changed { by });
                    }
                }
            }
        }
    }

    fn poll(&self, timeout: Duration) -> io::Result<Ready> {
        let route: BorrowedFd<'_> = self.route.as_fd();
        let mut fds = vec![
            PollFd::new(&self.stop, PollFlags::IN),
            PollFd::from_borrowed_fd(route, PollFlags::IN),
        ];
        if let Some(socket) = &self.nftables {
            fds.push(PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN));
        }
        let timeout = Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            // A signal that the caller handles: it writes to `stop` if it is one to stop for.
            Err(Errno::INTR) | Ok(0) => return Ok(Ready::Nothing),
            result => result?,
        };
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        Ok(match ready.next() {
            Some(true) => Ready::Stop,
            _ => Ready::Messages,
        })
    }

    /// Reads whatever is there. `ENOBUFS` says that messages were lost: something has changed, and that is all that
    /// is asked.
    fn drain(&mut self, by: &mut Vec<String>) -> io::Result<()> {
        for socket in [Some(&self.route), self.nftables.as_ref()]
            .into_iter()
            .flatten()
        {
            loop {
                self.buffer.clear();
                match socket.recv(&mut self.buffer, libc::MSG_DONTWAIT) {
                    Ok(_) => authors(&self.buffer, by),
                    Err(error) => match error.raw_os_error() {
                        Some(libc::EAGAIN) => break,
                        Some(libc::ENOBUFS | libc::EINTR) => {}
                        _ => return Err(error),
                    },
                }
            }
        }
        Ok(())
    }
}

enum Ready {
    Stop,
    Messages,
    Nothing,
}

fn subscribe(protocol: isize, groups: &[u32]) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    for group in groups {
        socket.add_membership(*group)?;
    }
    Ok(socket)
}

/// The programs that the messages name, each once.
fn authors(mut rest: &[u8], by: &mut Vec<String>) {
    while let Ok(message) = NetlinkBuffer::new_checked(rest) {
        let length = message.length() as usize;
        if message.message_type() == NEW_GENERATION
            && let Some(author) = author(message.payload())
            && !by.contains(&author)
        {
            by.push(author);
        }
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
}

fn author(payload: &[u8]) -> Option<String> {
    let (mut pid, mut name) = (None, None);
    for attribute in NlasIterator::new(payload.get(NFGENMSG..)?).flatten() {
        let value = attribute.value();
        match attribute.kind() {
            GENERATION_PID => pid = value.try_into().ok().map(u32::from_be_bytes),
            GENERATION_NAME => {
                let text = String::from_utf8_lossy(value);
                name = Some(text.trim_end_matches('\0').to_owned());
            }
            _ => {}
        }
    }
    Some(format!("{} (pid {})", name?, pid?))
}
