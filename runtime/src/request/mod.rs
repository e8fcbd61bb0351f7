//! What a front end asks for: plain data, validated where it is used.

mod life;
mod mounts;
mod namespaces;
mod resources;
mod security;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use netmgr::PortRequest;
use serde::{Deserialize, Serialize};

pub use life::{HealthRequest, LogDriver, LogRequest, RestartPolicy};
pub use mounts::{Mount, MountKind, MountOptions, Propagation};
pub use namespaces::{NamespaceMode, Namespaces};
pub use resources::{Resources, Throttle, ThrottleKind, Ulimit, UpdateRequest};
pub use security::{DeviceRequest, DeviceRule, SeccompChoice, Security};

/// The streams of a program that somebody is attached to from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

impl Attach {
    pub const NOTHING: Attach = Attach {
        stdin: false,
        stdout: false,
        stderr: false,
    };
}

/// Everything that there is.
impl Default for Attach {
    fn default() -> Attach {
        Attach {
            stdin: true,
            stdout: true,
            stderr: true,
        }
    }
}

/// `run` and `create`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerRequest {
    /// `None`: a generated adjective_surname.
    pub name: Option<String>,
    /// As written by the user: a reference, or an image ID.
    pub image: String,
    /// Words after the image; empty: the image's CMD.
    pub command: Vec<String>,
    /// `--entrypoint`: replaces the image's ENTRYPOINT and clears its CMD. An empty string resets it.
    pub entrypoint: Option<String>,
    /// `K=V`; a bare `K` has been resolved (or dropped) by the front end already.
    pub env: Vec<String>,
    pub labels: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub workdir: Option<String>,
    /// `user[:group]`, names or numbers.
    pub user: Option<String>,
    pub hostname: Option<String>,
    /// `-t`
    pub tty: bool,
    /// `-i`: keep stdin open.
    pub open_stdin: bool,
    /// Of `run -i` without `-d`: the end of an attached client's input is the end of the program's.
    #[serde(default)]
    pub stdin_once: bool,
    /// Which streams the caller of `run` or `create` is for; none with `-d`.
    #[serde(default)]
    pub attach: Attach,
    /// `--rm`
    pub auto_remove: bool,
    pub network: NetworkMode,
    /// The networks to join, the first being that of `network`; none: that one alone, without further wishes.
    #[serde(default)]
    pub connections: Vec<Connection>,
    pub ports: Vec<PortRequest>,
    /// `-P`: every exposed port gets a free port of the host.
    #[serde(default)]
    pub publish_all: bool,
    /// Where `-P` publishes; `None`: at every address of the host.
    #[serde(default)]
    pub publish_at: Option<IpAddr>,
    /// `--expose`: `80/tcp`, beside the image's own.
    #[serde(default)]
    pub expose: Vec<String>,
    /// Seconds `stop` waits before SIGKILL; `None`: 10.
    pub stop_timeout: Option<u32>,
    /// `None`: the image's STOPSIGNAL, else SIGTERM.
    pub stop_signal: Option<String>,
    /// Rows and columns of the caller's terminal: set before the program starts.
    pub tty_size: Option<(u16, u16)>,
    /// All capabilities of our own bounding set, all devices, no seccomp, nothing masked.
    pub privileged: bool,
    /// `--add-host`: name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// `--dns`, `--dns-search`, `--dns-option`; empty: the host's.
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    #[serde(default)]
    pub dns_options: Vec<String>,
    #[serde(default)]
    pub domainname: Option<String>,
    #[serde(default)]
    pub resources: Resources,
    #[serde(default)]
    pub security: Security,
    #[serde(default)]
    pub namespaces: Namespaces,
    /// The root filesystem cannot be written.
    #[serde(default)]
    pub read_only: bool,
    /// `--init`: a first process that reaps orphans and passes signals on.
    #[serde(default)]
    pub init: bool,
    /// Bytes of /dev/shm; `None`: 64 MiB.
    #[serde(default)]
    pub shm_size: Option<u64>,
    /// `--volumes-from`: containers by name or ID, with `:ro` or `:rw`.
    #[serde(default)]
    pub volumes_from: Vec<String>,
    #[serde(default)]
    pub restart: RestartPolicy,
    #[serde(default)]
    pub health: HealthRequest,
    #[serde(default)]
    pub log: LogRequest,
    /// `--runtime`: the program of another OCI runtime; `None`: our own.
    #[serde(default)]
    pub runtime: Option<PathBuf>,
    /// `--cgroup-parent`; `None`: `/coracle`.
    #[serde(default)]
    pub cgroup_parent: Option<String>,
    /// `--platform`, as written.
    #[serde(default)]
    pub platform: Option<String>,
    #[serde(default)]
    pub annotations: Vec<(String, String)>,
    /// `--cidfile`, for `inspect`: the front end writes it.
    #[serde(default)]
    pub cid_file: Option<PathBuf>,
    /// `--volume-driver`, for `inspect`: only `local` is known.
    #[serde(default)]
    pub volume_driver: Option<String>,
}

/// `--network`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// The default network.
    #[default]
    Bridge,
    /// The host's own namespace.
    Host,
    /// A namespace with `lo` and nothing else.
    None,
    /// A user network, by name or ID.
    Named(String),
    /// The namespace of another container, by name or ID, and its files in /etc.
    Container(String),
}

impl NetworkMode {
    /// Docker's `HostConfig.NetworkMode`.
    pub fn to_text(&self) -> String {
        match self {
            NetworkMode::Bridge => netmgr::Network::DEFAULT.to_owned(),
            NetworkMode::Host => "host".to_owned(),
            NetworkMode::None => NO_NETWORK.to_owned(),
            NetworkMode::Named(name) => name.clone(),
            NetworkMode::Container(name) => format!("container:{name}"),
        }
    }

    /// What a container of this mode is connected to if nothing else is said. `none` counts as a connection, since a
    /// container can be disconnected from it; the host's network and another container's do not.
    pub fn connections(&self) -> Vec<Connection> {
        match self {
            NetworkMode::Host | NetworkMode::Container(_) => Vec::new(),
            NetworkMode::Bridge | NetworkMode::None | NetworkMode::Named(_) => {
                vec![Connection::to(&self.to_text())]
            }
        }
    }
}

/// The network that is none: `--network none`, `network disconnect none CONTAINER`.
pub const NO_NETWORK: &str = "none";

/// One network that a container is on, and what it is to have there. What is `None` is chosen at each start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Name or ID as asked for; in a record the name, if there was such a network.
    pub network: String,
    pub address: Option<Ipv4Addr>,
    pub address6: Option<Ipv6Addr>,
    pub mac: Option<[u8; 6]>,
    pub aliases: Vec<String>,
}

impl Connection {
    pub fn to(network: &str) -> Connection {
        Connection {
            network: network.to_owned(),
            ..Connection::default()
        }
    }
}

/// `exec`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExecRequest {
    pub container: String,
    pub command: Vec<String>,
    pub env: Vec<String>,
    pub workdir: Option<String>,
    pub user: Option<String>,
    pub tty: bool,
    pub open_stdin: bool,
    pub detach: bool,
    pub privileged: bool,
    pub tty_size: Option<(u16, u16)>,
}
