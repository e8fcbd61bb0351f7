//! A client by TCP: messages in pieces, several on one connection, answers in any order (RFC 7766).

use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use super::link::PREFIX;

/// Questions of one client that are under way; the others wait in its own socket.
const MOST_WAITING: usize = 64;

/// No further question is taken from one who does not read his answers.
const MOST_UNREAD: usize = 64 << 10;

pub(super) struct Client {
    pub(super) socket: OwnedFd,
    pub(super) last_used: Instant,
    input: Vec<u8>,
    output: Vec<u8>,
    /// How much of `output` has been sent.
    sent: usize,
    /// Questions that are not answered yet.
    waiting: usize,
    /// It will ask no more.
    ended: bool,
    /// What the poller was last told.
    pub(super) watched: EventFlags,
}

/// The connection is over.
#[derive(Debug)]
pub(super) struct Gone;

/// The next client in the queue.
pub(super) fn accept(listener: &OwnedFd) -> Result<Client, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::accept_with(listener, flags)?;
    Ok(Client {
        socket,
        last_used: Instant::now(),
        input: Vec::new(),
        output: Vec::new(),
        sent: 0,
        waiting: 0,
        ended: false,
        watched: EventFlags::empty(),
    })
}

impl Client {
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// Takes what has come, once: the others have their turn too.
    pub(super) fn read(&mut self, scratch: &mut [u8]) -> Result<(), Gone> {
        if !self.wants_more() {
            return Ok(());
        }
        match rustix::net::recv(&self.socket, &mut *scratch, RecvFlags::empty()) {
            Ok((0, _)) => self.ended = true,
            Ok((length, _)) => {
                self.input.extend_from_slice(&scratch[..length]);
                self.last_used = Instant::now();
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return Err(Gone),
        }
        Ok(())
    }

    /// The next whole message, if it may be answered now.
    pub(super) fn next_message(&mut self) -> Option<Vec<u8>> {
        if !self.takes_questions() {
            return None;
        }
        let (length, rest) = self.input.split_first_chunk::<PREFIX>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let message = rest.get(..length)?.to_vec();
        self.input.drain(..PREFIX + length);
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        self.waiting += 1;
        Some(message)
    }

    /// One of its messages has been dealt with, by an answer or by none.
    pub(super) fn answer(&mut self, answer: Option<&[u8]>) {
        self.waiting = self.waiting.saturating_sub(1);
        self.last_used = Instant::now();
        if let Some(answer) = answer
            && let Ok(length) = u16::try_from(answer.len())
        {
            self.output.extend_from_slice(&length.to_be_bytes());
            self.output.extend_from_slice(answer);
        }
    }

    /// Sends what can be sent.
    pub(super) fn flush(&mut self) -> Result<(), Gone> {
        while self.sent < self.output.len() {
            match rustix::net::send(&self.socket, &self.output[self.sent..], SendFlags::NOSIGNAL) {
                Ok(length) => self.sent += length,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(_) => return Err(Gone),
            }
        }
        self.output = Vec::new();
        self.sent = 0;
        match self.ended && self.waiting == 0 {
            true => Err(Gone),
            false => Ok(()),
        }
    }

    /// What the poller is to wait for.
    pub(super) fn wanted(&self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, self.wants_more());
        flags.set(EventFlags::OUT, self.sent < self.output.len());
        flags
    }

    fn takes_questions(&self) -> bool {
        self.waiting < MOST_WAITING && self.output.len() - self.sent < MOST_UNREAD
    }

    fn wants_more(&self) -> bool {
        !self.ended && self.takes_questions()
    }
}
