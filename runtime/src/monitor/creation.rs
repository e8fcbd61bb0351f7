//! Makes a container, up to its first process, which waits for its start.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::CloneFlags;
use oci_spec::runtime::LinuxSeccomp;

use super::container::kill_and_reap;
use super::joined::Opened;
use super::launch::{self, Launch};
use super::limits::Limiter;
use super::relay::Relay;
use super::streams::{self, Console, Streams};
use super::sysctls;
use crate::bundle::{self, Late, Moment};
use crate::cgroup::{self, Group};
use crate::engine::finish;
use crate::oci::{self, Confinement, Created, Failure, Foreign};
use crate::process::Identity;
use crate::record::{Container, ResolvedMount};
use crate::request::SeccompChoice;
use crate::seccomp::{self, Filter};
use crate::spec::{self, Place};
use crate::user;
use crate::volume;

/// The mounts, the streams, the spec, and the first process, in the order in which each needs the one before.
pub(super) fn create(
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
    container: &Container,
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
fn filter(launch: &Launch, capabilities: &[String]) -> Result<Option<Filter>, Failure> {
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
    container: &Container,
    confinement: &Confinement,
) -> Result<Option<LinuxSeccomp>, Failure> {
    if confinement.filter.is_none() {
        return Ok(None);
    }
    let held = &confinement.capabilities;
    let names: Vec<&str> = held.iter().map(String::as_str).collect();
    seccomp::chosen_profile(&container.request.security.seccomp, &names).map_err(invalid)
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
