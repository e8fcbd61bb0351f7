//! The caller's side of a container's streams: relays stdin, stdout, stderr and window sizes, and detaches.

use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::error::Error;
use crate::wire::{self, Kind};

/// A connection to the monitor of a container or of an exec.
#[derive(Debug)]
pub struct Session {
    pub(crate) socket: OwnedFd,
    pub(crate) tty: bool,
    /// Whose streams these are.
    pub(crate) container: String,
    /// Where signals go that the caller gets; `None` for an exec.
    pub(crate) init: Option<crate::process::Identity>,
}

/// The caller's streams. `stdin: None` closes the program's stdin at once (no `-i`).
pub struct Streams {
    pub stdin: Option<OwnedFd>,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    /// Without `-t`, SIGINT, SIGTERM and so on go to the program.
    pub signal_proxy: bool,
}

/// How a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Exited(i32),
    /// ctrl-p ctrl-q: the program goes on.
    Detached,
    /// The third SIGINT or SIGTERM: the program ignores them and goes on, and the user wants out.
    GivenUp,
}

/// As many as Docker's client passes on before it ends by itself. A first process without a handler ignores them all
/// (pid_namespaces(7)), and without this nothing but SIGKILL from elsewhere would end the wait.
const PATIENCE: u32 = 3;

/// The caller's terminal in raw mode, for as long as this lives.
struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    fn set(terminal: BorrowedFd<'_>) -> io::Result<RawMode> {
        let before = tcgetattr(terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(terminal, OptionalActions::Now, &raw)?;
        Ok(RawMode {
            terminal: terminal.try_clone_to_owned()?,
            before,
        })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// ctrl-p ctrl-q, found in what is typed; the first key is held back until the second is known.
#[derive(Default)]
struct DetachKeys {
    held: bool,
}

const CTRL_P: u8 = 0x10;
const CTRL_Q: u8 = 0x11;

impl DetachKeys {
    /// What goes on to the program, and whether the user detaches here.
    fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len() + 1);
        for byte in typed {
            match (self.held, *byte) {
                (true, CTRL_Q) => return (passed, true),
                (true, CTRL_P) => passed.push(CTRL_P),
                (true, other) => {
                    self.held = false;
                    passed.extend([CTRL_P, other]);
                }
                (false, CTRL_P) => self.held = true,
                (false, other) => passed.push(other),
            }
        }
        (passed, false)
    }
}

