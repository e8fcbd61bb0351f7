//! The root filesystem: an image's layers and a container's writable one as one overlay mount.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
};

use super::inside::by_descriptor;
use crate::error::Error;

/// fsconfig(2) takes no longer string, its end included.
const MAX_STRING: usize = 256;
const OVERLAYFS_MAGIC: rustix::fs::FsWord = 0x794c_7630;

/// Mounts `layers` (the uppermost first) below `upper` on `target`; `work` is a directory beside `upper`, on the same
/// file system. All exist. The mount is made in the caller's mount namespace and ends with it.
pub fn mount_overlay(
    target: &Path,
    layers: &[PathBuf],
    upper: &Path,
    work: &Path,
) -> Result<(), Error> {
    let result = match by_new_calls(target, layers, upper, work) {
        // The kernel has no fsopen(2) (before 5.2), a filter hides it, or overlayfs has no `lowerdir+` (before 6.5).
        Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => by_mount(target, layers, upper, work),
        other => other,
    };
    result.map_err(|errno| explain(errno, target, upper))
}

/// Makes every mount of this mount namespace a slave: what the host unmounts goes here too and is not held busy, and
/// what is mounted here does not show there. To be called right after unshare(CLONE_NEWNS).
pub fn make_mounts_slave() -> io::Result<()> {
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change("/", slave)?)
}

/// The directories that the kernel's file systems go on. libcontainer makes them where they are missing, but then puts
/// symlinks into `dev` by plain path: an image whose `dev` is a symlink would have it write to the host.
const MUST_BE_DIRECTORIES: &[&str] = &["dev", "proc", "sys"];

/// Refuses a root filesystem that libcontainer could be led out of. To be called before it, on the mounted overlay.
pub fn check_rootfs(rootfs: &Path) -> Result<(), Error> {
    for path in MUST_BE_DIRECTORIES {
        let found = match std::fs::symlink_metadata(rootfs.join(path)) {
            Ok(metadata) if metadata.is_dir() => continue,
            Ok(metadata) if metadata.is_symlink() => "a symlink",
            Ok(_) => "a file",
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => {
                return Err(Error::FileSystem {
                    operation: "look at",
                    path: rootfs.join(path),
                    source,
                });
            }
        };
        return Err(Error::UnusableRootfs { path, found });
    }
    Ok(())
}

/// Options without a value of their own. An index and metadata-only copies tie the upper layer to the identity of the
/// lower ones, which does not survive that an image is pulled anew. Redirects would make a moved directory something that only
/// overlayfs can read: `diff` and `commit` read the upper layer itself.
const OPTIONS: [(&str, &str); 3] = [
    ("index", "off"),
    ("metacopy", "off"),
    ("redirect_dir", "off"),
];

fn by_new_calls(target: &Path, layers: &[PathBuf], upper: &Path, work: &Path) -> Result<(), Errno> {
    let overlay = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let mut held = Vec::new();
    rustix::mount::fsconfig_set_string(&overlay, "source", "overlay")?;
    for layer in layers {
        // One call for each layer: the page-sized list of mount(2) is full at some dozens.
        let layer = short(layer, &mut held)?;
        rustix::mount::fsconfig_set_string(&overlay, "lowerdir+", layer.as_path())?;
    }
    for (key, path) in [("upperdir", upper), ("workdir", work)] {
        let path = short(path, &mut held)?;
        rustix::mount::fsconfig_set_string(&overlay, key, path.as_path())?;
    }
    for (key, value) in OPTIONS {
        set_if_known(&overlay, key, value)?;
    }
    rustix::mount::fsconfig_create(&overlay)?;
    let mount = rustix::mount::fsmount(
        &overlay,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&mount, "", CWD, target, flags)
}

/// A kernel that is built without the feature does not know its option, and has it off.
fn set_if_known(overlay: &OwnedFd, key: &str, value: &str) -> Result<(), Errno> {
    match rustix::mount::fsconfig_set_string(overlay, key, value) {
        Err(Errno::INVAL) => Ok(()),
        other => other,
    }
}

/// The path, or one by a descriptor if it is too long. The descriptors must be kept until the file system is made.
fn short(path: &Path, held: &mut Vec<OwnedFd>) -> Result<PathBuf, Errno> {
    if path.as_os_str().len() < MAX_STRING {
        return Ok(path.to_owned());
    }
    held.push(open_directory(path)?);
    Ok(held
        .last()
        .map(|fd| by_descriptor(fd.as_fd()))
        .unwrap_or_default())
}

fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// mount(2), whose options must fit in a page: every path is written by a descriptor, so that 128 layers do, and that a
/// colon or comma in a path needs no escape.
fn by_mount(target: &Path, layers: &[PathBuf], upper: &Path, work: &Path) -> Result<(), Errno> {
    let mut held = Vec::new();
    let mut name = |path: &Path| -> Result<String, Errno> {
        let fd = open_directory(path)?;
        let name = by_descriptor(fd.as_fd()).display().to_string();
        held.push(fd);
        Ok(name)
    };
    let lower = layers
        .iter()
        .map(|layer| name(layer))
        .collect::<Result<Vec<_>, _>>()?
        .join(":");
    let options = format!(
        "lowerdir={lower},upperdir={},workdir={},index=off",
        name(upper)?,
        name(work)?
    );
    let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(
        "overlay",
        target,
        "overlay",
        MountFlags::empty(),
        options.as_c_str(),
    )
}

/// The kernel says EINVAL for a dozen reasons; the one that a user can mend is named.
fn explain(errno: Errno, target: &Path, upper: &Path) -> Error {
    let on_overlay = rustix::fs::statfs(upper).is_ok_and(|found| found.f_type == OVERLAYFS_MAGIC);
    if errno == Errno::INVAL && on_overlay {
        return Error::OverlayOnOverlay {
            path: upper.to_owned(),
        };
    }
    Error::MountRootfs {
        target: target.to_owned(),
        source: errno.into(),
    }
}

#[cfg(test)]
mod tests;
