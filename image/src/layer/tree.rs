//! A directory tree under construction: resolves paths inside its root, and makes and removes single names.
//!
//! Every directory is reached by `openat2(2)` with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS, or from such a directory by
//! a single name that is not followed. So no symlink and no `..` of a layer leads out, whoever races.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags, fsetxattr, mkdirat, mknodat,
    openat, openat2, readlinkat, statat, unlinkat,
};
use rustix::io::Errno;

use super::LayerError;
use super::numbers::octets;
use crate::staging::remove_tree;

/// As many symlinks as the kernel follows in one path (path_resolution(7)).
const MAX_SYMLINKS: usize = 40;
const MAX_DEPTH: usize = 1024;

pub const OPAQUE: &str = "trusted.overlay.opaque";

/// A directory inside the tree: open, and its path from the root without symlinks.
#[derive(Clone)]
pub struct Directory {
    pub path: Vec<u8>,
    pub fd: Rc<OwnedFd>,
}

impl Directory {
    /// The path of a name in it.
    pub fn join(&self, name: &[u8]) -> Vec<u8> {
        join(&self.path, name)
    }

    pub fn stat(&self, name: &[u8]) -> Result<Option<Stat>, LayerError> {
        match statat(&*self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(LayerError::place("look up", &self.join(name))(e)),
        }
    }
}

/// What a walk does to the tree where it finds nothing, or a whiteout.
pub enum Missing<'a> {
    /// Ends the walk without a result.
    Stop,
    /// Makes a directory and tells of it.
    Make(&'a mut dyn FnMut(Made)),
}

/// A directory that a walk had to make.
pub enum Made {
    /// The layer left it out: its metadata are the lower layer's.
    Implicit(Vec<u8>),
    /// It takes the place of a whiteout: the lower layer's is gone.
    OverWhiteout(Vec<u8>),
}

pub fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() {
        return name.to_vec();
    }
    [dir, b"/", name].concat()
}

/// Splits a path into its directory and its last name.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

pub fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

pub fn set_opaque(dir: BorrowedFd<'_>, path: &[u8]) -> Result<(), LayerError> {
    fsetxattr(dir, OPAQUE, b"y", XattrFlags::empty())
        .map_err(LayerError::place("mark as opaque", path))
}

pub struct Tree {
    root: Directory,
    /// The directory that the last walk found, under the path that was asked for: tars are sorted by directory.
    last: Option<(Vec<u8>, Directory)>,
}

impl Tree {
    pub fn new(root: &OwnedFd) -> Result<Tree, LayerError> {
        let fd = root.try_clone().map_err(LayerError::place("open", b""))?;
        Ok(Tree {
            root: Directory {
                path: Vec::new(),
                fd: Rc::new(fd),
            },
            last: None,
        })
    }

    pub fn root(&self) -> &Directory {
        &self.root
    }

    /// The directory at `path`, through the tree's own symlinks. `None` only if it is missing and `missing` says stop.
    pub fn directory(
        &mut self,
        path: &[u8],
        missing: Missing<'_>,
    ) -> Result<Option<Directory>, LayerError> {
        if path.is_empty() {
            return Ok(Some(self.root.clone()));
        }
        if let Some((asked, directory)) = &self.last
            && asked == path
        {
            return Ok(Some(directory.clone()));
        }
        let found = match self.open(path) {
            Ok(fd) => Some(Directory {
                path: path.to_vec(),
                fd: Rc::new(fd),
            }),
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => self.walk(path, missing)?,
            Err(e) => return Err(LayerError::place("open", path)(e)),
        };
        if let Some(directory) = &found {
            self.last = Some((path.to_vec(), directory.clone()));
        }
        Ok(found)
    }

    /// Opens a directory by a path without symlinks.
    pub fn open(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        openat2(
            &*self.root.fd,
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS,
        )
    }

