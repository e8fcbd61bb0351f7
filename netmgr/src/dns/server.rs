//! The loop: takes questions, has them answered by the zone or sent on, and gives the answers back.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::clients::{self, Client, Gone};
use super::forward::{Asker, Done, Forwarder};
use super::memory;
use super::message::{self, Received};
use super::poller::{Poller, Source};
use super::upstream::Current;
use super::{Config, Listening, REST_AFTER};
use crate::proxy::slab::{Key, Slab};

/// The largest UDP datagram fits.
const SCRATCH: usize = 64 << 10;

/// What is taken from one socket before the others have their turn.
const TAKEN_A_TURN: usize = 64;

/// Connections at a time. Each costs a descriptor, and any program in the container can make them.
const MOST_CLIENTS: usize = 128;

/// How long a connection may be of no use (RFC 7766, 6.2.3 asks for seconds).
const CLIENT_IDLE: Duration = Duration::from_secs(10);

/// How long nothing is tried again after the process ran out of descriptors or memory.
const BREATHER: Duration = Duration::from_millis(100);

pub(super) fn run(
    listening: Listening,
    config: Config,
    source: impl super::Source,
    stop: &OwnedFd,
) {
    let poller = loop {
        match start(&listening, stop) {
            Ok(poller) => break poller,
            Err(error) => tracing::warn!(%error, "the DNS responder cannot start yet"),
        }
        if stopped_within(stop, Duration::from_secs(1)) {
            return;
        }
    };
    let mut responder = Responder {
        poller,
        listening,
        source,
        upstreams: Current::new(config.upstreams),
        forwarder: Forwarder::new(),
        clients: Slab::new(),
        done: VecDeque::new(),
        scratch: Vec::new(),
        rest_at: None,
        accept_at: None,
    };
    responder.serve(stop);
}

fn start(listening: &Listening, stop: &OwnedFd) -> Result<Poller, Errno> {
    // They may come from another process, with other flags.
    rustix::io::ioctl_fionbio(&listening.udp, true)?;
    rustix::io::ioctl_fionbio(&listening.tcp, true)?;
    let poller = Poller::new(stop)?;
    poller.watch(&listening.udp, Source::Udp, EventFlags::IN)?;
    poller.watch(&listening.tcp, Source::Listener, EventFlags::IN)?;
    Ok(poller)
}

struct Responder<S> {
    poller: Poller,
    listening: Listening,
    source: S,
    upstreams: Current,
    forwarder: Forwarder,
    clients: Slab<Client>,
    /// Answers that have not been given back yet.
    done: VecDeque<Done>,
    /// Shared by all, as only one is served at a time. Empty while nothing is under way.
    scratch: Vec<u8>,
    /// When nobody has asked for long enough.
    rest_at: Option<Instant>,
    /// No connection is accepted until then.
    accept_at: Option<Instant>,
}

impl<S: super::Source> Responder<S> {
    fn serve(&mut self, stop: &OwnedFd) {
        let mut ready = Vec::new();
        loop {
            match self.poller.wait(&mut ready, self.timeout()) {
                Ok(()) | Err(Errno::INTR) => {}
                // No such error is known; were there one, it must not make this loop spin.
                Err(error) => {
                    tracing::warn!(%error, "the DNS responder cannot wait");
                    if stopped_within(stop, BREATHER) {
                        return;
                    }
                }
            }
            if self.scratch.is_empty() && !ready.is_empty() {
                self.scratch = vec![0; SCRATCH];
            }
            for (source, flags) in ready.drain(..) {
                match source {
                    Source::Stop => return,
                    Source::Udp => self.take_datagrams(),
                    Source::Listener => self.accept(),
                    Source::Client(key) => self.hear(key, flags),
                    Source::Upstream(key) => {
                        let answered = self.forwarder.handle(&self.poller, key, &mut self.scratch);
                        self.done.extend(answered);
                    }
                }
                self.give_back();
            }
            self.tidy();
        }
    }

    fn take_datagrams(&mut self) {
        for _ in 0..TAKEN_A_TURN {
            let received =
                rustix::net::recvfrom(&self.listening.udp, &mut *self.scratch, RecvFlags::empty());
            let (length, from) = match received {
                Ok((length, _, from)) => (length, from),
                Err(Errno::INTR | Errno::CONNREFUSED) => continue,
                Err(_) => return,
            };
            let Some(client) = from.and_then(|from| SocketAddr::try_from(from).ok()) else {
                continue;
            };
            let message = self.scratch[..length].to_vec();
            self.respond(Asker::Udp(client), &message);
            self.give_back();
        }
    }

    /// Answers, or sends on, one message. Returns whether there is, or will be, an answer.
    fn respond(&mut self, asker: Asker, bytes: &[u8]) -> bool {
        let question = match message::read(bytes) {
            Received::Question(question) => question,
            Received::Wrong(answer) => {
                self.done.push_back(Done { asker, answer });
                return true;
            }
            Received::Ignored => return false,
        };
        self.rest_at = Some(Instant::now() + REST_AFTER);
        let answer = match self.source.zone() {
            Ok(zone) => match message::answer(&zone, &question, asker.transport()) {
                None if zone.forwards() => {
                    let servers = self.upstreams.servers();
                    self.forwarder
                        .ask(&self.poller, asker, bytes, servers, &mut self.done);
                    return true;
                }
                // Docker's answer on internal networks, too.
                None => message::failed(&question),
                answer => answer,
            },
            Err(error) => {
                tracing::warn!(%error, "the names of the container's networks are not known");
                message::failed(&question)
            }
        };
        let is_answered = answer.is_some();
        self.done
            .extend(answer.map(|answer| Done { asker, answer }));
        is_answered
    }

