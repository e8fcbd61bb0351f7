//! Closing every descriptor but a few: what a caller has left open for a monitor, what libcontainer holds for a program.

#![allow(unsafe_code)] // close_range(2)

use std::os::fd::{AsFd, AsRawFd};

/// Closes all descriptors but the standard streams and `keep`.
///
/// For two moments only, in both of which nothing else in the process owns a descriptor that it will use again: first thing
/// in a monitor, and last thing before a container's program is executed.
pub fn close_all_but(keep: impl AsFd) {
    close_from_but(3, keep);
}

/// Closes all descriptors from `first_closed` on but `keep`.
pub fn close_from_but(first_closed: u32, keep: impl AsFd) {
    let Ok(keep) = u32::try_from(keep.as_fd().as_raw_fd()) else {
        return;
    };
    let behind = keep.saturating_add(1).max(first_closed);
    for (first, last) in [(first_closed, keep.saturating_sub(1)), (behind, u32::MAX)] {
        if first <= last {
            // SAFETY: close_range(2) touches no memory; that no owner of these descriptors is used again is the caller's
            // promise above.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
}
