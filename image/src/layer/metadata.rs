//! Owner, mode, extended attributes and times of what has been made, in the one order that keeps them:
//! chown(2) clears setuid bits and file capabilities, writing clears capabilities too, and any change moves the times.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fchmod,
    fchown, fgetxattr, flistxattr, fsetxattr, futimens, lsetxattr, utimensat,
};
use rustix::io::Errno;

use super::LayerError;
use super::entry::{Entry, Time, Xattrs};
use super::numbers::octets;
use super::tree::Directory;

const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// What is set on a file or directory.
#[derive(Clone, Debug)]
pub struct Metadata {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub xattrs: Xattrs,
}

impl Metadata {
    pub fn of_entry(entry: &Entry) -> Metadata {
        let xattrs = entry.xattrs.iter().filter(|(name, _)| !is_overlays(name));
        Metadata {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            xattrs: xattrs.cloned().collect(),
        }
    }

    /// Of an open file or directory of a lower layer.
    pub fn of_file(fd: BorrowedFd<'_>, stat: &Stat, path: &[u8]) -> Result<Metadata, LayerError> {
        Ok(Metadata {
            xattrs: read_xattrs(fd).map_err(LayerError::place("read attributes of", path))?,
            ..Metadata::of_stat(stat)
        })
    }

    pub fn of_stat(stat: &Stat) -> Metadata {
        Metadata {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: Time {
                seconds: stat.st_mtime,
                nanoseconds: stat.st_mtime_nsec as u32,
            },
            xattrs: Vec::new(),
        }
    }

    /// Sets all of it but the time.
    pub fn set(&self, fd: BorrowedFd<'_>, path: &[u8]) -> Result<(), LayerError> {
        fchown(
            fd,
            Some(Uid::from_raw(self.uid)),
            Some(Gid::from_raw(self.gid)),
        )
        .map_err(LayerError::place("change the owner of", path))?;
        self.set_but_owner(fd, path)
    }

    /// Mode and attributes.
    pub fn set_but_owner(&self, fd: BorrowedFd<'_>, path: &[u8]) -> Result<(), LayerError> {
        fchmod(fd, Mode::from_raw_mode(self.mode))
            .map_err(LayerError::place("change the mode of", path))?;
        for (name, value) in &self.xattrs {
            set_xattr(fd, name, value, path)?;
        }
        Ok(())
    }

    /// Takes a directory's default ACL away: what is made in there would inherit it (acl(5)), so it is set last.
    pub fn take_default_acl(&mut self) -> Option<Vec<u8>> {
        let at = self
            .xattrs
            .iter()
            .position(|(name, _)| name == DEFAULT_ACL)?;
        Some(self.xattrs.swap_remove(at).1)
    }

    pub fn set_with_time(&self, fd: BorrowedFd<'_>, path: &[u8]) -> Result<(), LayerError> {
        self.set(fd, path)?;
        set_time(fd, self.mtime, path)
    }

    /// For what cannot be opened without side effects: symlinks (which have no mode), FIFOs, devices.
    pub fn set_by_name(
        &self,
        parent: &Directory,
        name: &[u8],
        has_mode: bool,
    ) -> Result<(), LayerError> {
        let path = parent.join(name);
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        chownat(
            &*parent.fd,
            name,
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(LayerError::place("change the owner of", &path))?;
        if has_mode {
            // Follows symlinks, but the name was made a moment ago, as something else, in a directory of ours.
            chmodat(
                &*parent.fd,
                name,
                Mode::from_raw_mode(self.mode),
                AtFlags::empty(),
            )
            .map_err(LayerError::place("change the mode of", &path))?;
        }
        for (attribute, value) in &self.xattrs {
            // setxattrat(2) is too new; the magic link leads to the open directory and the last name is not followed.
            let mut by_fd = format!("/proc/self/fd/{}/", parent.fd.as_raw_fd()).into_bytes();
            by_fd.extend_from_slice(name);
            let result = lsetxattr(
                &*by_fd,
                OsStr::from_bytes(attribute),
                value,
                XattrFlags::empty(),
            );
            check_xattr(attribute, &path, result)?;
        }
        set_time_by_name(parent, name, self.mtime)
    }
}

pub fn set_default_acl(fd: BorrowedFd<'_>, acl: &[u8], path: &[u8]) -> Result<(), LayerError> {
    set_xattr(fd, DEFAULT_ACL, acl, path)
}

fn set_xattr(fd: BorrowedFd<'_>, name: &[u8], value: &[u8], path: &[u8]) -> Result<(), LayerError> {
    let result = fsetxattr(fd, OsStr::from_bytes(name), value, XattrFlags::empty());
    check_xattr(name, path, result)
}

pub fn set_time_by_name(parent: &Directory, name: &[u8], time: Time) -> Result<(), LayerError> {
    utimensat(
        &*parent.fd,
        name,
        &timestamps(time),
        AtFlags::SYMLINK_NOFOLLOW,
    )
    .map_err(LayerError::place("set the time of", &parent.join(name)))
}

pub fn set_time(fd: BorrowedFd<'_>, time: Time, path: &[u8]) -> Result<(), LayerError> {
    futimens(fd, &timestamps(time)).map_err(LayerError::place("set the time of", path))
}

fn timestamps(time: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: time.seconds,
        tv_nsec: time.nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Overlayfs's own attributes: an image that brings them could fake redirects into other layers.
fn is_overlays(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// A file capability must not be lost in silence; other attributes may be, where the file system has none of their kind.
fn check_xattr(name: &[u8], path: &[u8], result: Result<(), Errno>) -> Result<(), LayerError> {
    match result {
        Err(e @ (Errno::OPNOTSUPP | Errno::PERM)) if name != b"security.capability" => {
            tracing::warn!(path = octets(path), attribute = octets(name), error = %e, "attribute not set");
            Ok(())
        }
        // Of no kind, too large, or a value that its kind does not have.
        Err(Errno::INVAL | Errno::RANGE | Errno::TOOBIG) => Err(LayerError::refused(
            octets(path),
            format!("an attribute {} that Linux does not take", octets(name)),
        )),
        result => result.map_err(LayerError::place("set an attribute of", path)),
    }
}

pub fn read_xattrs(fd: BorrowedFd<'_>) -> Result<Xattrs, Errno> {
    let mut list = vec![0; 64 << 10];
    let length = match flistxattr(fd, &mut *list) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(e) => return Err(e),
    };
    let mut xattrs = Vec::new();
    for name in list[..length].split(|&b| b == 0) {
        if name.is_empty() || is_overlays(name) {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let length = fgetxattr(fd, OsStr::from_bytes(name), &mut *value)?;
        value.truncate(length);
        xattrs.push((name.to_vec(), value));
    }
    Ok(xattrs)
}
