//! The files in `RUN_ROOT` by which one command knows of another: the lock, the journal of a change under way, and the
//! marker that says what is live. They go with a reboot, as does what they describe.
//!
//! Nothing here is synced to a disk: the files have to outlive a killed process, not a power failure.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::FdFlags;
use serde::{Deserialize, Serialize};

use crate::change::Settings;
use crate::error::Error;
use crate::model::Profile;
use crate::plan::{self, Op, Tool, Written};

const LOCK: &str = "network.lock";
const JOURNAL: &str = "network.journal";
const LIVE: &str = "network.live";

/// Held while the kernel and the tables may differ. Released by the kernel when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Lock {
    /// Waits for whoever holds it.
    pub(crate) fn acquire(run_root: &Path) -> Result<Lock, Error> {
        let path = run_root.join(LOCK);
        let open = || {
            fs::create_dir_all(run_root)?;
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)?;
            rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))?;
            Ok(Lock { file })
        };
        open().map_err(state("lock", &path))
    }

    /// While the answer lives, commands that we start hold the lock too. `iptables-restore` outlives us when we are
    /// killed, and commits after the next command has looked: that one must wait for it.
    ///
    /// Whatever another thread starts meanwhile holds it as well, until it ends: a caller with several threads starts
    /// nothing lasting beside a change.
    pub(crate) fn pass_on(&self) -> Result<PassedOn<'_>, Error> {
        rustix::io::fcntl_setfd(&self.file, FdFlags::empty())
            .map_err(|errno| state("pass on", Path::new(LOCK))(errno.into()))?;
        Ok(PassedOn(self))
    }
}

pub(crate) struct PassedOn<'a>(&'a Lock);

impl Drop for PassedOn<'_> {
    fn drop(&mut self) {
        if let Err(error) = rustix::io::fcntl_setfd(&self.0.file, FdFlags::CLOEXEC) {
            tracing::warn!(%error, "the lock stays inheritable");
        }
    }
}

/// What a change is about to touch, written before it does. Found at the start of a command, it says that the last one
/// was killed halfway: whatever is in it is ours and may be anywhere between before and after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// Interfaces made or removed.
    pub(crate) links: Vec<String>,
    /// The batches, forward and inverse, and the command that they are for.
    pub(crate) batches: Vec<(Tool, String)>,
    /// Whose links or default routes change.
    #[serde(default)]
    pub(crate) containers: Vec<String>,
}

impl Journal {
    pub(crate) fn of(ops: &[Op]) -> Journal {
        let batches = ops.iter().filter_map(|op| match op {
            Op::Rules(batch) => Some([
                (batch.tool, batch.forward.clone()),
                (batch.tool, batch.inverse.clone()),
            ]),
            _ => None,
        });
        Journal {
            links: plan::link_names(ops),
            batches: batches.flatten().collect(),
            containers: ops.iter().filter_map(container_of).collect(),
        }
    }

    /// What two changes touch: a repair does not forget what the killed change was at.
    pub(crate) fn and(mut self, other: &Journal) -> Journal {
        self.links.extend(other.links.iter().cloned());
        self.batches.extend(other.batches.iter().cloned());
        self.containers.extend(other.containers.iter().cloned());
        self
    }

    pub(crate) fn is_pending(run_root: &Path) -> bool {
        run_root.join(JOURNAL).exists()
    }

    /// `None`: no change was cut short. A journal that cannot be read counts as an empty one: the repair then goes by
    /// names and comments alone.
    pub(crate) fn read(run_root: &Path) -> Result<Option<Journal>, Error> {
        let path = run_root.join(JOURNAL);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).unwrap_or_default())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(state("read", &path)(error)),
        }
    }

    pub(crate) fn write(&self, run_root: &Path) -> Result<(), Error> {
        replace(&run_root.join(JOURNAL), self)
    }

    pub(crate) fn remove(run_root: &Path) -> Result<(), Error> {
        remove(&run_root.join(JOURNAL))
    }
}

