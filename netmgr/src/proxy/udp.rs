//! UDP: a flow for each client, so that answers find their way back, from the address that the client had called.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};

use super::pktinfo::{Local, answer, receive};
use super::poller::{Poller, Source};
use super::slab::{Key, Slab};
use super::{Forward, Limits};

/// Datagrams taken from one socket before the others have their turn.
const DATAGRAMS_A_TURN: usize = 64;

/// Whose flow it is: a client may call the same port by several addresses, and expects each to answer for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Caller {
    listener: usize,
    client: SocketAddr,
    /// The host's address that was called.
    called: Local,
}

struct Flow {
    caller: Caller,
    /// Connected to the target: only its answers are read.
    socket: OwnedFd,
    last_used: Instant,
}

pub(super) struct Flows {
    limits: Limits,
    flows: Slab<Flow>,
    by_caller: HashMap<Caller, Key>,
    /// No flow is idle for too long before this.
    check_at: Option<Instant>,
    /// For the control message with the address that was called.
    control: Vec<u8>,
}

impl Flows {
    pub(super) fn new(limits: Limits) -> Flows {
        Flows {
            limits,
            flows: Slab::new(),
            by_caller: HashMap::new(),
            check_at: None,
            control: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Ends the flows of some listeners.
    pub(super) fn end_of(&mut self, listener: impl Fn(usize) -> bool) {
        self.end_all(|flow| listener(flow.caller.listener));
    }

    /// Ends all flows.
    pub(super) fn clear(&mut self) {
        self.flows.clear();
        self.by_caller = HashMap::new();
        self.check_at = None;
    }

    /// Passes on what clients have sent. An error means that the listener cannot be read: it should rest.
    pub(super) fn take_questions(
        &mut self,
        poller: &Poller,
        index: usize,
        forward: &Forward,
        scratch: &mut [u8],
    ) -> Result<(), Errno> {
        for _ in 0..DATAGRAMS_A_TURN {
            let (length, client, called) =
                match receive(&forward.listener, scratch, &mut self.control) {
                    Ok(Some(received)) => received,
                    Ok(None) | Err(nix::Error::EINTR) => continue,
                    Err(nix::Error::EAGAIN) => return Ok(()),
                    Err(errno) => return Err(Errno::from_raw_os_error(errno as i32)),
                };
            let caller = Caller {
                listener: index,
                client,
                called,
            };
            let Some(flow) = self.flow(poller, caller, forward.target) else {
                continue;
            };
            flow.last_used = Instant::now();
            let send = || rustix::net::send(&flow.socket, &scratch[..length], SendFlags::NOSIGNAL);
            // The error is an earlier datagram's, told by ICMP and cleared by telling; this one was not sent yet.
            if send() == Err(Errno::CONNREFUSED) {
                let _ = send();
            }
        }
        Ok(())
    }

    /// Passes on what the target has answered to one client.
    pub(super) fn take_answers(&mut self, key: Key, forwards: &[Forward], scratch: &mut [u8]) {
        let Some(flow) = self.flows.get_mut(key) else {
            return;
        };
        let Some(forward) = forwards.get(flow.caller.listener) else {
            return;
        };
        for _ in 0..DATAGRAMS_A_TURN {
            match rustix::net::recv(&flow.socket, &mut *scratch, RecvFlags::empty()) {
                Ok((length, _)) => {
                    flow.last_used = Instant::now();
                    // A datagram that the client's side does not take is lost, as datagrams may be.
                    let _ = answer(
                        &forward.listener,
                        flow.caller.client,
                        flow.caller.called,
                        &scratch[..length],
                    );
                }
                // Nobody listens there now; the client asks again, or the flow goes idle.
                Err(Errno::CONNREFUSED | Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    /// Ends flows that were idle for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.check_at.is_none_or(|at| at > now) {
            return;
        }
        let idle = self.limits.udp_idle;
        self.end_all(|flow| flow.last_used + idle <= now);
        let oldest = self.flows.iter().map(|(_, flow)| flow.last_used).min();
        self.check_at = oldest.map(|last_used| last_used + idle);
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.check_at
    }

    /// The caller's flow, made if there is none. `None`: this datagram is lost, as under any overload.
    fn flow(&mut self, poller: &Poller, caller: Caller, target: SocketAddr) -> Option<&mut Flow> {
        if let Some(key) = self.by_caller.get(&caller) {
            return self.flows.get_mut(*key);
        }
        if self.flows.len() >= self.limits.udp_flows {
            self.end_least_used();
        }
        let socket = match connect(target) {
            Err(Errno::MFILE | Errno::NFILE) => {
                // An old flow's descriptor does for a new one.
                self.end_least_used();
                connect(target)
            }
            result => result,
        };
        let socket = socket
            .inspect_err(|error| tracing::debug!(%error, %target, "datagram not relayed"))
            .ok()?;
        let now = Instant::now();
        let key = self.flows.insert(Flow {
            caller,
            socket,
            last_used: now,
        });
        self.by_caller.insert(caller, key);
        self.check_at.get_or_insert(now + self.limits.udp_idle);
        let watched = self
            .flows
            .get_mut(key)
            .map(|flow| poller.watch(&flow.socket, Source::Flow(key), EventFlags::IN));
        if !matches!(watched, Some(Ok(()))) {
            self.end(key);
        }
        self.flows.get_mut(key)
    }

    fn end_all(&mut self, over: impl Fn(&Flow) -> bool) {
        let over: Vec<Key> = self
            .flows
            .iter()
            .filter(|(_, flow)| over(flow))
            .map(|(key, _)| key)
            .collect();
        for key in over {
            self.end(key);
        }
    }

    fn end_least_used(&mut self) {
        let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.last_used);
        if let Some((key, _)) = oldest {
            self.end(key);
        }
    }

    /// Closing its socket takes it from the poller.
    fn end(&mut self, key: Key) {
        if let Some(flow) = self.flows.remove(key) {
            self.by_caller.remove(&flow.caller);
        }
        if self.flows.is_empty() {
            self.clear();
        }
    }
}

fn connect(target: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = match target {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, Some(ipproto::UDP))?;
    rustix::net::connect(&socket, &target)?;
    Ok(socket)
}
