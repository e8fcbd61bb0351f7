//! The place where layers are made and where they go to be deleted: `ROOT/layers/.staging`, on the layers' file system,
//! so that one rename commits.
//!
//! Each user has a directory of its own there, held by flock(2). The lock dies with its holder; whatever is not locked is
//! rubbish, which `sweep` deletes. Nothing here knows what a layer is.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, fchmod, flock, openat,
    renameat_with, unlinkat,
};

use crate::error::Error;
use crate::space::{self, Meter};

/// Directories nested deeper than this are moved up before they are deleted, so that a hostile image cannot make
/// deletion run out of file descriptors or stack.
const MAX_DEPTH: usize = 64;

/// A directory of one's own; deleted with everything in it when dropped.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    /// Open, and locked for as long.
    dir: File,
}

impl Staging {
    pub fn create(root: &Path) -> Result<Staging, Error> {
        let base = base(root);
        // Images bring setuid programs: nobody but root may reach them here.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&base)
            .map_err(Error::io("create", &base))?;
        loop {
            let path = tempfile::Builder::new()
                .prefix("")
                .rand_bytes(12)
                .tempdir_in(&base)
                .map_err(Error::io("create a directory in", &base))?
                .keep();
            let dir = File::open(&path).map_err(Error::io("open", &path));
            // A sweep may come between making and locking; then make another.
            match dir {
                Ok(dir) if lock(&dir) && is_at(&dir, &path) => return Ok(Staging { path, dir }),
                Ok(_) => {}
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Makes an empty directory for a layer and opens it.
    pub fn subdirectory(&self, name: &str) -> Result<OwnedFd, Error> {
        let path = self.path.join(name);
        fs::create_dir(&path).map_err(Error::io("create", &path))?;
        let dir = openat(
            &self.dir,
            name,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(Error::io("open", &path))?;
        // A tar that leaves its root out has this one, which a container sees as `/`: our caller's umask has no say in it.
        fchmod(&dir, Mode::from_raw_mode(0o755)).map_err(Error::io("change the mode of", path))?;
        Ok(dir)
    }

    /// Bytes on disk of what is in it.
    pub fn size(&self) -> Result<u64, Error> {
        let mut meter = Meter::default();
        let whole = meter.tree(&self.path);
        let own = space::own_size(&self.path);
        whole
            .and_then(|whole| Ok(whole.saturating_sub(own?)))
            .map_err(Error::io("measure", &self.path))
    }

    /// Deletes a subdirectory before its time, as when a download starts over.
    pub fn discard(&self, name: &str) -> Result<(), Error> {
        remove_tree(self.dir.as_fd(), name.as_bytes())
            .map_err(Error::io("delete", self.path.join(name)))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let result = fs::File::open(base_of(&self.path))
            .and_then(|base| remove_tree(base.as_fd(), name_of(&self.path)));
        if let Err(e) = result {
            // The next sweep tries again.
            tracing::warn!(path = %self.path.display(), error = %e, "cannot delete");
        }
    }
}

/// Deletes what killed processes have left in staging. Never touches what a live one holds. The bytes on disk that were freed
/// are added to `freed`, if somebody wants to know.
pub fn sweep(root: &Path, mut freed: Option<&mut u64>) -> Result<(), Error> {
    let base = base(root);
    let entries = match fs::read_dir(&base) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("read", base)(e)),
    };
    for entry in entries {
        let path = entry.map_err(Error::io("read", &base))?.path();
        let Ok(dir) = File::open(&path) else { continue };
        if flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok() && is_at(&dir, &path) {
            tracing::debug!(path = %path.display(), "deleting what a killed process left");
            if let Some(freed) = &mut freed {
                let size = Meter::default().tree(&path);
                **freed += size.map_err(Error::io("measure", &path))?;
            }
            drop(Staging { path, dir });
        }
    }
    Ok(())
}

/// What killed processes have left in staging, for the next sweep.
pub fn abandoned(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let base = base(root);
    let entries = match fs::read_dir(&base) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("read", base)(e)),
    };
    let mut left = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("read", &base))?.path();
        let Ok(dir) = File::open(&path) else { continue };
        if flock(&dir, FlockOperation::NonBlockingLockShared).is_ok() && is_at(&dir, &path) {
            left.push(path);
        }
    }
    Ok(left)
}

/// The bytes on disk in staging: of live processes, and of dead ones, which the next sweep frees.
pub fn sizes(root: &Path) -> Result<(u64, u64), Error> {
    let base = base(root);
    let (mut live, mut dead) = (0, 0);
    for entry in fs::read_dir(&base).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(dir) = File::open(&path) else { continue };
        // Shared: whoever makes one waits for nothing.
        let is_dead = flock(&dir, FlockOperation::NonBlockingLockShared).is_ok();
        let size = Meter::default().tree(&path);
        let size = size.map_err(Error::io("measure", &path))?;
        match is_dead {
            true => dead += size,
            false => live += size,
        }
    }
    Ok((live, dead))
}

