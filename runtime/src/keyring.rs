//! Keys of the kernel (keyrings(7)). They belong to no namespace: who shares a session keyring can read what is in it.

#![allow(unsafe_code)] // keyctl(2)

use std::io;

/// Puts this process into a new, empty session keyring, which its children share: a container's program is not to read the keys
/// of whoever has started it. The default seccomp profile refuses keyctl(2); without it nothing else would be in the way.
///
/// Done by root, whose number of keyrings is bounded by nothing that matters (`/proc/sys/kernel/keys/root_maxkeys`).
pub fn join_new() -> io::Result<()> {
    const NAMELESS: *const libc::c_char = std::ptr::null();
    // SAFETY: the kernel reads no memory of ours: without a name there is none to read.
    let serial = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::c_long::from(libc::KEYCTL_JOIN_SESSION_KEYRING),
            NAMELESS,
        )
    };
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        _ if serial >= 0 => Ok(()),
        // A kernel without keys, or an engine around us whose profile refuses the call to our containers too.
        Some(libc::ENOSYS | libc::EPERM | libc::EACCES) => Ok(()),
        _ => Err(error),
    }
}
