//! Network namespaces, made and entered on a thread of their own so that the caller stays where it is.
//!
//! A namespace belongs to a thread, and a failed way back would leave the caller in the wrong one: a thread that
//! ends has no way back to fail.

use std::io;
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{Mode, OFlags};

use crate::change::Netns;
use crate::kernel::Error;

/// These threads open a descriptor or make a socket, no more.
const STACK: usize = 128 << 10;

/// Makes a new, empty network namespace (`lo` down) and returns a descriptor that holds it.
pub fn create() -> Result<Netns, Error> {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        open_own()
    };
    on_thread(make)
        .map(|fd| Netns(Arc::new(fd)))
        .map_err(|source| Error::CreateNetns { source })
}

/// The namespace of the calling thread.
pub fn current() -> Result<Netns, Error> {
    open_own()
        .map(|fd| Netns(Arc::new(fd)))
        .map_err(|source| Error::EnterNetns { source })
}

/// Runs `work` inside `netns`, on a thread that ends with it. A socket made there stays in that namespace for good,
/// whichever thread uses it later (`socket(7)` has no word on it; `network_namespaces(7)`: at creation).
pub fn run_in<T: Send>(netns: &Netns, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let enter = || {
        setns(netns.0.as_ref(), CloneFlags::CLONE_NEWNET)?;
        Ok(work())
    };
    on_thread(enter).map_err(|source| Error::EnterNetns { source })
}

/// Sets `lo` up in a namespace that gets no other interface (`--network none`).
pub fn loopback_up(netns: &Netns) -> Result<(), Error> {
    super::veth::loopback_up(netns)
}

fn open_own() -> io::Result<std::os::fd::OwnedFd> {
    // thread-self and not self: the latter is the main thread's namespace.
    let fd = rustix::fs::open(
        "/proc/thread-self/ns/net",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    Ok(fd)
}

fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("netns".into())
            .stack_size(STACK)
            .spawn_scoped(scope, work)?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
