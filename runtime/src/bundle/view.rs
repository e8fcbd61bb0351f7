//! A container's files as this process may see them, running or not: its root filesystem with its volumes, and nothing of what
//! the kernel mounts for it (/proc, /sys, /dev, tmpfs).
//!
//! The mounts are made in a mount namespace of one thread and go with it. Of a running container it is the very same overlay,
//! cloned out of the container's namespace; of another one a mount of its own.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

use super::inside::Inside;
use super::kernel::make_read_only;
use super::overlay::{make_mounts_slave, mount_overlay};
use crate::error::Error;

/// Where the root filesystem comes from.
#[derive(Debug)]
pub enum Source {
    /// The mount namespace of the container that runs.
    Running(File),
    /// What an overlay is made of.
    Stopped {
        layers: Vec<PathBuf>,
        upper: PathBuf,
        work: PathBuf,
    },
}

/// A volume, a bind, or one of the files that the engine writes.
#[derive(Clone, Debug)]
pub struct Bind {
    pub source: PathBuf,
    pub target: PathBuf,
    pub read_only: bool,
}

/// Calls `work` with the root directory of the view, on a thread of its own. `place` is any directory that `work` does not
/// need: it is hidden from it.
pub fn with_view<T: Send>(
    source: &Source,
    binds: &[Bind],
    place: &Path,
    work: impl FnOnce(OwnedFd) -> Result<T, Error> + Send,
) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| work(make(source, binds, place)?));
        // A panic there is a bug; it goes on here.
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn make(source: &Source, binds: &[Bind], place: &Path) -> Result<OwnedFd, Error> {
    let host = |step| move |source: io::Error| Error::Host { step, source };
    nix::sched::unshare(CloneFlags::CLONE_NEWNS)
        .map_err(|e| host("leave the host's mounts")(e.into()))?;
    make_mounts_slave().map_err(host("cut off the host's mounts"))?;
    // Before `place` is covered: a source may be in it.
    let clones = binds
        .iter()
        .map(|bind| Ok((bind, clone(&bind.source, OpenTreeFlags::AT_RECURSIVE)?)))
        .collect::<io::Result<Vec<_>>>()
        .map_err(host("open a volume"))?;
    match source {
        Source::Stopped {
            layers,
            upper,
            work,
        } => mount_overlay(place, layers, upper, work)?,
        Source::Running(namespace) => {
            move_over(namespace, place).map_err(host("look into the container's mounts"))?;
        }
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(place, flags, Mode::empty())
        .map_err(|e| host("open the root filesystem")(e.into()))?;
    let inside = Inside::new(place).map_err(host("open the root filesystem"))?;
    for (bind, mount) in clones {
        attach(&inside, bind, &mount).map_err(|source| Error::FileSystem {
            operation: "mount a volume on",
            path: bind.target.clone(),
            source,
        })?;
    }
    Ok(root)
}

fn clone(path: &Path, more: OpenTreeFlags) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | more;
    Ok(rustix::mount::open_tree(CWD, path, flags)?)
}

/// The root mount of the container's namespace, without what is mounted on it: open_tree(2) clones only what is in the
/// caller's own namespace.
fn move_over(namespace: &File, place: &Path) -> io::Result<()> {
    let own = File::open("/proc/thread-self/ns/mnt")?;
    nix::sched::setns(namespace, CloneFlags::CLONE_NEWNS)?;
    let root = clone(Path::new("/"), OpenTreeFlags::empty());
    nix::sched::setns(own, CloneFlags::CLONE_NEWNS)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(root?, "", CWD, place, flags)?)
}

/// A target that is not there, and cannot be made, is none that anybody could ask for.
fn attach(inside: &Inside, bind: &Bind, mount: &OwnedFd) -> io::Result<()> {
    let stat = rustix::fs::statat(mount, "", AtFlags::EMPTY_PATH)?;
    let is_directory = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
    let target = match is_directory {
        true => inside.make_directory(&bind.target),
        false => inside.make_file(&bind.target),
    };
    if let Err(error) = &target
        && error.kind() == io::ErrorKind::ReadOnlyFilesystem
    {
        return Ok(());
    }
    drop(target);
    // `make_file` may have opened it for writing; a mount takes a path.
    let target = inside.open(&bind.target, OFlags::PATH)?;
    if bind.read_only {
        make_read_only(mount.as_fd())?;
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", &target, "", flags)?)
}
