//! The signals that the caller gets while a program runs in the foreground.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What is caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caught {
    /// Whatever can be passed on to the program, and a terminal's new size.
    All,
    /// A terminal's new size alone.
    Sizes,
}

/// From when this is made, the signals wait here instead of ending this process: what comes while a container starts reaches
/// its program.
#[derive(Debug)]
pub struct Signals {
    caught: SignalFd,
}

/// The rest can be passed on. SIGPIPE, SIGCHLD and SIGURG are this process's own, as with Docker's client; so is what stops
/// it; and what tells of a fault cannot wait.
const OWN: [Signal; 14] = [
    Signal::SIGPIPE,
    Signal::SIGCHLD,
    Signal::SIGURG,
    Signal::SIGKILL,
    Signal::SIGSTOP,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGABRT,
];

impl Signals {
    pub fn catch(caught: Caught) -> nix::Result<Signals> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGWINCH);
        if caught == Caught::All {
            Signal::iterator()
                .filter(|signal| !OWN.contains(signal))
                .for_each(|signal| set.add(signal));
        }
        set.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Signals {
            caught: SignalFd::with_flags(&set, flags)?,
        })
    }

    pub(super) fn fd(&self) -> &SignalFd {
        &self.caught
    }

    pub(super) fn next(&self) -> Option<i32> {
        let info = self.caught.read_signal().ok()??;
        i32::try_from(info.ssi_signo).ok()
    }
}
