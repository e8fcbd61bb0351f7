//! Moves bytes between a program's streams, its log and the attached clients, until the program ends.
//!
//! One thread, one poll loop. Nobody but the client that started the program can slow it down: a later client that does
//! not read is cut off.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::client::Client;
use super::health::Timer;
use super::limits::MemoryWatch;
use super::streams::{self, Streams};
use crate::logs;
use crate::pidfd;
use crate::wire::{self, Kind};

/// Input that waits for the program: beyond this the client waits.
const MOST_INPUT: usize = 256 * 1024;

/// Reads of a stream after the program's end: more than the largest pipe that a process without CAP_SYS_RESOURCE can make
/// holds (pipe(7): pipe-max-size is 1 MiB).
const MOST_LEFT: usize = 2 * (1 << 20) / wire::CHUNK + 64;

/// Who follows a container's networks: see `networks`.
pub(super) type Follower = Box<dyn FnMut(Vec<OwnedFd>) -> io::Result<()>>;

#[derive(Default)]
pub(super) struct Relay {
    pub(super) streams: Streams,
    pub(super) log: Option<logs::Writer>,
    /// New clients come in here.
    pub(super) listener: Option<OwnedFd>,
    pub(super) follower: Option<Follower>,
    pub(super) memory: Option<MemoryWatch>,
    /// The end of a client's input is the end of the program's.
    pub(super) stdin_once: bool,
    /// Health checks that are due.
    pub(super) health: Option<Timer>,
    /// What the program writes, for who starts it here.
    pub(super) capture: Option<Capture>,
    /// From then on the program is killed.
    pub(super) deadline: Option<Instant>,
    clients: Vec<Client>,
    input: VecDeque<u8>,
    input_ended: bool,
}

/// The beginning of what a program has written.
#[derive(Debug, Default)]
pub(super) struct Capture {
    pub(super) bytes: Vec<u8>,
    pub(super) most: usize,
    /// There was more.
    pub(super) cut: bool,
}

impl Capture {
    fn take(&mut self, bytes: &[u8]) {
        let room = self.most.saturating_sub(self.bytes.len());
        self.bytes
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.cut |= bytes.len() > room;
    }
}

/// What a descriptor in the poll set belongs to.
#[derive(Clone, Copy, Debug)]
enum Source {
    Ended,
    Memory,
    Probe,
    Listener,
    Client(usize),
    Stdin,
    Stdout,
    Stderr,
    Terminal,
}

impl Relay {
    pub(super) fn new(streams: Streams) -> Relay {
        Relay {
            streams,
            ..Relay::default()
        }
    }

    pub(super) fn add_client(&mut self, socket: OwnedFd, first: bool) -> io::Result<()> {
        self.clients.push(Client::new(socket, first)?);
        Ok(())
    }

    /// Relays until `ended` (a pidfd) is readable, then reads what is left.
    pub(super) fn run(&mut self, ended: &OwnedFd) -> io::Result<()> {
        loop {
            let (over, ready) = self.wait(Some(ended), self.due())?;
            for (source, events) in ready {
                self.handle(source, events);
            }
            self.clients.retain(|c| !c.gone);
            if let Some(timer) = &mut self.health {
                timer.tick();
            }
            if self.deadline.is_some_and(|d| Instant::now() >= d) {
                self.deadline = None;
                pidfd::send_signal(ended, libc::SIGKILL)?;
            }
            if over {
                self.drain();
                return Ok(());
            }
        }
    }

    /// When something is to be done, should nothing else happen.
    fn due(&self) -> Option<Instant> {
        let timer = self.health.as_ref().and_then(Timer::due);
        timer.into_iter().chain(self.deadline).min()
    }

    /// Sends the exit code, and waits until each client has everything or has gone, or until `patience` is over.
    pub(super) fn say_goodbye(&mut self, code: i32, patience: Option<Duration>) {
        let until = patience.map(|patience| Instant::now() + patience);
        self.streams = Streams::default();
        self.listener = None;
        for client in &mut self.clients {
            client.push(Kind::Exit, &code.to_le_bytes());
        }
        self.clients.retain(|c| !c.gone && c.is_behind());
        while !self.clients.is_empty() {
            let Ok((_, ready)) = self.wait(None, until) else {
                return;
            };
            if until.is_some_and(|until| Instant::now() >= until) {
                return;
            }
            for (source, events) in ready {
                self.handle(source, events);
            }
            self.clients.retain(|c| !c.gone && c.is_behind());
        }
    }

