//! Closing every descriptor but a few: what a caller has left open for a monitor, what libcontainer holds for a program.

#![allow(unsafe_code)] // close_range(2)

use std::os::fd::{AsRawFd, BorrowedFd};

/// Closes all descriptors but the standard streams and `keep`.
///
/// For two moments only, in both of which nothing else in the process owns a descriptor that it will use again: first thing
/// in a monitor, and last thing before a container's program is executed.
pub fn close_all_but(keep: &[BorrowedFd<'_>]) {
    close_from_but(3, keep);
}

/// Closes all descriptors from `first` on but `keep`.
pub fn close_from_but(mut first: u32, keep: &[BorrowedFd<'_>]) {
    let numbers = keep.iter().map(|fd| fd.as_raw_fd().cast_unsigned());
    let mut kept: Vec<u32> = numbers.filter(|number| *number >= first).collect();
    kept.sort_unstable();
    for number in kept {
        close(first, number.saturating_sub(1));
        first = number + 1;
    }
    close(first, u32::MAX);
}

fn close(first: u32, last: u32) {
    if first <= last {
        // SAFETY: close_range(2) touches no memory; that no owner of these descriptors is used again is the promise of who
        // calls `close_all_but`.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}
