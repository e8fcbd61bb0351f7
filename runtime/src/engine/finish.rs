//! The end of a container, whoever sees it: its monitor, the command that could not start it, or a later command.
//!
//! Each function may run twice, and after a kill at any point: the row is the last thing that changes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netmgr::VethRemoval;
use rusqlite::Connection;
use time::OffsetDateTime;

use super::Settings;
use crate::cgroup::{self, Group};
use crate::error::Error;
use crate::events;
use crate::monitor;
use crate::process::{self, Identity};
use crate::reserve;
use crate::restart;
use crate::store::{self, End, Restarting, Stored};

/// In a container's run directory: its program has been executed.
pub const STARTED: &str = "started";
/// Likewise: where clients of the monitor connect.
pub const SOCKET: &str = "attach.sock";
/// The exit code where nobody saw it, as after a reboot. Docker says the same.
pub const UNKNOWN: i32 = 255;

pub fn storage(root: &Path, id: &str) -> PathBuf {
    root.join("containers").join(id)
}

/// What becomes of a container that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Nothing,
    /// Its policy starts it again: it still has its owner.
    Restart,
}

/// A monitor's last act in a run: the network and the record. With `--rm`, the container goes.
pub fn ended(settings: &Settings, id: &str, end: &End) -> Result<After, Error> {
    let me = Identity::myself().map_err(|source| Error::Host {
        step: "find this process",
        source,
    })?;
    let record = || {
        let mut conn = store::open(&settings.root)?;
        record_end(settings, &mut conn, id, end, |stored| {
            stored.owner.as_ref().is_some_and(|o| o.process == me)
        })
    };
    let after = match record() {
        Err(error) if reserve::is_wanted(&error) && reserve::release(&settings.root) => record(),
        result => result,
    }?;
    remove_note(&settings.run_root, id, me);
    Ok(after)
}

/// Records an end, if the row is still as `applies` wants it: meanwhile somebody else may have done so.
pub fn record_end(
    settings: &Settings,
    conn: &mut Connection,
    id: &str,
    end: &End,
    applies: impl Fn(&Stored) -> bool,
) -> Result<After, Error> {
    let links = remove_links(conn, id)?;
    let (removed, after) = netmgr::change(&settings.network, conn, |edit| {
        let Some(stored) = store::get(edit.transaction(), id)?.filter(&applies) else {
            return Ok((false, After::Nothing));
        };
        events::record_end(edit.transaction(), &stored.container, end.code)?;
        edit.detach(id, VethRemoval::ByKernel)?;
        // Read here, so that the policy and the user's wish of this very moment count.
        if restart::is_wanted(&stored, end.code) {
            store::set_restarting(edit.transaction(), id, end)?;
            return Ok((false, After::Restart));
        }
        store::set_exited(edit.transaction(), id, end)?;
        super::volumes::record_unmounts(edit.transaction(), &stored.container)?;
        if !stored.container.request.auto_remove {
            return Ok::<_, Error>((false, After::Nothing));
        }
        delete(edit.transaction(), settings, &stored, true)?;
        Ok((true, After::Nothing))
    })?;
    if removed {
        remove_storage(settings, id)?;
    }
    // What the thread could not remove, the kernel removes with the namespace.
    let _ = links.map(JoinHandle::join);
    Ok(after)
}

/// In RUN_ROOT: how containers have ended whose records do not say so yet.
const ENDS: &str = "ends";

/// Named after the monitor that answered for it too: a later run of the container has another.
fn noted(run_root: &Path, id: &str, monitor: Identity) -> PathBuf {
    let name = format!("{id}.{}.{}", monitor.pid, monitor.start);
    run_root.join(ENDS).join(name)
}

/// Writes down how a container has ended, before anything of it is taken away: should the record not be written, because
/// who would is killed or the disk is full, repair finds it here.
pub fn note(run_root: &Path, id: &str, monitor: Identity, end: &End) -> io::Result<()> {
    let path = noted(run_root, id, monitor);
    fs::create_dir_all(run_root.join(ENDS))?;
    let end = End {
        finished: Some(end.finished.unwrap_or_else(OffsetDateTime::now_utc)),
        ..end.clone()
    };
    // By a rename: half of it would say nothing.
    let mut part = path.clone().into_os_string();
    part.push(".part");
    fs::write(&part, serde_json::to_vec(&end)?)?;
    fs::rename(&part, path)
}

