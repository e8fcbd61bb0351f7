//! Copies what an image has at a mount target into a new volume, as it is: owners, modes, times, extended attributes,
//! links and devices.
//!
//! Every step goes by directory descriptors and never follows a symlink: the image is not trusted, and neither is a
//! volume that another container may be writing to.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;

use crate::bundle::inside::{Inside, by_descriptor};
use crate::error::Error;

/// Stands beside the data while it is being filled: a copy that was cut off is made again, and nothing that a container
/// has written is ever taken for one.
const MARK: &str = "populating";

/// Fills an empty volume with what the root filesystem has at `target`, and gives it that directory's owner and mode.
/// A volume with content stays as it is, unless a copy into it was cut off: that one is made again from the start.
pub fn populate(rootfs: &Path, target: &str, data: &Path) -> Result<(), Error> {
    fill(rootfs, target, data).map_err(|source| Error::FileSystem {
        operation: "copy the image's content to the volume",
        path: data.to_owned(),
        source,
    })
}

/// Whether a copy into this volume was cut off: then it is not empty, and is filled again.
pub fn is_cut_off(data: &Path) -> bool {
    data.parent().unwrap_or(data).join(MARK).exists()
}

fn fill(rootfs: &Path, target: &str, data: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let source = match Inside::new(rootfs)?.open(Path::new(target), flags) {
        Ok(source) => source,
        Err(error) => {
            use io::ErrorKind::{NotADirectory, NotFound};
            return match error.kind() {
                NotFound | NotADirectory => Ok(()),
                _ => Err(error),
            };
        }
    };
    let mark = data.parent().unwrap_or(data).join(MARK);
    let cut_off = mark.exists();
    if !cut_off && std::fs::read_dir(data)?.next().is_some() {
        return Ok(());
    }
    File::create(&mark)?;
    let root = open_directory(rustix::fs::CWD, data)?;
    let mut copy = Copy {
        root,
        links: HashMap::new(),
    };
    let destination = copy.root.try_clone()?;
    copy.directory(&source, &destination, Path::new(""))?;
    std::fs::remove_file(&mark)
}

fn open_directory(at: impl AsFd, path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, path, flags, Mode::empty())
}

struct Copy {
    /// The volume's data directory.
    root: OwnedFd,
    /// Files with several names that have been copied: (device, inode) and their first name below `root`.
    links: HashMap<(u64, u64), PathBuf>,
}

impl Copy {
    /// The entries first and the directory's own metadata last: entries change its time, and its mode may forbid them.
    fn directory(&mut self, from: &OwnedFd, to: &OwnedFd, path: &Path) -> io::Result<()> {
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                use std::os::unix::ffi::OsStrExt;
                let below = path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
                self.entry(from, to, name, &below)?;
            }
        }
        let stat = rustix::fs::fstat(from)?;
        metadata(from, to, &stat)
    }

    fn entry(&mut self, from: &OwnedFd, to: &OwnedFd, name: &CStr, path: &Path) -> io::Result<()> {
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            let source = open_directory(from, name)?;
            match rustix::fs::mkdirat(to, name, Mode::RWXU) {
                // Left by a copy that was cut off.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let destination = open_directory(to, name)?;
            return self.directory(&source, &destination, path);
        }
        match rustix::fs::unlinkat(to, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                return link(&self.root, first, to, name);
            }
            self.links
                .insert((stat.st_dev, stat.st_ino), path.to_owned());
        }
        match kind {
            FileType::RegularFile => regular(from, to, name),
            FileType::Symlink => symlink(from, to, name, &stat),
            _ => special(to, name, kind, &stat),
        }
    }
}

/// Another container may have put a symlink in place of a directory on the way to the first name: a link to a file of the host
/// would be in its hands.
fn link(root: &OwnedFd, first: &Path, to: &OwnedFd, name: &CStr) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = match first.parent() {
        Some(above) if above != Path::new("") => above,
        _ => Path::new("."),
    };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let above = rustix::fs::openat2(root, above, flags, Mode::empty(), resolve)?;
    let last = first.file_name().unwrap_or_default();
    Ok(rustix::fs::linkat(
        &above,
        last,
        to,
        name,
        AtFlags::empty(),
    )?)
}

