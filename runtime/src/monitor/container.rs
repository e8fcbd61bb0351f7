//! The life of one container, from its mounts to the last trace of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use netmgr::dns::Listening;
use nix::sched::CloneFlags;
use oci_spec::OciSpecError;
use oci_spec::runtime::{LinuxNamespaceType, LinuxSeccomp, Spec};

use super::again;
use super::health::Timer;
use super::joined::Opened;
use super::launch::{self, Descriptors, Launch};
use super::limits::{Limiter, MemoryWatch};
use super::networks::{self, Served, Services};
use super::relay::Relay;
use super::streams::{self, Console, Streams};
use super::sysctls;
use crate::bundle::{self, Late, Moment};
use crate::cgroup::{self, Group};
use crate::engine::finish::{self, After};
use crate::error::ErrorKind;
use crate::logs;
use crate::oci::{self, Confinement, Created, Failure, Foreign};
use crate::process::{self, Handle, Identity};
use crate::record::ResolvedMount;
use crate::request::{NamespaceMode, SeccompChoice};
use crate::seccomp::{self, Filter};
use crate::spec::{self, Place};
use crate::store::End;
use crate::user;
use crate::volume;
use crate::wire::{self, Kind};

/// The monitor of a container that is to be created.
pub(super) fn run_new(
    control: OwnedFd,
    launch: Launch,
    descriptors: Descriptors,
    layers: &[PathBuf],
    populate: &[(PathBuf, String)],
) -> i32 {
    let id = launch.container.id.clone();
    let directory = launch::directory(&launch.run_root, &id);
    let failed = |failure: &Failure| {
        clean_up(&launch, None);
        fail(&control, failure);
        1
    };
    let (created, relay, console) = match create(
        &launch,
        &directory,
        descriptors.netns.as_ref(),
        layers,
        populate,
    ) {
        Ok(made) => made,
        Err(failure) => return failed(&failure),
    };
    let Some(init) = Identity::of(created.pid) else {
        return failed(&Failure {
            kind: ErrorKind::Internal,
            message: "the container's first process has gone".into(),
        });
    };
    let mut relay = relay;
    if let Some(console) = console {
        match console.master(launch.container.request.tty_size) {
            Ok(master) => relay.streams.terminal = Some(master),
            Err(e) => {
                kill_and_reap(init);
                return failed(&Failure::internal("take the container's terminal", &e));
            }
        }
    }
    answer(&control, &init);
    let word = wire::receive(&control).ok().flatten();
    let heard = word.is_some();
    let Some(responder) = go(word) else {
        kill_and_reap(init);
        clean_up(&launch, None);
        if !heard {
            // The command was killed: nobody else is there to leave the container as it was before the start.
            finish::abandon(&launch.settings(), &id);
        }
        return 1;
    };
    if let Err(failure) = created.start() {
        kill_and_reap(init);
        return failed(&failure);
    }
    // Repair adopts a container that has this mark, and kills one that never came to run.
    let _ = std::fs::write(directory.join(finish::STARTED), b"");
    let _ = wire::send(&control, Kind::Started, &[]);
    drop(control);
    watch(
        launch,
        relay,
        descriptors.client,
        Served {
            forwards: descriptors.forwards,
            responder,
        },
        descriptors.netns,
        init,
        Waiter::Parent,
    )
}

/// The word to go on, and the sockets that come with it; `None` for any other word, or none.
fn go(word: Option<wire::Message>) -> Option<Option<Listening>> {
    let message = word.filter(|message| message.kind == Kind::Go)?;
    Some(networks::listening(&mut message.fds.into()))
}

/// Takes the place of a monitor that was killed. The container's network namespace lives by its processes.
pub(super) fn adopt(
    control: OwnedFd,
    launch: Launch,
    descriptors: Descriptors,
    init: Identity,
) -> i32 {
    let directory = launch::directory(&launch.run_root, &launch.container.id);
    if let Err(e) = name_namespaces_by(init, &directory) {
        eprintln!("commands cannot be run in the container: {e}");
    }
    let relay = Relay::new(streams::reopen(&directory));
    answer(&control, &init);
    let Some(responder) = go(wire::receive(&control).ok().flatten()) else {
        return 1;
    };
    let _ = wire::send(&control, Kind::Started, &[]);
    drop(control);
    watch(
        launch,
        relay,
        None,
        Served {
            forwards: descriptors.forwards,
            responder,
        },
        None,
        init,
        Waiter::Stranger,
    )
}

