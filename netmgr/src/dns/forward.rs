//! Questions on their way to the upstream servers: one socket each, all at once, none waiting for another.
//!
//! A question goes on byte for byte but for its ID, and so does its answer: what EDNS options say is between the client
//! and the server. A fresh socket has a fresh source port, which together with a random ID is what an answer must fit
//! (RFC 5452).

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::message::{self, Received, Transport};
use super::poller::{Poller, Source};
use crate::proxy::slab::{Key, Slab};

/// How long a server may take before the next one is asked: a client gives up after 5 s (`resolv.conf(5)`, RES_TIMEOUT)
/// and asks again, and a second server should have had its chance by then.
const PATIENCE: Duration = Duration::from_secs(3);

/// A single server is asked twice, as a datagram may be lost.
const LEAST_ATTEMPTS: usize = 2;

/// Docker's own: `maxConcurrent`. Each costs a descriptor.
const MOST: usize = 1024;

/// Before a message by TCP stands its length (RFC 1035, 4.2.2).
pub(super) const PREFIX: usize = 2;

/// Who gets the answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker {
    Udp(SocketAddr),
    Tcp(Key),
}

impl Asker {
    pub(super) fn transport(self) -> Transport {
        match self {
            Asker::Udp(_) => Transport::Udp,
            Asker::Tcp(_) => Transport::Tcp,
        }
    }
}

/// An answer, and whose it is.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) asker: Asker,
    pub(super) answer: Vec<u8>,
}

/// A question under way.
struct Pending {
    asker: Asker,
    /// The client's, which the answer gets back.
    id: [u8; 2],
    /// Under our own ID, and with its length before it.
    question: Box<[u8]>,
    servers: Rc<[SocketAddr]>,
    attempt: usize,
    asked: Instant,
    /// When the server has had its time.
    due: Instant,
    link: Option<Link>,
}

/// The socket to the server that is being asked.
enum Link {
    Udp(OwnedFd),
    Tcp {
        socket: OwnedFd,
        sent: usize,
        received: Vec<u8>,
    },
}

/// What came of looking at a server's socket.
enum Outcome {
    Wait,
    Answer(Vec<u8>, ResponseCode),
    /// It will not answer.
    Failed,
}

/// Why the next server is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// It may have lost the question: it can be asked again.
    Silent,
    /// It cannot be reached, or said that it cannot answer.
    Refused,
}

pub(super) struct Forwarder {
    pending: Slab<Pending>,
    /// No question is due before this.
    check_at: Option<Instant>,
}

impl Forwarder {
    pub(super) fn new() -> Forwarder {
        Forwarder {
            pending: Slab::new(),
            check_at: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.check_at
    }

    /// Sends a well-formed question on. What is answered at once, by an error, goes to `done`.
    pub(super) fn ask(
        &mut self,
        poller: &Poller,
        asker: Asker,
        bytes: &[u8],
        servers: Rc<[SocketAddr]>,
        done: &mut impl Extend<Done>,
    ) {
        if self.pending.len() >= MOST {
            done.extend(self.drop_oldest());
        }
        let (Ok(length), Some((id, rest))) =
            (u16::try_from(bytes.len()), bytes.split_first_chunk::<2>())
        else {
            return;
        };
        let own_id: u16 = rand::random();
        let question = [&length.to_be_bytes(), &own_id.to_be_bytes(), rest].concat();
        let now = Instant::now();
        let key = self.pending.insert(Pending {
            asker,
            id: *id,
            question: question.into(),
            servers,
            attempt: 0,
            asked: now,
            due: now + PATIENCE,
            link: None,
        });
        done.extend(self.attempt(poller, key));
    }

    /// The server of one question has something to say, or can be written to.
    pub(super) fn handle(&mut self, poller: &Poller, key: Key, scratch: &mut [u8]) -> Option<Done> {
        let pending = self.pending.get_mut(key)?;
        let outcome = match pending.link.as_mut()? {
            Link::Udp(socket) => read_datagrams(socket, &pending.question, scratch),
            Link::Tcp {
                socket,
                sent,
                received,
            } => {
                let outcome = exchange(socket, &pending.question, sent, received, scratch);
                if matches!(outcome, Outcome::Wait) && *sent == pending.question.len() {
                    // There is always room to write now: asking for it would spin.
                    let _ = poller.rewatch(&*socket, Source::Upstream(key), EventFlags::IN);
                }
                outcome
            }
        };
        match outcome {
            Outcome::Wait => None,
            Outcome::Failed => self.next_server(poller, key, Reason::Refused),
            Outcome::Answer(answer, code) => {
                let another = pending.attempt + 1 < pending.servers.len();
                if another && matches!(code, ResponseCode::ServFail | ResponseCode::Refused) {
                    return self.next_server(poller, key, Reason::Refused);
                }
                let pending = self.pending.remove(key)?;
                Some(pending.answered(answer))
            }
        }
    }

    /// Goes on with those whose server has had its time.
    pub(super) fn expire(&mut self, poller: &Poller, now: Instant) -> Vec<Done> {
        if self.check_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        let due = self.pending.iter().filter(|(_, one)| one.due <= now);
        let due: Vec<Key> = due.map(|(key, _)| key).collect();
        let done = due
            .into_iter()
            .filter_map(|key| self.next_server(poller, key, Reason::Silent))
            .collect();
        self.check_at = self.pending.iter().map(|(_, one)| one.due).min();
        done
    }

    fn next_server(&mut self, poller: &Poller, key: Key, reason: Reason) -> Option<Done> {
        let pending = self.pending.get_mut(key)?;
        pending.attempt += 1;
        let servers = pending.servers.len();
        let allowed = match reason {
            Reason::Silent => servers.max(LEAST_ATTEMPTS),
            Reason::Refused => servers,
        };
        if pending.attempt >= allowed {
            return self.pending.remove(key)?.failed();
        }
        self.attempt(poller, key)
    }

    /// Asks the server whose turn it is, or the first one after it that can be asked.
    fn attempt(&mut self, poller: &Poller, key: Key) -> Option<Done> {
        loop {
            let pending = self.pending.get_mut(key)?;
            match pending.send(poller, key) {
                Ok(()) => {
                    pending.due = Instant::now() + PATIENCE;
                    let due = pending.due;
                    self.check_at.get_or_insert(due);
                    return None;
                }
                Err(error) => {
                    tracing::debug!(%error, "DNS server cannot be asked");
                    pending.attempt += 1;
                    if pending.attempt >= pending.servers.len() {
                        return self.pending.remove(key)?.failed();
                    }
                }
            }
        }
    }

    fn drop_oldest(&mut self) -> Option<Done> {
        let oldest = self.pending.iter().min_by_key(|(_, one)| one.asked)?.0;
        self.pending.remove(oldest)?.failed()
    }
}

impl Pending {
    fn send(&mut self, poller: &Poller, key: Key) -> Result<(), Errno> {
        let Some(server) = self
            .servers
            .get(self.attempt % self.servers.len().max(1))
            .copied()
        else {
            return Err(Errno::DESTADDRREQ);
        };
        // The only server again: the answer to the first question may still come, and is as good.
        if let (1, Some(Link::Udp(socket))) = (self.servers.len(), &self.link) {
            return send_datagram(socket, &self.question);
        }
        self.link = None;
        let flags = match self.asker.transport() {
            Transport::Udp => EventFlags::IN,
            Transport::Tcp => EventFlags::IN | EventFlags::OUT,
        };
        let socket = connect(server, self.asker.transport())?;
        poller.watch(&socket, Source::Upstream(key), flags)?;
        self.link = Some(match self.asker.transport() {
            Transport::Udp => {
                send_datagram(&socket, &self.question)?;
                Link::Udp(socket)
            }
            Transport::Tcp => Link::Tcp {
                socket,
                sent: 0,
                received: Vec::new(),
            },
        });
        Ok(())
    }

