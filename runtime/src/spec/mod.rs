//! From a container's record to the OCI runtime spec. Pure.

use std::path::PathBuf;

use oci_spec::runtime::Spec;

use crate::record::Container;
use crate::user::User;

/// What the spec needs to know of this host and of this start.
#[derive(Clone, Debug)]
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
    pub user: User,
    /// Our own bounding set, for `--privileged`: nothing can be given that we do not have. `CAP_...` names.
    pub bounding_set: Vec<String>,
}

/// Docker's defaults for everything that the record leaves open: capabilities, masked and read-only paths, devices,
/// mounts, namespaces. The seccomp filter is not part of it: it is loaded apart (see `oci`).
pub fn spec(container: &Container, place: &Place) -> Spec {
    todo!("{container:?} {place:?}")
}
