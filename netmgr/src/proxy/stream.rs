//! One relayed connection, of TCP or one-to-one SCTP: bytes both ways, half-close both ways, and no buffer of its own.
//!
//! Data is peeked, sent on, and only what was sent is then discarded at its source (`tcp(7)`, MSG_TRUNC). So nothing is
//! ever in our hands that could not be delivered, and a slow reader costs no memory here.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, ipproto, sockopt,
};

use super::forward::{Targets, any_of_family};
use super::poller::{Poller, Source};
use super::slab::Key;
use crate::model::Protocol;

/// Chunks moved for one connection and direction before the others have their turn.
const CHUNKS_A_TURN: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Client,
    Target,
}

impl End {
    fn other(self) -> End {
        match self {
            End::Client => End::Target,
            End::Target => End::Client,
        }
    }
}

/// The state of one direction, kept at the end that it comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// Waits for data.
    Reading,
    /// Waits until the other end takes more.
    Blocked,
    /// The end of the data has been passed on, or the other end takes no more.
    Finished,
}

struct Side {
    socket: OwnedFd,
    flow: Flow,
    /// What the poller watches it for.
    watched: EventFlags,
}

pub(super) struct Relay {
    protocol: Protocol,
    client: Side,
    target: Side,
    /// Who has not answered yet.
    connecting: Option<SocketAddr>,
}

/// Accepts one connection, non-blocking.
pub(super) fn accept(listener: &OwnedFd) -> Result<OwnedFd, Errno> {
    rustix::net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)
}

impl Relay {
    /// Begins to connect to the target. On an error the client is told by a reset.
    pub(super) fn start(
        client: OwnedFd,
        protocol: Protocol,
        target: SocketAddr,
    ) -> Result<Relay, Errno> {
        match connect(protocol, target) {
            Ok(socket) => {
                tune(&client);
                tune(&socket);
                Ok(Relay {
                    protocol,
                    client: Side::new(client),
                    target: Side::new(socket),
                    connecting: Some(target),
                })
            }
            Err(error) => {
                reset(&client);
                Err(error)
            }
        }
    }

    /// Begins to be polled; `false` when that is impossible.
    pub(super) fn register(&mut self, poller: &Poller, key: Key) -> bool {
        self.watch(poller, key).is_ok()
    }

    /// Calls another endpoint if the one that was called has not answered yet; `false` when that is impossible. An
    /// established connection stays as it is.
    pub(super) fn replace_target(&mut self, poller: &Poller, key: Key, targets: Targets) -> bool {
        let Some(called) = self.connecting else {
            return true;
        };
        let address = targets.reached_by(any_of_family(&self.client.socket));
        if address == called.ip() {
            return true;
        }
        let target = SocketAddr::new(address, called.port());
        match connect(self.protocol, target) {
            Ok(socket) => {
                tune(&socket);
                // Closing the old one takes it from the poller.
                self.target = Side::new(socket);
                self.connecting = Some(target);
                self.watch(poller, key).is_ok()
            }
            Err(error) => {
                tracing::debug!(%error, %target, "connection not relayed");
                reset(&self.client.socket);
                false
            }
        }
    }

    /// Serves an event of one end; `false` when the connection is over.
    pub(super) fn handle(
        &mut self,
        poller: &Poller,
        key: Key,
        end: End,
        flags: EventFlags,
        scratch: &mut [u8],
    ) -> bool {
        if self.connecting.is_some() {
            if end == End::Client {
                return true;
            }
            match sockopt::socket_error(&self.target.socket) {
                Ok(Ok(())) => self.connecting = None,
                Ok(Err(error)) | Err(error) => {
                    tracing::debug!(%error, "target of a published port refuses");
                    reset(&self.client.socket);
                    return false;
                }
            }
        }
        // An error or a hang-up shows in what reading and writing return; data that came before it is still there.
        let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        let readable = broken || flags.contains(EventFlags::IN);
        let writable = broken || flags.contains(EventFlags::OUT);
        if readable && self.side(end).flow == Flow::Reading && !self.pump(end, scratch) {
            return false;
        }
        let back = end.other();
        if writable && self.side(back).flow == Flow::Blocked && !self.pump(back, scratch) {
            return false;
        }
        let finished = self.client.flow == Flow::Finished && self.target.flow == Flow::Finished;
        !finished && self.watch(poller, key).is_ok()
    }

