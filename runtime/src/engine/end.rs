//! `stop`, `kill`, `rm`, `wait`: signals to a container's first process, and waiting for its monitor to have cleaned up.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Engine, again, finish, limits};
use crate::cgroup::{self, Group};
use crate::error::Error;
use crate::monitor;
use crate::process::Handle;
use crate::record::State;
use crate::request::RestartPolicy;
use crate::reserve;
use crate::store::{self, Restarting, Stopped, Stored};
use crate::wire::{self, Kind};

/// How long a container may take to end after SIGKILL, and its monitor to clean up.
const LAST_WAIT: Duration = Duration::from_secs(20);

/// Between two looks at a container that somebody else starts; a start takes some dozens of milliseconds.
const STARTING: Duration = Duration::from_millis(5);

const DEFAULT_STOP_TIMEOUT: u32 = 10;

/// A stop signal that the first process of a container did not heed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unheard {
    pub container: String,
    /// As `SIGTERM`.
    pub signal: String,
}

/// `stop -t -s`; what is `None` is the container's own.
#[derive(Clone, Debug, Default)]
pub struct StopOptions {
    /// Seconds before SIGKILL.
    pub timeout: Option<u32>,
    pub signal: Option<String>,
}

pub(super) fn stop(
    engine: &mut Engine,
    name: &str,
    options: &StopOptions,
) -> Result<Option<Unheard>, Error> {
    stop_by(engine, name, options, Stopped::ByUser)
}

/// `stopped`: what its record says of it from now on.
pub(super) fn stop_by(
    engine: &mut Engine,
    name: &str,
    options: &StopOptions,
    stopped: Stopped,
) -> Result<Option<Unheard>, Error> {
    let stored = settled(engine, name)?;
    let id = stored.container.id.clone();
    let own = &stored.container.resolved.stop_signal;
    let name_of_signal = options.signal.as_ref().unwrap_or(own);
    let signal = signal_number(name_of_signal)?;
    if again::call_off(engine, &id, stopped)? {
        record(engine, &stored, "stop", &[])?;
        return Ok(None);
    }
    let Some(init) = running(&stored) else {
        just_ended(engine, &stored, stopped)?;
        return Ok(None);
    };
    let timeout = options
        .timeout
        .or(stored.container.request.stop_timeout)
        .unwrap_or(DEFAULT_STOP_TIMEOUT);
    set_stopped(engine, &stored, stopped)?;
    let end = Waiter::connect(engine, &stored);
    send_told(engine, &stored, &init, signal)?;
    let mut unheard = None;
    if !init
        .wait(Some(Duration::from_secs(timeout.into())))
        .unwrap_or(true)
    {
        // Who gives it no time means to kill it.
        let given_time = timeout > 0;
        if given_time && stored.init.is_some_and(|init| ignores(init.pid, signal)) {
            unheard = Some(Unheard {
                container: stored.container.name.clone(),
                signal: name_of_signal.clone(),
            });
        }
        send_told(engine, &stored, &init, libc::SIGKILL)?;
    }
    end.wait(engine, Some(LAST_WAIT))?;
    // It may have ended by itself just before, and wait for its restart.
    again::call_off(engine, &id, stopped)?;
    record(engine, &stored, "stop", &[])?;
    Ok(unheard)
}

/// Whether a process does nothing about a signal: the first one of a pid namespace is not ended by it unless it has a
/// handler (pid_namespaces(7)). Who blocks it may wait for it otherwise, as with signalfd(2).
fn ignores(pid: i32, signal: i32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
        return false;
    };
    let set = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
    };
    let heeded = set("SigCgt:")
        .zip(set("SigBlk:"))
        .map(|(caught, blocked)| caught | blocked);
    heeded.is_some_and(|heeded| heeded >> (signal - 1) & 1 == 0)
}

pub(super) fn kill(engine: &mut Engine, name: &str, signal: &str) -> Result<(), Error> {
    let number = signal_number(signal)?;
    let stored = settled(engine, name)?;
    let id = stored.container.id.clone();
    if again::call_off(engine, &id, Stopped::ByUser)? {
        return Ok(());
    }
    let Some(init) = running(&stored) else {
        return match just_ended(engine, &stored, Stopped::ByUser)? {
            true => Ok(()),
            false => Err(Error::NotRunning(id)),
        };
    };
    // Who sends another signal does not mean the end of it: SIGHUP reads the configuration again.
    let ends = [
        libc::SIGKILL,
        signal_number(&stored.container.resolved.stop_signal).unwrap_or(libc::SIGTERM),
    ];
    if ends.contains(&number) {
        set_stopped(engine, &stored, Stopped::ByUser)?;
    }
    send_told(engine, &stored, &init, number)
}