/// The spec names the namespaces that were joined by descriptors of the monitor that was killed, and libcontainer looks at them
/// before each exec.
fn name_namespaces_by(init: Identity, directory: &Path) -> Result<(), OciSpecError> {
    let path = directory.join("config.json");
    let mut spec = Spec::load(&path)?;
    let mut linux = spec.linux().clone().unwrap_or_default();
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    for joined in namespaces.iter_mut().filter(|n| n.path().is_some()) {
        let name = match joined.typ() {
            LinuxNamespaceType::Network => "net",
            LinuxNamespaceType::Pid => "pid",
            LinuxNamespaceType::Ipc => "ipc",
            _ => continue,
        };
        joined.set_path(Some(format!("/proc/{}/ns/{name}", init.pid).into()));
    }
    linux.set_namespaces(Some(namespaces));
    spec.set_linux(Some(linux));
    spec.save(&path)
}

/// How the exit code is learnt.
#[derive(Clone, Copy)]
enum Waiter {
    /// The first process is our child (libcontainer clones it with CLONE_PARENT).
    Parent,
    /// Its parent was killed: the kernel still tells through the pidfd.
    Stranger,
}

/// The mounts, the streams, the spec, and the first process, in the order in which each needs the one before.
fn create(
    launch: &Launch,
    directory: &Path,
    netns: Option<&OwnedFd>,
    layers: &[PathBuf],
    populate: &[(PathBuf, String)],
) -> Result<(Created, Relay, Option<Console>), Failure> {
    let container = &launch.container;
    let storage = finish::storage(&launch.root, &container.id);
    let (rootfs, late) = mount_rootfs(directory, &storage, layers, &container.resolved.mounts)?;
    for (data, target) in populate {
        volume::populate(&rootfs, target, data)
            .map_err(|e| Failure::internal("fill a volume from the image", &e))?;
    }
    let tmpfs_modes = make_mountpoints(&rootfs, container)?;
    let security = &container.request.security;
    let user =
        user::look_up(&rootfs, &container.resolved.user, &security.groups).map_err(invalid)?;
    let joined = Opened::open(launch.joined, directory)
        .map_err(|e| Failure::internal("join another container's namespaces", &e))?;
    let failed = |e| Failure::internal("look at the host", &e);
    let host_devices = match container.request.privileged {
        true => bundle::host_devices().map_err(failed)?,
        false => Vec::new(),
    };
    let place = Place {
        rootfs,
        netns: netns.map(|fd| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()).into()),
        hosts: storage.join("hosts"),
        hostname: storage.join("hostname"),
        resolv_conf: storage.join("resolv.conf"),
        cgroup: Group::of(container).path(),
        cgroup_v2: cgroup::is_v2(),
        cgroup_v1: match cgroup::is_v2() {
            true => Vec::new(),
            false => bundle::cgroup_v1_hierarchies().map_err(failed)?,
        },
        bounding_set: own_bounding_set(),
        host_devices,
        init: container
            .request
            .init
            .then(|| bundle::init_path(&launch.root)),
        tmpfs_modes,
        asked_devices: bundle::asked_devices(&security.devices).map_err(invalid)?,
        joined: joined.paths(),
        labels: bundle::labels(Path::new("/"), &container.request, &container.id),
        user: user.clone(),
    };
    cgroup::make_room_for_children()
        .map_err(|e| Failure::internal("make room for cgroups in this container's own", &e))?;
    let spec = spec::spec(container, &place);
    let (streams, stdio, console) = if container.request.tty {
        let console = Console::listen(directory)
            .map_err(|e| Failure::internal("make the console socket", &e))?;
        (Streams::default(), console.stdio(), Some(console))
    } else {
        let (streams, stdio) = streams::make(directory, container.request.open_stdin, user.uid)
            .map_err(|e| Failure::internal("make the container's streams", &e))?;
        (streams, stdio, None)
    };
    let confinement = confinement(launch, &place)?;
    let limiter = Limiter::prepare(container)?;
    if let Some(netns) = netns {
        sysctls::set(netns, &security.sysctls)?;
    }
    let id = &container.id;
    let created = match foreign(launch) {
        None => {
            let state = launch::oci_state(&launch.run_root);
            oci::create(id, &state, directory, &spec, stdio, confinement, late)?
        }
        Some(runtime) => {
            let seccomp = profile_for_others(container, &confinement)?;
            oci::create_by(runtime, id, directory, &spec, seccomp, stdio, &confinement)?
        }
    };
    if let Err(failure) = limiter.complete(container) {
        if let Some(init) = Identity::of(created.pid) {
            kill_and_reap(init);
        }
        return Err(failure);
    }
    Ok((created, Relay::new(streams), console))
}