    fn wait(
        &self,
        ended: Option<&OwnedFd>,
        until: Option<Instant>,
    ) -> io::Result<(bool, Vec<(Source, PollFlags)>)> {
        let held_up = self.clients.iter().any(Client::holds_up);
        let mut sources = Vec::with_capacity(8);
        let mut fds = Vec::with_capacity(8);
        let mut add = |source, fd, flags| {
            sources.push(source);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        if let Some(ended) = ended {
            add(Source::Ended, ended.as_fd(), PollFlags::IN);
        }
        if let Some(memory) = &self.memory {
            let (fd, flags) = memory.source();
            add(Source::Memory, fd, flags);
        }
        if let Some(probe) = self.health.as_ref().and_then(Timer::probe) {
            add(Source::Probe, probe, PollFlags::IN);
        }
        if let Some(listener) = &self.listener {
            add(Source::Listener, listener.as_fd(), PollFlags::IN);
        }
        for (i, client) in self.clients.iter().enumerate() {
            let input = if self.input.len() < MOST_INPUT {
                PollFlags::IN
            } else {
                PollFlags::empty()
            };
            let output = if client.is_behind() {
                PollFlags::OUT
            } else {
                PollFlags::empty()
            };
            add(Source::Client(i), client.socket.as_fd(), input | output);
        }
        let reading = if held_up { None } else { Some(PollFlags::IN) };
        if let (Some(fd), Some(flags)) = (&self.streams.stdout, reading) {
            add(Source::Stdout, fd.as_fd(), flags);
        }
        if let (Some(fd), Some(flags)) = (&self.streams.stderr, reading) {
            add(Source::Stderr, fd.as_fd(), flags);
        }
        if let Some(fd) = &self.streams.terminal {
            let output = if self.input.is_empty() {
                PollFlags::empty()
            } else {
                PollFlags::OUT
            };
            let flags = reading.unwrap_or(PollFlags::empty()) | output;
            if !flags.is_empty() {
                add(Source::Terminal, fd.as_fd(), flags);
            }
        }
        if let (Some(fd), false) = (&self.streams.stdin, self.input.is_empty()) {
            add(Source::Stdin, fd.as_fd(), PollFlags::OUT);
        }
        let left = until.map(|until| timespec(until.saturating_duration_since(Instant::now())));
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready: Vec<_> = sources
            .into_iter()
            .zip(fds.iter().map(PollFd::revents))
            .filter(|(_, events)| !events.is_empty())
            .collect();
        let over = ready
            .iter()
            .any(|(source, _)| matches!(source, Source::Ended));
        Ok((over, ready))
    }

    fn handle(&mut self, source: Source, events: PollFlags) {
        match source {
            // The timer looks for itself.
            Source::Ended | Source::Probe => {}
            Source::Memory => {
                if let Some(memory) = &mut self.memory {
                    memory.look();
                }
            }
            Source::Listener => self.accept(),
            Source::Client(i) => self.serve(i, events),
            Source::Stdin => self.feed(),
            Source::Stdout => {
                self.take(Kind::Stdout);
            }
            Source::Stderr => {
                self.take(Kind::Stderr);
            }
            Source::Terminal => {
                if events.contains(PollFlags::OUT) {
                    self.feed();
                }
                if events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
                    && !self.take_terminal()
                {
                    // EIO: nobody in the container has the terminal open any more.
                    self.streams.terminal = None;
                }
            }
        }
    }

    fn accept(&mut self) {
        use rustix::net::{SocketFlags, accept_with};
        let Some(listener) = &self.listener else {
            return;
        };
        if let Ok(socket) = accept_with(listener, SocketFlags::CLOEXEC) {
            let _ = self.add_client(socket, false);
        }
    }

    fn serve(&mut self, i: usize, events: PollFlags) {
        if events.contains(PollFlags::OUT) {
            self.clients[i].flush();
        }
        if !events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return;
        }
        match wire::receive(&self.clients[i].socket) {
            Ok(Some(message)) => match message.kind {
                Kind::Stdin if message.payload.is_empty() && !self.stdin_once => {}
                Kind::Stdin if message.payload.is_empty() => self.end_input(),
                Kind::Stdin => self.input.extend(message.payload),
                Kind::Attach => self.clients[i].attached = true,
                Kind::Resize => self.resize(&message.payload),
                Kind::Networks => self.follow(i, message),
                _ => {}
            },
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Ok(None) | Err(_) => {
                self.clients[i].gone = true;
                // A terminal's user may have detached; a pipe has simply come to its end.
                if self.clients[i].first && self.stdin_once {
                    self.end_input();
                }
            }
        }
        self.feed();
    }

