//! Hands a compiled filter to the kernel: the one unsafe call of this module.
#![allow(unsafe_code)] // seccomp(2) has no safe wrapper that takes a ready program.

use rustix::io::Errno;

use super::{Filter, INSTRUCTION, MAX_INSTRUCTIONS};

/// Loads a filter into the calling process. Needs CAP_SYS_ADMIN or no_new_privs. Async-signal-safe: it allocates nothing.
///
/// Only the calling thread gets it; it must be the only one.
pub fn load(filter: &Filter) -> Result<(), Errno> {
    let bytes = filter.0.as_slice();
    let instructions = bytes.len() / INSTRUCTION;
    if !bytes.len().is_multiple_of(INSTRUCTION) || !(1..=MAX_INSTRUCTIONS).contains(&instructions) {
        return Err(Errno::INVAL);
    }
    let program = libc::sock_fprog {
        // At most MAX_INSTRUCTIONS, which fits.
        len: instructions as libc::c_ushort,
        filter: bytes.as_ptr() as *mut libc::sock_filter,
    };
    // SAFETY: `program` and the `len` instructions of 8 bytes behind its pointer live through the call; the kernel
    // copies them with copy_from_user, so that their alignment does not matter, and writes to neither.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER as libc::c_long,
            0 as libc::c_long,
            &raw const program,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        // SAFETY: the pointer that errno's location function returns is this thread's and always valid.
        Err(Errno::from_raw_os_error(unsafe {
            *libc::__errno_location()
        }))
    }
}
