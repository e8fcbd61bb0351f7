//! epoll, with a name for each thing that is polled instead of a number.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use super::slab::Key;
use super::stream::End;

/// Events read at a time.
const BATCH: usize = 64;

/// Whom an event is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Orders,
    /// By its place among the forwards.
    Listener(u32),
    Relay(Key, End),
    Flow(Key),
}

impl Source {
    const ORDERS: u64 = 0;
    const LISTENER: u64 = 1;
    const CLIENT: u64 = 2;
    const TARGET: u64 = 3;
    const FLOW: u64 = 4;

    /// The kind in the highest byte, then a key's generation and index.
    fn encode(self) -> EventData {
        let (kind, rest) = match self {
            Source::Orders => (Source::ORDERS, 0),
            Source::Listener(index) => (Source::LISTENER, u64::from(index)),
            Source::Relay(key, End::Client) => (Source::CLIENT, key.to_bits()),
            Source::Relay(key, End::Target) => (Source::TARGET, key.to_bits()),
            Source::Flow(key) => (Source::FLOW, key.to_bits()),
        };
        EventData::new_u64(kind << Key::BITS | rest)
    }

    fn decode(data: EventData) -> Source {
        let bits = data.u64();
        let rest = bits & ((1 << Key::BITS) - 1);
        match bits >> Key::BITS {
            Source::LISTENER => Source::Listener(rest as u32),
            Source::CLIENT => Source::Relay(Key::from_bits(rest), End::Client),
            Source::TARGET => Source::Relay(Key::from_bits(rest), End::Target),
            Source::FLOW => Source::Flow(Key::from_bits(rest)),
            _ => Source::Orders,
        }
    }
}

pub(super) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    /// Watches for orders from the start.
    pub(super) fn new(orders: impl AsFd) -> Result<Poller, Errno> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let poller = Poller { epoll };
        poller.watch(orders, Source::Orders, EventFlags::IN)?;
        Ok(poller)
    }

    pub(super) fn watch(
        &self,
        fd: impl AsFd,
        source: Source,
        flags: EventFlags,
    ) -> Result<(), Errno> {
        epoll::add(&self.epoll, fd, source.encode(), flags)
    }

    pub(super) fn rewatch(
        &self,
        fd: impl AsFd,
        source: Source,
        flags: EventFlags,
    ) -> Result<(), Errno> {
        epoll::modify(&self.epoll, fd, source.encode(), flags)
    }

    /// One that was not watched is no error.
    pub(super) fn forget(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    pub(super) fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> Result<(), Errno> {
        events.length = 0;
        let timeout = timeout.map(|time| Timespec {
            tv_sec: time.as_secs() as i64,
            tv_nsec: i64::from(time.subsec_nanos()),
        });
        let (ready, _) = epoll::wait(&self.epoll, &mut events.buffer, timeout.as_ref())?;
        events.length = ready.len();
        for (event, slot) in ready.iter().zip(&mut events.ready) {
            *slot = (Source::decode(event.data), event.flags);
        }
        Ok(())
    }
}

/// Room for one batch of events.
pub(super) struct Events {
    buffer: [MaybeUninit<Event>; BATCH],
    ready: [(Source, EventFlags); BATCH],
    length: usize,
}

impl Events {
    pub(super) fn new() -> Events {
        Events {
            buffer: [MaybeUninit::uninit(); BATCH],
            ready: [(Source::Orders, EventFlags::empty()); BATCH],
            length: 0,
        }
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = (Source, EventFlags)> + use<> {
        let length = std::mem::take(&mut self.length);
        self.ready.into_iter().take(length)
    }
}