    /// One name after the other, as the kernel would with the tree as its root, making what is missing.
    fn walk(
        &mut self,
        path: &[u8],
        mut missing: Missing<'_>,
    ) -> Result<Option<Directory>, LayerError> {
        let mut here = self.root.clone();
        let mut todo: VecDeque<Vec<u8>> = names(path);
        let mut symlinks = 0;
        let mut depth = 0;
        while let Some(name) = todo.pop_front() {
            if name == b".." {
                here = self.above(&here)?;
                continue;
            }
            depth += 1;
            if depth > MAX_DEPTH {
                return Err(LayerError::refused(octets(path), "it is nested too deeply"));
            }
            let stat = here.stat(&name)?;
            match stat
                .as_ref()
                .map(|s| (s, FileType::from_raw_mode(s.st_mode)))
            {
                Some((_, FileType::Directory)) => here = enter(&here, &name)?,
                Some((_, FileType::Symlink)) => {
                    symlinks += 1;
                    if symlinks > MAX_SYMLINKS {
                        return Err(LayerError::refused(octets(path), "too many symbolic links"));
                    }
                    let target = readlinkat(&*here.fd, &*name, Vec::new())
                        .map_err(LayerError::place("read link", &here.join(&name)))?;
                    if target.as_bytes().starts_with(b"/") {
                        here = self.root.clone();
                    }
                    for name in names(target.as_bytes()).into_iter().rev() {
                        todo.push_front(name);
                    }
                }
                Some((stat, _)) if !is_whiteout(stat) => {
                    let why = format!("/{} is not a directory", octets(&here.join(&name)));
                    return Err(LayerError::refused(octets(path), why));
                }
                whiteout_or_nothing => {
                    let over_whiteout = whiteout_or_nothing.is_some();
                    let Missing::Make(tell) = &mut missing else {
                        return Ok(None);
                    };
                    if over_whiteout {
                        unlinkat(&*here.fd, &*name, AtFlags::empty())
                            .map_err(LayerError::place("replace", &here.join(&name)))?;
                    }
                    mkdirat(&*here.fd, &*name, Mode::from_raw_mode(0o755))
                        .map_err(LayerError::place("create directory", &here.join(&name)))?;
                    here = enter(&here, &name)?;
                    if over_whiteout {
                        set_opaque(here.fd.as_fd(), &here.path)?;
                        tell(Made::OverWhiteout(here.path.clone()));
                    } else {
                        tell(Made::Implicit(here.path.clone()));
                    }
                }
            }
        }
        Ok(Some(here))
    }

    fn above(&self, here: &Directory) -> Result<Directory, LayerError> {
        let path = split(&here.path).0.to_vec();
        let fd = self.open(&path).map_err(LayerError::place("open", &path))?;
        Ok(Directory {
            path,
            fd: Rc::new(fd),
        })
    }

    /// The tree has been changed past it.
    pub fn forget(&mut self) {
        self.last = None;
    }

    /// Deletes a name with all below it.
    pub fn remove(&mut self, parent: &Directory, name: &[u8]) -> Result<(), LayerError> {
        self.forget();
        remove_tree(parent.fd.as_fd(), name)
            .map_err(LayerError::place("replace", &parent.join(name)))
    }

    pub fn whiteout(&self, parent: &Directory, name: &[u8]) -> Result<(), LayerError> {
        mknodat(
            &*parent.fd,
            name,
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        )
        .map_err(LayerError::place("create whiteout", &parent.join(name)))
    }
}

/// Opens a directory by its name; a symlink is not followed.
pub fn enter(parent: &Directory, name: &[u8]) -> Result<Directory, LayerError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(&*parent.fd, name, flags, Mode::empty())
        .map_err(LayerError::place("open", &parent.join(name)))?;
    Ok(Directory {
        path: parent.join(name),
        fd: Rc::new(fd),
    })
}

pub fn names(path: &[u8]) -> VecDeque<Vec<u8>> {
    path.split(|&b| b == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(<[u8]>::to_vec)
        .collect()
}
