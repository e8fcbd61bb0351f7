//! Containers that are started again by their policy: by the monitor that saw them end, by the next command where it was
//! killed, and by `system up`. `restart` is the user's.
//!
//! The row is the arbiter: who changes it first, the one that waits or the one that calls it off, has the say.

use std::time::{Duration, Instant};

use super::mark::{self, Mark};
use super::{Engine, Settings, StartMode, StopOptions, end, finish, start};
use crate::error::Error;
use crate::events;
use crate::monitor;
use crate::process::{self, Identity};
use crate::record::State;
use crate::request::RestartPolicy;
use crate::reserve;
use crate::restart;
use crate::store::{self, End, Owner, Restarting, Stopped, Stored};
use crate::wire;

/// How long a monitor may take to notice that its wait has been called off.
const NOTICE: Duration = Duration::from_secs(2);

/// Ends the wait of a container for its restart; false if it does not wait.
pub(super) fn call_off(engine: &mut Engine, id: &str, stopped: Stopped) -> Result<bool, Error> {
    let waits = |stored: &Stored| stored.restarting == Restarting::Waiting;
    // Most do not wait: a look costs no lock of the database.
    let Some(stored) = store::get(&engine.conn, id)?.filter(waits) else {
        return Ok(false);
    };
    match engine.making_room(|engine| end_wait(engine, id, stopped)) {
        Ok(false) => return Ok(false),
        Ok(true) => {}
        // Its monitor looks there as well.
        Err(error) if reserve::is_unwritable(&error) => end::note_stopped(engine, &stored, stopped),
        Err(error) => return Err(error),
    }
    let owner = stored.owner;
    // The monitor looks at the row when somebody connects, and before it begins to listen.
    let socket = monitor::directory(&engine.settings.run_root, id).join(finish::SOCKET);
    let _knock = wire::connect(&socket);
    let monitor = owner.and_then(|owner| owner.process.open());
    if let Some(monitor) = monitor {
        let _ = monitor.wait(Some(NOTICE));
    }
    Ok(true)
}

/// In the row, if it still waits.
fn end_wait(engine: &mut Engine, id: &str, stopped: Stopped) -> Result<bool, Error> {
    let tx = engine
        .conn
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let ended = store::end_restart(&tx, id)?;
    if ended {
        store::set_stopped(&tx, id, stopped)?;
    }
    tx.commit()?;
    Ok(ended)
}

/// The monitor's part: whether the container of which it is the owner still waits for its restart.
pub fn is_waiting(settings: &Settings, id: &str) -> Result<bool, Error> {
    let conn = store::open(&settings.root)?;
    let me = myself()?;
    Ok(store::get(&conn, id)?.is_some_and(|stored| {
        stored.restarting == Restarting::Waiting
            && stored.owner.is_some_and(|owner| owner.process == me)
            && finish::read_stopped(&settings.run_root, id, me).is_none()
    }))
}

/// Likewise: starts it, after a pause of so long.
pub fn start_again(settings: Settings, id: &str, paused: Duration) -> Result<(), Error> {
    let mut engine = Engine::open(settings)?;
    let before = myself()?;
    claim_and_start(&mut engine, id, before, paused)
}

fn myself() -> Result<Identity, Error> {
    Identity::myself().map_err(|source| Error::Host {
        step: "find this process",
        source,
    })
}

/// Takes a waiting container over from the owner `before` and starts it. One that cannot be started has ended for good.
pub(super) fn claim_and_start(
    engine: &mut Engine,
    id: &str,
    before: Identity,
    paused: Duration,
) -> Result<(), Error> {
    let owner = Owner {
        process: myself()?,
        boot_id: process::boot_id().map_err(|source| Error::Host {
            step: "read the boot id",
            source,
        })?,
    };
    let mut before = before;
    for left in (0..ATTEMPTS).rev() {
        if !store::claim_restart(&engine.conn, id, before, &owner)? {
            return Ok(());
        }
        let Some(stored) = store::get(&engine.conn, id)? else {
            return Ok(());
        };
        let ended = match stored.container.state {
            State::Restarting { code, .. } => code,
            _ => finish::UNKNOWN,
        };
        let (container, mode) = (stored.container, StartMode::Detached);
        let Err(error) = start::start_claimed(engine, container, &owner, mode, Some(paused)) else {
            return Ok(());
        };
        let end = End {
            code: ended,
            error: error.to_string(),
            ..End::default()
        };
        // Its new monitor was killed: that says nothing against the container.
        let again = left > 0 && matches!(error, Error::MonitorBroke { .. });
        if !put_back(engine, id, &owner, &end, again)? {
            return Err(error);
        }
        before = owner.process;
    }
    Ok(())
}

/// So often a start is tried whose monitor breaks off.
const ATTEMPTS: u32 = 5;