/// Sees to it that a container which has just ended by itself, unheard of, is not started again; true if it would have been.
fn just_ended(engine: &mut Engine, stored: &Stored, stopped: Stopped) -> Result<bool, Error> {
    let id = &stored.container.id;
    if stored.owner.is_none() {
        return Ok(false);
    }
    let end = Waiter::connect(engine, stored);
    set_stopped(engine, stored, stopped)?;
    end.wait(engine, Some(LAST_WAIT))?;
    again::call_off(engine, id, stopped)?;
    Ok(stored.container.request.restart != RestartPolicy::No)
}

/// Before the signal that ends it: who records the end reads who wanted it. A container must end although nothing can be written,
/// so it stands in RUN_ROOT until something can. The space that is set aside is not for this: on a disk that the container itself
/// has filled it would be eaten up before the signal, and the end could not be recorded.
fn set_stopped(engine: &Engine, stored: &Stored, stopped: Stopped) -> Result<(), Error> {
    match store::set_stopped(&engine.conn, &stored.container.id, stopped) {
        Err(error) if reserve::is_unwritable(&error) => {
            note_stopped(engine, stored, stopped);
            Ok(())
        }
        result => result,
    }
}

/// What a disk that cannot be written does not take.
pub(super) fn note_stopped(engine: &Engine, stored: &Stored, stopped: Stopped) {
    let Some(owner) = &stored.owner else {
        return;
    };
    let id = &stored.container.id;
    let noted = finish::note_stopped(&engine.settings.run_root, id, owner.process, stopped);
    if let Err(e) = noted {
        tracing::warn!(container = id, "cannot write down that it is stopped: {e}");
    }
}

/// An event of this container; one that has been removed meanwhile has none. It stands in no one's way.
fn record(
    engine: &Engine,
    stored: &Stored,
    action: &str,
    more: &[(&str, &str)],
) -> Result<(), Error> {
    match store::get(&engine.conn, &stored.container.id)? {
        Some(now) => limits::record_if_possible(&engine.conn, action, &now.container, more),
        None => Ok(()),
    }
}

/// A signal that the user is told of.
fn send_told(
    engine: &mut Engine,
    stored: &Stored,
    init: &Handle,
    signal: i32,
) -> Result<(), Error> {
    let number = signal.to_string();
    // Before: what the signal does is recorded by the monitor.
    record(engine, stored, "kill", &[("signal", &number)])?;
    send(&engine.conn, stored, init, signal)
}

pub(super) fn remove(
    engine: &mut Engine,
    name: &str,
    force: bool,
    volumes: bool,
) -> Result<(), Error> {
    let stored = store::find(&engine.conn, name)?;
    let id = stored.container.id.clone();
    if stored.owner.is_some() {
        match stored.container.state {
            _ if force => kill_and_wait(engine, stored, Stopped::ByUser)?,
            State::Restarting { .. } => return Err(Error::StillRestarting(id)),
            _ if cgroup::is_frozen(&Group::of(&stored.container)) => {
                return Err(Error::RemovePaused(id));
            }
            _ => return Err(Error::StillRunning(id)),
        }
    }
    let tx = engine
        .conn
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    // With --rm, the monitor may have removed it by now.
    if let Some(stored) = store::get(&tx, &id)? {
        if stored.owner.is_some() {
            return Err(Error::StillRunning(id));
        }
        finish::delete(&tx, &engine.settings, &stored, volumes)?;
    }
    tx.commit()?;
    finish::remove_storage(&engine.settings, &id)
}

