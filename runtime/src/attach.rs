//! The caller's side of a container's streams: relays stdin, stdout, stderr and window sizes, and detaches.

use std::os::fd::OwnedFd;

/// A connection to the monitor of a container or of an exec.
#[derive(Debug)]
pub struct Session {
    pub(crate) socket: OwnedFd,
    pub(crate) tty: bool,
}

/// The caller's streams. `stdin: None` closes the program's stdin at once (no `-i`).
pub struct Streams {
    pub stdin: Option<OwnedFd>,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    /// `run -i` without `-t` and the like forward SIGINT, SIGTERM and so on to the program.
    pub signal_proxy: bool,
}

/// How a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Exited(i32),
    /// ctrl-p ctrl-q: the program goes on.
    Detached,
}
