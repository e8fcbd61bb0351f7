//! What a monitor gives back to the kernel before it waits. Making a container takes several times the memory that waiting for
//! its end does, and there are as many monitors as containers.

#![allow(unsafe_code)] // mallopt(3), malloc_trim(3), madvise(2)

/// Below the stack pointer, for the call that gives the rest back.
const MARGIN: usize = 16 * 1024;

/// So much of the stack is given back at most: libcontainer uses some tens of KiB.
const STACK: usize = 1 << 20;

/// With larger ones the stack may stay: madvise(2) refuses what is not aligned.
const PAGE: usize = 4096;

/// First thing in a monitor: the threads that serve a container get no heap of their own each. They wait most of the time.
pub(super) fn one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number of the allocator's, and there is no other thread yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives back what is free on the heap, and the stack that was in use before. For the process's first thread.
#[inline(never)]
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches nothing that is allocated.
    unsafe {
        libc::malloc_trim(0);
    }
    let here = 0u8;
    let end = ((&raw const here).addr() - MARGIN) & !(PAGE - 1);
    // SAFETY: the range ends further below the stack pointer than this call's frames and the red zone reach, so nothing in it
    // will be read before it is written. It holds nothing but the stack and what may become of it: the kernel leaves 128 MiB
    // free below the stack of the first thread (mmap_base). What is not mapped is skipped (madvise(2), ENOMEM).
    unsafe {
        libc::madvise(
            std::ptr::without_provenance_mut(end - STACK),
            STACK,
            libc::MADV_DONTNEED,
        );
    }
}
