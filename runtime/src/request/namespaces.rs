//! Whose namespaces a container lives in; its network is apart.

use serde::{Deserialize, Serialize};

/// `--pid`, `--ipc`, `--uts`, `--cgroupns`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    pub pid: NamespaceMode,
    pub ipc: NamespaceMode,
    pub uts: NamespaceMode,
    /// Private by default on cgroup v2, the host's on v1, as in Docker.
    pub cgroup: NamespaceMode,
    /// `host` alone is known, and the default: user IDs are the host's.
    pub user: NamespaceMode,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceMode {
    /// Not said: one of its own, but for the cgroup's on v1.
    #[default]
    Default,
    Private,
    Host,
    /// Another container's, by name or ID when asked for, by ID in a record. Not for `uts` and `cgroup`.
    Container(String),
    /// `--ipc shareable`: one of its own that others may join.
    Shareable,
    /// `--ipc none`: one of its own without /dev/shm.
    None,
}
