//! Unpacks a tar into a tree that is there already and that somebody else may be changing: `cp` into a container, and out of
//! one onto the host.
//!
//! The tar may be hostile and so may the tree. Every directory is reached by a descriptor (`tree.rs`), and each name in it is
//! made, removed and changed without following symlinks.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid, chmodat, chownat, fchown, fstat, makedev,
    mkdirat, mknodat, openat, symlinkat,
};
use rustix::io::Errno;

use super::apply::{clean, create_file, make_link};
use super::entry::{Entries, Entry, Kind, Time};
use super::metadata::{Metadata, set_time, set_time_by_name};
use super::numbers::octets;
use super::tree::{Directory, Missing, Tree, enter, is_directory, join};
use super::{LayerError, Limits};

/// Whom what is unpacked belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Whom the tar says.
    Kept,
    /// Whoever unpacks.
    Caller,
    Fixed {
        uid: u32,
        gid: u32,
    },
}

/// What a symlink on an entry's way means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symlinks {
    /// The tree is a root filesystem: they are followed in it.
    Inside,
    /// No tar of ours goes through one.
    Refused,
}

#[derive(Clone, Copy, Debug)]
pub struct Unpacking {
    pub owner: Owner,
    pub symlinks: Symlinks,
}

/// Blocks of zeros become holes in this size.
const HOLE: usize = 4096;

struct Unpacker<R> {
    tree: Tree,
    entries: Entries<R>,
    options: Unpacking,
    buffer: Vec<u8>,
    /// Set when nothing changes in the directories any more.
    times: Vec<(Vec<u8>, Time)>,
}

/// Unpacks into the directory `start` (a path from `root` without symlinks). What is in the way of a file is replaced,
/// but a directory is neither replaced by a file nor a file by a directory.
pub fn unpack<R: Read>(
    root: &OwnedFd,
    start: &[u8],
    tar: R,
    options: Unpacking,
) -> Result<(), LayerError> {
    let mut unpacker = Unpacker {
        tree: Tree::new(root)?,
        entries: Entries::new(
            tar,
            Limits {
                tar: u64::MAX,
                ..Limits::default()
            },
        ),
        options,
        buffer: vec![0; 256 << 10],
        times: Vec::new(),
    };
    while let Some(entry) = unpacker.entries.next()? {
        unpacker.entry(&entry, start)?;
    }
    for (path, time) in unpacker.times.iter().rev() {
        // Gone or replaced meanwhile: then its time is not ours to set.
        if let Ok(dir) = unpacker.tree.open(path) {
            set_time(dir.as_fd(), *time, path)?;
        }
    }
    Ok(())
}

impl<R: Read> Unpacker<R> {
    fn entry(&mut self, entry: &Entry, start: &[u8]) -> Result<(), LayerError> {
        let parts = clean(&entry.path)?;
        // The destination itself stays as it is, as in Docker.
        let Some((name, above)) = parts.split_last() else {
            return Ok(());
        };
        let parent = self.directory(&join(start, &above.join(&b'/')))?;
        let path = parent.join(name);
        let existing = parent.stat(name)?;
        if let Some(stat) = &existing {
            self.check(stat, entry, &path)?;
        }
        match entry.kind {
            Kind::Directory => self.make_directory(&parent, name, existing.is_some(), entry),
            Kind::HardLink => self.link(&parent, name, existing, start, entry),
            _ => {
                self.clear(&parent, name, existing)?;
                self.other(&parent, name, &path, entry)
            }
        }
    }

    /// Docker's two refusals.
    fn check(&self, stat: &Stat, entry: &Entry, path: &[u8]) -> Result<(), LayerError> {
        let (what, with) = match (is_directory(stat), entry.kind == Kind::Directory) {
            (true, false) => ("directory", "non-directory"),
            (false, true) => ("non-directory", "directory"),
            _ => return Ok(()),
        };
        Err(LayerError::InTheWay {
            what,
            path: format!("/{}", octets(path)),
            with,
            entry: octets(&entry.path),
        })
    }

    fn directory(&mut self, path: &[u8]) -> Result<Directory, LayerError> {
        if self.options.symlinks == Symlinks::Inside {
            let made = self.tree.directory(path, Missing::Make(&mut |_| {}))?;
            return made.ok_or_else(|| LayerError::refused(octets(path), "it has no directory"));
        }
        let mut here = self.tree.root().clone();
        for name in super::tree::names(path) {
            match mkdirat(&*here.fd, &*name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(LayerError::place("create directory", &here.join(&name))(e)),
            }
            here = enter(&here, &name)?;
        }
        Ok(here)
    }

    fn clear(
        &mut self,
        parent: &Directory,
        name: &[u8],
        existing: Option<Stat>,
    ) -> Result<(), LayerError> {
        match existing {
            Some(_) => self.tree.remove(parent, name),
            None => Ok(()),
        }
    }

    fn make_directory(
        &mut self,
        parent: &Directory,
        name: &[u8],
        is_there: bool,
        entry: &Entry,
    ) -> Result<(), LayerError> {
        if !is_there {
            mkdirat(&*parent.fd, name, Mode::from_raw_mode(0o700))
                .map_err(LayerError::place("create directory", &parent.join(name)))?;
        }
        let dir = enter(parent, name)?;
        self.settle(&dir.fd, entry, &dir.path)?;
        self.times.push((dir.path, entry.mtime));
        Ok(())
    }

