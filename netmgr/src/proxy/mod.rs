//! The loopback proxy: relays host ports to containers for local clients, whose packets to 127/8 no DNAT may touch.
//!
//! Runs on one thread of a container's monitor and serves all of its ports. It has no queue of its own: what cannot be
//! sent yet stays in the kernel's socket buffers, which is also what slows a fast sender down.

use std::io;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

use crate::model::Protocol;

mod control;
mod forward;
mod pktinfo;
mod poller;
pub(crate) mod slab;
mod stream;
mod udp;

pub use control::Control;
pub use forward::{Forward, Run, Targets};

use control::{Order, Orders};
use poller::{Events, Poller, Source};
use slab::Slab;
use stream::Relay;
use udp::Flows;

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

/// A proxy that is ready to serve. Its sockets are open from the start.
pub struct Proxy {
    orders: Orders,
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
    /// Without forwards it has nothing to do until [`Control::add`] brings some.
    pub fn new(forwards: Vec<Forward>) -> io::Result<(Proxy, Control)> {
        Proxy::within(forwards, Limits::default())
    }

    fn within(forwards: Vec<Forward>, limits: Limits) -> io::Result<(Proxy, Control)> {
        let (control, orders) = control::channel()?;
        let mut proxy = Proxy {
            poller: Poller::new(&orders)?,
            orders,
            forwards: Vec::new(),
            relays: Slab::new(),
            flows: Flows::new(limits),
            scratch: Vec::new(),
            resume_at: None,
        };
        proxy.add(forwards);
        Ok((proxy, control))
    }

    /// Serves until its [`Control`] is dropped. Never returns early: a failing connection is dropped and the others go on.
    pub fn serve(mut self) {
        let mut events = Events::new();
        loop {
            match self.poller.wait(&mut events, self.timeout()) {
                Ok(()) | Err(Errno::INTR) => {}
                // No such error is known; were there one, it must not make this loop spin.
                Err(error) => {
                    tracing::warn!(%error, "loopback proxy cannot wait");
                    std::thread::sleep(BREATHER);
                    if self.obey().is_break() {
                        return;
                    }
                }
            }
            for (source, flags) in events.drain() {
                if source == Source::Orders {
                    if self.obey().is_break() {
                        return;
                    }
                } else {
                    self.handle(source, flags);
                }
            }
            self.tidy();
        }
    }

    fn obey(&mut self) -> std::ops::ControlFlow<()> {
        self.orders.drain();
        while let Some((order, done)) = self.orders.next() {
            match order {
                Order::Add(forwards) => self.add(forwards),
                Order::ReplaceTargets(targets) => self.replace_targets(targets),
                Order::RemoveAll => {
                    self.relays.clear();
                    self.flows.clear();
                    // Closing a socket takes it from the poller.
                    self.forwards.clear();
                }
                Order::Stop => return std::ops::ControlFlow::Break(()),
            }
            // Who gave the order may have gone.
            let _ = done.send(());
        }
        std::ops::ControlFlow::Continue(())
    }

    fn add(&mut self, forwards: Vec<Forward>) {
        let first = self.forwards.len();
        for forward in &forwards {
            if let Err(error) = prepare(forward) {
                tracing::warn!(%error, target = %forward.target, "published port is not relayed");
            }
        }
        self.forwards.extend(forwards);
        // Of a proxy that rests none is polled.
        if self.resume_at.is_none() {
            self.listen_from(first);
        }
    }

    fn replace_targets(&mut self, targets: Targets) {
        let changed: Vec<bool> = self
            .forwards
            .iter_mut()
            .map(|forward| forward.replace_target(targets))
            .collect();
        // The next datagram of each client makes a flow to the new target.
        self.flows.end_of(|listener| changed[listener]);
        for key in self.relays.keys() {
            let moved = self
                .relays
                .get_mut(key)
                .is_some_and(|relay| relay.replace_target(&self.poller, key, targets));
            if !moved {
                self.relays.remove(key);
            }
        }
    }

    fn handle(&mut self, source: Source, flags: EventFlags) {
        if self.scratch.is_empty() {
            self.scratch = vec![0; SCRATCH];
        }
        match source {
            Source::Orders => {}
            Source::Listener(index) => {
                let index = index as usize;
                match self.forwards.get(index).map(|forward| forward.protocol) {
                    Some(Protocol::Tcp | Protocol::Sctp) => self.accept(index),
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
                    None => {}
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
            let client = match stream::accept(&forward.listener) {
                Ok(client) => client,
                Err(Errno::AGAIN) => return,
                // The client has gone away again (`accept(2)`, error handling).
                Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO) => continue,
                Err(error) => {
                    tracing::debug!(%error, "no connections accepted for a moment");
                    return self.pause();
                }
            };
            let Some(target) = forward.target_for(&client) else {
                // A call of the listener's own port, which nobody has published.
                stream::reset(&client);
                continue;
            };
            match Relay::start(client, forward.protocol, target) {
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
                    tracing::debug!(%error, %target, "connection not relayed");
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
        self.listen_from(0);
    }

    fn listen_from(&self, first: usize) {
        for (index, forward) in self.forwards.iter().enumerate().skip(first) {
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
        Protocol::Udp => pktinfo::prepare(&forward.listener),
        Protocol::Tcp | Protocol::Sctp => Ok(()),
    }
}

#[cfg(test)]
mod tests;
