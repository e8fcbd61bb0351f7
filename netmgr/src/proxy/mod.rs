//! The loopback proxy: relays host ports to containers for local clients, whose packets to 127/8 no DNAT may touch.
//!
//! Runs on one thread of a container's monitor and serves all of its ports. It has no queue of its own: what cannot be
//! sent yet stays in the kernel's socket buffers, which is also what slows a fast sender down.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::model::Protocol;

mod poller;
pub(crate) mod slab;
mod tcp;
mod udp;

use poller::{Events, Poller, Source};
use slab::Slab;
use tcp::Relay;
use udp::Flows;

/// A bound (and, for TCP, listening) socket on the host and where its traffic goes.
#[derive(Debug)]
pub struct Forward {
    pub protocol: Protocol,
    pub listener: OwnedFd,
    pub target: SocketAddr,
}

/// The largest UDP datagram fits.
const SCRATCH: usize = 64 << 10;

/// What one listener may take of the thread's time before the others have their turn.
const ACCEPTS_A_TURN: usize = 64;

/// How long no connection is accepted after the process ran out of descriptors or memory.
const BREATHER: Duration = Duration::from_millis(100);

/// How long UDP flows live and how many there may be.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Docker's own: `UDPConnTrackTimeout`.
    udp_idle: Duration,
    /// Each costs a descriptor, and any local program can make them.
    udp_flows: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            udp_idle: Duration::from_secs(90),
            udp_flows: 512,
        }
    }
}

/// Serves until `stop` becomes readable or its other end is closed. Never returns early: a failing connection is
/// dropped and the others go on.
///
/// SCTP is not relayed; its sockets are kept open, which keeps their ports.
pub fn serve(forwards: Vec<Forward>, stop: OwnedFd) {
    serve_within(forwards, stop, Limits::default());
}

fn serve_within(forwards: Vec<Forward>, stop: OwnedFd, limits: Limits) {
    let poller = loop {
        match Poller::new(&stop) {
            Ok(poller) => break poller,
            // Out of descriptors or memory: later there may be some.
            Err(error) => tracing::warn!(%error, "loopback proxy cannot start yet"),
        }
        if stopped_within(&stop, Duration::from_secs(1)) {
            return;
        }
    };
    Proxy::new(poller, forwards, limits).run(&stop);
}

struct Proxy {
    poller: Poller,
    forwards: Vec<Forward>,
    relays: Slab<Relay>,
    flows: Flows,
    /// Shared by all, as only one is served at a time. Empty while there is nothing to relay.
    scratch: Vec<u8>,
    /// No listener is polled until then.
    resume_at: Option<Instant>,
}

impl Proxy {
    fn new(poller: Poller, forwards: Vec<Forward>, limits: Limits) -> Proxy {
        let mut proxy = Proxy {
            poller,
            forwards,
            relays: Slab::new(),
            flows: Flows::new(limits),
            scratch: Vec::new(),
            resume_at: None,
        };
        for forward in &proxy.forwards {
            if let Err(error) = prepare(forward) {
                tracing::warn!(%error, target = %forward.target, "published port is not relayed");
            }
        }
        proxy.resume();
        proxy
    }

    fn run(&mut self, stop: &OwnedFd) {
        let mut events = Events::new();
        loop {
            match self.poller.wait(&mut events, self.timeout()) {
                Ok(()) | Err(Errno::INTR) => {}
                // No such error is known; were there one, it must not make this loop spin.
                Err(error) => {
                    tracing::warn!(%error, "loopback proxy cannot wait");
                    if stopped_within(stop, BREATHER) {
                        return;
                    }
                }
            }
            for (source, flags) in events.drain() {
                if source == Source::Stop {
                    return;
                }
                self.handle(source, flags);
            }
            self.tidy();
        }
    }

