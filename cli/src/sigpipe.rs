//! Gives SIGPIPE its default action back. Must do nothing else.
#![allow(unsafe_code)] // signal(2) through nix is unsafe: a handler could be anything.

use nix::sys::signal::{SigHandler, Signal, signal};

/// Rust starts with SIGPIPE ignored; `coracle logs c | head` must end quietly instead of reporting EPIPE.
pub fn restore_default() {
    // SAFETY: SigDfl installs no handler, so no code of ours runs in signal context, and the program is still
    // single-threaded.
    let restored = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    // Only an invalid signal number can fail here, and SIGPIPE is none.
    debug_assert!(restored.is_ok());
}
