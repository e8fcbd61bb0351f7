//! What a killed command or monitor has left behind, found and mended by the next command. Cheap when nothing is wrong.
//!
//! A container that runs without its monitor gets a new one; one that never came to run, or has ended unseen, is brought
//! to its end. Directories without a row are removed.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use netmgr::dns::Listening;
use netmgr::proxy::Forward;
use netmgr::{Firewall, VethRemoval};

use super::{Engine, again, files, finish, network, untold, volumes};
use crate::cgroup::{self, Group};
use crate::error::{Error, chain};
use crate::events;
use crate::monitor::{self, Descriptors, Handle, Launch, LaunchKind};
use crate::process::{self, Identity};
use crate::record::State;
use crate::store::{self, End, Owner, Restarting, Stored};
use crate::volume;

impl Engine {
    pub(super) fn repair(&mut self) -> Result<(), Error> {
        let boot_id = process::boot_id().map_err(|source| Error::Host {
            step: "read the boot id",
            source,
        })?;
        files::repair(self);
        for (id, owner) in store::owners(&self.conn)? {
            if owner.boot_id == boot_id && owner.process.is_alive() {
                continue;
            }
            // One broken container must not stand in the way of the others.
            let mended = self.making_room(|engine| engine.mend(&id, &owner, &boot_id));
            if let Err(e) = mended {
                tracing::warn!(container = id, "cannot repair: {}", chain(&e));
            }
        }
        self.sweep()?;
        volume::sweep(&self.conn, &self.settings.root)?;
        netmgr::repair(&self.settings.network, &mut self.conn)?;
        untold::repair(self);
        again::repair(self);
        Ok(())
    }

    /// Mends the one container that the caller waits for; that it cannot be mended is the caller's error.
    pub(super) fn repair_one(&mut self, stored: &Stored) -> Result<(), Error> {
        let Some(owner) = &stored.owner else {
            return Ok(());
        };
        let boot_id = process::boot_id().map_err(|source| Error::Host {
            step: "read the boot id",
            source,
        })?;
        self.making_room(|engine| engine.mend(&stored.container.id, owner, &boot_id))
    }

    /// Under the lock, so that two commands do not mend one container, nor one mends what the other has started anew.
    fn mend(&mut self, id: &str, dead: &Owner, boot_id: &str) -> Result<(), Error> {
        let settings = self.settings.clone();
        let outcome = netmgr::change(&settings.network, &mut self.conn, |edit| {
            let same = |stored: &Stored| stored.owner.as_ref() == Some(dead);
            let Some(mut stored) = store::get(edit.transaction(), id)?.filter(same) else {
                return Ok(Mended::Nothing);
            };
            finish::heed_stop(edit.transaction(), &settings.run_root, &mut stored)?;
            let directory = monitor::directory(&settings.run_root, id);
            let noted = finish::read_note(&settings.run_root, id, dead.process);
            let same_boot = dead.boot_id == boot_id;
            let started =
                same_boot && (noted.is_some() || directory.join(finish::STARTED).exists());
            if let (true, Some(init)) = (started, stored.init.filter(|init| init.is_alive()))
                && !stored.container.request.tty
                && let Some(responder) = responder_again(edit.transaction(), &stored)?
            {
                let forwards = held_again(edit.transaction(), id, settings.network.firewall)?;
                let launch = Launch::new(
                    &settings,
                    stored.container.clone(),
                    LaunchKind::Adopt { init },
                );
                let monitor = monitor::spawn(
                    launch,
                    Descriptors {
                        forwards,
                        ..Descriptors::default()
                    },
                    &directory,
                )?;
                monitor.created()?;
                let owner = Owner {
                    process: monitor.process,
                    boot_id: boot_id.to_owned(),
                };
                store::hand_over(edit.transaction(), id, &owner)?;
                return Ok(Mended::Adopted(monitor, responder));
            }
            let end = noted.unwrap_or_else(|| end_of(&stored, same_boot));
            let is_over = started || !same_boot;
            if started {
                let noted = finish::note(&settings.run_root, id, dead.process, &end);
                noted.map_err(|source| io_error("write down the end", id, source))?;
            }
            finish::bury(&settings, id, &Group::of(&stored.container))?;
            if stored.init.is_some() && is_over {
                events::record_end(edit.transaction(), &stored.container, end.code)?;
            }
            edit.detach(id, VethRemoval::Now)?;
            if !is_over && stored.restarting == Restarting::No {
                store::unclaim(edit.transaction(), id)?;
                return Ok(Mended::Nothing);
            }
            let after = Engine::end_or_wait(edit.transaction(), &stored, &end, same_boot)?;
            if after == finish::After::Restart {
                return Ok(Mended::ToStart);
            }
            volumes::record_unmounts(edit.transaction(), &stored.container)?;
            if stored.container.request.auto_remove {
                finish::delete(edit.transaction(), &settings, &stored, true)?;
                return Ok::<_, Error>(Mended::Removed);
            }
            Ok(Mended::Nothing)
        })?;
        finish::remove_note(&self.settings.run_root, id, dead.process);
        match outcome {
            Mended::Nothing => Ok(()),
            Mended::ToStart => self.start_taken_over(id),
            Mended::Removed => finish::remove_storage(&self.settings, id),
            Mended::Adopted(monitor, responder) => {
                monitor.go(responder.as_ref())?;
                monitor.release();
                Ok(())
            }
        }
    }

