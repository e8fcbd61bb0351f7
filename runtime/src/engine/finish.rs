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

use super::Settings;
use crate::cgroup;
use crate::error::Error;
use crate::events;
use crate::monitor;
use crate::process::{self, Identity};
use crate::restart;
use crate::store::{self, End, Restarting, Stored};
use crate::volume;

/// In a container's run directory: its program has been executed.
pub const STARTED: &str = "started";
/// Likewise: its exit code, should the monitor be killed before it has written the record.
pub const EXIT: &str = "exit";
/// Likewise: where clients of the monitor connect.
pub const SOCKET: &str = "attach.sock";
/// In a container's storage: its log.
pub const LOG: &str = "json.log";
/// The exit code where nobody saw it, as after a reboot. Docker says the same.
pub const UNKNOWN: i32 = 255;

pub fn log_path(root: &Path, id: &str) -> PathBuf {
    storage(root, id).join(LOG)
}

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
    let mut conn = store::open(&settings.root)?;
    record_end(settings, &mut conn, id, end, |stored| {
        stored.owner.as_ref().is_some_and(|o| o.process == me)
    })
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
    let mounts = &stored.container.resolved.mounts;
    for name in mounts.iter().filter_map(|m| m.volume.as_ref()) {
        let found = volume::find(conn, &settings.root, name)?;
        if found.is_some_and(|v| v.anonymous) {
            volume::remove(conn, &settings.root, name)?;
        }
    }
    Ok(())
}

/// Removes what a container without a row has left in ROOT.
pub fn remove_storage(settings: &Settings, id: &str) -> Result<(), Error> {
    match fs::remove_dir_all(storage(&settings.root, id)) {
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
pub fn bury(settings: &Settings, id: &str) -> Result<(), Error> {
    let deadline = Instant::now() + TEAR_DOWN;
    // Again until nothing is found: what was killed in the act of cloning may have made one more.
    loop {
        let mut left: Vec<Identity> = monitor::processes(id);
        left.extend(cgroup::processes(id).into_iter().filter_map(Identity::of));
        let handles: Vec<process::Handle> = left.into_iter().filter_map(Identity::open).collect();
        if handles.is_empty() {
            break;
        }
        for handle in &handles {
            let _ = handle.kill();
        }
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
    cgroup::remove(id).map_err(failed("remove the cgroups"))?;
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
