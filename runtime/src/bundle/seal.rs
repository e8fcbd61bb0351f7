//! Our own binary as a descriptor that nobody can write through, to be executed where a container can see the process.
//!
//! A container with a process of ours in its pid namespace could open `/proc/PID/exe` for writing once that process has
//! ended, and put its own program in place of ours on the host (CVE-2019-5736). The process therefore runs from a
//! read-only mount of the binary that is in no mount namespace: opening it for writing is EROFS, for root too, and the
//! file on the host stays as writable as it was, so that it can be upgraded meanwhile.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use rustix::mount::OpenTreeFlags;

use super::kernel;

const SELF: &str = "/proc/self/exe";

/// The running binary, to be executed as `/proc/self/fd/N` or by execveat(2) with AT_EMPTY_PATH. It is close-on-exec,
/// which does not hinder that. Needs CAP_SYS_ADMIN, or it is a copy in memory.
pub fn seal_self() -> io::Result<OwnedFd> {
    if let Some(sealed) = already_sealed()? {
        return Ok(sealed);
    }
    match read_only_mount() {
        Ok(sealed) => Ok(sealed),
        Err(error) => {
            // A kernel before 5.12, a filter that knows no new mount calls, or no privilege.
            tracing::debug!(%error, "no read-only mount of our own binary: copying it to memory");
            copy_in_memory()
        }
    }
}

/// Executes this program again with the same arguments, from a sealed descriptor, unless that is where it runs from. The
/// process stays the same one. Returns only where it need not, or cannot.
pub fn run_sealed() -> io::Result<()> {
    use std::os::unix::process::CommandExt;
    if already_sealed()?.is_some() {
        return Ok(());
    }
    let sealed = seal_self()?;
    let mut args = std::env::args_os();
    let own_name = args.next().unwrap_or_else(|| "coracle".into());
    let mut command = std::process::Command::new(super::inside::by_descriptor(sealed.as_fd()));
    Err(command.arg0(own_name).args(args).exec())
}

/// A binary that was started from a sealed descriptor, or lies on a read-only file system.
fn already_sealed() -> io::Result<Option<OwnedFd>> {
    let found = rustix::fs::open(SELF, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let flags = rustix::fs::fstatvfs(&found)?.f_flag;
    if flags.contains(StatVfsMountFlags::RDONLY) {
        return Ok(Some(found));
    }
    // A memfd: opening it anew for reading gives a descriptor whose seals can be asked for.
    let file = File::open(SELF)?;
    let sealed =
        rustix::fs::fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SealFlags::WRITE));
    Ok(sealed.then(|| file.into()))
}

fn read_only_mount() -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = rustix::mount::open_tree(CWD, SELF, flags)?;
    kernel::make_read_only(&clone)?;
    Ok(clone)
}

fn copy_in_memory() -> io::Result<OwnedFd> {
    let base = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // MFD_EXEC is asked for since Linux 6.3, and unknown before.
    let memory = rustix::fs::memfd_create("coracle", base | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create("coracle", base))?;
    let mut memory = File::from(memory);
    io::copy(&mut File::open(SELF)?, &mut memory)?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&memory, seals)?;
    Ok(memory.into())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::bundle::inside::by_descriptor;

    fn refuses_writing(sealed: &OwnedFd) -> bool {
        let path = by_descriptor(sealed.as_fd());
        match File::options().write(true).open(path) {
            // A memfd opens, and refuses the write itself.
            Ok(mut file) => io::Write::write_all(&mut file, b"x").is_err(),
            Err(error) => matches!(
                error.raw_os_error(),
                Some(libc::EROFS | libc::EPERM | libc::ETXTBSY)
            ),
        }
    }

    fn runs(sealed: &OwnedFd) -> bool {
        let mut command = std::process::Command::new(by_descriptor(sealed.as_fd()));
        command.arg("--list").output().unwrap().status.success()
    }

    #[test]
    fn the_read_only_mount_runs_and_cannot_be_written() {
        let sealed = read_only_mount().unwrap();
        assert!(refuses_writing(&sealed));
        assert!(runs(&sealed));
        let flags = rustix::fs::fstatvfs(&sealed).unwrap().f_flag;
        assert!(flags.contains(StatVfsMountFlags::RDONLY));
    }

    /// The promise is under a millisecond; the bound is looser, so that a busy machine does not fail it.
    #[test]
    fn sealing_is_fast() {
        let mut times: Vec<std::time::Duration> = (0..20)
            .map(|_| {
                let start = std::time::Instant::now();
                seal_self().unwrap();
                start.elapsed()
            })
            .collect();
        times.sort();
        eprintln!("seal_self {:?}", times[10]);
        assert!(
            times[10] < std::time::Duration::from_millis(5),
            "{:?}",
            times[10]
        );
    }

    #[test]
    fn the_copy_in_memory_runs_and_cannot_be_written() {
        let sealed = copy_in_memory().unwrap();
        assert!(refuses_writing(&sealed));
        assert!(runs(&sealed));
    }

    #[test]
    fn the_binary_itself_stays_writable_for_an_upgrade() {
        let path = std::fs::read_link(SELF).unwrap();
        let before = rustix::fs::statvfs(&path).unwrap().f_flag;
        let _sealed = seal_self().unwrap();
        assert_eq!(rustix::fs::statvfs(&path).unwrap().f_flag, before);
        assert!(!before.contains(StatVfsMountFlags::RDONLY));
    }
}
