//! What a container may do.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `--cap-add`, `--security-opt`, `--device` and the like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// As written: `NET_ADMIN`, `cap_net_admin`, `all`. Checked at `create`.
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub seccomp: SeccompChoice,
    pub no_new_privileges: bool,
    /// A profile's name, or `unconfined`; `None`: the default one where the host has AppArmor.
    pub apparmor: Option<String>,
    /// SELinux: `user:USER`, `role:ROLE`, `type:TYPE`, `level:LEVEL`, `disable`.
    pub selinux: Vec<String>,
    /// `systempaths=unconfined`: nothing is masked or read-only.
    pub unmasked: bool,
    /// `--group-add`: names or numbers.
    pub groups: Vec<String>,
    pub devices: Vec<DeviceRequest>,
    pub device_rules: Vec<DeviceRule>,
    /// `net.core.somaxconn` and its value.
    pub sysctls: Vec<(String, String)>,
    /// `--security-opt` as written, with the text of a profile in place of its path, for `inspect`.
    pub options: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeccompChoice {
    #[default]
    Default,
    Unconfined,
    /// The text of a profile of the user's own, in Docker's format or as `linux.seccomp` of an OCI spec.
    Profile(String),
}

/// `--device HOST[:CONTAINER[:PERMISSIONS]]`; a folder stands for the devices in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRequest {
    pub host: PathBuf,
    pub container: PathBuf,
    /// Of `r`, `w` and `m`.
    pub permissions: String,
}

/// `--device-cgroup-rule 'c 42:* rmw'`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// `a`, `b` or `c`.
    pub kind: char,
    /// `None`: any.
    pub major: Option<i64>,
    pub minor: Option<i64>,
    pub permissions: String,
}