    /// A command has changed the container's networks, and waits.
    fn follow(&mut self, i: usize, message: wire::Message) {
        let client = &mut self.clients[i];
        client.handed.extend(message.fds);
        if message.payload != [1] {
            return;
        }
        let handed = std::mem::take(&mut client.handed);
        let followed = match &mut self.follower {
            Some(follower) => follower(handed),
            None => Err(io::Error::from(io::ErrorKind::Unsupported)),
        };
        match followed {
            Ok(()) => client.push(Kind::Networks, &[]),
            // The command reads the end of its connection.
            Err(e) => {
                eprintln!("cannot follow the container's networks: {e}");
                client.gone = true;
            }
        }
    }

    fn end_input(&mut self) {
        self.input_ended = true;
        self.feed();
    }

    fn resize(&mut self, payload: &[u8]) {
        if let (Some(master), [a, b, c, d]) = (&self.streams.terminal, payload) {
            streams::resize(
                master,
                u16::from_le_bytes([*a, *b]),
                u16::from_le_bytes([*c, *d]),
            );
        }
    }

    /// Writes what waits to the program, as much as it takes now.
    fn feed(&mut self) {
        let to = self
            .streams
            .terminal
            .as_ref()
            .or(self.streams.stdin.as_ref());
        let Some(to) = to else {
            self.input.clear();
            return;
        };
        while !self.input.is_empty() {
            let (bytes, _) = self.input.as_slices();
            match rustix::io::write(to, bytes) {
                Ok(n) => drop(self.input.drain(..n)),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return,
                Err(_) => self.input.clear(),
            }
        }
        // One large paste must not keep its memory.
        self.input.shrink_to(4096);
        if self.input_ended {
            self.streams.stdin = None;
        }
    }

    /// Reads once from an output stream; false when there is nothing now.
    // Inlined, its buffer would be touched page by page at the beginning of the loop, by the probe of the stack, in a monitor
    // that never reads anything.
    #[inline(never)]
    fn take(&mut self, kind: Kind) -> bool {
        let fd = match kind {
            Kind::Stderr => &self.streams.stderr,
            _ => &self.streams.stdout,
        };
        let Some(fd) = fd else { return false };
        let mut buffer = [0u8; wire::CHUNK];
        match rustix::io::read(fd, &mut buffer) {
            Ok(n) if n > 0 => {
                self.deliver(kind, &buffer[..n]);
                true
            }
            _ => false,
        }
    }

    /// Likewise for the terminal; false when it is closed for good.
    #[inline(never)]
    fn take_terminal(&mut self) -> bool {
        let Some(fd) = &self.streams.terminal else {
            return false;
        };
        let mut buffer = [0u8; wire::CHUNK];
        match rustix::io::read(fd, &mut buffer) {
            Ok(0) => false,
            Ok(n) => {
                self.deliver(Kind::Stdout, &buffer[..n]);
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => true,
            Err(_) => false,
        }
    }

    fn deliver(&mut self, kind: Kind, bytes: &[u8]) {
        if let Some(log) = &mut self.log {
            let stream = if kind == Kind::Stderr {
                logs::Stream::Stderr
            } else {
                logs::Stream::Stdout
            };
            log.write(stream, bytes);
        }
        if let Some(capture) = &mut self.capture {
            capture.take(bytes);
        }
        for client in self.clients.iter_mut().filter(|c| c.attached) {
            client.push(kind, bytes);
        }
    }

    /// After the end: what the program wrote last is in the streams. No more than fits into them, as somebody may go on
    /// writing for ever: a process that an exec has left behind, or one of another container that was handed the stream.
    fn drain(&mut self) {
        for kind in [Kind::Stdout, Kind::Stderr] {
            let mut rest = MOST_LEFT;
            while rest > 0 && self.take(kind) {
                rest -= 1;
            }
        }
        let mut rest = MOST_LEFT;
        while rest > 0 && self.streams.terminal.is_some() {
            let before = self.read_pending();
            if !before || !self.take_terminal() {
                break;
            }
            rest -= 1;
        }
        if let Some(log) = &mut self.log {
            log.finish();
        }
    }

    fn read_pending(&self) -> bool {
        let Some(fd) = &self.streams.terminal else {
            return false;
        };
        let mut fds = [PollFd::new(fd, PollFlags::IN)];
        let now = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::IN)
    }
}

pub(super) fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: time.as_secs().cast_signed(),
        tv_nsec: time.subsec_nanos().into(),
    }
}