    /// Moves what can be moved from one end to the other; `false` when that end is broken.
    fn pump(&mut self, from: End, scratch: &mut [u8]) -> bool {
        let (source, sink) = match from {
            End::Client => (&mut self.client, &self.target),
            End::Target => (&mut self.target, &self.client),
        };
        for _ in 0..CHUNKS_A_TURN {
            source.flow = match move_chunk(self.protocol, &source.socket, &sink.socket, scratch) {
                Moved::Some => continue,
                Moved::NoneYet => Flow::Reading,
                Moved::SinkFull => Flow::Blocked,
                Moved::End => {
                    // Where the sink is gone already, the other direction notices.
                    let _ = rustix::net::shutdown(&sink.socket, Shutdown::Write);
                    Flow::Finished
                }
                // The sink's own last words may still wait to be passed on the other way.
                Moved::SinkGone => Flow::Finished,
                Moved::SourceGone => return false,
            };
            return true;
        }
        source.flow = Flow::Reading;
        true
    }

    fn side(&self, end: End) -> &Side {
        match end {
            End::Client => &self.client,
            End::Target => &self.target,
        }
    }

    fn watch(&mut self, poller: &Poller, key: Key) -> Result<(), Errno> {
        let (client, target) = match self.connecting.is_some() {
            true => (EventFlags::empty(), EventFlags::OUT),
            false => (
                interest(self.client.flow, self.target.flow),
                interest(self.target.flow, self.client.flow),
            ),
        };
        self.client
            .watch(poller, Source::Relay(key, End::Client), client)?;
        self.target
            .watch(poller, Source::Relay(key, End::Target), target)
    }
}

impl Side {
    fn new(socket: OwnedFd) -> Side {
        Side {
            socket,
            flow: Flow::Reading,
            watched: EventFlags::empty(),
        }
    }

    /// Nothing of interest means not polled at all: errors and hang-ups are reported unasked, and would make a loop of
    /// it that spins until the other end moves.
    fn watch(&mut self, poller: &Poller, source: Source, flags: EventFlags) -> Result<(), Errno> {
        if flags == self.watched {
            return Ok(());
        }
        if flags.is_empty() {
            poller.forget(&self.socket);
        } else if self.watched.is_empty() {
            poller.watch(&self.socket, source, flags)?;
        } else {
            poller.rewatch(&self.socket, source, flags)?;
        }
        self.watched = flags;
        Ok(())
    }
}

/// `own`: the direction that this end is the source of; `other`: the one that it is the sink of.
fn interest(own: Flow, other: Flow) -> EventFlags {
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::IN, own == Flow::Reading);
    flags.set(EventFlags::OUT, other == Flow::Blocked);
    flags
}

enum Moved {
    Some,
    NoneYet,
    SinkFull,
    End,
    SourceGone,
    SinkGone,
}

fn move_chunk(protocol: Protocol, source: &OwnedFd, sink: &OwnedFd, scratch: &mut [u8]) -> Moved {
    let peeked = match rustix::net::recv(source, &mut *scratch, RecvFlags::PEEK) {
        Ok((0, _)) => return Moved::End,
        Ok((peeked, _)) => peeked,
        Err(Errno::INTR) => return Moved::Some,
        Err(Errno::AGAIN) => return Moved::NoneYet,
        Err(_) => return Moved::SourceGone,
    };
    let sent = match rustix::net::send(sink, &scratch[..peeked], SendFlags::NOSIGNAL) {
        Ok(sent) => sent,
        Err(Errno::INTR) => return Moved::Some,
        Err(Errno::AGAIN) => return Moved::SinkFull,
        Err(_) => return Moved::SinkGone,
    };
    match discard(protocol, source, &mut scratch[..sent]) {
        Ok(()) if sent < peeked => Moved::SinkFull,
        Ok(()) => Moved::Some,
        Err(_) => Moved::SourceGone,
    }
}

/// Drops as many bytes as `room` has from the queue, for TCP without copying them. They are there: they were peeked, and
/// no one else reads this socket.
fn discard(protocol: Protocol, source: &OwnedFd, room: &mut [u8]) -> Result<(), Errno> {
    let flags = match protocol {
        Protocol::Tcp => RecvFlags::TRUNC,
        Protocol::Udp | Protocol::Sctp => RecvFlags::empty(),
    };
    let mut left = room.len();
    while left > 0 {
        match rustix::net::recv(source, &mut room[..left], flags) {
            Ok((_, 0)) => return Err(Errno::CONNRESET),
            Ok((_, dropped)) => left = left.saturating_sub(dropped),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn connect(protocol: Protocol, target: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = match target {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let number = match protocol {
        Protocol::Sctp => ipproto::SCTP,
        Protocol::Tcp | Protocol::Udp => ipproto::TCP,
    };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(number))?;
    match rustix::net::connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// Best effort: a relay should add no delay of its own (`tcp(7)`, TCP_NODELAY), and notice a peer that has vanished.
fn tune(socket: &OwnedFd) {
    let _ = sockopt::set_tcp_nodelay(socket, true);
    let _ = sockopt::set_socket_keepalive(socket, true);
}

/// Closing the socket then sends a reset (`socket(7)`, SO_LINGER with no time): what a closed port would have sent.
pub(super) fn reset(socket: &OwnedFd) {
    let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}