fn container_of(op: &Op) -> Option<String> {
    match op {
        Op::CreateVeth(veth) | Op::RemoveVeth(veth) => Some(veth.endpoint.container_id.clone()),
        Op::DefaultRoute(change) => Some(change.container_id.clone()),
        _ => None,
    }
}

/// What is in place, and where: bridges and rules live in one network namespace of one boot of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Live {
    boot: String,
    /// The inode of the network namespace.
    netns: u64,
    profile: Profile,
    written: Written,
}

/// The live marker's file as it is, whatever is in it; `None`: there is none.
#[derive(Debug)]
pub(crate) struct Marker(Option<Vec<u8>>);

impl Marker {
    pub(crate) fn read(run_root: &Path) -> Result<Marker, Error> {
        let path = run_root.join(LIVE);
        match fs::read(&path) {
            Ok(bytes) => Ok(Marker(Some(bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Marker(None)),
            Err(error) => Err(state("read", &path)(error)),
        }
    }

    pub(crate) fn put_back(&self, run_root: &Path) -> Result<(), Error> {
        match &self.0 {
            Some(bytes) => replace_bytes(&run_root.join(LIVE), bytes),
            None => Live::remove(run_root),
        }
    }
}

/// How what was left by earlier commands relates to this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing of ours is in the kernel, or nothing that we know of.
    Down,
    /// All is as the tables say.
    Up(Written),
    /// Something is in place, but by other settings: a change has to look before it writes.
    Different(Written),
}

impl State {
    /// What stands of ours, as far as we know.
    pub(crate) fn written(self) -> Written {
        match self {
            State::Down => Written::default(),
            State::Up(written) | State::Different(written) => written,
        }
    }
}

impl Live {
    pub(crate) fn now(settings: &Settings, written: Written) -> Result<Live, Error> {
        let boot_id = Path::new("/proc/sys/kernel/random/boot_id");
        // thread-self and not self: namespaces belong to threads.
        let netns = Path::new("/proc/thread-self/ns/net");
        Ok(Live {
            boot: fs::read_to_string(boot_id)
                .map_err(state("read", boot_id))?
                .trim()
                .to_owned(),
            netns: fs::metadata(netns).map_err(state("read", netns))?.ino(),
            profile: settings.profile,
            written,
        })
    }

    pub(crate) fn state(&self, run_root: &Path) -> Result<State, Error> {
        let path = run_root.join(LIVE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::Down),
            Err(error) => return Err(state("read", &path)(error)),
        };
        let found: Option<Live> = serde_json::from_slice(&bytes).ok();
        Ok(match found {
            // A namespace or a boot that is gone took everything along.
            Some(live) if live.boot != self.boot || live.netns != self.netns => State::Down,
            Some(live)
                if live.profile == self.profile && live.written.backend == self.written.backend =>
            {
                State::Up(live.written)
            }
            Some(live) => State::Different(live.written),
            None => State::Down,
        })
    }

    pub(crate) fn write(&self, run_root: &Path, written: Written) -> Result<(), Error> {
        let live = Live {
            written,
            ..self.clone()
        };
        replace(&run_root.join(LIVE), &live)
    }

    pub(crate) fn remove(run_root: &Path) -> Result<(), Error> {
        remove(&run_root.join(LIVE))
    }
}

fn replace(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let bytes = serde_json::to_vec(value).map_err(|error| state("write", path)(error.into()))?;
    replace_bytes(path, &bytes)
}

/// By a rename: a killed command leaves the old content or the new, never a part.
fn replace_bytes(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let new: PathBuf = path.with_extension("new");
    let write = || {
        fs::write(&new, bytes)?;
        fs::rename(&new, path)
    };
    write().map_err(state("write", path))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(state("remove", path)(error)),
        _ => Ok(()),
    }
}

fn state(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::State {
        operation,
        path: path.clone(),
        source,
    }
}
