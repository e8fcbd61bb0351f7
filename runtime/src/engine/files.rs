//! A container's files: `cp` both ways, `export`, `diff`, `commit`, and their sizes.
//!
//! All look-ups go into a view of the container's files (`bundle::view`) and are bound to its root by openat2(2): what a
//! container does to its directories meanwhile leads nowhere but into itself.

mod commit;
mod paths;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use image::layer::changes::{self, Change};
use image::layer::pack::Packer;
use image::layer::unpack::{Owner, Symlinks, Unpacking, unpack};
use rustix::fs::FlockOperation;

use super::{Engine, Settings, end, finish, start, volumes};
use crate::bundle::{Bind, Source, with_view};
use crate::error::Error;
use crate::events;
use crate::process::Identity;
use crate::record::{Container, State};
use crate::user;
use crate::volume;

pub use commit::CommitRequest;
pub(super) use commit::{forget_freeze, repair};
pub use paths::{PathStat, absolute, base_name, clean, split};

/// How long a container may be starting or ending before we give up on it.
const SETTLING: Duration = Duration::from_secs(20);

/// Which user `cp --archive` gives the files to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Whom the archive says, by number.
    AsPacked,
    /// The container's own user, if it has one.
    ContainersUser,
}

/// Held while the root filesystem of a stopped container is mounted by somebody.
#[derive(Debug)]
pub struct Lock {
    _file: Option<File>,
}

/// Waits until nobody else has the container's files mounted. The kernel lets go for who is killed.
pub(super) fn lock(settings: &Settings, id: &str) -> Lock {
    let storage = finish::storage(&settings.root, id);
    let file = File::open(storage).ok();
    if let Some(file) = &file {
        while let Err(rustix::io::Errno::INTR) =
            rustix::fs::flock(file, FlockOperation::LockExclusive)
        {}
    }
    Lock { _file: file }
}

/// Which of a container's mounts are in the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Volumes {
    Shown,
    Left,
}

/// What is needed to look at a container's files.
struct Look {
    container: Container,
    source: Source,
    binds: Vec<Bind>,
    place: PathBuf,
    /// Of a stopped container.
    _lock: Option<Lock>,
}

impl Look {
    fn with<T: Send>(
        &self,
        work: impl FnOnce(OwnedFd) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        with_view(&self.source, &self.binds, &self.place, work)
    }

    /// What is said of a path that is not there.
    fn missing<'a>(&self, asked: &'a str, path: &'a str) -> impl Fn() -> Error + use<'a> {
        || Error::NoSuchPath {
            container: asked.to_owned(),
            path: path.to_owned(),
        }
    }
}

impl Engine {
    /// What is at a path of a container; a symlink in the last place is not followed.
    pub fn stat_path(&mut self, name: &str, path: &str) -> Result<PathStat, Error> {
        let look = self.look(name, Volumes::Shown)?;
        look.with(|root| paths::stat(&root, path)?.ok_or_else(look.missing(name, path)))
    }

    /// Writes what is at a path of a container as a tar. Its first name is the path's last one, or `rename`.
    pub fn archive_path(
        &mut self,
        name: &str,
        path: &str,
        rename: Option<&str>,
        out: &mut (dyn Write + Send),
    ) -> Result<(), Error> {
        let look = self.look(name, Volumes::Shown)?;
        look.with(|root| {
            let (parent, last) = paths::find(&root, path)?.ok_or_else(look.missing(name, path))?;
            let base = rename.map_or_else(|| base_name(&absolute(path)), str::to_owned);
            let mut packer = Packer::new(out);
            packer.tree(parent.as_fd(), last.as_bytes(), base.as_bytes())?;
            packer.finish()?;
            Ok(())
        })?;
        events::record_container(&self.conn, &look.container, "archive-path", &[])
    }

