//! `create`, `start` and `exec`. The caller is single-threaded and runs from a sealed binary (see `oci`, `bundle::run_sealed`).

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Process, Spec};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::record::{self, Record, Status, write_atomically};
use super::{Error, adapt, hooks, life};
use crate::oci::bundle::{self, Wiring};
use crate::process::Identity;
use crate::{cgroup, keyring, volume};

/// `create`.
#[derive(Clone, Debug, Default)]
pub struct Create {
    pub id: String,
    pub bundle: PathBuf,
    /// A listening socket for the terminal's master.
    pub console_socket: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub preserve_fds: u32,
    pub no_pivot: bool,
    /// The program shares the caller's session keyring.
    pub no_new_keyring: bool,
}

/// `exec`.
#[derive(Clone, Debug, Default)]
pub struct Exec {
    pub id: String,
    /// A file with an OCI process; `None`: the container's own with `args` and the rest.
    pub process: Option<PathBuf>,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: Option<PathBuf>,
    pub tty: bool,
    pub console_socket: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub preserve_fds: u32,
}

/// Creates the container; its first process waits for [`start`]. Returns that process.
pub fn create(root: &Path, asked: &Create) -> Result<Identity, Error> {
    record::check_id(&asked.id)?;
    if !asked.no_new_keyring {
        leave_keyring()?;
    }
    let given = &asked.bundle;
    let bundle = given
        .canonicalize()
        .map_err(Error::file("find the bundle", given))?;
    let spec = adapt::load(&bundle)?;
    let cgroup = adapt::cgroup_path(&spec, &asked.id)?;
    let console_socket = asked
        .console_socket
        .as_ref()
        .map(std::path::absolute)
        .transpose();
    let console_socket = console_socket.map_err(|source| Error::Host {
        step: "find the console socket",
        source,
    })?;
    check_terminal(spec.process().as_ref(), console_socket.as_deref())?;
    // The spec has the program's environment, with what may be secret in it.
    let mut private = fs::DirBuilder::new();
    private.mode(0o700);
    (private.recursive(true).create(root)).map_err(Error::file("make", root))?;
    let folder = root.join(&asked.id);
    match private.recursive(false).create(&folder) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Error::Exists(asked.id.clone()));
        }
        made => made.map_err(Error::file("make", &folder))?,
    }
    let record = Record {
        id: asked.id.clone(),
        rootfs: adapt::rootfs(&spec),
        bundle,
        cgroup,
        created: OffsetDateTime::now_utc()
            .format(&Rfc3339)
            .unwrap_or_default(),
        annotations: spec.annotations().clone().unwrap_or_default(),
        creator: Identity::myself().map_err(|source| Error::Host {
            step: "look at this process",
            source,
        })?,
        init: None,
        folder,
    };
    let made = build(record.clone(), &spec, console_socket, asked);
    if made.is_err() {
        let _ = life::remove(&record);
        let _ = fs::remove_dir_all(&record.folder);
    }
    made
}

fn build(
    mut record: Record,
    spec: &Spec,
    console_socket: Option<PathBuf>,
    asked: &Create,
) -> Result<Identity, Error> {
    // First of all: whoever finds this create killed knows by it what there may be to remove.
    record.save()?;
    record.keep_spec(spec)?;
    let mut given = adapt::for_libcontainer(spec, &record.bundle, &record.cgroup)?;
    let seccomp = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().as_ref());
    let process = spec
        .process()
        .as_ref()
        .expect("a spec without is refused by `load`");
    let passed = sockets_of_systemd();
    let preserve_fds = asked.preserve_fds + passed;
    if passed > 0
        && let Some(process) = given.process_mut()
    {
        let mut env = process.env().clone().unwrap_or_default();
        env.extend([format!("LISTEN_FDS={passed}"), "LISTEN_PID=1".to_owned()]);
        process.set_env(Some(env));
    }
    let mut confinement = adapt::confinement(process, seccomp, preserve_fds)?;
    let start_hooks = spec
        .hooks()
        .as_ref()
        .and_then(|hooks| hooks.start_container().clone());
    confinement.hooks = start_hooks.unwrap_or_default();
    confinement.state = record.state(Status::Created).to_string();
    let folder = record.inner_bundle();
    fs::create_dir_all(&folder).map_err(Error::file("make", &folder))?;
    fs::create_dir_all(record.inner()).map_err(Error::file("make", &record.inner()))?;
    let config = serde_json::to_vec(&given).unwrap_or_default();
    write_atomically(&folder.join("config.json"), &config)?;
    make_working_directory(spec);
    cgroup::make_room_for_children().map_err(|source| Error::Host {
        step: "make room for the container's cgroups",
        source,
    })?;
    let wiring = Wiring {
        console_socket,
        // libcontainer adds those of systemd itself.
        preserve_fds: asked.preserve_fds,
        no_pivot: asked.no_pivot,
    };
    let pid = bundle::create(&record.id, &record.inner(), &folder, wiring, confinement)?;
    let init = Identity::of(pid)
        .ok_or_else(|| Error::Program("the container's first process has gone".to_owned()))?;
    record.init = Some(init);
    record.save()?;
    if let Some(path) = &asked.pid_file {
        write_atomically(path, pid.to_string().as_bytes())?;
    }
    Ok(init)
}

