//! Locks between processes, one per layer, that the kernel releases when their holder dies.
//!
//! All of them are byte ranges of one file: an open file description lock (fcntl(2), F_OFD_SETLK) on the byte whose offset
//! the layer's chain ID gives. So nothing has to be cleaned up, and two holders in one process exclude each other too.
//! A pull waits for nobody's lock while it could do something else: `pull/obtain.rs` says why no two can wait for each other.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::digest::Digest;
use crate::error::Error;

/// How a layer is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is being used and must not go away.
    Shared,
    /// It is being made or removed.
    Exclusive,
}

/// Held until dropped.
#[derive(Debug)]
pub struct LayerLock {
    file: File,
    offset: i64,
}

impl LayerLock {
    /// The lock, or `None` if another holder is in the way.
    pub fn try_take(root: &Path, chain_id: &Digest, mode: Mode) -> Result<Option<Self>, Error> {
        let lock = Self::open(root, chain_id)?;
        match lock.set(mode, false) {
            Ok(()) => Ok(Some(lock)),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(e) => Err(Error::io("lock", lock_path(root))(e)),
        }
    }

    /// Waits for the other holders to finish or die.
    pub fn take(root: &Path, chain_id: &Digest, mode: Mode) -> Result<Self, Error> {
        let lock = Self::open(root, chain_id)?;
        loop {
            match lock.set(mode, true) {
                Ok(()) => return Ok(lock),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(Error::io("lock", lock_path(root))(e)),
            }
        }
    }

    /// From exclusive to shared, without a moment in between.
    pub fn share(&self, root: &Path) -> Result<(), Error> {
        self.set(Mode::Shared, false)
            .map_err(Error::io("lock", lock_path(root)))
    }

    fn open(root: &Path, chain_id: &Digest) -> Result<Self, Error> {
        let path = lock_path(root);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io("open the lock file", &path))?;
        // 60 bits: two layers that share an offset only wait for each other needlessly.
        let offset = i64::from_str_radix(&chain_id.hex()[..15], 16).unwrap_or(0);
        Ok(LayerLock { file, offset })
    }

    fn set(&self, mode: Mode, wait: bool) -> Result<(), Errno> {
        let l_type = match mode {
            Mode::Shared => libc::F_RDLCK,
            Mode::Exclusive => libc::F_WRLCK,
        };
        self.set_type(l_type, wait)
    }

    fn set_type(&self, l_type: libc::c_int, wait: bool) -> Result<(), Errno> {
        let range = libc::flock {
            l_type: l_type as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: self.offset,
            l_len: 1,
            l_pid: 0,
        };
        let request = if wait {
            FcntlArg::F_OFD_SETLKW(&range)
        } else {
            FcntlArg::F_OFD_SETLK(&range)
        };
        fcntl(&self.file, request).map(drop)
    }
}

/// Closing the file would not do: a child that another thread has just forked has a copy of it until its exec, and the lock with it.
impl Drop for LayerLock {
    fn drop(&mut self) {
        // It cannot fail on a file that is open; if it did, closing it is what is left.
        let _ = self.set_type(libc::F_UNLCK, false);
    }
}

fn lock_path(root: &Path) -> std::path::PathBuf {
    root.join("layers/.lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_exclude_each_other_until_dropped() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("layers")).unwrap();
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let take = |id, mode| LayerLock::try_take(dir.path(), id, mode).unwrap();

        let shared = take(&a, Mode::Shared).unwrap();
        assert!(take(&a, Mode::Shared).is_some());
        assert!(take(&a, Mode::Exclusive).is_none());
        assert!(take(&b, Mode::Exclusive).is_some(), "another layer is free");
        drop(shared);
        let _held = take(&a, Mode::Exclusive).unwrap();
        assert!(take(&a, Mode::Shared).is_none());
    }

    #[test]
    fn a_copy_that_a_forked_child_has_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("layers")).unwrap();
        let id = Digest::of(b"a");
        let take = || LayerLock::try_take(dir.path(), &id, Mode::Exclusive).unwrap();
        let lock = take().unwrap();
        let _copy = lock.file.try_clone().unwrap();
        drop(lock);
        assert!(take().is_some());
    }
}
