//! Disk space set aside for the moment when there is none left: that a container has ended or is to be removed must be
//! written, or nothing would ever make room again.
//!
//! Must not know what is written with it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ffi::{SQLITE_FULL, SQLITE_IOERR_SHMSIZE};
use rustix::fs::FallocateFlags;

/// Bytes. A removal writes some dozens of pages of 4 KiB to the database's log.
const SIZE: u64 = 1 << 20;

/// Bytes of it that are given up at a time for opening the database, which needs 32 KiB: a program that fills the disk may be faster.
const PART: u64 = SIZE / 8;

/// Bytes that must be free before they are set aside.
const PLENTY: u64 = 16 * SIZE;

fn path(root: &Path) -> PathBuf {
    root.join("reserve")
}

/// Sets the space aside, if it is not and there is plenty. Cheap when it is.
pub fn keep(root: &Path) {
    if fs::metadata(path(root)).is_ok_and(|kept| kept.len() == SIZE) {
        return;
    }
    let free = rustix::fs::statvfs(root).map(|fs| fs.f_bavail * fs.f_frsize);
    if free.unwrap_or(0) < PLENTY {
        return;
    }
    let allocated = File::create(path(root)).and_then(|file| {
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, SIZE).map_err(io::Error::from)
    });
    // On a filesystem that cannot set space aside there is none.
    if allocated.is_err() {
        let _ = fs::remove_file(path(root));
    }
}

/// Gives the space up; false if there was none.
pub fn release(root: &Path) -> bool {
    let released = fs::remove_file(path(root)).is_ok();
    if released {
        tracing::warn!("the disk is full: giving up the space that was set aside for this");
    }
    released
}

/// Gives a part of it up; false if there is none left.
pub fn release_part(root: &Path) -> bool {
    let kept = File::options().write(true).open(path(root));
    let length = |kept: &File| kept.metadata().map_or(0, |kept| kept.len());
    match kept {
        Ok(kept) if length(&kept) > PART => kept.set_len(length(&kept) - PART).is_ok(),
        Ok(_) => release(root),
        Err(_) => false,
    }
}

/// Whether a disk without space, or a quota, is at the bottom of it.
pub fn is_wanted(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
        {
            return true;
        }
        let error_of_sqlite = error.downcast_ref::<rusqlite::Error>();
        if let Some(error) = error_of_sqlite.and_then(rusqlite::Error::sqlite_error)
            // The second: whoever opens the database first makes its index in shared memory, a file beside it, anew.
            && matches!(error.extended_code, SQLITE_FULL | SQLITE_IOERR_SHMSIZE)
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// Whether nothing can be written to the disk just now, for whatever reason: it is full, has turned read-only, or is broken.
pub fn is_unwritable(error: &(dyn std::error::Error + 'static)) -> bool {
    use rusqlite::ErrorCode;
    if is_wanted(error) {
        return true;
    }
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && matches!(error.raw_os_error(), Some(libc::EROFS | libc::EIO))
        {
            return true;
        }
        let code = error.downcast_ref::<rusqlite::Error>();
        if let Some(ErrorCode::ReadOnly | ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) =
            code.and_then(rusqlite::Error::sqlite_error_code)
        {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_found_at_the_bottom_of_an_error() {
        let full = crate::Error::Host {
            step: "write",
            source: io::Error::from_raw_os_error(libc::ENOSPC),
        };
        assert!(is_wanted(&full));
        assert!(!is_wanted(&crate::Error::NoCommand));
        assert!(is_unwritable(&full));
    }

    #[test]
    fn a_read_only_disk_is_found_but_cannot_be_helped() {
        let read_only = crate::Error::Host {
            step: "write",
            source: io::Error::from_raw_os_error(libc::EROFS),
        };
        assert!(is_unwritable(&read_only));
        assert!(!is_wanted(&read_only));
        assert!(!is_unwritable(&crate::Error::NoCommand));
    }

    #[test]
    fn space_is_set_aside_and_given_up_once() {
        let folder = tempfile::tempdir().unwrap();
        keep(folder.path());
        keep(folder.path());
        let kept = fs::metadata(path(folder.path())).unwrap();
        assert_eq!(kept.len(), SIZE);
        assert!(release(folder.path()));
        assert!(!release(folder.path()));
    }

    #[test]
    fn it_is_given_up_in_parts_and_made_whole_again() {
        let folder = tempfile::tempdir().unwrap();
        keep(folder.path());
        assert!(release_part(folder.path()));
        let kept = || fs::metadata(path(folder.path())).unwrap().len();
        assert_eq!(kept(), SIZE - PART);
        keep(folder.path());
        assert_eq!(kept(), SIZE);
        let parts = (0..100).take_while(|_| release_part(folder.path()));
        assert_eq!(parts.count() as u64, SIZE / PART);
    }
}
