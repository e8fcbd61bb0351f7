//! One health check: a command in the container, with a time limit, whose result is recorded.

use std::os::fd::OwnedFd;
use std::time::Instant;

use time::OffsetDateTime;

use super::exec;
use super::health::STILL_STARTING;
use super::launch::Launch;
use super::relay::Capture;
use crate::cgroup::{self, Group};
use crate::error::Error;
use crate::events;
use crate::health::{self, MOST_OUTPUT, NO_ANSWER};
use crate::record::{HealthCheck, HealthStatus, Probe, State};
use crate::request::ExecRequest;
use crate::store;

/// The process of a check.
pub(super) fn run(control: OwnedFd, launch: &Launch, id: &str) -> i32 {
    // Nobody waits for a word of ours.
    drop(control);
    match check(launch, id) {
        Ok(Some(HealthStatus::Starting)) => STILL_STARTING,
        Ok(_) => 0,
        Err(e) => {
            eprintln!("cannot check the container's health: {e}");
            1
        }
    }
}

/// What the container's status is now; `None` if it has ended meanwhile.
fn check(launch: &Launch, id: &str) -> Result<Option<HealthStatus>, Error> {
    let container = &launch.container.id;
    let directory = exec::directory(&launch.run_root, container, id);
    let conn = store::open(&launch.root)?;
    let Some(stored) = store::get(&conn, container)? else {
        return Ok(None);
    };
    let check = launch.container.resolved.health.as_ref();
    let (Some(check), State::Running { .. }) = (check, &stored.container.state) else {
        return Ok(None);
    };
    let command = health::command(check).unwrap_or_default();
    let line = command.join(" ");
    let event = |conn: &rusqlite::Connection, action: &str, more: &[(&str, &str)]| {
        let mut all = vec![("execID", id)];
        all.extend(more);
        events::record_container(conn, &stored.container, action, &all)
    };
    event(&conn, &format!("exec_create: {line}"), &[])?;
    event(&conn, &format!("exec_start: {line}"), &[])?;
    // libcontainer must find no open database in the process that it clones.
    drop(conn);
    let mut launch = launch.clone();
    launch.container.state = stored.container.state.clone();
    let (probe, code) = execute(&launch, check, command, &directory);
    let _ = std::fs::remove_dir_all(&directory);
    let conn = store::open(&launch.root)?;
    event(&conn, "exec_die", &[("exitCode", &code.to_string())])?;
    // What a frozen container did not answer in time says nothing about it.
    if cgroup::is_frozen(&Group::of(&launch.container)) {
        return Ok(stored.container.health.map(|health| health.status));
    }
    record(conn, &stored, check, probe)
}

/// The result, and the command's own exit code.
fn execute(
    launch: &Launch,
    check: &HealthCheck,
    command: Vec<String>,
    directory: &std::path::Path,
) -> (Probe, i32) {
    let start = OffsetDateTime::now_utc();
    let done = |exit_code: i32, output: String| Probe {
        start,
        end: OffsetDateTime::now_utc(),
        exit_code,
        output,
    };
    let request = ExecRequest {
        command,
        ..ExecRequest::default()
    };
    let limit = health::timeout(check);
    let deadline = Instant::now() + limit;
    let (process, mut relay) = match exec::begin(launch, &request, directory) {
        Ok(begun) => begun,
        Err(failure) => return (done(NO_ANSWER, failure.message), NO_ANSWER),
    };
    relay.deadline = Some(deadline);
    relay.capture = Some(Capture {
        most: MOST_OUTPUT,
        ..Capture::default()
    });
    let code = exec::follow(process, &mut relay);
    if relay.deadline.is_none() {
        let text = format!(
            "Health check exceeded timeout ({})",
            health::go_duration(limit)
        );
        return (done(NO_ANSWER, text), code);
    }
    let capture = relay.capture.take().unwrap_or_default();
    let mut output = String::from_utf8_lossy(&capture.bytes).into_owned();
    if capture.cut {
        output.push_str("...");
    }
    (done(code, output), code)
}

fn record(
    mut conn: rusqlite::Connection,
    before: &store::Stored,
    check: &HealthCheck,
    probe: Probe,
) -> Result<Option<HealthStatus>, Error> {
    let id = &before.container.id;
    let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    // The same run of it.
    let same = |stored: &store::Stored| stored.init.is_some() && stored.init == before.init;
    let Some(stored) = store::get(&tx, id)?.filter(same) else {
        return Ok(None);
    };
    let State::Running { started, .. } = stored.container.state else {
        return Ok(None);
    };
    let mut health = stored.container.health.clone().unwrap_or_default();
    let old = health.status;
    health::take(&mut health, check, started, probe);
    store::set_health(&tx, id, &health)?;
    if health.status != old {
        let action = format!("health_status: {}", health.status.as_str());
        events::record_container(&tx, &stored.container, &action, &[])?;
    }
    tx.commit()?;
    Ok(Some(health.status))
}