fn regular(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = File::from(rustix::fs::openat(from, name, flags, Mode::empty())?);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let destination = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
    let mut destination = File::from(destination);
    // copy_file_range(2) where the file systems can share blocks.
    io::copy(&mut &source, &mut destination)?;
    let stat = rustix::fs::fstat(&source)?;
    metadata(&source, &destination, &stat)
}

fn symlink(from: &OwnedFd, to: &OwnedFd, name: &CStr, stat: &Stat) -> io::Result<()> {
    let target = rustix::fs::readlinkat(from, name, Vec::new())?;
    rustix::fs::symlinkat(target, to, name)?;
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(to, name, Some(owner(stat)), Some(group(stat)), nofollow)?;
    Ok(rustix::fs::utimensat(to, name, &times(stat), nofollow)?)
}

/// FIFOs, sockets and device nodes. The volume is mounted in containers, whose cgroup decides what they may open.
fn special(to: &OwnedFd, name: &CStr, kind: FileType, stat: &Stat) -> io::Result<()> {
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    rustix::fs::mknodat(to, name, kind, Mode::empty(), stat.st_rdev)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(to, name, flags, Mode::empty())?;
    // fchmodat(2) follows symlinks. Another container may have put one here meanwhile, which would give a file of the host this
    // mode, or a program of its own, which would get this owner.
    let found = rustix::fs::fstat(&made)?;
    if FileType::from_raw_mode(found.st_mode) != kind || found.st_rdev != stat.st_rdev {
        return Err(io::Error::other("somebody has replaced what was made"));
    }
    let path = by_descriptor(made.as_fd());
    rustix::fs::chown(&path, Some(owner(stat)), Some(group(stat)))?;
    rustix::fs::chmod(&path, mode)?;
    let follow = AtFlags::empty();
    Ok(rustix::fs::utimensat(
        rustix::fs::CWD,
        &path,
        &times(stat),
        follow,
    )?)
}

/// In this order: chown(2) clears set-user-ID bits and file capabilities, and everything sets the times.
fn metadata(from: impl AsFd, to: impl AsFd, stat: &Stat) -> io::Result<()> {
    rustix::fs::fchown(&to, Some(owner(stat)), Some(group(stat)))?;
    rustix::fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    attributes(&from, &to)?;
    Ok(rustix::fs::futimens(&to, &times(stat))?)
}

/// Overlayfs's own attributes mean something about layers, and nothing about the file.
const NOT_COPIED: &[&[u8]] = &[b"trusted.overlay.", b"user.overlay."];

fn attributes(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    for name in attribute_names(&from)? {
        if NOT_COPIED
            .iter()
            .any(|prefix| name.to_bytes().starts_with(prefix))
        {
            continue;
        }
        let length = rustix::fs::fgetxattr_query(&from, name.as_c_str())?;
        let mut value = vec![0; length];
        let got = rustix::fs::fgetxattr(&from, name.as_c_str(), value.as_mut_slice())?;
        value.truncate(got);
        match rustix::fs::fsetxattr(&to, name.as_c_str(), &value, XattrFlags::empty()) {
            // The volume's file system has no such attributes, or another security module than the image's.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn attribute_names(from: impl AsFd) -> io::Result<Vec<CString>> {
    let length = match rustix::fs::flistxattr_query(&from) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    if length == 0 {
        return Ok(Vec::new());
    }
    let mut list = vec![0_u8; length];
    let got = rustix::fs::flistxattr(&from, list.as_mut_slice())?;
    list.truncate(got);
    let names = list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    Ok(names.filter_map(|name| CString::new(name).ok()).collect())
}

fn owner(stat: &Stat) -> Uid {
    Uid::from_raw(stat.st_uid)
}

fn group(stat: &Stat) -> Gid {
    Gid::from_raw(stat.st_gid)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds as i64,
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

#[cfg(test)]
mod tests;