pub fn base(root: &Path) -> PathBuf {
    root.join("layers/.staging")
}

fn base_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

fn name_of(path: &Path) -> &[u8] {
    path.file_name().map_or(b"", |name| name.as_bytes())
}

fn lock(dir: &File) -> bool {
    loop {
        match flock(dir, FlockOperation::LockExclusive) {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.is_ok(),
        }
    }
}

fn is_at(dir: &File, path: &Path) -> bool {
    match (dir.metadata(), fs::symlink_metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// Deletes what is at a path, as `remove_tree` does. The path's own directory must be nobody else's to change; what is below may
/// be a container's, which can nest deeper than `std::fs::remove_dir_all` has descriptors for.
pub fn remove_at(path: &Path) -> io::Result<()> {
    let parent = File::open(path.parent().unwrap_or(Path::new(".")))?;
    remove_tree(parent.as_fd(), name_of(path))
}

/// Deletes `name` in `parent`, whatever it is, following no symlink and at any depth. What another process deletes meanwhile, which
/// sweeps as well, is no error.
pub fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let name = CString::new(name)?;
    let name = name.as_c_str();
    let mut moved = 0;
    loop {
        let before = moved;
        let Some(dir) = open_or_unlink(parent, name)? else {
            return Ok(());
        };
        clear(&dir, &dir, 0, &mut moved)?;
        drop(dir);
        if moved == before {
            unlink(parent, name, AtFlags::REMOVEDIR)?;
            return Ok(());
        }
        // What was too deep now lies just below `name`: once more.
    }
}

fn clear(top: &OwnedFd, dir: &OwnedFd, depth: usize, moved: &mut u64) -> io::Result<()> {
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = match entry {
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            entry => entry?,
        };
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if entry.file_type() != FileType::Directory && entry.file_type() != FileType::Unknown {
            unlink(dir, name, AtFlags::empty())?;
            continue;
        }
        if depth >= MAX_DEPTH {
            move_up(top, dir, name, moved)?;
            continue;
        }
        let Some(child) = open_or_unlink(dir.as_fd(), name)? else {
            continue;
        };
        let before = *moved;
        clear(top, &child, depth + 1, moved)?;
        drop(child);
        if let Err(e) = unlink(dir, name, AtFlags::REMOVEDIR)
            && before == *moved
        {
            return Err(e);
        }
    }
    Ok(())
}

/// Moves an entry to the top directory, under a name that is free there.
fn move_up(top: &OwnedFd, dir: &OwnedFd, name: &CStr, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        let to = format!(".deep-{moved}");
        match renameat_with(dir, name, top, to, RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::EXIST) => {}
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            result => return Ok(result?),
        }
    }
}

/// Opens a directory, or deletes what is not one.
fn open_or_unlink(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(parent, name, flags, Mode::empty()) {
        Ok(dir) => Ok(Some(dir)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
            unlink(parent, name, AtFlags::empty())?;
            Ok(None)
        }
        Err(e) => Err(e.into()),
    }
}

fn unlink(parent: impl AsFd, name: &CStr, flags: AtFlags) -> io::Result<()> {
    match unlinkat(parent, name, flags) {
        Err(rustix::io::Errno::NOENT) => Ok(()),
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_directory_survives_a_sweep_and_a_dead_one_does_not() {
        let root = tempfile::tempdir().unwrap();
        let live = Staging::create(root.path()).unwrap();
        fs::write(live.path().join("x"), "x").unwrap();
        let dead = base(root.path()).join("dead");
        fs::create_dir_all(dead.join("a/b")).unwrap();
        sweep(root.path(), None).unwrap();
        assert!(live.path().join("x").exists());
        assert!(!dead.exists());
        drop(live);
        assert_eq!(fs::read_dir(base(root.path())).unwrap().count(), 0);
    }

    #[test]
    fn deleting_follows_no_symlink_and_reaches_any_depth() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("keep"), "x").unwrap();
        let root = tempfile::tempdir().unwrap();
        let staging = Staging::create(root.path()).unwrap();
        std::os::unix::fs::symlink(outside.path(), staging.path().join("link")).unwrap();
        // 3000 levels: deeper than a path can name, and than 1024 file descriptors reach.
        let mut dir = File::open(staging.path()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&dir, "d", Mode::RWXU).unwrap();
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            dir = openat(&dir, "d", flags, Mode::empty()).unwrap().into();
        }
        drop(dir);
        let path = staging.path().to_owned();
        drop(staging);
        assert!(!path.exists());
        assert!(outside.path().join("keep").exists());
    }
}
