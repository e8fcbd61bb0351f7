//! From a container's record to the OCI runtime spec. Pure.
//!
//! The defaults are Docker 20.10's, read from what a live one hands to its runtime; tests/parts_spec.rs runs both and
//! names each difference. What later Docker releases have tightened (masked paths) is tightened here too.

mod confinement;
mod devices;
mod mounts;
mod process;
mod resources;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use oci_spec::runtime::{Linux, LinuxBuilder, RootBuilder, Spec, SpecBuilder};

use crate::record::Container;
use crate::request::NamespaceMode;
use crate::user::User;

pub(crate) use mounts::cgroups as cgroup_mounts;

pub use confinement::{MASKED, READ_ONLY, check_capabilities};
pub use devices::{AskedDevice, HostDevice, HostDeviceKind};
pub use mounts::tmpfs_options;
pub use process::{
    DEFAULT_CAPABILITIES, DEFAULT_PATH, INIT, capabilities, capability_sets, environment,
    exact_capability_sets,
};
pub use resources::{rlimit_type, rlimits};

/// What the spec needs to know of this host and of this start.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Absolute path of the root filesystem in the monitor's mount namespace.
    pub rootfs: PathBuf,
    /// A path to the network namespace to join; `None`: the host's own.
    pub netns: Option<PathBuf>,
    /// Files that are bound over the image's own.
    pub hosts: PathBuf,
    pub hostname: PathBuf,
    pub resolv_conf: PathBuf,
    /// Absolute, below the cgroup root: `/coracle/ID`.
    pub cgroup: PathBuf,
    /// Whether the host has pure cgroup v2 (then the container gets a cgroup namespace of its own).
    pub cgroup_v2: bool,
    /// Where the host has its cgroup v1 hierarchies (`/sys/fs/cgroup/memory`): `bundle::cgroup_v1_hierarchies`. The
    /// container gets its own directory of each, read-only. Empty on v2.
    pub cgroup_v1: Vec<PathBuf>,
    pub user: User,
    /// Our own bounding set: nothing can be given that we do not have. `CAP_...` names. Empty: not known, and taken to
    /// hold what is wanted.
    pub bounding_set: Vec<String>,
    /// With `--init`: the program on the host (`bundle::init_path`).
    pub init: Option<PathBuf>,
    /// Of the directories that are to be memory, the mode that the image has given them; the others get the kernel's 1777.
    pub tmpfs_modes: BTreeMap<String, u32>,
    /// The host's device nodes, for `--privileged`: `bundle::host_devices`. Not looked at otherwise.
    pub host_devices: Vec<HostDevice>,
    /// `--device`, as they are on this host: `bundle::asked_devices`.
    pub asked_devices: Vec<AskedDevice>,
    /// Namespaces of other containers.
    pub joined: JoinedPaths,
    /// AppArmor's profile and SELinux's labels, where the host has them.
    pub labels: Labels,
}

/// Paths of namespaces to join; `None`: a new one, or the host's.
#[derive(Clone, Debug, Default)]
pub struct JoinedPaths {
    pub pid: Option<PathBuf>,
    pub ipc: Option<PathBuf>,
    /// A directory with the other container's /dev/shm.
    pub shm: Option<PathBuf>,
}

/// What the kernel's security modules are told; empty where the host has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// AppArmor's profile.
    pub apparmor: Option<String>,
    /// SELinux's label of the program, as proc_pid_attr(5) takes it.
    pub process: Option<String>,
    /// SELinux's label of what is mounted.
    pub mount: Option<String>,
}

/// Docker's defaults for everything that the record leaves open: capabilities, masked and read-only paths, devices,
/// mounts, namespaces. The seccomp filter is not part of it: it is loaded apart (see `oci`).
pub fn spec(container: &Container, place: &Place) -> Spec {
    let root = RootBuilder::default()
        .path(place.rootfs.clone())
        .readonly(container.request.read_only)
        .build();
    let annotations: HashMap<String, String> =
        container.request.annotations.iter().cloned().collect();
    let spec = SpecBuilder::default()
        .version("1.0.2".to_owned())
        .root(root.expect(ALL_OPTIONAL))
        .process(process::process(container, place))
        .mounts(mounts::mounts(container, place))
        .linux(linux(container, place))
        .annotations(annotations);
    let mut spec = spec.build().expect(ALL_OPTIONAL);
    spec.set_domainname(container.request.domainname.clone());
    // The crate's default is a name of its own.
    let own_name = container.request.namespaces.uts != NamespaceMode::Host;
    spec.set_hostname(own_name.then(|| container.resolved.hostname.clone()));
    spec
}

/// Why the builders of `oci_spec` are not asked for their errors.
const ALL_OPTIONAL: &str = "every field has a default, so nothing can be missing";

fn linux(container: &Container, place: &Place) -> Linux {
    let resources = resources::resources(
        &container.request.resources,
        devices::rules(container, place),
    );
    let mut linux = LinuxBuilder::default()
        .cgroups_path(place.cgroup.clone())
        .resources(resources)
        .namespaces(confinement::namespaces(container, place))
        .sysctl(confinement::sysctls(container, place))
        .devices(devices::nodes(container, place))
        .masked_paths(confinement::hidden(container, MASKED))
        .readonly_paths(confinement::hidden(container, READ_ONLY))
        // `rprivate` for every bind: libcontainer knows no propagation of single mounts, it clones them with the one
        // that their source has, so it must be taken from all before.
        .rootfs_propagation("private".to_owned());
    if let Some(label) = &place.labels.mount {
        linux = linux.mount_label(label.clone());
    }
    linux.build().expect(ALL_OPTIONAL)
}

#[cfg(test)]
mod tests;
