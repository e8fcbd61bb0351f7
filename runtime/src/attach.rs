//! The caller's side of a container's streams: relays stdin, stdout, stderr and window sizes, and detaches.

mod guardian;
pub mod hidden;
mod keys;
mod signals;

use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::error::Error;
use crate::wire::{self, Kind};

use guardian::Guardian;
pub use keys::DetachKeys;
pub use signals::{Caught, Signals};

/// A connection to the monitor of a container or of an exec.
#[derive(Debug)]
pub struct Session {
    pub(crate) socket: OwnedFd,
    pub(crate) tty: bool,
    /// Whose streams these are.
    pub(crate) container: String,
    /// Where signals go that the caller gets; `None` for an exec.
    pub(crate) init: Option<crate::process::Identity>,
    /// The program runs already, and has drawn its screen for somebody else.
    pub(crate) joined: bool,
}

/// The caller's streams, each only if it is attached.
pub struct Streams {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
    pub signals: Signals,
    /// Found in what is typed at a terminal.
    pub detach_keys: DetachKeys,
}

/// How a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Exited(i32),
    /// By the keys: the program goes on.
    Detached,
    /// The third SIGINT or SIGTERM: the program ignores them and goes on, and the user wants out.
    GivenUp,
}

/// As many as Docker's client passes on before it ends by itself. A first process without a handler ignores them all
/// (pid_namespaces(7)), and without this nothing but SIGKILL from elsewhere would end the wait.
const PATIENCE: u32 = 3;

/// The caller's terminal in raw mode, for as long as this lives, or a little longer than this process if it is killed.
struct RawMode {
    terminal: OwnedFd,
    before: Termios,
    guardian: Option<Guardian>,
}

impl RawMode {
    fn set(terminal: BorrowedFd<'_>) -> io::Result<RawMode> {
        let before = tcgetattr(terminal)?;
        let mode = RawMode {
            terminal: terminal.try_clone_to_owned()?,
            // Without it everything but a SIGKILL is provided for.
            guardian: Guardian::watch(terminal, &before).ok(),
            before,
        };
        let mut raw = mode.before.clone();
        raw.make_raw();
        tcsetattr(terminal, OptionalActions::Now, &raw)?;
        Ok(mode)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
        if let Some(guardian) = self.guardian.take() {
            guardian.dismiss();
        }
    }
}

/// Relays until the program ends or the user detaches; `None` if the monitor has broken off without a word. `resized` hears
/// of each new size, rows and columns.
pub(crate) fn relay(
    session: &Session,
    streams: &mut Streams,
    resized: &mut dyn FnMut(u16, u16),
) -> Result<Option<Outcome>, Error> {
    let failed = |source| Error::Io {
        step: "relay the streams",
        container: session.container.clone(),
        source,
    };
    let raw = match &streams.stdin {
        Some(stdin) if session.tty && stdin.is_terminal() => {
            Some(RawMode::set(stdin.as_fd()).map_err(failed)?)
        }
        _ => None,
    };
    rustix::io::ioctl_fionbio(&session.socket, true).map_err(|e| failed(e.into()))?;
    let mut sender = Sender::default();
    if session.tty
        && let Some((rows, columns)) = window_size(streams)
    {
        if session.joined {
            // A program draws anew when its size changes, and only then.
            sender.resize(rows.saturating_add(1), columns.saturating_add(1));
        }
        sender.resize(rows, columns);
    }
    let mut relay = Relay {
        session,
        streams,
        sender,
        raw: raw.is_some(),
        resized,
    };
    relay.run().map_err(failed)
}

/// Messages on their way to the monitor, which takes them at the program's pace.
#[derive(Default)]
struct Sender {
    waiting: std::collections::VecDeque<(Kind, Vec<u8>)>,
}

impl Sender {
    fn queue(&mut self, kind: Kind, payload: Vec<u8>) {
        self.waiting.push_back((kind, payload));
    }

    fn resize(&mut self, rows: u16, columns: u16) {
        self.queue(
            Kind::Resize,
            [rows.to_le_bytes(), columns.to_le_bytes()].concat(),
        );
    }

    fn send(&mut self, socket: &OwnedFd) -> io::Result<()> {
        while let Some((kind, payload)) = self.waiting.front() {
            match wire::send(socket, *kind, payload) {
                Ok(()) => drop(self.waiting.pop_front()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The monitor has closed: what it said last is still to be read.
                Err(_) => self.waiting.clear(),
            }
        }
        Ok(())
    }
}

struct Relay<'a> {
    session: &'a Session,
    streams: &'a mut Streams,
    sender: Sender,
    /// Somebody types.
    raw: bool,
    resized: &'a mut dyn FnMut(u16, u16),
}

