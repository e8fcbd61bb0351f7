//! What happens to a container after its start: signals, pause and resume, and its removal.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::record::{self, Record, Status};
use super::{Error, hooks};
use crate::cgroup;
use crate::process::Identity;

/// How long processes may take to end after SIGKILL.
const LAST_WAIT: Duration = Duration::from_secs(10);

/// `kill`: to the first process, or to all of them.
pub fn kill(root: &Path, id: &str, signal: &str, all: bool) -> Result<(), Error> {
    let record = record::load(root, id)?;
    let number =
        crate::engine::signal_number(signal).map_err(|_| Error::Signal(signal.to_owned()))?;
    let status = record.status();
    if all {
        signal_all(&record, number);
    } else if matches!(status, Status::Stopped | Status::Creating) {
        return Err(Error::NotRunning);
    } else if let Some(init) = record.init.and_then(Identity::open) {
        init.signal(number).map_err(|source| Error::Host {
            step: "send the signal",
            source,
        })?;
    }
    // What is frozen by cgroup v1 does not die before it is thawed.
    if status == Status::Paused && number == libc::SIGKILL {
        freeze(&record.cgroup, false)?;
    }
    Ok(())
}

fn signal_all(record: &Record, signal: i32) {
    for pid in cgroup::processes_in(&record.cgroups()) {
        if let Some(process) = Identity::of(pid).and_then(Identity::open) {
            let _ = process.signal(signal);
        }
    }
}

/// `delete`. With `force` a running container is killed, and one that is not there is no error.
pub fn delete(root: &Path, id: &str, force: bool) -> Result<(), Error> {
    let record = match record::load(root, id) {
        Ok(record) => record,
        Err(Error::NoSuchContainer(_)) if force => {
            // What a create has left that was killed before it had written its record.
            let _ = fs::remove_dir(root.join(id));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let status = record.status();
    if !force && !matches!(status, Status::Stopped | Status::Created) {
        return Err(Error::NotStopped {
            id: id.to_owned(),
            status,
        });
    }
    remove(&record)?;
    // Their failures are told and stop nothing (runtime-spec, Lifecycle).
    if let Ok(spec) = record.spec() {
        let state = record.state(Status::Stopped).to_string();
        let poststop = spec
            .hooks()
            .as_ref()
            .and_then(|hooks| hooks.poststop().clone());
        for hook in poststop.iter().flatten() {
            if let Err(e) = hooks::run(hook, &state) {
                eprintln!("poststop hook {}: {e}", hook.path().display());
            }
        }
    }
    fs::remove_dir_all(&record.folder).map_err(Error::file("remove", &record.folder))
}

/// Ends every process of the container and removes its cgroups.
pub(super) fn remove(record: &Record) -> Result<(), Error> {
    let _ = freeze(&record.cgroup, false);
    if let Some(creator) = record
        .init
        .is_none()
        .then_some(record.creator)
        .filter(|c| Some(c.pid) != own_pid())
        && let Some(creator) = creator.open()
    {
        let _ = creator.kill();
        let _ = creator.wait(Some(LAST_WAIT));
    }
    if let Some(init) = record.init.and_then(Identity::open) {
        let _ = init.kill();
        let _ = init.wait(Some(LAST_WAIT));
    }
    let directories = record.cgroups();
    let deadline = Instant::now() + LAST_WAIT;
    while !cgroup::processes_in(&directories).is_empty() && Instant::now() < deadline {
        signal_all(record, libc::SIGKILL);
        std::thread::sleep(Duration::from_millis(2));
    }
    cgroup::remove_all(&directories).map_err(|source| Error::Host {
        step: "remove the container's cgroups",
        source,
    })
}

fn own_pid() -> Option<i32> {
    i32::try_from(std::process::id()).ok()
}

/// The processes in the container's cgroups, as this pid namespace numbers them.
pub fn processes(root: &Path, id: &str) -> Result<Vec<i32>, Error> {
    Ok(cgroup::processes_in(&record::load(root, id)?.cgroups()))
}

pub fn pause(root: &Path, id: &str) -> Result<(), Error> {
    let record = record::load(root, id)?;
    match record.status() {
        Status::Running | Status::Created => freeze(&record.cgroup, true),
        status => Err(Error::WrongStatus {
            verb: "pause",
            id: id.to_owned(),
            status,
            must_be: "running",
        }),
    }
}

pub fn resume(root: &Path, id: &str) -> Result<(), Error> {
    let record = record::load(root, id)?;
    match record.status() {
        Status::Paused => freeze(&record.cgroup, false),
        status => Err(Error::WrongStatus {
            verb: "resume",
            id: id.to_owned(),
            status,
            must_be: "paused",
        }),
    }
}

/// The freezer's file and its two words: of version 2 if the container has it there, else of version 1.
fn freezer(cgroup: &Path) -> Option<(PathBuf, [&'static str; 2])> {
    let directories = cgroup::directories_of(cgroup);
    let v1 = directories
        .iter()
        .map(|d| (d.join("freezer.state"), ["THAWED", "FROZEN"]));
    let v2 = directories
        .iter()
        .map(|d| (d.join("cgroup.freeze"), ["0", "1"]));
    v1.chain(v2).find(|(file, _)| file.exists())
}

fn freeze(cgroup: &Path, frozen: bool) -> Result<(), Error> {
    let Some((file, words)) = freezer(cgroup) else {
        return match frozen {
            true => Err(Error::Unsupported("pausing without the freezer cgroup")),
            false => Ok(()),
        };
    };
    let word = words[usize::from(frozen)];
    let deadline = Instant::now() + LAST_WAIT;
    loop {
        fs::write(&file, word).map_err(Error::file("write", &file))?;
        // FREEZING is not FROZEN yet (cgroup-v1/freezer-subsystem).
        let now = fs::read_to_string(&file).unwrap_or_default();
        if now.trim() == word {
            return Ok(());
        }
        if Instant::now() > deadline {
            let source = io::Error::from(io::ErrorKind::TimedOut);
            return Err(Error::file("freeze or thaw by", &file)(source));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(super) fn is_frozen(cgroup: &Path) -> bool {
    freezer(cgroup).is_some_and(|(file, words)| {
        let now = fs::read_to_string(file).unwrap_or_default();
        now.trim() == words[1] || now.trim() == "FREEZING"
    })
}
