//! Binds that receive what is mounted on the host later (`-v ...:rslave`, `:rshared`): cloned by the monitor, put in place by
//! the container's first process.
//!
//! libcontainer clones a bind with the propagation that its source has in the container's namespace, where all is private by
//! then: it could give none of them to a single mount. A clone that is taken in time keeps its ties (mount_namespaces(7)):
//! of a shared mount before the monitor's own mounts become slaves, it is one more peer of the host's; afterwards it is a
//! slave. It is attached nowhere until it is in the container, so nothing else can come across it, and it goes with the
//! last descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, OFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

use super::inside::Inside;
use super::kernel;
use crate::record::ResolvedMount;
use crate::request::Propagation;

/// A mount that is nowhere yet, and where it belongs.
#[derive(Debug)]
pub struct Late {
    mount: OwnedFd,
    target: PathBuf,
}

/// The moment of cloning decides what the clone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The mounts of this namespace are still peers of the host's.
    WhilePeers,
    /// They are its slaves.
    WhileSlaves,
}

/// Clones those of the mounts for which this is the moment.
pub fn clone_late(mounts: &[ResolvedMount], moment: Moment) -> io::Result<Vec<Late>> {
    let is_now =
        |propagation: Propagation| propagation.is_shared() == (moment == Moment::WhilePeers);
    mounts
        .iter()
        .filter(|mount| mount.late().is_some_and(is_now))
        .map(clone)
        .collect()
}

fn clone(wanted: &ResolvedMount) -> io::Result<Late> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if !wanted.options.non_recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let mount = rustix::mount::open_tree(CWD, &wanted.source, flags)?;
    if wanted.read_only {
        kernel::make_all_read_only(&mount)?;
    }
    Ok(Late {
        mount,
        target: PathBuf::from(&wanted.target),
    })
}

impl Late {
    /// To be kept when descriptors are closed.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }

    /// In the container, with its root as ours: mounts on the target, whatever symlinks lead there. It is made if another
    /// mount hides what was made for it.
    pub fn attach(&self) -> io::Result<()> {
        let root = Inside::new(Path::new("/"))?;
        let target = match root.open(&self.target, OFlags::PATH) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_target(&root)?,
            other => other?,
        };
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        Ok(rustix::mount::move_mount(
            &self.mount,
            "",
            &target,
            "",
            flags,
        )?)
    }

    fn make_target(&self, root: &Inside) -> io::Result<OwnedFd> {
        let mode = rustix::fs::fstat(&self.mount)?.st_mode;
        match FileType::from_raw_mode(mode).is_dir() {
            true => root.make_directory(&self.target),
            false => root.make_file(&self.target),
        }
    }

    pub fn target(&self) -> &Path {
        &self.target
    }
}
