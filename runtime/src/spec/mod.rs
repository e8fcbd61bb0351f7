//! From a container's record to the OCI runtime spec. Pure.
//!
//! The defaults are Docker 20.10's, read from what a live one hands to its runtime; tests/parts_spec.rs runs both and
//! names each difference. What later Docker releases have tightened (masked paths) is tightened here too.

mod devices;
mod mounts;
mod process;

use std::collections::HashMap;
use std::path::PathBuf;

use oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType,
    LinuxResourcesBuilder, RootBuilder, Spec, SpecBuilder,
};

use crate::record::Container;
use crate::user::User;

pub(crate) use mounts::cgroups as cgroup_mounts;

pub use devices::{HostDevice, HostDeviceKind};
pub use process::{
    DEFAULT_CAPABILITIES, DEFAULT_PATH, capabilities, capability_sets, environment,
    exact_capability_sets,
};

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
    /// The host's device nodes, for `--privileged`: `bundle::host_devices`. Not looked at otherwise.
    pub host_devices: Vec<HostDevice>,
}

/// What no container has any business to read: it tells of the host, or of other containers' timing.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Settings of the host's kernel that root in the container could change otherwise.
const READ_ONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// In a network namespace of its own any user may take a low port and send an ICMP echo: nobody else is there to
/// protect from it (ip-sysctl: ip_unprivileged_port_start, ping_group_range).
const NETWORK_SYSCTLS: &[(&str, &str)] = &[
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
];

/// Docker's defaults for everything that the record leaves open: capabilities, masked and read-only paths, devices,
/// mounts, namespaces. The seccomp filter is not part of it: it is loaded apart (see `oci`).
pub fn spec(container: &Container, place: &Place) -> Spec {
    let root = RootBuilder::default()
        .path(place.rootfs.clone())
        .readonly(false)
        .build();
    SpecBuilder::default()
        .version("1.0.2".to_owned())
        .root(root.expect(ALL_OPTIONAL))
        .hostname(container.resolved.hostname.clone())
        .process(process::process(container, place))
        .mounts(mounts::mounts(container, place))
        .linux(linux(container, place))
        .build()
        .expect(ALL_OPTIONAL)
}

/// Why the builders of `oci_spec` are not asked for their errors.
const ALL_OPTIONAL: &str = "every field has a default, so nothing can be missing";

fn linux(container: &Container, place: &Place) -> Linux {
    let privileged = container.request.privileged;
    let paths = |paths: &[&str]| -> Vec<String> {
        let kept = if privileged { &[] } else { paths };
        kept.iter().map(|&path| path.to_owned()).collect()
    };
    let resources = LinuxResourcesBuilder::default()
        .devices(devices::rules(privileged))
        .build();
    LinuxBuilder::default()
        .cgroups_path(place.cgroup.clone())
        .resources(resources.expect(ALL_OPTIONAL))
        .namespaces(namespaces(place))
        .sysctl(sysctls(place))
        .devices(devices::nodes(container, place))
        .masked_paths(paths(MASKED))
        .readonly_paths(paths(READ_ONLY))
        // `rprivate` for every bind: libcontainer knows no propagation of single mounts, it clones them with the one
        // that their source has, so it must be taken from all before.
        .rootfs_propagation("private".to_owned())
        .build()
        .expect(ALL_OPTIONAL)
}

fn namespaces(place: &Place) -> Vec<LinuxNamespace> {
    let new = |kind: LinuxNamespaceType| {
        let built = LinuxNamespaceBuilder::default().typ(kind).build();
        built.expect(ALL_OPTIONAL)
    };
    let mut all = vec![
        new(LinuxNamespaceType::Mount),
        new(LinuxNamespaceType::Uts),
        new(LinuxNamespaceType::Pid),
        new(LinuxNamespaceType::Ipc),
    ];
    if let Some(netns) = &place.netns {
        let joined = LinuxNamespaceBuilder::default()
            .typ(LinuxNamespaceType::Network)
            .path(netns.clone())
            .build();
        all.push(joined.expect(ALL_OPTIONAL));
    }
    if place.cgroup_v2 {
        all.push(new(LinuxNamespaceType::Cgroup));
    }
    all
}

/// Nothing without a network namespace: they would change the host.
fn sysctls(place: &Place) -> HashMap<String, String> {
    let wanted = if place.netns.is_some() {
        NETWORK_SYSCTLS
    } else {
        &[]
    };
    wanted
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests;
