//! `exec`: a monitor of its own beside the container's.

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::{Engine, limits};
use crate::attach::Session;
use crate::cgroup::{self, Group};
use crate::error::{Error, ErrorKind};
use crate::monitor::{self, Descriptors, Launch, LaunchKind};
use crate::names;
use crate::record::State;
use crate::request::ExecRequest;
use crate::store;
use crate::wire;

pub(super) fn exec(engine: &mut Engine, request: &ExecRequest) -> Result<Option<Session>, Error> {
    if request.command.is_empty() {
        return Err(Error::NoCommand);
    }
    let stored = store::find(&engine.conn, &request.container)?;
    let container = stored.container;
    if matches!(container.state, State::Restarting { .. }) {
        return Err(Error::IsRestarting(container.id));
    }
    let (State::Running { .. }, Some(init)) = (&container.state, stored.init) else {
        return Err(Error::NotRunning(container.id));
    };
    if cgroup::is_frozen(&Group::of(&container)) {
        return Err(Error::PausedForExec(request.container.clone()));
    }
    if let Some(directory) = &request.workdir {
        check_workdir(init.pid, directory)?;
    }
    let failed = |source| Error::Io {
        step: "prepare the exec",
        container: container.id.clone(),
        source,
    };
    let id = names::new_id()?;
    let directory = monitor::exec::make_directory(&engine.settings.run_root, &container.id, &id)
        .map_err(failed)?;
    let (client, theirs) = if request.detach {
        (None, None)
    } else {
        let (ours, theirs) = wire::pair().map_err(failed)?;
        (Some(ours), Some(theirs))
    };
    let line = request.command.join(" ");
    let tx = engine.conn.transaction()?;
    for action in ["exec_create", "exec_start"] {
        let action = format!("{action}: {line}");
        limits::record_if_possible(&tx, &action, &container, &[("execID", &id)])?;
    }
    tx.commit()?;
    let kind = LaunchKind::Exec {
        id,
        request: request.clone(),
    };
    let launch = Launch::new(&engine.settings, container.clone(), kind);
    let descriptors = Descriptors {
        client: theirs,
        ..Descriptors::default()
    };
    let monitor = monitor::spawn(launch, descriptors, &directory).inspect_err(|_| {
        let _ = std::fs::remove_dir_all(&directory);
    })?;
    monitor.started()?;
    monitor.release();
    Ok(client.map(|socket| Session {
        socket,
        tty: request.tty,
        container: container.id,
        init: None,
        joined: false,
    }))
}

/// Unlike `run -w`, `exec -w` makes no directory. libcontainer's own refusal does not say what is wrong.
fn check_workdir(init: i32, directory: &str) -> Result<(), Error> {
    let refused = |message: String| Error::Program {
        kind: ErrorKind::NotExecutable,
        message,
    };
    if !directory.starts_with('/') {
        return Err(refused(
            "the working directory must be an absolute path".to_owned(),
        ));
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(format!("/proc/{init}/root"), flags, Mode::empty())
        .and_then(|root| {
            openat2(
                &root,
                directory,
                flags,
                Mode::empty(),
                ResolveFlags::IN_ROOT,
            )
        })
        .map(drop)
        .map_err(|error| {
            let why = match error {
                Errno::NOENT => "no such file or directory",
                Errno::NOTDIR => "not a directory",
                _ => "it cannot be opened",
            };
            refused(format!("chdir to cwd ({directory:?}) failed: {why}"))
        })
}
