//! A line from a terminal that does not show what is typed: a password.

use std::io::{self, BufRead};
use std::os::fd::AsFd;

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::guardian::Guardian;

/// Reads a line without its end. The terminal gets its modes back even if this process is killed meanwhile.
pub fn read_line(input: &io::Stdin) -> io::Result<String> {
    let before = tcgetattr(input)?;
    // Without it everything but a signal is provided for.
    let guardian = Guardian::watch(input.as_fd(), &before).ok();
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    let mut line = String::new();
    let read = match tcsetattr(input, OptionalActions::Now, &hidden) {
        Ok(()) => input.lock().read_line(&mut line).map(drop),
        Err(e) => Err(e.into()),
    };
    let restored = tcsetattr(input, OptionalActions::Now, &before);
    if let Some(guardian) = guardian {
        guardian.dismiss();
    }
    read?;
    restored?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
