//! What a container has changed: its writable layer compared with the layers below, and the same as a layer's tar.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat, openat};

use super::LayerError;
use super::below::{Below, Found, is_opaque};
use super::numbers::octets;
use super::pack::{MAX_DEPTH, PackError, Packer, look, sorted};
use super::tree::{is_directory, is_whiteout, join, split};

/// What has become of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Changed,
    Added,
    Deleted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// From the root, without a slash before it.
    pub path: Vec<u8>,
    pub kind: ChangeKind,
}

/// The changes of `upper` against the layers below (the uppermost first), parents before what is in them. `skip` names paths
/// that are not the container's own doing.
pub fn changes(
    upper: &OwnedFd,
    below: &[BorrowedFd<'_>],
    skip: &dyn Fn(&[u8]) -> bool,
) -> Result<Vec<Change>, LayerError> {
    let mut walk = Walk {
        below: Below::new(below)?,
        skip,
        found: Vec::new(),
    };
    walk.directory(upper, b"", Lower::Shown, 0)?;
    Ok(walk.found)
}

/// What the layers below have at a directory of the upper one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lower {
    /// A directory, whose names show through.
    Shown,
    /// A directory that is hidden.
    Hidden,
    /// No directory.
    Nothing,
}

struct Walk<'a> {
    below: Below,
    skip: &'a dyn Fn(&[u8]) -> bool,
    found: Vec<Change>,
}

impl Walk<'_> {
    fn directory(
        &mut self,
        dir: &OwnedFd,
        path: &[u8],
        lower: Lower,
        depth: usize,
    ) -> Result<(), LayerError> {
        if depth > MAX_DEPTH {
            return Err(LayerError::refused(octets(path), "it is nested too deeply"));
        }
        let mut names = sorted(dir).map_err(LayerError::place("read", path))?;
        if lower == Lower::Hidden {
            names.extend(self.below.names_at(path)?);
            names.sort_unstable();
            names.dedup();
        }
        for name in names {
            let below = join(path, &name);
            if !(self.skip)(&below) {
                self.name(dir, &name, below, lower, depth)?;
            }
        }
        Ok(())
    }

    fn name(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        path: Vec<u8>,
        lower: Lower,
        depth: usize,
    ) -> Result<(), LayerError> {
        let place = |operation| LayerError::place(operation, &path);
        let stat = look(dir.as_fd(), name).map_err(place("look up"))?;
        let before = match lower {
            Lower::Nothing => None,
            Lower::Shown | Lower::Hidden => self.below.find(&path)?.map(|found| match found {
                Found::Directory(_, stat) | Found::Other { stat, .. } => stat,
            }),
        };
        let Some(stat) = stat.filter(|stat| !is_whiteout(stat)) else {
            if before.is_some() {
                self.push(path, ChangeKind::Deleted);
            }
            return Ok(());
        };
        let kind = match before {
            Some(_) => ChangeKind::Changed,
            None => ChangeKind::Added,
        };
        let at = self.found.len();
        let same = before.as_ref().is_some_and(|before| is_same(before, &stat));
        self.push(path.clone(), kind);
        if is_directory(&stat) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let inner = openat(dir, name, flags, Mode::empty()).map_err(place("open"))?;
            let below = match before.as_ref().map(is_directory) {
                Some(true) if lower == Lower::Hidden || is_opaque(inner.as_fd()) => Lower::Hidden,
                Some(true) => Lower::Shown,
                _ => Lower::Nothing,
            };
            self.directory(&inner, &path, below, depth + 1)?;
        }
        // A directory that is only there for what is in it, and that is nothing.
        if same && self.found.len() == at + 1 {
            self.found.pop();
        }
        Ok(())
    }

    fn push(&mut self, path: Vec<u8>, kind: ChangeKind) {
        self.found.push(Change { path, kind });
    }
}

/// Docker's judgement: a directory's time and size say nothing.
fn is_same(before: &Stat, after: &Stat) -> bool {
    let owners = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid, stat.st_rdev);
    let content = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    owners(before) == owners(after) && (is_directory(after) || content(before) == content(after))
}

/// Writes the changes as a layer's tar ("image-spec layer, Change Types").
pub fn write<W: Write>(upper: &OwnedFd, changes: &[Change], out: W) -> Result<W, PackError> {
    let mut packer = Packer::new(out);
    for change in changes {
        if change.kind == ChangeKind::Deleted {
            packer.whiteout(&change.path)?;
            continue;
        }
        let (dir, name) = split(&change.path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = if dir.is_empty() { b"." } else { dir };
        // The layer is nobody's to change but the kernel's: its own symlinks are not followed by overlayfs either.
        let resolve = rustix::fs::ResolveFlags::IN_ROOT | rustix::fs::ResolveFlags::NO_SYMLINKS;
        let parent = rustix::fs::openat2(upper, dir, flags, Mode::empty(), resolve);
        let parent = match parent {
            Ok(parent) => parent,
            // Removed meanwhile, by a container that is not paused.
            Err(rustix::io::Errno::NOENT) => continue,
            Err(e) => {
                return Err(PackError::Read {
                    path: octets(&change.path),
                    source: e.into(),
                });
            }
        };
        packer.entry(parent.as_fd(), name, &change.path)?;
    }
    packer.finish()
}

/// Bytes of the files of a tree, each counted once whatever its names.
pub fn size(dir: &OwnedFd) -> Result<u64, LayerError> {
    let mut seen = std::collections::HashSet::new();
    let mut total = 0;
    size_of(dir, &mut seen, &mut total, 0)?;
    Ok(total)
}

fn size_of(
    dir: &OwnedFd,
    seen: &mut std::collections::HashSet<u64>,
    total: &mut u64,
    depth: usize,
) -> Result<(), LayerError> {
    if depth > MAX_DEPTH {
        return Ok(());
    }
    for name in sorted(dir).map_err(LayerError::place("read", b""))? {
        // What vanishes meanwhile counts for nothing.
        let Ok(Some(stat)) = look(dir.as_fd(), &name) else {
            continue;
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                if let Ok(inner) = openat(dir, &*name, flags, Mode::empty()) {
                    size_of(&inner, seen, total, depth + 1)?;
                }
            }
            _ if stat.st_nlink > 1 && !seen.insert(stat.st_ino) => {}
            _ => *total += u64::try_from(stat.st_size).unwrap_or(0),
        }
    }
    Ok(())
}