fn mount_rootfs(
    directory: &Path,
    storage: &Path,
    layers: &[PathBuf],
    mounts: &[ResolvedMount],
) -> Result<(PathBuf, Vec<Late>), Failure> {
    let rootfs = directory.join(launch::ROOTFS);
    std::fs::create_dir_all(&rootfs)
        .map_err(|e| Failure::internal("make the root directory", &e))?;
    // The overlay is mounted in this process's own namespace: it goes with the last process that uses it, and the host
    // never sees it. Slave, so that what the host unmounts does not stay busy in here.
    nix::sched::unshare(CloneFlags::CLONE_NEWNS)
        .map_err(|e| Failure::internal("leave the host's mounts", &e))?;
    let clone = |moment| {
        bundle::clone_late(mounts, moment)
            .map_err(|e| Failure::internal("clone a mount of the host", &e))
    };
    let mut late = clone(Moment::WhilePeers)?;
    bundle::make_mounts_slave().map_err(|e| Failure::internal("cut off the host's mounts", &e))?;
    late.extend(clone(Moment::WhileSlaves)?);
    bundle::mount_overlay(
        &rootfs,
        layers,
        &storage.join("diff"),
        &storage.join("work"),
    )
    .map_err(|e| Failure::internal("mount the root filesystem", &e))?;
    bundle::check_rootfs(&rootfs).map_err(invalid)?;
    Ok((rootfs, late))
}

/// Returns the modes of the directories that will be memory.
fn make_mountpoints(
    rootfs: &Path,
    container: &crate::record::Container,
) -> Result<BTreeMap<String, u32>, Failure> {
    let mut modes = BTreeMap::new();
    let ensure = |target: &str, is_dir| {
        volume::ensure_mountpoint(rootfs, target, is_dir)
            .map_err(|e| Failure::internal("make a mount point", &e))
    };
    for file in ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"] {
        ensure(file, false)?;
    }
    for mount in &container.resolved.mounts {
        let is_dir = mount.tmpfs.is_some() || Path::new(&mount.source).is_dir();
        if mount.tmpfs.is_some()
            && let Some(mode) = volume::mode_of_directory(rootfs, &mount.target)
        {
            modes.insert(mount.target.clone(), mode);
        }
        ensure(&mount.target, is_dir)?;
    }
    if container.request.init {
        ensure(spec::INIT, false)?;
    }
    // libcontainer wants the working directory to exist; Docker makes it too.
    ensure(container.resolved.cwd(), true)?;
    Ok(modes)
}

pub(super) fn confinement(launch: &Launch, place: &Place) -> Result<Confinement, Failure> {
    let container = &launch.container;
    let capabilities = spec::capabilities(container, place).map_err(invalid)?;
    let filter = filter(launch, &capabilities)?;
    Ok(Confinement {
        capabilities,
        filter,
        open_files: launch.open_files,
        label: place.labels.process.clone(),
    })
}

/// What was asked for, else Docker's default, but for a privileged container.
pub(super) fn filter(launch: &Launch, capabilities: &[String]) -> Result<Option<Filter>, Failure> {
    let request = &launch.container.request;
    if request.privileged && !matches!(request.security.seccomp, SeccompChoice::Profile(_)) {
        return Ok(None);
    }
    let names: Vec<&str> = capabilities.iter().map(String::as_str).collect();
    let cache = launch.root.join("seccomp");
    seccomp::chosen_filter(&request.security.seccomp, &cache, &names)
        .map_err(|e| Failure::internal("compile the seccomp filter", &e))
}

/// The other runtime that the container was created with, if any.
pub(super) fn foreign(launch: &Launch) -> Option<Foreign> {
    let program = launch.container.request.runtime.as_ref()?;
    Some(Foreign::new(program, &launch::oci_state(&launch.run_root)))
}