impl Relay<'_> {
    fn run(&mut self) -> io::Result<Option<Outcome>> {
        let mut asked_to_end = 0;
        loop {
            self.sender.send(&self.session.socket)?;
            let [output, signals, input] = self.wait()?;
            if output && let Some(end) = self.take_output()? {
                return Ok(end);
            }
            if signals {
                asked_to_end += self.handle_signals();
                if asked_to_end >= PATIENCE {
                    return Ok(Some(Outcome::GivenUp));
                }
            }
            if input && self.take_input() {
                // What was typed before the keys is the program's.
                let _ = self.sender.send(&self.session.socket);
                return Ok(Some(Outcome::Detached));
            }
        }
    }

    /// Which are ready: the monitor, the signals, the input.
    fn wait(&self) -> io::Result<[bool; 3]> {
        let idle = self.sender.waiting.is_empty();
        let writing = match idle {
            true => PollFlags::empty(),
            false => PollFlags::OUT,
        };
        let mut fds = vec![
            PollFd::new(&self.session.socket, PollFlags::IN | writing),
            PollFd::new(self.streams.signals.fd(), PollFlags::IN),
        ];
        if let Some(stdin) = self.streams.stdin.as_ref().filter(|_| idle) {
            fds.push(PollFd::new(stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok([false; 3]),
            Err(e) => return Err(e.into()),
        }
        let mut ready = [false; 3];
        for (ready, fd) in ready.iter_mut().zip(&fds) {
            let wanted = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
            *ready = fd.revents().intersects(wanted);
        }
        Ok(ready)
    }

    /// Writes what the program said; the end, if it has come (`Some(None)`: the monitor broke off).
    fn take_output(&mut self) -> io::Result<Option<Option<Outcome>>> {
        loop {
            let message = match wire::receive(&self.session.socket) {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(Some(None)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) => return Err(e),
            };
            match message.kind {
                Kind::Stdout => write_all(self.streams.stdout.as_ref(), &message.payload)?,
                Kind::Stderr => write_all(self.streams.stderr.as_ref(), &message.payload)?,
                Kind::Exit => {
                    let code = message
                        .payload
                        .try_into()
                        .map(i32::from_le_bytes)
                        .unwrap_or(crate::engine::finish::UNKNOWN);
                    return Ok(Some(Some(Outcome::Exited(code))));
                }
                _ => {}
            }
        }
    }

    /// Reads what the user typed; true if they detach.
    fn take_input(&mut self) -> bool {
        let Some(stdin) = &self.streams.stdin else {
            return false;
        };
        let mut buffer = vec![0u8; wire::CHUNK / 2];
        let length = match rustix::io::read(stdin, &mut buffer) {
            Ok(length) => length,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return false,
            // A terminal that has gone away (EIO) is the end of the input.
            Err(_) => 0,
        };
        buffer.truncate(length);
        if length == 0 {
            self.streams.stdin = None;
            self.sender.queue(Kind::Stdin, Vec::new());
            return false;
        }
        let detach = match self.raw {
            true => {
                let (passed, detach) = self.streams.detach_keys.filter(&buffer);
                buffer = passed;
                detach
            }
            false => false,
        };
        if !buffer.is_empty() {
            self.sender.queue(Kind::Stdin, buffer);
        }
        detach
    }

    /// Passes signals on; how many of them were SIGINT or SIGTERM.
    fn handle_signals(&mut self) -> u32 {
        let mut asked_to_end = 0;
        while let Some(signal) = self.streams.signals.next() {
            if signal == Signal::SIGWINCH as i32 {
                if let Some((rows, columns)) = window_size(self.streams) {
                    self.sender.resize(rows, columns);
                    (self.resized)(rows, columns);
                }
            } else if let Some(handle) = self.session.init.and_then(|init| init.open()) {
                let _ = handle.signal(signal);
                let ends = [Signal::SIGINT as i32, Signal::SIGTERM as i32];
                asked_to_end += u32::from(ends.contains(&signal));
            }
        }
        asked_to_end
    }
}

/// Rows and columns of the terminal that is written to, else of the one that is read.
fn window_size(streams: &Streams) -> Option<(u16, u16)> {
    [&streams.stdout, &streams.stdin]
        .into_iter()
        .flatten()
        .find_map(|terminal| tcgetwinsize(terminal).ok())
        .map(|size| (size.ws_row, size.ws_col))
        .filter(|(rows, columns)| *rows > 0 && *columns > 0)
}

/// What is not attached is read all the same, and dropped.
fn write_all(to: Option<&OwnedFd>, bytes: &[u8]) -> io::Result<()> {
    match to {
        Some(to) => std::fs::File::from(to.try_clone()?).write_all(bytes),
        None => Ok(()),
    }
}
