//! The merged view of the layers below one that is being applied: what overlayfs will show of them. Only reads.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, fgetxattr, openat, readlinkat, statat,
};
use rustix::io::Errno;

use super::LayerError;
use super::numbers::octets;
use super::tree::{OPAQUE, is_whiteout, names};

const MAX_SYMLINKS: usize = 40;

/// One directory of the view: the directories of single layers that make it up, the uppermost first.
type Merged = Vec<Rc<OwnedFd>>;

pub enum Found {
    /// The open directory whose metadata count, and its merged parts.
    Directory(Rc<OwnedFd>, Stat),
    /// Anything else, by name in an open directory.
    Other {
        parent: Rc<OwnedFd>,
        name: Vec<u8>,
        stat: Stat,
    },
}

enum Step {
    Nothing,
    Directory(Merged, Stat),
    Other(Rc<OwnedFd>, Stat),
}

pub struct Below {
    roots: Merged,
}

impl Below {
    /// `layers` are the roots of the layers, the uppermost first.
    pub fn new(layers: &[BorrowedFd<'_>]) -> Result<Below, LayerError> {
        let roots: Result<Merged, _> = layers
            .iter()
            .map(|fd| fd.try_clone_to_owned().map(Rc::new))
            .collect();
        Ok(Below {
            roots: roots.map_err(LayerError::place("open the layer below", b""))?,
        })
    }

    /// What is at `path`; symlinks on the way are followed inside the view, the last name is not.
    pub fn find(&self, path: &[u8]) -> Result<Option<Found>, LayerError> {
        let mut stack: Vec<Merged> = vec![self.roots.clone()];
        let mut todo = names(path);
        let mut symlinks = 0;
        let mut top_stat = None;
        while let Some(name) = todo.pop_front() {
            if name == b".." {
                if stack.len() > 1 {
                    stack.pop();
                }
                continue;
            }
            let here = stack.last().map_or(&[][..], Vec::as_slice);
            match step(here, &name, path)? {
                Step::Nothing => return Ok(None),
                Step::Directory(merged, stat) => {
                    top_stat = Some(stat);
                    stack.push(merged);
                }
                Step::Other(parent, stat) if todo.is_empty() => {
                    return Ok(Some(Found::Other { parent, name, stat }));
                }
                Step::Other(parent, stat) => {
                    symlinks += 1;
                    let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
                    if !is_link || symlinks > MAX_SYMLINKS {
                        return Ok(None);
                    }
                    let target = readlinkat(&*parent, &*name, Vec::new())
                        .map_err(LayerError::place("read link below", path))?;
                    if target.as_bytes().starts_with(b"/") {
                        stack.truncate(1);
                    }
                    for name in names(target.as_bytes()).into_iter().rev() {
                        todo.push_front(name);
                    }
                }
            }
        }
        let Some(top) = stack.last().and_then(|merged| merged.first()) else {
            return Ok(None);
        };
        let stat = match (stack.len(), top_stat) {
            (2.., Some(stat)) => stat,
            _ => rustix::fs::fstat(&**top).map_err(LayerError::place("look up below", path))?,
        };
        Ok(Some(Found::Directory(top.clone(), stat)))
    }

    /// All names in the root of the view.
    pub fn root_names(&self) -> Result<BTreeSet<Vec<u8>>, LayerError> {
        shown_names(&self.roots)
    }

    /// All names in a directory of the view, by a path without symlinks; none if it is no directory.
    pub fn names_at(&self, path: &[u8]) -> Result<BTreeSet<Vec<u8>>, LayerError> {
        let mut here = self.roots.clone();
        for name in names(path) {
            match step(&here, &name, path)? {
                Step::Directory(merged, _) => here = merged,
                Step::Nothing | Step::Other(..) => return Ok(BTreeSet::new()),
            }
        }
        shown_names(&here)
    }
}

fn shown_names(dirs: &[Rc<OwnedFd>]) -> Result<BTreeSet<Vec<u8>>, LayerError> {
    let mut all = BTreeSet::new();
    for dir in dirs {
        for entry in Dir::read_from(&**dir).map_err(LayerError::place("read below", b""))? {
            let entry = entry.map_err(LayerError::place("read below", b""))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                all.insert(name.to_vec());
            }
        }
    }
    let mut shown = BTreeSet::new();
    for name in all {
        if !matches!(step(dirs, &name, &name)?, Step::Nothing) {
            shown.insert(name);
        }
    }
    Ok(shown)
}

/// Looks one name up in a merged directory, as overlayfs does.
fn step(here: &[Rc<OwnedFd>], name: &[u8], path: &[u8]) -> Result<Step, LayerError> {
    let mut merged: Option<(Merged, Stat)> = None;
    for dir in here {
        let stat = match statat(&**dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT | Errno::NAMETOOLONG) => continue,
            Err(e) => return Err(LayerError::place("look up below", path)(e)),
        };
        if is_whiteout(&stat) {
            break;
        }
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            if merged.is_none() {
                return Ok(Step::Other(dir.clone(), stat));
            }
            break;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&**dir, name, flags, Mode::empty())
            .map_err(LayerError::place("open below", path))?;
        let opaque = is_opaque(fd.as_fd());
        merged
            .get_or_insert_with(|| (Vec::new(), stat))
            .0
            .push(Rc::new(fd));
        if opaque {
            break;
        }
    }
    Ok(merged.map_or(Step::Nothing, |(dirs, stat)| Step::Directory(dirs, stat)))
}

pub fn is_opaque(dir: BorrowedFd<'_>) -> bool {
    let mut value = [0; 1];
    fgetxattr(dir, OPAQUE, &mut value[..]).is_ok_and(|n| n == 1) && value == *b"y"
}

/// For an error about a path below.
pub fn shown(path: &[u8]) -> String {
    format!("/{}", octets(path))
}