    fn answered(self, mut answer: Vec<u8>) -> Done {
        answer[..2].copy_from_slice(&self.id);
        Done {
            asker: self.asker,
            answer,
        }
    }

    fn failed(self) -> Option<Done> {
        let Received::Question(question) = message::read(&self.question[PREFIX..]) else {
            return None;
        };
        message::failed(&question).map(|answer| self.answered(answer))
    }
}

fn connect(server: SocketAddr, transport: Transport) -> Result<OwnedFd, Errno> {
    let family = match server {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let kind = match transport {
        Transport::Udp => SocketType::DGRAM,
        Transport::Tcp => SocketType::STREAM,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    match rustix::net::connect(&socket, &server) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

fn send_datagram(socket: &OwnedFd, question: &[u8]) -> Result<(), Errno> {
    match rustix::net::send(socket, &question[PREFIX..], SendFlags::NOSIGNAL) {
        // Without room it is lost, as datagrams may be.
        Ok(_) | Err(Errno::AGAIN | Errno::NOBUFS) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The socket is connected: only its server's datagrams come here. What is no answer to the question is passed over.
fn read_datagrams(socket: &OwnedFd, question: &[u8], scratch: &mut [u8]) -> Outcome {
    loop {
        match rustix::net::recv(socket, &mut *scratch, RecvFlags::empty()) {
            Ok((length, _)) => {
                let answer = &scratch[..length];
                if let Some(code) = message::matches(&question[PREFIX..], answer) {
                    return Outcome::Answer(answer.to_vec(), code);
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Outcome::Wait,
            Err(_) => return Outcome::Failed,
        }
    }
}

/// Writes what is left of the question and reads what is there of the answer.
fn exchange(
    socket: &OwnedFd,
    question: &[u8],
    sent: &mut usize,
    received: &mut Vec<u8>,
    scratch: &mut [u8],
) -> Outcome {
    while *sent < question.len() {
        match rustix::net::send(socket, &question[*sent..], SendFlags::NOSIGNAL) {
            Ok(length) => *sent += length,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Outcome::Wait,
            Err(_) => return Outcome::Failed,
        }
    }
    loop {
        match rustix::net::recv(socket, &mut *scratch, RecvFlags::empty()) {
            Ok((0, _)) => return Outcome::Failed,
            Ok((length, _)) => received.extend_from_slice(&scratch[..length]),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => return Outcome::Wait,
            Err(_) => return Outcome::Failed,
        }
        let Some((length, rest)) = received.split_first_chunk::<PREFIX>() else {
            continue;
        };
        if let Some(answer) = rest.get(..u16::from_be_bytes(*length).into()) {
            return match message::matches(&question[PREFIX..], answer) {
                Some(code) => Outcome::Answer(answer.to_vec(), code),
                None => Outcome::Failed,
            };
        }
    }
}