/// Ends a container that starts, runs or waits for its restart.
fn kill_and_wait(engine: &mut Engine, mut stored: Stored, stopped: Stopped) -> Result<(), Error> {
    let id = stored.container.id.clone();
    let deadline = Instant::now() + LAST_WAIT;
    while stored.owner.is_some() {
        if again::call_off(engine, &id, stopped)? {
            return Ok(());
        }
        if let Some(init) = running(&stored) {
            set_stopped(engine, &stored, stopped)?;
            let end = Waiter::connect(engine, &stored);
            send_told(engine, &stored, &init, libc::SIGKILL)?;
            end.wait(engine, Some(LAST_WAIT))?;
            again::call_off(engine, &id, stopped)?;
            return Ok(());
        }
        // It is just being started, or its end is being recorded.
        if Instant::now() > deadline {
            return Err(Error::WillNotDie(id));
        }
        if !finish::is_answered_for(&stored) {
            engine.repair_one(&stored)?;
        }
        std::thread::sleep(Duration::from_millis(2));
        match store::get(&engine.conn, &id)? {
            Some(now) => stored = now,
            None => return Ok(()),
        }
    }
    Ok(())
}

/// Stops containers side by side: all are asked first, then each is waited for.
pub(super) fn stop_all(engine: &mut Engine, all: &[Stored]) -> Result<(), Error> {
    for stored in all {
        // Not by the user: `system up` starts it again if its policy wants that.
        if again::call_off(engine, &stored.container.id, Stopped::ByDown)? {
            continue;
        }
        set_stopped(engine, stored, Stopped::ByDown)?;
        if let Some(init) = running(stored) {
            let signal = signal_number(&stored.container.resolved.stop_signal)?;
            send_told(engine, stored, &init, signal)?;
        }
    }
    let asked = Instant::now();
    for stored in all {
        let own = stored
            .container
            .request
            .stop_timeout
            .unwrap_or(DEFAULT_STOP_TIMEOUT);
        let left = Duration::from_secs(own.into()).saturating_sub(asked.elapsed());
        if let Some(init) = running(stored) {
            let _ = init.wait(Some(left));
        }
        match store::get(&engine.conn, &stored.container.id)? {
            Some(now) => {
                kill_and_wait(engine, now, Stopped::ByDown)?;
                record(engine, stored, "stop", &[])?;
            }
            None => continue,
        }
    }
    Ok(())
}

pub(super) fn wait(engine: &mut Engine, name: &str) -> Result<i32, Error> {
    let mut stored = store::find(&engine.conn, name)?;
    loop {
        if stored.owner.is_none() {
            return Ok(code(&stored));
        }
        let ended = Waiter::connect(engine, &stored).wait(engine, None)?;
        // Only the last of its ends counts, if its policy starts it again.
        match store::get(&engine.conn, &stored.container.id)? {
            Some(now) if now.owner.is_some() && now.restarting != Restarting::No => stored = now,
            _ => return Ok(ended),
        }
    }
}

/// How a container ended that nobody answers for; one that never ran counts as 0, as in Docker.
fn code(stored: &Stored) -> i32 {
    match stored.container.state {
        State::Exited { code, .. } | State::Restarting { code, .. } => code,
        State::Created | State::Running { .. } => 0,
    }
}

/// The container, once a start of it that is under way elsewhere has come to its end: before, there is nothing to signal,
/// and afterwards it would run on.
pub(super) fn settled(engine: &Engine, name: &str) -> Result<Stored, Error> {
    let deadline = Instant::now() + LAST_WAIT;
    let mut stored = store::find(&engine.conn, name)?;
    while stored.init.is_none()
        && stored.restarting != Restarting::Waiting
        && finish::is_answered_for(&stored)
        && Instant::now() < deadline
    {
        std::thread::sleep(STARTING);
        match store::get(&engine.conn, &stored.container.id)? {
            Some(now) => stored = now,
            None => return Err(Error::NoSuchContainer(name.to_owned())),
        }
    }
    Ok(stored)
}

/// The container's first process, if it runs.
fn running(stored: &Stored) -> Option<Handle> {
    stored.init.and_then(|init| init.open())
}

fn send(conn: &Connection, stored: &Stored, init: &Handle, signal: i32) -> Result<(), Error> {
    let failed = |step| {
        let container = stored.container.id.clone();
        move |source| Error::Io {
            step,
            container,
            source,
        }
    };
    init.signal(signal)
        .map_err(failed("signal the container"))?;
    // As Docker does: a paused container that is sent a signal goes on, and finds it.
    let group = Group::of(&stored.container);
    if cgroup::is_frozen(&group) {
        cgroup::thaw(&group).map_err(failed("unpause the container"))?;
        limits::record_if_possible(conn, "unpause", &stored.container, &[])?;
    }
    Ok(())
}

