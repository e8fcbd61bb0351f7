//! Freed memory goes back to the kernel: the allocator would keep it, once for each running container.
#![allow(unsafe_code)]

/// `malloc_trim(3)`. It takes some tenths of a millisecond: for moments in which nobody waits.
pub(super) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes a number, touches only memory that is free, and may be called from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