    /// Directories whose container has no row (its removal was cut short), or no owner.
    fn sweep(&self) -> Result<(), Error> {
        finish::sweep_notes(&self.settings.run_root, |id, monitor| {
            let row = store::get(&self.conn, id).ok().flatten();
            row.and_then(|row| row.owner)
                .is_some_and(|owner| owner.process == monitor)
        });
        let stored = names_in(&self.settings.root.join("containers"));
        let run = names_in(&self.settings.run_root.join("containers"));
        if stored.is_empty() && run.is_empty() {
            return Ok(());
        }
        // Read after the directories: a row is always older than its directories.
        let known: HashSet<String> = store::ids(&self.conn)?.into_iter().collect();
        for id in stored.iter().filter(|id| !known.contains(*id)) {
            finish::remove_storage(&self.settings, id)?;
        }
        for id in run.iter().filter(|id| !known.contains(*id)) {
            if monitor::processes(id).is_empty() {
                monitor::remove_directories(&self.settings.run_root, id)
                    .map_err(|source| io_error("remove the run directory", id, source))?;
            }
        }
        Ok(())
    }
}

enum Mended {
    Nothing,
    Removed,
    /// Its policy wants it to run, and this process is its owner now.
    ToStart,
    Adopted(Handle, Option<Listening>),
}

fn io_error(step: &'static str, id: &str, source: std::io::Error) -> Error {
    Error::Io {
        step,
        container: id.to_owned(),
        source,
    }
}

fn names_in(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .collect()
}

/// The sockets for names of a container whose monitor has gone, if it has any; the outer `None`: it has just ended, perhaps
/// by the signal of the very command that repairs.
fn responder_again(
    conn: &rusqlite::Connection,
    stored: &Stored,
) -> Result<Option<Option<Listening>>, Error> {
    match network::responder_again(conn, stored) {
        Err(Error::NotRunning(_)) => Ok(None),
        responder => responder.map(Some),
    }
}

/// Listens again on the ports of a container whose monitor, with its sockets, has gone.
fn held_again(
    conn: &rusqlite::Connection,
    id: &str,
    firewall: Firewall,
) -> Result<Vec<Forward>, Error> {
    let targets = monitor::targets(&netmgr::store::endpoints_of(conn, id)?);
    let mut forwards = Vec::new();
    for map in netmgr::store::ports_of(conn, id)? {
        let held = netmgr::ports::hold_again(&map, firewall != Firewall::None)?;
        forwards.extend(held.into_iter().map(|held| held.forward(targets)));
    }
    Ok(forwards)
}

/// How a container ended that nobody has seen end: by our hand, or nobody knows.
fn end_of(stored: &Stored, same_boot: bool) -> End {
    let alive = same_boot && stored.init.is_some_and(Identity::is_alive);
    // One that was to be started again has ended before.
    let before = match stored.container.state {
        State::Restarting { code, .. } => Some(code),
        _ => None,
    };
    let code = before.unwrap_or(match alive {
        true => 128 + libc::SIGKILL,
        false => finish::UNKNOWN,
    });
    let oom_killed = same_boot && cgroup::kills(&Group::of(&stored.container)) > 0;
    End {
        code,
        oom_killed,
        ..End::default()
    }
}
