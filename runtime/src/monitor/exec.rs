//! The life of one `exec`: its streams, its exit code, and nothing of the container's.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Process, Spec, UserBuilder};

use super::container::fail;
use super::creation::{confinement, foreign, invalid, own_bounding_set};
use super::launch::{self, Descriptors, Launch};
use super::memory;
use super::relay::Relay;
use super::streams::{self, Console, Streams};
use crate::bundle;
use crate::cgroup::{self, Group};
use crate::error::{Error, ErrorKind};
use crate::events;
use crate::oci::{self, Confinement, Failure};
use crate::process::Identity;
use crate::record::State;
use crate::request::ExecRequest;
use crate::spec::{self, Place};
use crate::store;
use crate::user;
use crate::wire::{self, Kind};

/// The monitor of an exec.
pub(super) fn run(
    control: OwnedFd,
    launch: Launch,
    descriptors: Descriptors,
    id: &str,
    request: &ExecRequest,
) -> i32 {
    let directory = directory(&launch.run_root, &launch.container.id, id);
    let code = match begin(&launch, request, &directory) {
        Err(failure) => {
            let _ = std::fs::remove_dir_all(&directory);
            fail(&control, &failure);
            return 1;
        }
        Ok((process, mut relay)) => {
            let _ = wire::send(&control, Kind::Started, &[]);
            drop(control);
            if let Some(client) = descriptors.client {
                let _ = relay.add_client(client, true);
            }
            let code = follow(process, &mut relay);
            let _ = std::fs::remove_dir_all(&directory);
            if let Err(e) = record_end(&launch, id, code) {
                eprintln!("cannot record the end: {e}");
            }
            relay.say_goodbye(code, None);
            code
        }
    };
    i32::from(code != 0)
}

/// The event of its end.
fn record_end(launch: &Launch, id: &str, code: i32) -> Result<(), Error> {
    let conn = store::open(&launch.root)?;
    let (code, container) = (code.to_string(), &launch.container);
    let more = [("execID", id), ("exitCode", code.as_str())];
    events::record_container(&conn, container, "exec_die", &more)
}

/// The directory of one exec, inside its container's: it goes with it.
pub fn directory(run_root: &Path, container: &str, id: &str) -> PathBuf {
    launch::directory(run_root, container).join(format!("exec-{id}"))
}

pub(super) fn begin(
    launch: &Launch,
    request: &ExecRequest,
    directory: &Path,
) -> Result<(Identity, Relay), Failure> {
    let bundle = launch::directory(&launch.run_root, &launch.container.id);
    let spec = Spec::load(bundle.join("config.json"))
        .map_err(|e| Failure::internal("read the container's spec", &e))?;
    let (process, confinement) = describe(launch, request, &spec)?;
    let uid = process.user().uid();
    let (streams, stdio, console) = if request.tty {
        let console = Console::listen(directory)
            .map_err(|e| Failure::internal("make the console socket", &e))?;
        (Streams::default(), console.stdio(), Some(console))
    } else {
        let (streams, stdio) = streams::make(directory, request.open_stdin, uid)
            .map_err(|e| Failure::internal("make the command's streams", &e))?;
        (streams, stdio, None)
    };
    let file = directory.join("process.json");
    let below = match launch.container.state {
        State::Running { pid, .. } => cgroup::below(&Group::of(&launch.container), pid),
        _ => None,
    };
    let id = &launch.container.id;
    let pid = match foreign(launch) {
        Some(runtime) => oci::exec_by(&runtime, id, &file, &process, stdio, &confinement)?,
        None => {
            let state = own_state(launch, directory)
                .map_err(|e| Failure::internal("make the command's state directory", &e))?;
            oci::exec(id, &state, &file, &process, below, stdio, confinement)?
        }
    };
    let mut relay = Relay::new(streams);
    relay.stdin_once = !request.tty;
    if let Some(console) = console {
        let master = console
            .master(request.tty_size)
            .map_err(|e| Failure::internal("take the terminal", &e))?;
        relay.streams.terminal = Some(master);
    }
    // A command that has ended already is a zombie of ours, and `of` does not see zombies.
    Ok((
        Identity::of(pid).unwrap_or(Identity { pid, start: 0 }),
        relay,
    ))
}