fn leave_keyring() -> Result<(), Error> {
    keyring::join_new().map_err(|source| Error::Host {
        step: "leave the caller's session keyring",
        source,
    })
}

fn check_terminal(process: Option<&Process>, socket: Option<&Path>) -> Result<(), Error> {
    let terminal = process.and_then(Process::terminal) == Some(true);
    match (terminal, socket) {
        (true, None) => Err(Error::Program(
            "cannot allocate tty if runc will detach without setting console socket".to_owned(),
        )),
        (false, Some(_)) => Err(Error::Program(
            "cannot use console socket if runc will not detach or allocate tty".to_owned(),
        )),
        _ => Ok(()),
    }
}

/// sd_listen_fds(3).
fn sockets_of_systemd() -> u32 {
    let count = std::env::var("LISTEN_FDS").ok();
    count
        .and_then(|count| count.parse().ok())
        .unwrap_or_default()
}

/// As runc: a working directory of the program that is missing is made, unless a mount will be in its place.
fn make_working_directory(spec: &Spec) {
    let Some(process) = spec.process() else {
        return;
    };
    let cwd = process.cwd();
    let mounts = spec.mounts().iter().flatten();
    let covered = mounts
        .clone()
        .any(|mount| cwd.starts_with(mount.destination()));
    if !covered && let Some(text) = cwd.to_str() {
        // Where it cannot be made, libcontainer tells that it is missing.
        let _ = volume::ensure_mountpoint(&adapt::rootfs(spec), text, true);
    }
}

/// Lets the program run.
pub fn start(root: &Path, id: &str) -> Result<(), Error> {
    let record = record::load(root, id)?;
    let status = record.status();
    if status != Status::Created {
        return Err(Error::WrongStatus {
            verb: "start",
            id: id.to_owned(),
            status,
            must_be: "created",
        });
    }
    // Before: one that is killed in between is running, not created.
    record.mark_started()?;
    bundle::start(id, &record.inner()).inspect_err(|_| record.unmark_started())?;
    let spec = record.spec()?;
    let state = record.state(Status::Running).to_string();
    let poststart = spec
        .hooks()
        .as_ref()
        .and_then(|hooks| hooks.poststart().clone());
    for hook in poststart.iter().flatten() {
        hooks::run(hook, &state).map_err(|source| Error::Hook {
            path: hook.path().clone(),
            source,
        })?;
    }
    Ok(())
}

/// Runs a command in a running container. Returns its process, which is a child of the caller.
pub fn exec(root: &Path, asked: &Exec) -> Result<i32, Error> {
    let record = record::load(root, &asked.id)?;
    let init = match (record.status(), record.init) {
        (Status::Running, Some(init)) => init,
        (status, _) => {
            return Err(Error::WrongStatus {
                verb: "exec in",
                id: asked.id.clone(),
                status,
                must_be: "running",
            });
        }
    };
    leave_keyring()?;
    let spec = record.spec()?;
    let process = described(asked, &spec)?;
    let console_socket = asked
        .console_socket
        .as_ref()
        .map(std::path::absolute)
        .transpose();
    let console_socket = console_socket.map_err(|source| Error::Host {
        step: "find the console socket",
        source,
    })?;
    check_terminal(Some(&process), console_socket.as_deref())?;
    let seccomp = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.seccomp().as_ref());
    let confinement = adapt::confinement(&process, seccomp, asked.preserve_fds)?;
    let root = PathBuf::from(format!("/proc/{}/root", init.pid));
    let given = adapt::process_for_libcontainer(&process, &root);
    // libcontainer leaves a socket behind for each command, so it gets a folder that goes with it, and in it the container's
    // own state by a second name.
    let folder = tempfile::Builder::new()
        .prefix("exec-")
        .tempdir_in(&record.folder)
        .map_err(Error::file("make a folder in", &record.folder))?;
    let state = folder.path().join(&record.id);
    fs::create_dir(&state).map_err(Error::file("make", &state))?;
    let original = record.inner().join(&record.id).join("state.json");
    fs::hard_link(&original, state.join("state.json")).map_err(Error::file("link", &original))?;
    let wiring = Wiring {
        console_socket,
        preserve_fds: asked.preserve_fds,
        no_pivot: false,
    };
    let below = cgroup::below(&record.group(), init.pid);
    let file = folder.path().join("process.json");
    let pid = bundle::exec(
        &record.id,
        folder.path(),
        &file,
        &given,
        below,
        wiring,
        confinement,
    )?;
    if let Some(path) = &asked.pid_file {
        write_atomically(path, pid.to_string().as_bytes())?;
    }
    Ok(pid)
}

fn described(asked: &Exec, spec: &Spec) -> Result<Process, Error> {
    if let Some(path) = &asked.process {
        let text = fs::read(path).map_err(Error::file("read", path))?;
        return serde_json::from_slice(&text).map_err(|e| Error::file("read", path)(e.into()));
    }
    let mut process = spec
        .process()
        .clone()
        .expect("a spec without is refused by `load`");
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(asked.env.iter().cloned());
    process
        .set_args(Some(asked.args.clone()))
        .set_env(Some(env))
        .set_terminal(Some(asked.tty));
    if let Some(cwd) = &asked.cwd {
        process.set_cwd(cwd.clone());
    }
    Ok(process)
}