pub fn read_note(run_root: &Path, id: &str, monitor: Identity) -> Option<End> {
    let text = fs::read(noted(run_root, id, monitor)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// The record says so now.
pub fn remove_note(run_root: &Path, id: &str, monitor: Identity) {
    let _ = fs::remove_file(noted(run_root, id, monitor));
}

/// Removes the notes of monitors that nobody waits for: `is_owner` tells whether a container's row names a monitor.
pub fn sweep_notes(run_root: &Path, is_owner: impl Fn(&str, Identity) -> bool) {
    let entries = fs::read_dir(run_root.join(ENDS)).into_iter().flatten();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let mut words = name.to_str().unwrap_or_default().split('.');
        let id = words.next().unwrap_or_default();
        let monitor = words.next().zip(words.next()).and_then(|(pid, start)| {
            Some(Identity {
                pid: pid.parse().ok()?,
                start: start.parse().ok()?,
            })
        });
        // A living monitor is about to record what it has noted.
        if monitor.is_none_or(|monitor| !monitor.is_alive() && !is_owner(id, monitor)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Removes a dead container's links at once, side by side with what else there is to do: the kernel would let them stand
/// until it gets round to the namespace, and the next container may have the same address.
fn remove_links(conn: &Connection, id: &str) -> Result<Option<JoinHandle<()>>, Error> {
    let endpoints = netmgr::store::endpoints_of(conn, id)?;
    if endpoints.is_empty() {
        return Ok(None);
    }
    let remove = move || {
        for endpoint in endpoints {
            if let Err(e) = netmgr::kernel::links::remove(&endpoint.host_interface) {
                tracing::debug!("left to the kernel: {e}");
            }
        }
    };
    let thread = std::thread::Builder::new()
        .stack_size(LINK_STACK)
        .spawn(remove);
    Ok(thread.ok())
}

/// Enough for a netlink request.
const LINK_STACK: usize = 256 * 1024;

/// A start that came to nothing: the container is as it was before.
pub fn release(settings: &Settings, conn: &mut Connection, id: &str) -> Result<(), Error> {
    let me = Identity::myself().map_err(|source| Error::Host {
        step: "find this process",
        source,
    })?;
    release_if(settings, conn, id, |owner| owner == me || !owner.is_alive())
}

fn release_if(
    settings: &Settings,
    conn: &mut Connection,
    id: &str,
    applies: impl Fn(Identity) -> bool,
) -> Result<(), Error> {
    netmgr::change(&settings.network, conn, |edit| {
        let stored = store::get(edit.transaction(), id)?;
        let Some((owner, restarting)) = stored.and_then(|s| Some((s.owner?, s.restarting))) else {
            return Ok(());
        };
        if !applies(owner.process) {
            return Ok(());
        }
        events::record_departure(edit.transaction(), id)?;
        // Not left to the kernel: who reads the error looks at once for what may have stayed behind.
        edit.detach(id, VethRemoval::Now)?;
        match restarting {
            Restarting::No => store::unclaim(edit.transaction(), id),
            // Its policy still wants it. Whoever tried is still there to say what becomes of it, or repair does.
            Restarting::Waiting | Restarting::Begun => store::wait_again(edit.transaction(), id),
        }
    })
}

/// A monitor whose command was killed before the program could run.
pub fn abandon(settings: &Settings, id: &str) {
    let result = store::open(&settings.root).and_then(|mut conn| release(settings, &mut conn, id));
    if let Err(e) = result {
        // The next command finds a dead owner and does the same.
        eprintln!("cannot release the container: {e}");
    }
}

/// Takes a container's row away, and with `volumes` its anonymous volumes.
pub fn delete(
    conn: &Connection,
    settings: &Settings,
    stored: &Stored,
    volumes: bool,
) -> Result<(), Error> {
    store::delete(conn, &stored.container.id)?;
    events::record_container(conn, &stored.container, "destroy", &[])?;
    if !volumes {
        return Ok(());
    }
    super::volumes::remove_anonymous(conn, &settings.root, &stored.container)
}

/// Removes what a container without a row has left in ROOT.
pub fn remove_storage(settings: &Settings, id: &str) -> Result<(), Error> {
    match image::remove_at(&storage(&settings.root, id)) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Io {
            step: "remove the storage",
            container: id.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// How long the kernel may take to tear down what has been killed.
const TEAR_DOWN: Duration = Duration::from_secs(10);

/// Kills whatever is left of a container that nobody answers for, waits for it to be gone, and removes its cgroups and
/// its run directory. The row and the network are the caller's.
pub fn bury(settings: &Settings, id: &str, group: &Group) -> Result<(), Error> {
    let deadline = Instant::now() + TEAR_DOWN;
    // Again until nothing is found: what was killed in the act of cloning may have made one more.
    loop {
        let mut left: Vec<Identity> = monitor::processes(id);
        left.extend(
            cgroup::processes(group)
                .into_iter()
                .filter_map(Identity::of),
        );
        let handles: Vec<process::Handle> = left.into_iter().filter_map(Identity::open).collect();
        if handles.is_empty() {
            break;
        }
        for handle in &handles {
            let _ = handle.kill();
        }
        // What is frozen does not die. A container without cgroups has nothing to thaw.
        let _ = cgroup::thaw(group);
        for handle in &handles {
            let _ = handle.wait(Some(deadline.saturating_duration_since(Instant::now())));
        }
        if Instant::now() > deadline {
            return Err(Error::WillNotDie(id.to_owned()));
        }
    }
    let failed = |step| {
        let container = id.to_owned();
        move |source| Error::Io {
            step,
            container,
            source,
        }
    };
    cgroup::remove(group).map_err(failed("remove the cgroups"))?;
    monitor::remove_directories(&settings.run_root, id).map_err(failed("remove the run directory"))
}

/// Whether an owner of this boot still lives.
pub fn is_answered_for(stored: &Stored) -> bool {
    let boot = process::boot_id().unwrap_or_default();
    stored
        .owner
        .as_ref()
        .is_some_and(|o| o.boot_id == boot && o.process.is_alive())
}