/// What the filter of the confinement was compiled from, for a runtime that compiles it itself.
fn profile_for_others(
    container: &crate::record::Container,
    confinement: &Confinement,
) -> Result<Option<LinuxSeccomp>, Failure> {
    if let SeccompChoice::Profile(_) = container.request.security.seccomp {
        return Err(Failure {
            kind: ErrorKind::Invalid,
            message: "a seccomp profile of one's own and --runtime do not go together".to_owned(),
        });
    }
    let names: Vec<&str> = confinement
        .capabilities
        .iter()
        .map(String::as_str)
        .collect();
    Ok(confinement
        .filter
        .as_ref()
        .map(|_| seccomp::default_profile(&names)))
}

/// Nothing can be given to a container that this process does not have itself.
pub(super) fn own_bounding_set() -> Vec<String> {
    caps::read(None, caps::CapSet::Bounding)
        .map(|set| set.iter().map(|c| c.to_string()).collect())
        .unwrap_or_default()
}

pub(super) fn invalid(e: crate::error::Error) -> Failure {
    Failure {
        kind: e.kind(),
        message: e.to_string(),
    }
}

/// Everything from the start to the end: relays, waits, cleans up, tells.
fn watch(
    launch: Launch,
    mut relay: Relay,
    client: Option<OwnedFd>,
    served: Served,
    netns: Option<OwnedFd>,
    init: Identity,
    waiter: Waiter,
) -> i32 {
    let id = launch.container.id.clone();
    let directory = launch::directory(&launch.run_root, &id);
    if let Some(client) = client
        && let Err(e) = relay.add_client(client, true)
    {
        eprintln!("cannot serve the command's streams: {e}");
    }
    relay.stdin_once = launch.container.request.stdin_once && !launch.container.request.tty;
    match open_log(&launch) {
        Ok(writer) => relay.log = writer,
        Err(e) => eprintln!("cannot open the log: {e}"),
    }
    // An adopted container's old socket is in the way.
    let socket = directory.join(finish::SOCKET);
    let _ = std::fs::remove_file(&socket);
    match wire::listen(&socket) {
        Ok(listener) => relay.listener = Some(listener),
        Err(e) => eprintln!("cannot listen for clients: {e}"),
    }
    let services = Rc::new(RefCell::new(Services::of(&launch)));
    services.borrow_mut().start(served);
    relay.health = Timer::new(&launch);
    let begun = Instant::now();
    let follower = Rc::clone(&services);
    relay.follower = Some(Box::new(move |handed| follower.borrow_mut().follow(handed)));
    let seen = match waiter {
        Waiter::Parent => 0,
        Waiter::Stranger => cgroup::kills(&Group::of(&launch.container)),
    };
    relay.memory = MemoryWatch::new(&launch, seen);
    if let Some(memory) = &mut relay.memory {
        // It may have come to that before it was watched.
        memory.look();
    }
    let code = match open(init, waiter) {
        Some(ended) => {
            if let Err(e) = relay.run(&ended) {
                eprintln!("the relay broke off: {e}");
            }
            exit_code(init, &ended, waiter)
        }
        None => finish::UNKNOWN,
    };
    let end = End {
        code,
        oom_killed: cgroup::kills(&Group::of(&launch.container)) > 0,
        ..End::default()
    };
    // Who would change the networks now, has no container left to change.
    relay.follower = None;
    // A check that is under way ends with the container.
    relay.health = None;
    services.borrow_mut().stop();
    drop(netns);
    if let Some(mut memory) = relay.memory.take() {
        memory.look();
    }
    if launch.container.request.namespaces.pid != NamespaceMode::Default {
        // With a pid namespace of its own the kernel has ended all others along with the first.
        kill_the_rest(&Group::of(&launch.container));
    }
    // Should this be killed from here on, repair finds it.
    if let Ok(me) = Identity::myself()
        && let Err(e) = finish::note(&launch.run_root, &id, me, &end)
    {
        eprintln!("cannot write down the end: {e}");
    }
    match clean_up(&launch, Some(&end)) {
        After::Nothing => {
            relay.say_goodbye(end.code, None);
            0
        }
        After::Restart => {
            let ran = begun.elapsed();
            relay.say_goodbye(end.code, Some(SLOW_CLIENT));
            drop(relay);
            again::wait_and_start(&launch, ran)
        }
    }
}

