//! This program's own streams, handed to the engine's relay.

use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Context as _;
use runtime::Engine;
use runtime::attach::{Outcome, Session, Streams};

use crate::failure::Failure;

/// Who gets SIGINT, SIGTERM and the like while a program runs in the foreground.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signals {
    ToProgram,
    ToUs,
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

/// Relays until the program ends; its exit code, or 0 where the user detached.
pub fn relay(
    engine: &mut Engine,
    session: Session,
    interactive: bool,
    signals: Signals,
) -> Result<i32, Failure> {
    let streams = Streams {
        stdin: interactive
            .then(|| duplicate(std::io::stdin().as_fd()))
            .transpose()?,
        stdout: duplicate(std::io::stdout().as_fd())?,
        stderr: duplicate(std::io::stderr().as_fd())?,
        signal_proxy: signals == Signals::ToProgram,
    };
    match engine.relay(session, streams)? {
        Outcome::Exited(code) => Ok(code),
        Outcome::Detached => Ok(0),
        Outcome::GivenUp => Err(Failure::Plain {
            text: "got 3 SIGTERM/SIGINTs, forcefully exiting".to_owned(),
            code: 1,
        }),
    }
}

fn duplicate(stream: BorrowedFd<'_>) -> anyhow::Result<OwnedFd> {
    stream
        .try_clone_to_owned()
        .context("duplicate a standard stream")
}