    /// Unpacks a tar into a directory of a container.
    pub fn extract_to_dir(
        &mut self,
        name: &str,
        path: &str,
        tar: &mut (dyn Read + Send),
        ownership: Ownership,
    ) -> Result<(), Error> {
        let look = self.look(name, Volumes::Shown)?;
        let container = &look.container;
        look.with(|root| {
            let start = paths::resolve(&root, path)?;
            let is_directory =
                paths::directory(&root, &start)?.ok_or_else(look.missing(name, path))?;
            if !is_directory {
                return Err(Error::NotExtractable);
            }
            check_writable(container, &start)?;
            let unpacking = Unpacking {
                owner: match ownership {
                    Ownership::ContainersUser if !container.resolved.user.is_empty() => {
                        let user = user::look_up(
                            &look.place,
                            &container.resolved.user,
                            &container.request.security.groups,
                        )?;
                        Owner::Fixed {
                            uid: user.uid,
                            gid: user.gid,
                        }
                    }
                    _ => Owner::Kept,
                },
                symlinks: Symlinks::Inside,
            };
            let start = start.trim_matches('/').as_bytes();
            Ok(unpack(&root, start, tar, unpacking)?)
        })?;
        events::record_container(&self.conn, &look.container, "extract-to-dir", &[])
    }

    /// `export`: the root filesystem without volumes, as a tar.
    pub fn export(&mut self, name: &str, out: &mut (dyn Write + Send)) -> Result<(), Error> {
        let look = self.look(name, Volumes::Left)?;
        look.with(|root| {
            let mut packer = Packer::new(out);
            packer.inside(&root, b"")?;
            packer.finish()?;
            Ok(())
        })?;
        events::record_container(&self.conn, &look.container, "export", &[])
    }

    /// `diff`: what a container has changed of its image's files.
    pub fn changes(&mut self, name: &str) -> Result<Vec<Change>, Error> {
        let container = crate::store::find(&self.conn, name)?.container;
        let image = self.image_of(&container)?;
        match self.upper(&container.id)? {
            Some(upper) => changes_of(&upper, &image),
            None => Ok(Vec::new()),
        }
    }

    /// Bytes of what a container has written, and of that with its image.
    pub fn sizes(&mut self, container: &Container) -> Result<(u64, u64), Error> {
        let own = match self.upper(&container.id)? {
            Some(upper) => changes::size(&upper)?,
            None => 0,
        };
        let image = image::store::size(&self.conn, &container.image_id)?;
        Ok((own, own + image))
    }

    /// The writable layer; `None` before the first start.
    fn upper(&self, id: &str) -> Result<Option<OwnedFd>, Error> {
        let path = finish::storage(&self.settings.root, id).join("diff");
        match File::open(&path) {
            Ok(upper) => Ok(Some(upper.into())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::FileSystem {
                operation: "open",
                path,
                source,
            }),
        }
    }

    fn image_of(&self, container: &Container) -> Result<image::Image, Error> {
        image::store::find(&self.conn, &self.settings.root, &container.image_id)?
            .ok_or_else(|| Error::NoSuchImage(container.image_id.clone()))
    }

    fn look(&mut self, name: &str, volumes: Volumes) -> Result<Look, Error> {
        let (container, running, lock) = self.hold(name)?;
        let storage = finish::storage(&self.settings.root, &container.id);
        let binds = match volumes {
            Volumes::Shown => binds(&container, &storage),
            Volumes::Left => Vec::new(),
        };
        let place = self.settings.run_root.clone();
        let source = match running {
            Some(namespace) => Source::Running(namespace),
            None => {
                let layers = self.image_of(&container)?.layers;
                start::make_storage(&storage, layers.first()).map_err(|source| Error::Io {
                    step: "make the directories",
                    container: container.id.clone(),
                    source,
                })?;
                Source::Stopped {
                    layers,
                    upper: storage.join("diff"),
                    work: storage.join("work"),
                }
            }
        };
        let look = Look {
            container,
            source,
            binds,
            place,
            _lock: lock,
        };
        if volumes == Volumes::Shown && matches!(look.source, Source::Stopped { .. }) {
            fill_volumes(&self.settings.root, &look)?;
        }
        Ok(look)
    }

