//! Namespaces of another container that a new one is to live in, held by descriptors of the monitor; and the other's
//! /dev/shm, which goes with its IPC namespace. The caller must be single-threaded: it is in the other's mount namespace
//! for a moment.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags};
use serde::{Deserialize, Serialize};

use crate::process::Identity;
use crate::spec::JoinedPaths;

/// The first processes of the containers whose namespaces are joined.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Joined {
    pub pid: Option<Identity>,
    pub ipc: Option<Identity>,
}

/// What was opened. Kept until the container's first process exists; then it holds all of it by itself.
#[derive(Default)]
pub(super) struct Opened {
    pid: Option<OwnedFd>,
    ipc: Option<OwnedFd>,
    shm: Option<SharedMemory>,
}

impl Opened {
    /// `directory` is the container's own, and takes the mount of the other's /dev/shm.
    pub(super) fn open(joined: Joined, directory: &Path) -> io::Result<Opened> {
        let open = |process: Option<Identity>, kind| {
            process.map(|process| namespace(process, kind)).transpose()
        };
        Ok(Opened {
            pid: open(joined.pid, "pid")?,
            ipc: open(joined.ipc, "ipc")?,
            shm: (joined.ipc)
                .map(|process| SharedMemory::of(process, directory))
                .transpose()?,
        })
    }

    pub(super) fn paths(&self) -> JoinedPaths {
        let path = |fd: &Option<OwnedFd>| {
            let fd = fd.as_ref()?.as_raw_fd();
            Some(format!("/proc/{}/fd/{fd}", std::process::id()).into())
        };
        JoinedPaths {
            pid: path(&self.pid),
            ipc: path(&self.ipc),
            shm: self.shm.as_ref().map(|shm| shm.0.clone()),
        }
    }
}

fn namespace(process: Identity, kind: &str) -> io::Result<OwnedFd> {
    let gone = || io::Error::other("the container whose namespace is to be joined has ended");
    let path = format!("/proc/{}/ns/{kind}", process.pid);
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // Looked at after opening: before, the number might have gone to another process in between.
    match process.is_alive() {
        true => Ok(fd),
        false => Err(gone()),
    }
}

/// The mount point of another container's /dev/shm, in this process's mount namespace. Unmounted when dropped: whoever
/// removes the directory must not descend into it.
struct SharedMemory(PathBuf);

impl SharedMemory {
    fn of(process: Identity, directory: &Path) -> io::Result<SharedMemory> {
        let own = fs::File::open("/proc/self/ns/mnt")?;
        let theirs = namespace(process, "mnt")?;
        setns(theirs.as_fd(), CloneFlags::CLONE_NEWNS)?;
        // Whatever comes of it, first back.
        let tree = clone_of_shm();
        setns(own.as_fd(), CloneFlags::CLONE_NEWNS)?;
        let tree = tree?;
        let target = directory.join("shm");
        fs::create_dir_all(&target)?;
        attach(tree.as_fd(), &target)?;
        Ok(SharedMemory(target))
    }
}

/// Inside the other's mount namespace. Its root might have put a link in place of the directory, so none is followed.
fn clone_of_shm() -> io::Result<OwnedFd> {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::IN_ROOT;
    let shm = openat2(&root, "dev/shm", flags, Mode::empty(), resolve)?;
    let clone = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(rustix::mount::open_tree(shm.as_fd(), "", clone)?)
}

fn attach(tree: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(
        tree,
        "",
        rustix::fs::CWD,
        target,
        flags,
    )?)
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        if let Err(error) = rustix::mount::unmount(&self.0, UnmountFlags::DETACH) {
            eprintln!("cannot unmount {}: {error}", self.0.display());
        }
    }
}