    fn give_back(&mut self) {
        while let Some(done) = self.done.pop_front() {
            match done.asker {
                Asker::Udp(client) => {
                    let flags = SendFlags::NOSIGNAL;
                    let socket = &self.listening.udp;
                    let send = || rustix::net::sendto(socket, &done.answer, flags, &client);
                    // The error is an earlier answer's, told by ICMP and cleared by telling; this one was not sent yet.
                    // Any other answer is lost, as datagrams may be.
                    if send() == Err(Errno::CONNREFUSED) {
                        let _ = send();
                    }
                }
                Asker::Tcp(key) => {
                    if let Some(client) = self.clients.get_mut(key) {
                        client.answer(Some(&done.answer));
                        self.attend(key);
                    }
                }
            }
        }
    }

    fn accept(&mut self) {
        for _ in 0..TAKEN_A_TURN {
            let client = match clients::accept(&self.listening.tcp) {
                Ok(client) => client,
                Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO) => continue,
                Err(Errno::AGAIN) => return,
                Err(error) => {
                    tracing::debug!(%error, "no DNS clients accepted for a moment");
                    return self.pause();
                }
            };
            if self.clients.len() >= MOST_CLIENTS {
                let longest_idle = self.clients.iter().min_by_key(|(_, one)| one.last_used);
                if let Some((key, _)) = longest_idle {
                    self.clients.remove(key);
                }
            }
            let key = self.clients.insert(client);
            if let Some(client) = self.clients.get_mut(key) {
                client.watched = EventFlags::IN;
                let source = Source::Client(key);
                if self
                    .poller
                    .watch(&client.socket, source, EventFlags::IN)
                    .is_err()
                {
                    self.clients.remove(key);
                }
            }
        }
    }

    /// A TCP client has written, or can be written to, or has gone.
    fn hear(&mut self, key: Key, flags: EventFlags) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let is_gone = flags.intersects(EventFlags::ERR | EventFlags::HUP)
            || client.read(&mut self.scratch).is_err();
        match is_gone {
            true => drop(self.clients.remove(key)),
            false => self.attend(key),
        }
    }

    /// Takes the client's whole messages, sends it what is there for it, and closes when all is done.
    fn attend(&mut self, key: Key) {
        while let Some(message) = self.clients.get_mut(key).and_then(Client::next_message) {
            if !self.respond(Asker::Tcp(key), &message)
                && let Some(client) = self.clients.get_mut(key)
            {
                client.answer(None);
            }
        }
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let mut state = client.flush();
        let wanted = client.wanted();
        if state.is_ok() && wanted != client.watched {
            client.watched = wanted;
            let rewatched = self
                .poller
                .rewatch(&client.socket, Source::Client(key), wanted);
            state = rewatched.map_err(|_| Gone);
        }
        if state.is_err() {
            self.clients.remove(key);
        }
    }

    /// Polling a listener that nothing can be accepted from would only spin.
    fn pause(&mut self) {
        let none = EventFlags::empty();
        let rewatched = self
            .poller
            .rewatch(&self.listening.tcp, Source::Listener, none);
        if rewatched.is_ok() {
            self.accept_at = Some(Instant::now() + BREATHER);
        }
    }

    /// What is due by the clock, and what is no longer needed.
    fn tidy(&mut self) {
        let now = Instant::now();
        let failed = self.forwarder.expire(&self.poller, now);
        self.done.extend(failed);
        self.give_back();
        let idle = self
            .clients
            .iter()
            .filter(|(_, client)| !client.is_waiting() && client.last_used + CLIENT_IDLE <= now);
        let idle: Vec<Key> = idle.map(|(key, _)| key).collect();
        for key in idle {
            self.clients.remove(key);
        }
        if self.accept_at.is_some_and(|at| at <= now) {
            let again = self
                .poller
                .rewatch(&self.listening.tcp, Source::Listener, EventFlags::IN);
            self.accept_at = again.is_err().then(|| now + BREATHER);
        }
        if self.clients.is_empty() && self.forwarder.is_empty() {
            self.scratch = Vec::new();
            self.done = VecDeque::new();
        }
        if self.rest_at.is_some_and(|at| at <= now) {
            self.rest_at = None;
            self.source.rest();
            memory::trim();
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let idle = self
            .clients
            .iter()
            .filter(|(_, client)| !client.is_waiting());
        let next_idle = idle.map(|(_, client)| client.last_used + CLIENT_IDLE).min();
        let due = [
            self.forwarder.next_due(),
            self.rest_at,
            self.accept_at,
            next_idle,
        ];
        let first = due.into_iter().flatten().min()?;
        Some(first.saturating_duration_since(Instant::now()))
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