/// How long a client that does not read may hold up a restart.
const SLOW_CLIENT: Duration = Duration::from_secs(2);

/// `None` where the container is not logged.
fn open_log(launch: &Launch) -> std::io::Result<Option<logs::Writer>> {
    let container = &launch.container;
    let options = logs::check(&container.request.log).map_err(std::io::Error::other)?;
    let storage = finish::storage(&launch.root, &container.id);
    logs::Writer::open(&storage, &options, &logs::attributes(container))
}

/// Cgroups and directories always; with an end, the network and the record too.
fn clean_up(launch: &Launch, end: Option<&End>) -> After {
    let id = &launch.container.id;
    if let Some(runtime) = foreign(launch) {
        runtime.delete(id, &launch::directory(&launch.run_root, id));
    }
    if let Err(e) = cgroup::remove(&Group::of(&launch.container)) {
        eprintln!("cannot remove the cgroups: {e}");
    }
    // Not mounted if the start failed early, or if this monitor has adopted the container.
    let rootfs = launch::directory(&launch.run_root, id).join(launch::ROOTFS);
    let _ = rustix::mount::unmount(&rootfs, rustix::mount::UnmountFlags::DETACH);
    if let Err(e) = launch::remove_directories(&launch.run_root, id) {
        eprintln!("cannot remove the run directory: {e}");
    }
    let Some(end) = end else {
        return After::Nothing;
    };
    finish::ended(&launch.settings(), id, end).unwrap_or_else(|e| {
        eprintln!("cannot record the end: {e}");
        After::Nothing
    })
}

fn kill_and_reap(init: Identity) {
    if let Some(handle) = init.open() {
        let _ = handle.kill();
    }
    let _ = reap(init);
}

/// What the first process has left running, where other processes are in its pid namespace too.
fn kill_the_rest(group: &Group) {
    let deadline = Instant::now() + Duration::from_secs(10);
    // Again until nothing is found: what was killed in the act of cloning may have made one more.
    loop {
        let left = cgroup::processes(group)
            .into_iter()
            .filter_map(Identity::of);
        let handles: Vec<Handle> = left.filter_map(Identity::open).collect();
        if handles.is_empty() || Instant::now() > deadline {
            return;
        }
        for handle in &handles {
            let _ = handle.kill();
        }
        for handle in &handles {
            let _ = handle.wait(Some(deadline.saturating_duration_since(Instant::now())));
        }
    }
}

/// Waits for our child; its code as a shell counts it.
pub(super) fn reap(init: Identity) -> Option<i32> {
    use nix::sys::wait::{WaitStatus, waitpid};
    loop {
        match waitpid(nix::unistd::Pid::from_raw(init.pid), None) {
            Ok(WaitStatus::Exited(_, code)) => return Some(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Some(128 + signal as i32),
            Ok(_) | Err(nix::errno::Errno::EINTR) => continue,
            Err(_) => return None,
        }
    }
}

/// A child of ours may be a zombie already, and is still no one else; a stranger's number proves nothing.
fn open(init: Identity, waiter: Waiter) -> Option<OwnedFd> {
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    match waiter {
        Waiter::Parent => pidfd_open(Pid::from_raw(init.pid)?, PidfdFlags::empty()).ok(),
        Waiter::Stranger => init.open().map(Handle::into_fd),
    }
}

fn exit_code(init: Identity, ended: &OwnedFd, waiter: Waiter) -> i32 {
    let code = match waiter {
        Waiter::Parent => reap(init),
        Waiter::Stranger => process::exit_code_of_stranger(init, ended),
    };
    code.unwrap_or(finish::UNKNOWN)
}

fn answer(control: &OwnedFd, init: &Identity) {
    let payload = serde_json::to_vec(init).unwrap_or_default();
    // A command that has gone is noticed by the read that follows.
    let _ = wire::send(control, Kind::Created, &payload);
}

pub(super) fn fail(control: &OwnedFd, failure: &Failure) {
    eprintln!("{}", failure.message);
    let payload = serde_json::to_vec(failure).unwrap_or_default();
    let _ = wire::send(control, Kind::Failed, &payload);
}