    /// The container, and either its mount namespace or the right to mount its files.
    fn hold(&mut self, name: &str) -> Result<(Container, Option<File>, Option<Lock>), Error> {
        let deadline = Instant::now() + SETTLING;
        loop {
            let stored = end::settled(self, name)?;
            let id = stored.container.id.clone();
            if matches!(stored.container.state, State::Restarting { .. }) {
                return Err(Error::Restarting(id));
            }
            let started = matches!(stored.container.state, State::Running { .. });
            if let (true, Some(init)) = (started, stored.init)
                && let Some(namespace) = mount_namespace(init)
            {
                return Ok((stored.container, Some(namespace), None));
            }
            if stored.owner.is_none() {
                let storage = finish::storage(&self.settings.root, &id);
                fs::create_dir_all(&storage).map_err(|source| Error::Io {
                    step: "make the storage",
                    container: id.clone(),
                    source,
                })?;
                let lock = lock(&self.settings, &id);
                // It may have been started or removed while we waited.
                if crate::store::find(&self.conn, &id)?.owner.is_none() {
                    return Ok((stored.container, None, Some(lock)));
                }
            }
            if Instant::now() > deadline {
                return Err(Error::BeingStarted(stored.container.name));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Of a process that still is the one that was meant when the namespace has been opened.
fn mount_namespace(init: Identity) -> Option<File> {
    let namespace = File::open(format!("/proc/{}/ns/mnt", init.pid)).ok()?;
    init.is_alive().then_some(namespace)
}

/// Volumes and binds, parents before what is mounted in them, and the files that the engine writes.
fn binds(container: &Container, storage: &Path) -> Vec<Bind> {
    let mounts = container
        .resolved
        .mounts
        .iter()
        .filter(|m| m.tmpfs.is_none());
    let mut binds: Vec<Bind> = mounts
        .map(|mount| Bind {
            source: PathBuf::from(&mount.source),
            target: PathBuf::from(&mount.target),
            read_only: mount.read_only,
        })
        .chain(["hosts", "hostname", "resolv.conf"].map(|name| Bind {
            source: storage.join(name),
            target: Path::new("/etc").join(name),
            read_only: false,
        }))
        .filter(|bind| bind.source.exists())
        .collect();
    binds.sort_by_key(|bind| bind.target.components().count());
    binds
}

/// A volume that nobody has used yet gets the image's content now, as it would at the first start.
fn fill_volumes(root: &Path, look: &Look) -> Result<(), Error> {
    let new = volumes::to_fill(root, &look.container);
    if new.is_empty() {
        return Ok(());
    }
    with_view(&look.source, &[], &look.place, |_| {
        for (data, target) in &new {
            volume::populate(&look.place, target, data)?;
        }
        Ok(())
    })
}

/// Docker looks at the path alone; what the kernel refuses is refused beside.
fn check_writable(container: &Container, path: &str) -> Result<(), Error> {
    let path = Path::new(path);
    let mounts = container
        .resolved
        .mounts
        .iter()
        .filter(|m| m.tmpfs.is_none());
    let volume = mounts
        .filter(|mount| path.starts_with(&mount.target))
        .max_by_key(|mount| mount.target.len());
    match volume {
        Some(mount) if mount.read_only => Err(Error::ReadOnlyVolume),
        None if container.request.read_only => Err(Error::ReadOnlyRootfs),
        _ => Ok(()),
    }
}

/// Where the engine itself makes files and directories to mount on: nothing that a container has done.
const MOUNT_POINTS: [&[u8]; 6] = [
    b"dev",
    b"proc",
    b"sys",
    b"etc/hosts",
    b"etc/hostname",
    b"etc/resolv.conf",
];

fn changes_of(upper: &OwnedFd, image: &image::Image) -> Result<Vec<Change>, Error> {
    let layers = image
        .layers
        .iter()
        .map(|path| {
            File::open(path).map_err(|source| Error::FileSystem {
                operation: "open",
                path: path.clone(),
                source,
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let below: Vec<_> = layers.iter().map(AsFd::as_fd).collect();
    let mut changes = changes::changes(upper, &below, &|path| MOUNT_POINTS.contains(&path))?;
    // Made for the mount points alone.
    let etc = |change: &Change| change.path == b"etc" && change.kind == changes::ChangeKind::Added;
    if !changes
        .iter()
        .any(|change| change.path.starts_with(b"etc/"))
    {
        changes.retain(|change| !etc(change));
    }
    Ok(changes)
}
