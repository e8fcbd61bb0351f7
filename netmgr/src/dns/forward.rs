//! Questions on their way to the upstream servers: one socket each, all at once, none waiting for another.
//!
//! A question goes on byte for byte but for its ID, and so does its answer: what EDNS options say is between the client
//! and the server. A fresh socket has a fresh source port, which together with a random ID is what an answer must fit
//! (RFC 5452).

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::link::{self, Link, Outcome, PREFIX};
use super::message::{self, Received, Transport};
use super::poller::{Poller, Source};
use crate::proxy::slab::{Key, Slab};

/// How long a server may take before the next one is asked: a client gives up after 5 s (`resolv.conf(5)`, RES_TIMEOUT)
/// and asks again, and a second server should have had its chance by then.
const PATIENCE: Duration = Duration::from_secs(3);

/// A single server is asked twice, as a datagram may be lost.
const LEAST_ATTEMPTS: usize = 2;

/// Docker's own: `maxConcurrent`.
const MOST: usize = 1024;

/// Each costs a descriptor, and any program in the container can make them: the rest of the monitor must not run out.
const SHARE_OF_DESCRIPTORS: u64 = 4;

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
    most: usize,
    /// No question is due before this.
    check_at: Option<Instant>,
}

impl Forwarder {
    pub(super) fn new() -> Forwarder {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let share = usize::try_from(descriptors / SHARE_OF_DESCRIPTORS).unwrap_or(usize::MAX);
        Forwarder {
            pending: Slab::new(),
            most: share.min(MOST),
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
        if self.pending.len() >= self.most {
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
            Link::Udp(socket) => link::read_datagrams(socket, &pending.question, scratch),
            Link::Tcp {
                socket,
                sent,
                received,
            } => {
                let outcome = link::exchange(socket, &pending.question, sent, received, scratch);
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
            return link::send_datagram(socket, &self.question);
        }
        self.link = None;
        let flags = match self.asker.transport() {
            Transport::Udp => EventFlags::IN,
            Transport::Tcp => EventFlags::IN | EventFlags::OUT,
        };
        let socket = link::connect(server, self.asker.transport())?;
        poller.watch(&socket, Source::Upstream(key), flags)?;
        self.link = Some(match self.asker.transport() {
            Transport::Udp => {
                link::send_datagram(&socket, &self.question)?;
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