    fn link(
        &mut self,
        parent: &Directory,
        name: &[u8],
        existing: Option<Stat>,
        start: &[u8],
        entry: &Entry,
    ) -> Result<(), LayerError> {
        let target = clean(&entry.link)?;
        let Some((last, above)) = target.split_last() else {
            let why = "a hard link to the root";
            return Err(LayerError::refused(octets(&entry.path), why));
        };
        let from = self.directory(&join(start, &above.join(&b'/')))?;
        if from.join(last) == parent.join(name) {
            let why = "a hard link to itself";
            return Err(LayerError::refused(octets(&entry.path), why));
        }
        self.clear(parent, name, existing)?;
        make_link(&from, last, parent, name)
    }

    /// Files, symlinks, FIFOs and devices.
    fn other(
        &mut self,
        parent: &Directory,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
    ) -> Result<(), LayerError> {
        let (kind, device) = match entry.kind {
            Kind::File => {
                let file = create_file(parent, name)?;
                self.copy_data(&file, entry, path)?;
                self.settle(&file, entry, path)?;
                return set_time(file.as_fd(), entry.mtime, path);
            }
            Kind::Symlink => {
                if entry.link.is_empty() || entry.link.contains(&0) {
                    return Err(LayerError::refused(
                        octets(path),
                        "a symbolic link to nothing",
                    ));
                }
                symlinkat(&*entry.link, &*parent.fd, name)
                    .map_err(LayerError::place("create symbolic link", path))?;
                return self.settle_by_name(parent, name, entry);
            }
            Kind::Char(major, minor) => (FileType::CharacterDevice, makedev(major, minor)),
            Kind::Block(major, minor) => (FileType::BlockDevice, makedev(major, minor)),
            Kind::Fifo | Kind::Directory | Kind::HardLink => (FileType::Fifo, 0),
        };
        mknodat(&*parent.fd, name, kind, Mode::from_raw_mode(0o600), device)
            .map_err(LayerError::place("create device or FIFO", path))?;
        self.settle_by_name(parent, name, entry)
    }

    /// What is zero becomes a hole: nobody can tell but by the blocks.
    fn copy_data(&mut self, mut file: &File, entry: &Entry, path: &[u8]) -> Result<(), LayerError> {
        let write = |result: std::io::Result<()>| result.map_err(LayerError::place("write", path));
        let whole = [(0, entry.size)];
        let pieces = entry.pieces.as_deref().unwrap_or(&whole);
        for &(offset, mut left) in pieces {
            write(file.seek(SeekFrom::Start(offset)).map(drop))?;
            while left > 0 {
                let most = self
                    .buffer
                    .len()
                    .min(usize::try_from(left).unwrap_or(usize::MAX));
                let n = self.entries.read_data(&mut self.buffer[..most])?;
                if n == 0 {
                    return Err(LayerError::malformed("it ends in the middle of a file"));
                }
                for block in self.buffer[..n].chunks(HOLE) {
                    match block.iter().all(|&byte| byte == 0) {
                        true => write(file.seek_relative(block.len() as i64))?,
                        false => write(file.write_all(block))?,
                    }
                }
                left -= n as u64;
            }
        }
        write(file.set_len(entry.size))
    }

    fn ids(&self, entry: &Entry) -> Option<(Option<Uid>, Option<Gid>)> {
        let (uid, gid) = match self.options.owner {
            Owner::Kept => (entry.uid, entry.gid),
            Owner::Fixed { uid, gid } => (uid, gid),
            Owner::Caller => return None,
        };
        Some((Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))))
    }

    /// In this order: chown(2) clears set-user-ID bits and file capabilities.
    fn settle(&self, fd: &impl AsFd, entry: &Entry, path: &[u8]) -> Result<(), LayerError> {
        if let Some((uid, gid)) = self.ids(entry) {
            fchown(fd, uid, gid).map_err(LayerError::place("change the owner of", path))?;
        }
        Metadata::of_entry(entry).set_but_owner(fd.as_fd(), path)
    }

    fn settle_by_name(
        &self,
        parent: &Directory,
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), LayerError> {
        let path = parent.join(name);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(&*parent.fd, name, flags, Mode::empty())
            .map_err(LayerError::place("open", &path))?;
        if let Some((uid, gid)) = self.ids(entry) {
            chownat(&made, "", uid, gid, AtFlags::EMPTY_PATH)
                .map_err(LayerError::place("change the owner of", &path))?;
        }
        let stat = fstat(&made).map_err(LayerError::place("look up", &path))?;
        // Somebody may have put a symlink there meanwhile: through the descriptor it would not be followed, nor has it a mode.
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            let by_descriptor = format!("/proc/self/fd/{}", made.as_raw_fd());
            chmodat(
                CWD,
                by_descriptor,
                Mode::from_raw_mode(entry.mode),
                AtFlags::empty(),
            )
            .map_err(LayerError::place("change the mode of", &path))?;
        }
        set_time_by_name(parent, name, entry.mtime)
    }
}