/// Waits for a container's end: the monitor tells its clients when everything is cleaned up.
pub(super) struct Waiter {
    id: String,
    socket: Option<OwnedFd>,
}

impl Waiter {
    /// Connect before the signal that ends the container: afterwards the monitor may have gone.
    pub(super) fn connect(engine: &Engine, stored: &Stored) -> Waiter {
        let id = stored.container.id.clone();
        let path = monitor::directory(&engine.settings.run_root, &id).join(finish::SOCKET);
        Waiter {
            socket: wire::connect(&path).ok(),
            id,
        }
    }

    /// The exit code.
    pub(super) fn wait(self, engine: &mut Engine, timeout: Option<Duration>) -> Result<i32, Error> {
        let deadline = timeout.map(|t| Instant::now() + t);
        if let Some(socket) = &self.socket
            && let Some(code) = exit_message(socket, deadline)
        {
            return Ok(code);
        }
        self.wait_for_row(engine, deadline)
    }

    /// The monitor was killed, or had closed its socket already: the row tells, and repair writes it if need be.
    fn wait_for_row(self, engine: &mut Engine, deadline: Option<Instant>) -> Result<i32, Error> {
        loop {
            let Some(stored) = store::get(&engine.conn, &self.id)? else {
                return Ok(finish::UNKNOWN);
            };
            // What waits for its restart has ended; whether that is the last word is for the caller to judge.
            let waits = stored.restarting == Restarting::Waiting;
            if stored.owner.is_none() || (waits && deadline.is_some()) {
                return Ok(code(&stored));
            }
            if !finish::is_answered_for(&stored) {
                match engine.repair_one(&stored) {
                    // Nothing can be written: the kernel says whether it has ended, and a note perhaps how.
                    Err(error) if reserve::is_unwritable(&error) && running(&stored).is_none() => {
                        return Ok(match engine.seen(stored).state {
                            State::Exited { code, .. } => code,
                            _ => finish::UNKNOWN,
                        });
                    }
                    result => result?,
                }
            } else if deadline.is_some_and(|d| Instant::now() > d) {
                return Err(Error::WillNotDie(self.id));
            } else {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

fn exit_message(socket: &OwnedFd, deadline: Option<Instant>) -> Option<i32> {
    loop {
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        let left = left.map(|d| Timespec {
            tv_sec: d.as_secs() as i64,
            tv_nsec: d.subsec_nanos() as i64,
        });
        let mut fds = [PollFd::new(socket, PollFlags::IN)];
        match poll(&mut fds, left.as_ref()) {
            Ok(0) => return None,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
        let message = wire::receive(socket).ok()??;
        if message.kind == Kind::Exit {
            return message.payload.try_into().ok().map(i32::from_le_bytes);
        }
    }
}

/// `KILL`, `SIGKILL`, `kill`, `9`.
pub(crate) fn signal_number(name: &str) -> Result<i32, Error> {
    let invalid = || Error::InvalidSignal(name.to_owned());
    if let Ok(number) = name.parse::<i32>() {
        return if (1..=libc::SIGRTMAX()).contains(&number) {
            Ok(number)
        } else {
            Err(invalid())
        };
    }
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = short.strip_prefix("RTMIN") {
        let offset: i32 = if offset.is_empty() {
            0
        } else {
            offset.parse().map_err(|_| invalid())?
        };
        let number = libc::SIGRTMIN() + offset;
        return if (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number) {
            Ok(number)
        } else {
            Err(invalid())
        };
    }
    format!("SIG{short}")
        .parse::<nix::sys::signal::Signal>()
        .map(|s| s as i32)
        .map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_understood_as_people_write_them() {
        for name in ["KILL", "SIGKILL", "sigkill", "9"] {
            assert_eq!(signal_number(name).unwrap(), 9);
        }
        assert_eq!(signal_number("RTMIN+1").unwrap(), libc::SIGRTMIN() + 1);
        for name in ["", "NOPE", "0", "-1", "1000", "SIG", "RTMIN+100"] {
            assert!(signal_number(name).is_err(), "{name}");
        }
    }
}
