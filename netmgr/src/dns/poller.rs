//! epoll, with a name for each thing that is polled instead of a number.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use crate::proxy::slab::Key;

/// Events read at a time.
const BATCH: usize = 64;

/// Whom an event is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Stop,
    /// The socket that questions come to by UDP.
    Udp,
    /// The one that TCP clients connect to.
    Listener,
    /// A TCP client.
    Client(Key),
    /// The socket of a question under way to an upstream server.
    Upstream(Key),
}

impl Source {
    /// The kind in the highest byte, then a key's generation and index.
    fn encode(self) -> EventData {
        let (kind, rest) = match self {
            Source::Stop => (0, 0),
            Source::Udp => (1, 0),
            Source::Listener => (2, 0),
            Source::Client(key) => (3, key.to_bits()),
            Source::Upstream(key) => (4, key.to_bits()),
        };
        EventData::new_u64(kind << Key::BITS | rest)
    }

    fn decode(data: EventData) -> Source {
        let bits = data.u64();
        let rest = bits & ((1 << Key::BITS) - 1);
        match bits >> Key::BITS {
            1 => Source::Udp,
            2 => Source::Listener,
            3 => Source::Client(Key::from_bits(rest)),
            4 => Source::Upstream(Key::from_bits(rest)),
            _ => Source::Stop,
        }
    }
}

pub(super) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    /// Watches `stop` from the start.
    pub(super) fn new(stop: &OwnedFd) -> Result<Poller, Errno> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let poller = Poller { epoll };
        poller.watch(stop, Source::Stop, EventFlags::IN)?;
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

    /// Waits, and puts what is ready into `ready`.
    pub(super) fn wait(
        &self,
        ready: &mut Vec<(Source, EventFlags)>,
        timeout: Option<Duration>,
    ) -> Result<(), Errno> {
        ready.clear();
        let timeout = timeout.map(|time| Timespec {
            tv_sec: time.as_secs() as i64,
            tv_nsec: i64::from(time.subsec_nanos()),
        });
        let mut buffer = [MaybeUninit::<Event>::uninit(); BATCH];
        let (events, _) = epoll::wait(&self.epoll, &mut buffer, timeout.as_ref())?;
        let named = events
            .iter()
            .map(|event| (Source::decode(event.data), event.flags));
        ready.extend(named);
        Ok(())
    }
}
