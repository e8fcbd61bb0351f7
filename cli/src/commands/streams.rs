//! This program's own streams, handed to the engine's relay.

use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Context as _;
use runtime::Engine;
use runtime::attach::{Caught, DetachKeys, Outcome, Session, Streams};

use super::Context;
use crate::args::logging::Attached;
use crate::failure::Failure;

/// Who gets SIGINT, SIGTERM and the like while a program runs in the foreground.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signals {
    ToProgram,
    ToUs,
}

/// How Docker calls the keys when they are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Of a container.
    Detach,
    /// Of an exec.
    Escape,
}

/// What becomes of a command whose user detaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detaching {
    /// It has done what it was to do.
    Quiet,
    /// It says so, and fails: it was to end with the program's exit code.
    Told,
}

/// The streams, made before the program starts: from then on signals wait for it.
pub struct Join(Streams);

impl Join {
    pub fn new(attached: Attached, signals: Signals, keys: DetachKeys) -> Result<Join, Failure> {
        let caught = match signals {
            Signals::ToProgram => Caught::All,
            Signals::ToUs => Caught::Sizes,
        };
        let stream = |wanted: bool, stream: BorrowedFd<'_>| {
            let duplicate = wanted.then(|| stream.try_clone_to_owned());
            duplicate.transpose().context("duplicate a standard stream")
        };
        let stdin: Option<OwnedFd> = stream(attached.stdin, std::io::stdin().as_fd())?;
        Ok(Join(Streams {
            stdin,
            stdout: stream(attached.stdout, std::io::stdout().as_fd())?,
            stderr: stream(attached.stderr, std::io::stderr().as_fd())?,
            signals: runtime::attach::Signals::catch(caught)
                .map_err(std::io::Error::from)
                .context("catch signals")?,
            detach_keys: keys,
        }))
    }
}

/// `--detach-keys`, else the configured ones, else ctrl-p ctrl-q.
pub fn detach_keys(
    context: &Context,
    given: Option<&str>,
    kind: Keys,
) -> Result<DetachKeys, Failure> {
    let given = given.filter(|keys| !keys.is_empty());
    let Some(text) = given.or(context.config.detach_keys.as_deref()) else {
        return Ok(DetachKeys::default());
    };
    DetachKeys::parse(text).ok_or_else(|| {
        Failure::Engine(runtime::Error::DetachKeys {
            what: match kind {
                Keys::Detach => "detach",
                Keys::Escape => "escape",
            },
            keys: text.to_owned(),
        })
    })
}

/// `-i` and `-t` together want a terminal to read from. Docker's text and code.
pub fn check_terminal(interactive: bool, tty: bool) -> Result<(), Failure> {
    if interactive && tty && !std::io::stdin().is_terminal() {
        return Err(Failure::Plain {
            text: "the input device is not a TTY".to_owned(),
            code: 1,
        });
    }
    Ok(())
}

/// Rows and columns of our terminal, for a program that gets one.
pub fn terminal_size(tty: bool) -> Option<(u16, u16)> {
    if !tty {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(std::io::stdout())
        .or_else(|_| rustix::termios::tcgetwinsize(std::io::stdin()))
        .ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Relays until the program ends, or the user detaches; the exit code.
pub fn relay(
    engine: &mut Engine,
    session: Session,
    join: Join,
    detaching: Detaching,
) -> Result<i32, Failure> {
    match (engine.relay(session, join.0)?, detaching) {
        (Outcome::Exited(code), _) => Ok(code),
        (Outcome::Detached, Detaching::Quiet) => Ok(0),
        (Outcome::Detached, Detaching::Told) => Err(Failure::Plain {
            text: "read escape sequence".to_owned(),
            code: 1,
        }),
        (Outcome::GivenUp, _) => Err(Failure::Plain {
            text: "got 3 SIGTERM/SIGINTs, forcefully exiting".to_owned(),
            code: 1,
        }),
    }
}
