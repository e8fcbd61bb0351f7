//! Kernel parameters of a network namespace, set before libcontainer sets them all once more: its own failure does not say which
//! one, nor why. The caller must be single-threaded: it is in that namespace for a moment.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::{CloneFlags, setns};

use crate::error::ErrorKind;
use crate::oci::Failure;

/// Those of `net.` only. The texts and kinds are Docker's.
pub(super) fn set(netns: &OwnedFd, sysctls: &[(String, String)]) -> Result<(), Failure> {
    let of_network: Vec<_> = (sysctls.iter())
        .filter(|(name, _)| name.starts_with("net."))
        .collect();
    if of_network.is_empty() {
        return Ok(());
    }
    let failed = |e: io::Error| Failure::internal("enter the container's network namespace", &e);
    let own = File::open("/proc/self/ns/net").map_err(failed)?;
    setns(netns.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|e| failed(e.into()))?;
    let done = of_network
        .into_iter()
        .try_for_each(|(name, value)| write(name, value));
    // Whatever came of it, back: this process serves the host.
    setns(own.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|e| failed(e.into()))?;
    done
}

fn write(name: &str, value: &str) -> Result<(), Failure> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    let failed = |verb: &str, error: io::Error| {
        let (kind, why) = match error.raw_os_error() {
            Some(libc::ENOENT) => (ErrorKind::CommandNotFound, "no such file or directory"),
            Some(libc::EINVAL) => (ErrorKind::Invalid, "invalid argument"),
            Some(libc::EACCES) => (ErrorKind::NotExecutable, "permission denied"),
            _ => (ErrorKind::Invalid, "the kernel refuses it"),
        };
        Failure {
            kind,
            message: format!("{verb} {path}: {why}"),
        }
    };
    let mut file = File::options()
        .write(true)
        .open(&path)
        .map_err(|e| failed("open", e))?;
    io::Write::write_all(&mut file, value.as_bytes()).map_err(|e| failed("write", e))
}