/// After a start that failed: waits again with `again`, or has ended. False if it is not to be started again.
fn put_back(
    engine: &mut Engine,
    id: &str,
    owner: &Owner,
    end: &End,
    again: bool,
) -> Result<bool, Error> {
    let tx = engine
        .conn
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    // The user may have started or removed it meanwhile, or another command's repair has it in hand.
    let ours = |stored: &Stored| {
        let other = stored.owner.as_ref().filter(|other| *other != owner);
        stored.restarting == Restarting::Waiting && !other.is_some_and(|o| o.process.is_alive())
    };
    let Some(stored) = store::get(&tx, id)?.filter(ours) else {
        return Ok(false);
    };
    let again = again && stored.stopped == Stopped::No;
    match again {
        true => {
            store::set_restarting(&tx, id, end)?;
            store::hand_over(&tx, id, owner)?;
        }
        false => store::set_exited(&tx, id, end)?,
    }
    tx.commit()?;
    Ok(again)
}

/// In RUN_ROOT: marks of `restart`.
const RESTARTS: &str = "restarts";

/// Goes on with restarts whose command was killed. Cheap when there was none.
pub(super) fn repair(engine: &mut Engine) {
    for (mark, id) in mark::take_orphaned(&engine.settings.run_root, RESTARTS) {
        if let Err(e) = resume(engine, &id) {
            tracing::warn!(container = id, "cannot finish its restart: {e}");
        }
        drop(mark);
    }
}

/// What does not run is started. What still runs may have got the signal or not: its own policy decides about its end.
fn resume(engine: &mut Engine, id: &str) -> Result<(), Error> {
    let tx = engine
        .conn
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    // Unless the user has stopped it since.
    let wanted = |stored: &Stored| stored.stopped != Stopped::ByUser;
    let Some(stored) = store::get(&tx, id)?.filter(wanted) else {
        return Ok(());
    };
    if stored.init.is_some_and(Identity::is_alive) {
        store::set_stopped(&tx, id, Stopped::No)?;
        tx.commit()?;
        return Ok(());
    }
    drop(tx);
    start::start(engine, id, StartMode::Detached)?;
    Ok(())
}

impl Engine {
    /// `update --restart`. A container that runs follows it from its next end on.
    pub fn set_restart(&mut self, name: &str, policy: RestartPolicy) -> Result<(), Error> {
        let tx = self
            .conn
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let mut container = store::find(&tx, name)?.container;
        if container.request.auto_remove && policy != RestartPolicy::No {
            return Err(Error::RestartOfAutoRemove);
        }
        container.request.restart = policy;
        store::set_request(&tx, &container.id, &container.request)?;
        tx.commit()?;
        Ok(())
    }

    /// `restart`: stops the container, if it runs, and starts it.
    pub fn restart(&mut self, name: &str, options: &StopOptions) -> Result<(), Error> {
        let stored = end::settled(self, name)?;
        let id = stored.container.id;
        // What cannot be started is not stopped: a disk that is read-only says so here, when nothing has been done.
        let tx = self
            .conn
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        store::set_stopped(&tx, &id, stored.stopped)?;
        tx.rollback()?;
        let mark = Mark::set(&self.settings.run_root, RESTARTS, &id);
        let _mark = mark.map_err(|source| Error::Io {
            step: "mark it as being restarted",
            container: id.clone(),
            source,
        })?;
        // Not by the user, who wants it to run: where this command is killed, repair sees by it what is left to do.
        end::stop_by(self, &id, options, Stopped::ByDown)?;
        start::start(self, &id, StartMode::Detached)?;
        if let Some(stored) = store::get(&self.conn, &id)? {
            events::record_container(&self.conn, &stored.container, "restart", &[])?;
        }
        Ok(())
    }

    /// Starts what should run by its policy after a boot, the oldest first; one that cannot be started does not stand in the way of others.
    /// Returns why each of those could not be, with its name.
    pub(super) fn start_what_should_run(&mut self) -> Result<Vec<(String, Error)>, Error> {
        let boot_id = process::boot_id().map_err(|source| Error::Host {
            step: "read the boot id",
            source,
        })?;
        let mut all = store::list(&self.conn)?;
        all.reverse();
        let mut failed = Vec::new();
        for stored in all {
            if stored.owner.is_some() || !restart::is_wanted_at_up(&stored, &boot_id) {
                continue;
            }
            if let Err(error) = start::start(self, &stored.container.id, StartMode::Detached) {
                failed.push((stored.container.name, error));
            }
        }
        Ok(failed)
    }

    /// What repair does with a container that has ended unseen: its policy's wish, or the end.
    pub(super) fn end_or_wait(
        conn: &rusqlite::Connection,
        stored: &Stored,
        end: &End,
        same_boot: bool,
    ) -> Result<finish::After, Error> {
        let id = &stored.container.id;
        // After a boot, `system up` starts what should run.
        if same_boot && restart::is_wanted(stored, end.code) {
            let owner = Owner {
                process: myself()?,
                boot_id: stored.boot_id.clone().unwrap_or_default(),
            };
            store::set_restarting(conn, id, end)?;
            store::hand_over(conn, id, &owner)?;
            return Ok(finish::After::Restart);
        }
        store::set_exited(conn, id, end)?;
        Ok(finish::After::Nothing)
    }

    /// Starts what repair has taken over.
    pub(super) fn start_taken_over(&mut self, id: &str) -> Result<(), Error> {
        let begun = Instant::now();
        claim_and_start(self, id, myself()?, Duration::ZERO)?;
        tracing::debug!(container = id, took = ?begun.elapsed(), "started again");
        Ok(())
    }
}
