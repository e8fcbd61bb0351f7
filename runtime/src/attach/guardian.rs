//! A process that gives a terminal its modes back when this one is killed before it can.
//!
//! A copy of this process, in a session of its own so that a signal to the caller's group leaves it alone. It holds the
//! terminal and the end of a pipe, and nothing else.

#![allow(unsafe_code)] // fork(2), and what only the copy may do

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{OptionalActions, Termios, tcsetattr};

#[derive(Debug)]
pub(super) struct Guardian {
    process: libc::pid_t,
    /// Closed without a word, it is the sign that this process has gone.
    word: OwnedFd,
}

impl Guardian {
    pub(super) fn watch(terminal: BorrowedFd<'_>, modes: &Termios) -> io::Result<Guardian> {
        let (heard, word) = pipe_with(PipeFlags::CLOEXEC)?;
        // SAFETY: the copy makes system calls only, on memory that was there before, and ends by _exit(2): no lock that
        // another thread held at this moment is ever taken, and no destructor of this process runs twice.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => guard(terminal, heard.as_fd(), modes),
            process => Ok(Guardian { process, word }),
        }
    }

    /// The terminal is as it was: nothing is left to do.
    pub(super) fn dismiss(self) {
        let _ = rustix::io::write(&self.word, b".");
        let mut status = 0;
        // SAFETY: the status is a place for one number; the process is a child of ours that nobody else waits for.
        while unsafe { libc::waitpid(self.process, &raw mut status, 0) } == -1
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
    }
}

/// The copy's whole life.
fn guard(terminal: BorrowedFd<'_>, heard: BorrowedFd<'_>, modes: &Termios) -> ! {
    const TERMINAL: libc::c_int = 0;
    const HEARD: libc::c_int = 1;
    // SAFETY: system calls on numbers. The pipe's end is none of the first three descriptors, since those are always open;
    // nothing in this process uses any other descriptor from here on.
    unsafe {
        libc::setsid();
        libc::dup2(terminal.as_raw_fd(), TERMINAL);
        libc::dup2(heard.as_raw_fd(), HEARD);
        libc::syscall(libc::SYS_close_range, HEARD + 1, u32::MAX, 0);
    }
    // SAFETY: both were made just now, and stay open until the end.
    let (terminal, heard) = unsafe {
        (
            BorrowedFd::borrow_raw(TERMINAL),
            BorrowedFd::borrow_raw(HEARD),
        )
    };
    let mut word = [0u8];
    let killed = loop {
        match rustix::io::read(heard, &mut word) {
            Ok(count) => break count == 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => break true,
        }
    };
    if killed {
        let _ = tcsetattr(terminal, OptionalActions::Now, modes);
    }
    // SAFETY: ends this process at once.
    unsafe { libc::_exit(0) }
}