    fn handle(&mut self, source: Source, flags: EventFlags) {
        if self.scratch.is_empty() {
            self.scratch = vec![0; SCRATCH];
        }
        match source {
            Source::Stop => {}
            Source::Listener(index) => {
                let index = index as usize;
                match self.forwards.get(index).map(|forward| forward.protocol) {
                    Some(Protocol::Tcp) => self.accept(index),
                    Some(Protocol::Udp) => {
                        let forward = &self.forwards[index];
                        let taken = self.flows.take_questions(
                            &self.poller,
                            index,
                            forward,
                            &mut self.scratch,
                        );
                        if taken.is_err() {
                            self.pause();
                        }
                    }
                    Some(Protocol::Sctp) | None => {}
                }
            }
            Source::Relay(key, end) => {
                let Some(relay) = self.relays.get_mut(key) else {
                    return;
                };
                if !relay.handle(&self.poller, key, end, flags, &mut self.scratch) {
                    self.relays.remove(key);
                }
            }
            Source::Flow(key) => self
                .flows
                .take_answers(key, &self.forwards, &mut self.scratch),
        }
    }

    fn accept(&mut self, index: usize) {
        let forward = &self.forwards[index];
        for _ in 0..ACCEPTS_A_TURN {
            let client = match tcp::accept(&forward.listener) {
                Ok(client) => client,
                Err(Errno::AGAIN) => return,
                // The client has gone away again (`accept(2)`, error handling).
                Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO) => continue,
                Err(error) => {
                    tracing::debug!(%error, "no connections accepted for a moment");
                    return self.pause();
                }
            };
            match Relay::start(client, forward.target) {
                Ok(relay) => {
                    let key = self.relays.insert(relay);
                    let registered = self
                        .relays
                        .get_mut(key)
                        .is_some_and(|relay| relay.register(&self.poller, key));
                    if !registered {
                        self.relays.remove(key);
                    }
                }
                Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                    return self.pause();
                }
                Err(error) => {
                    tracing::debug!(%error, target = %forward.target, "connection not relayed");
                }
            }
        }
    }

    /// Polling a listener that nothing can be accepted from would only spin.
    fn pause(&mut self) {
        if self.resume_at.is_none() {
            self.resume_at = Some(Instant::now() + BREATHER);
            for forward in &self.forwards {
                self.poller.forget(&forward.listener);
            }
        }
    }

    fn resume(&mut self) {
        self.resume_at = None;
        for (index, forward) in self.forwards.iter().enumerate() {
            if forward.protocol == Protocol::Sctp {
                continue;
            }
            let source = Source::Listener(index as u32);
            if let Err(error) = self.poller.watch(&forward.listener, source, EventFlags::IN) {
                tracing::warn!(%error, target = %forward.target, "published port is not relayed");
            }
        }
    }

    /// What is due by the clock, and what is no longer needed.
    fn tidy(&mut self) {
        let now = Instant::now();
        if self.resume_at.is_some_and(|at| at <= now) {
            self.resume();
        }
        self.flows.expire(now);
        if self.relays.is_empty() && self.flows.is_empty() {
            self.scratch = Vec::new();
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let due = [self.resume_at, self.flows.next_expiry()];
        let first = due.into_iter().flatten().min()?;
        Some(first.saturating_duration_since(Instant::now()))
    }
}

/// The sockets may come from another process, with other flags.
fn prepare(forward: &Forward) -> Result<(), Errno> {
    rustix::io::ioctl_fionbio(&forward.listener, true)?;
    match forward.protocol {
        Protocol::Udp => udp::prepare(&forward.listener),
        Protocol::Tcp | Protocol::Sctp => Ok(()),
    }
}

fn stopped_within(stop: &OwnedFd, time: Duration) -> bool {
    let mut polled = [PollFd::new(stop, PollFlags::IN)];
    let time = Timespec {
        tv_sec: time.as_secs() as i64,
        tv_nsec: i64::from(time.subsec_nanos()),
    };
    rustix::event::poll(&mut polled, Some(&time)).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests;