/// Relays until the program ends or the user detaches.
pub(crate) fn relay(session: Session, mut streams: Streams) -> Result<Outcome, Error> {
    let container = session.container.clone();
    let failed = |source| Error::Io {
        step: "relay the streams",
        container: container.clone(),
        source,
    };
    let signals = caught_signals(&session, &streams).map_err(|e| failed(e.into()))?;
    let raw = match &streams.stdin {
        Some(stdin) if session.tty && stdin.is_terminal() => {
            Some(RawMode::set(stdin.as_fd()).map_err(failed)?)
        }
        _ => None,
    };
    rustix::io::ioctl_fionbio(&session.socket, true).map_err(|e| failed(e.into()))?;
    let mut sender = Sender::default();
    if streams.stdin.is_none() {
        sender.queue(Kind::Stdin, Vec::new());
    }
    if session.tty && streams.stdout.is_terminal() {
        sender.queue(Kind::Resize, window_size(&streams.stdout));
    }
    let outcome =
        relay_loop(&session, &mut streams, &signals, &mut sender, raw.is_some()).map_err(failed)?;
    drop(raw);
    match outcome {
        // The monitor's last message: of the container nothing is left but this process's own exit.
        Some(outcome) => Ok(outcome),
        None => Err(Error::MonitorBroke {
            container,
            step: "relayed the streams",
            messages: "none".into(),
        }),
    }
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

fn relay_loop(
    session: &Session,
    streams: &mut Streams,
    signals: &SignalFd,
    sender: &mut Sender,
    raw: bool,
) -> io::Result<Option<Outcome>> {
    let mut keys = DetachKeys::default();
    let mut asked_to_end = 0;
    loop {
        sender.send(&session.socket)?;
        let typing = streams.stdin.as_ref().filter(|_| sender.waiting.is_empty());
        let writing = if sender.waiting.is_empty() {
            PollFlags::empty()
        } else {
            PollFlags::OUT
        };
        let mut fds = vec![
            PollFd::new(&session.socket, PollFlags::IN | writing),
            PollFd::new(signals, PollFlags::IN),
        ];
        if let Some(stdin) = typing {
            fds.push(PollFd::new(stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        }
        let ready: Vec<bool> = fds
            .iter()
            .map(|fd| {
                fd.revents()
                    .intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
            })
            .collect();
        if ready[0]
            && let Some(end) = take_output(session, streams)?
        {
            return Ok(end);
        }
        if ready[1] {
            asked_to_end += handle_signals(session, streams, signals, sender);
            if asked_to_end >= PATIENCE {
                return Ok(Some(Outcome::GivenUp));
            }
        }
        if ready.get(2) == Some(&true) && take_input(streams, sender, raw.then_some(&mut keys))? {
            return Ok(Some(Outcome::Detached));
        }
    }
}

/// Writes what the program said; the end, if it has come (`Some(None)`: the monitor broke off).
fn take_output(session: &Session, streams: &Streams) -> io::Result<Option<Option<Outcome>>> {
    loop {
        let message = match wire::receive(&session.socket) {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(Some(None)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(e),
        };
        match message.kind {
            Kind::Stdout => write_all(&streams.stdout, &message.payload)?,
            Kind::Stderr => write_all(&streams.stderr, &message.payload)?,
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
fn take_input(
    streams: &mut Streams,
    sender: &mut Sender,
    keys: Option<&mut DetachKeys>,
) -> io::Result<bool> {
    let Some(stdin) = &streams.stdin else {
        return Ok(false);
    };
    let mut buffer = vec![0u8; wire::CHUNK / 2];
    let length = match rustix::io::read(stdin, &mut buffer) {
        Ok(length) => length,
        Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return Ok(false),
        // A terminal that has gone away (EIO) is the end of the input.
        Err(_) => 0,
    };
    buffer.truncate(length);
    if length == 0 {
        streams.stdin = None;
        sender.queue(Kind::Stdin, Vec::new());
        return Ok(false);
    }
    let detach = match keys {
        Some(keys) => {
            let (passed, detach) = keys.filter(&buffer);
            buffer = passed;
            detach
        }
        None => false,
    };
    if !buffer.is_empty() {
        sender.queue(Kind::Stdin, buffer);
    }
    Ok(detach)
}

/// Passes signals on; how many of them were SIGINT or SIGTERM.
fn handle_signals(
    session: &Session,
    streams: &Streams,
    signals: &SignalFd,
    sender: &mut Sender,
) -> u32 {
    let mut asked_to_end = 0;
    while let Ok(Some(info)) = signals.read_signal() {
        if info.ssi_signo == Signal::SIGWINCH as u32 {
            sender.queue(Kind::Resize, window_size(&streams.stdout));
        } else if let Some(handle) = session.init.and_then(|init| init.open()) {
            let _ = handle.signal(info.ssi_signo as i32);
            let ends = [Signal::SIGINT as u32, Signal::SIGTERM as u32];
            asked_to_end += u32::from(ends.contains(&info.ssi_signo));
        }
    }
    asked_to_end
}

/// SIGWINCH with a terminal; what ends programs without one, to be passed on.
fn caught_signals(session: &Session, streams: &Streams) -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    if session.tty {
        set.add(Signal::SIGWINCH);
    }
    if streams.signal_proxy && session.init.is_some() {
        for signal in [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGQUIT,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
        ] {
            set.add(signal);
        }
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

fn window_size(terminal: &OwnedFd) -> Vec<u8> {
    let size = tcgetwinsize(terminal)
        .map(|s| (s.ws_row, s.ws_col))
        .unwrap_or((24, 80));
    [size.0.to_le_bytes(), size.1.to_le_bytes()].concat()
}

fn write_all(to: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    let mut file = std::fs::File::from(to.try_clone()?);
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detach_keys_are_found_across_reads_and_others_pass() {
        let mut keys = DetachKeys::default();
        assert_eq!(keys.filter(b"ls\n"), (b"ls\n".to_vec(), false));
        assert_eq!(keys.filter(&[b'a', CTRL_P]), (b"a".to_vec(), false));
        assert_eq!(keys.filter(b"x"), (vec![CTRL_P, b'x'], false));
        assert_eq!(keys.filter(&[CTRL_P]), (vec![], false));
        assert_eq!(keys.filter(&[CTRL_Q, b'z']), (vec![], true));
    }
}
