//! The end of a layer: what it takes from the layers below, and the default ACLs and times of its directories.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, SeekFrom, Stat, mknodat, openat, seek, symlinkat};
use rustix::io::Errno;

use super::LayerError;
use super::apply::{Applied, create_file, make_link, parent};
use super::below::{Below, Found, is_opaque, shown};
use super::metadata::{Metadata, set_default_acl, set_time};
use super::numbers::octets;
use super::tree::{Directory, Missing, Tree, enter, is_directory, is_whiteout, set_opaque, split};

/// A layer that is complete.
pub(crate) struct Finished {
    /// Bytes of its files.
    pub size: u64,
    /// Files whose content comes from the layers below.
    pub copied: Vec<Vec<u8>>,
    /// The directories that have a time and a mode of the tar or of the layers below; those of others mean nothing.
    pub settled: BTreeSet<Vec<u8>>,
}

impl Applied {
    /// Settles what depends on the layers below, the uppermost first, and then the times of directories.
    /// Returns the bytes of this layer's files.
    pub fn finish(self, root: &OwnedFd, below: &[BorrowedFd<'_>]) -> Result<u64, LayerError> {
        self.finish_and_tell(root, below)
            .map(|finished| finished.size)
    }

    pub(crate) fn finish_and_tell(
        mut self,
        root: &OwnedFd,
        below: &[BorrowedFd<'_>],
    ) -> Result<Finished, LayerError> {
        let mut tree = Tree::new(root)?;
        let below = Below::new(below)?;
        let mut links: Vec<_> = std::mem::take(&mut self.links).into_iter().collect();
        links.sort_by_key(|(_, (order, _))| *order);
        for (path, (_, target)) in links {
            self.link_below(&mut tree, &below, &path, &target)?;
        }
        for path in std::mem::take(&mut self.hidden).into_keys() {
            unhide(&mut tree, &below, &path)?;
        }
        if self.root_is_opaque {
            self.hide_root(&tree, &below)?;
        }
        // Parents sort before what is in them.
        for path in std::mem::take(&mut self.implicit).into_keys() {
            let Some(Found::Directory(lower, stat)) = below.find(&path)? else {
                continue;
            };
            let metadata = Metadata::of_file(lower.as_fd(), &stat, &path)?;
            let dir = tree.open(&path).map_err(LayerError::place("open", &path))?;
            metadata.set(dir.as_fd(), &path)?;
            self.times.insert(path, metadata.mtime);
        }
        for (path, acl) in &self.default_acls {
            let dir = tree.open(path).map_err(LayerError::place("open", path))?;
            set_default_acl(dir.as_fd(), acl, path)?;
        }
        for (path, time) in &self.times {
            let dir = tree.open(path).map_err(LayerError::place("open", path))?;
            set_time(dir.as_fd(), *time, path)?;
        }
        Ok(Finished {
            size: self.size,
            copied: self.copied,
            settled: self.times.into_keys().collect(),
        })
    }

    /// A hard link to a lower layer's file: that file is copied up, as link(2) does on overlayfs.
    fn link_below(
        &mut self,
        tree: &mut Tree,
        below: &Below,
        path: &[u8],
        target: &[u8],
    ) -> Result<(), LayerError> {
        let (target_dir, target_name) = split(target);
        let (dir, name) = split(path);
        let present = match tree.directory(target_dir, Missing::Stop)? {
            Some(dir) => dir.stat(target_name)?,
            None => None,
        };
        let from = match present {
            Some(stat) if is_whiteout(&stat) => {
                return Err(missing_target(path, target));
            }
            Some(_) => parent(tree, self, target_dir)?,
            None => match below.find(target)? {
                Some(Found::Other {
                    parent: lower,
                    name,
                    stat,
                }) => {
                    let dir = parent(tree, self, target_dir)?;
                    self.size += copy_up(&lower, &name, &stat, &dir, target_name)?;
                    self.copied.push(dir.join(target_name));
                    dir
                }
                Some(Found::Directory(..)) => {
                    return Err(LayerError::refused(
                        octets(path),
                        "a hard link to a directory",
                    ));
                }
                None => return Err(missing_target(path, target)),
            },
        };
        let to = parent(tree, self, dir)?;
        make_link(&from, target_name, &to, name)
    }

    /// An opaque root: every name of the lower roots is hidden by itself.
    fn hide_root(&mut self, tree: &Tree, below: &Below) -> Result<(), LayerError> {
        let root = tree.root();
        for name in below.root_names()? {
            match root.stat(&name)? {
                None => tree.whiteout(root, &name)?,
                Some(stat) if is_directory(&stat) => {
                    self.implicit.remove(&name);
                    set_opaque(enter(root, &name)?.fd.as_fd(), &name)?;
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// Takes away a whiteout that hides nothing. Where a directory is this layer's alone, overlayfs shows the names of whiteouts in it.
fn unhide(tree: &mut Tree, below: &Below, path: &[u8]) -> Result<(), LayerError> {
    let (above, name) = split(path);
    let Some(parent) = tree.directory(above, Missing::Stop)? else {
        return Ok(());
    };
    if !parent.stat(name)?.as_ref().is_some_and(is_whiteout) {
        return Ok(());
    }
    let mut alone = false;
    for end in (0..path.len()).filter(|&at| path[at] == b'/') {
        let dir = tree.open(&path[..end]);
        let dir = dir.map_err(LayerError::place("open", &path[..end]))?;
        alone = alone || is_opaque(dir.as_fd());
    }
    if alone || below.find(path)?.is_none() {
        tree.remove(&parent, name)?;
    }
    Ok(())
}

fn missing_target(path: &[u8], target: &[u8]) -> LayerError {
    let why = format!("its hard link target {} is in no layer", shown(target));
    LayerError::refused(octets(path), why)
}

/// Copies a lower layer's file with its metadata; returns its size.
fn copy_up(
    lower: &OwnedFd,
    from: &[u8],
    stat: &Stat,
    dir: &Directory,
    name: &[u8],
) -> Result<u64, LayerError> {
    let path = dir.join(name);
    let metadata = Metadata::of_stat(stat);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let source = openat(lower, from, flags, Mode::empty())
                .map_err(LayerError::place("open below", &path))?;
            let metadata = Metadata::of_file(source.as_fd(), stat, &path)?;
            let mut file = create_file(dir, name)?;
            let size = copy_data(&File::from(source), &mut file)
                .map_err(LayerError::place("copy from below", &path))?;
            metadata.set_with_time(file.as_fd(), &path)?;
            Ok(size)
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(lower, from, Vec::new())
                .map_err(LayerError::place("read link below", &path))?;
            symlinkat(&*target, &*dir.fd, name)
                .map_err(LayerError::place("create symbolic link", &path))?;
            let size = target.as_bytes().len() as u64;
            metadata.set_by_name(dir, name, false).map(|()| size)
        }
        kind => {
            mknodat(
                &*dir.fd,
                name,
                kind,
                Mode::from_raw_mode(0o600),
                stat.st_rdev,
            )
            .map_err(LayerError::place("create device or FIFO", &path))?;
            metadata.set_by_name(dir, name, true).map(|()| 0)
        }
    }
}

/// Copies a file, but not its holes: of those a small layer may have a thousand gigabytes.
fn copy_data(mut from: &File, to: &mut File) -> io::Result<u64> {
    let size = from.metadata()?.len();
    let mut end = 0;
    loop {
        let start = match seek(from, SeekFrom::Data(end)) {
            Ok(start) => start,
            // No data from there on.
            Err(Errno::NXIO) => break,
            Err(e) => return Err(e.into()),
        };
        end = seek(from, SeekFrom::Hole(start))?;
        seek(from, SeekFrom::Start(start))?;
        seek(&*to, SeekFrom::Start(start))?;
        io::copy(&mut (&mut from).take(end - start), to)?;
    }
    to.set_len(size)?;
    Ok(size)
}