/// libcontainer leaves a socket behind in the state directory for each command. It gets a directory that goes with the
/// command, and in it the container's own state by a second name.
fn own_state(launch: &Launch, directory: &Path) -> io::Result<PathBuf> {
    const STATE: &str = "state.json";
    let id = &launch.container.id;
    let state = directory.join("oci");
    std::fs::create_dir_all(state.join(id))?;
    let container = launch::oci_state(&launch.run_root).join(id).join(STATE);
    std::fs::hard_link(container, state.join(id).join(STATE))?;
    Ok(state)
}

/// The container's own process description, changed as asked.
fn describe(
    launch: &Launch,
    request: &ExecRequest,
    spec: &Spec,
) -> Result<(Process, Confinement), Failure> {
    let container = &launch.container;
    let missing = || Failure {
        kind: ErrorKind::Internal,
        message: "the container's spec has no process".into(),
    };
    let mut process = spec.process().clone().ok_or_else(missing)?;
    if let Some(who) = &request.user {
        let user = look_up(launch, who)?;
        let user = UserBuilder::default()
            .uid(user.uid)
            .gid(user.gid)
            .additional_gids(
                std::iter::once(user.gid)
                    .chain(user.groups)
                    .collect::<Vec<_>>(),
            )
            .build();
        process.set_user(user.map_err(|e| Failure::internal("describe the user", &e))?);
    }
    let mut env = process.env().clone().unwrap_or_default();
    for entry in &request.env {
        let key = entry.split('=').next().unwrap_or_default();
        env.retain(|e| e.split('=').next() != Some(key));
        env.push(entry.clone());
    }
    if request.tty && !env.iter().any(|e| e.starts_with("TERM=")) {
        env.push("TERM=xterm".into());
    }
    let cwd = request
        .workdir
        .clone()
        .unwrap_or_else(|| container.resolved.cwd().to_owned());
    process
        .set_args(Some(request.command.clone()))
        .set_env(Some(env))
        .set_cwd(cwd.into())
        .set_rlimits(spec::rlimits(&container.request.resources))
        .set_terminal(Some(request.tty));
    let place = Place {
        bounding_set: own_bounding_set(),
        labels: bundle::labels(Path::new("/"), &container.request, &container.id),
        ..Place::default()
    };
    let mut confinement = confinement(launch, &place)?;
    if request.privileged {
        // As in Docker the container's own filter stays.
        confinement.capabilities = place.bounding_set;
        process.set_capabilities(Some(spec::capability_sets(&confinement.capabilities)));
        if process.apparmor_profile().is_some() {
            process.set_apparmor_profile(Some("unconfined".to_owned()));
        }
    }
    Ok((process, confinement))
}

fn look_up(launch: &Launch, who: &str) -> Result<user::User, Failure> {
    let crate::record::State::Running { pid, .. } = launch.container.state else {
        return Err(Failure {
            kind: ErrorKind::Conflict,
            message: "the container is not running".into(),
        });
    };
    let groups = &launch.container.request.security.groups;
    user::look_up(Path::new(&format!("/proc/{pid}/root")), who, groups).map_err(invalid)
}

pub(super) fn follow(process: Identity, relay: &mut Relay) -> i32 {
    let pid = rustix::process::Pid::from_raw(process.pid);
    let ended = pid.and_then(|pid| {
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
    });
    memory::give_back();
    if let Some(ended) = ended
        && let Err(e) = relay.run(&ended)
    {
        eprintln!("the relay broke off: {e}");
    }
    super::container::reap(process).unwrap_or(crate::engine::finish::UNKNOWN)
}

/// The streams of an exec live in its own directory.
pub fn make_directory(run_root: &Path, container: &str, id: &str) -> io::Result<PathBuf> {
    let directory = directory(run_root, container, id);
    std::fs::create_dir(&directory)?;
    Ok(directory)
}
