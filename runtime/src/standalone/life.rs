//! What happens to a container after its start: signals, pause and resume, and its removal.

use std::fs;
use std::path::Path;
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
        freeze(&record, false)?;
    }
    Ok(())
}

fn signal_all(record: &Record, signal: i32) {
    for pid in cgroup::processes(&record.group()) {
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
    let _ = freeze(record, false);
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
    let group = record.group();
    let deadline = Instant::now() + LAST_WAIT;
    while !cgroup::processes(&group).is_empty() && Instant::now() < deadline {
        signal_all(record, libc::SIGKILL);
        std::thread::sleep(Duration::from_millis(2));
    }
    cgroup::remove(&group).map_err(|source| Error::Host {
        step: "remove the container's cgroups",
        source,
    })
}

fn own_pid() -> Option<i32> {
    i32::try_from(std::process::id()).ok()
}

/// The processes in the container's cgroups, as this pid namespace numbers them.
pub fn processes(root: &Path, id: &str) -> Result<Vec<i32>, Error> {
    Ok(cgroup::processes(&record::load(root, id)?.group()))
}

pub fn pause(root: &Path, id: &str) -> Result<(), Error> {
    let record = record::load(root, id)?;
    match record.status() {
        Status::Running | Status::Created => freeze(&record, true),
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
        Status::Paused => freeze(&record, false),
        status => Err(Error::WrongStatus {
            verb: "resume",
            id: id.to_owned(),
            status,
            must_be: "paused",
        }),
    }
}

fn freeze(record: &Record, frozen: bool) -> Result<(), Error> {
    let (step, result) = match frozen {
        true => ("pause the container", cgroup::freeze(&record.group())),
        false => ("resume the container", cgroup::thaw(&record.group())),
    };
    result.map_err(|source| Error::Host { step, source })
}
