//! What should be there: networks, endpoints and published ports, as plain data.
//!
//! Everything that netmgr decides is decided from a [`Model`]; this file must not touch files,
//! processes or the kernel.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// Which names and chains are written: ours, or Docker's own for comparison with the captures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Chains `CORACLE*`, bridge `coracle0`, user bridges `cr-<12 digits>`, hardening in the raw table.
    #[default]
    Coracle,
    /// Chains `DOCKER*`, bridge `docker0`, user bridges `br-<12 digits>`: line for line Docker 20.10.
    Docker,
}

impl Profile {
    /// The prefix of every chain: `CORACLE` or `DOCKER`.
    pub fn chain_prefix(self) -> &'static str {
        match self {
            Profile::Coracle => "CORACLE",
            Profile::Docker => "DOCKER",
        }
    }

    /// The bridge of the default network.
    pub fn default_bridge(self) -> &'static str {
        match self {
            Profile::Coracle => "coracle0",
            Profile::Docker => "docker0",
        }
    }

    /// What the name of a user network's bridge starts with; the first 12 digits of its ID follow.
    pub fn bridge_prefix(self) -> &'static str {
        match self {
            Profile::Coracle => "cr-",
            Profile::Docker => "br-",
        }
    }
}

/// The whole of what should be there, in order of creation: rule order follows from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub profile: Profile,
    /// Oldest first; the default network comes first of all.
    pub networks: Vec<Network>,
    /// In order of attachment. Only attached (running) containers have endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A bridge network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// 64 hexadecimal digits.
    pub id: String,
    pub name: String,
    /// The bridge's interface name, at most 15 bytes.
    pub bridge: String,
    pub subnet: Ipv4Net,
    pub gateway: Ipv4Addr,
    /// No way out and no way in, but for the bridge's own address.
    pub internal: bool,
    /// Whether containers of this network may talk to each other.
    pub icc: bool,
    /// RFC 3339, UTC.
    pub created: String,
    pub labels: Vec<(String, String)>,
    /// Driver options as given (`com.docker.network.bridge.name` and so on).
    pub options: Vec<(String, String)>,
}

impl Network {
    /// The default network's name, in every profile.
    pub const DEFAULT: &'static str = "bridge";

    /// Whether its packets leave under the host's address (`com.docker.network.bridge.enable_ip_masquerade`).
    pub fn masquerade(&self) -> bool {
        self.option(OPTION_MASQUERADE)
            .and_then(parse_bool)
            .unwrap_or(true)
    }

    /// The MTU asked for (`com.docker.network.driver.mtu`), if one was.
    pub fn mtu(&self) -> Option<u32> {
        self.option(OPTION_MTU)?.parse().ok()
    }

    fn option(&self, key: &str) -> Option<&str> {
        option(&self.options, key)
    }
}

pub const OPTION_BRIDGE: &str = "com.docker.network.bridge.name";
pub const OPTION_ICC: &str = "com.docker.network.bridge.enable_icc";
pub const OPTION_MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
pub const OPTION_MTU: &str = "com.docker.network.driver.mtu";

/// The last value given for a key wins.
pub fn option<'a>(options: &'a [(String, String)], key: &str) -> Option<&'a str> {
    let found = options.iter().rev().find(|(k, _)| k == key);
    found.map(|(_, value)| value.as_str())
}

/// A boolean as Go's `strconv.ParseBool` reads it, since Docker's options are read so.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A container's place in one network. Exists while the container is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// 64 hexadecimal digits.
    pub id: String,
    pub network_id: String,
    pub container_id: String,
    pub container_name: String,
    pub address: Ipv4Addr,
    /// `02:42:` and the four bytes of the address, as Docker makes it.
    pub mac: [u8; 6],
    /// The veth's name on the host's side, at most 15 bytes.
    pub host_interface: String,
    /// The interface's name inside the container: `eth0`.
    pub interface: String,
    /// In the order given on the command line.
    pub ports: Vec<PortMap>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// A run of published ports: `count` host ports from `host_port`, each to the container's port at the same offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortMap {
    pub protocol: Protocol,
    /// `None`: every address of the host.
    pub host_ip: Option<IpAddr>,
    /// The first host port. Never 0 here: an ephemeral port is chosen before a map enters the model.
    pub host_port: u16,
    /// The first port in the container.
    pub container_port: u16,
    /// At least 1.
    pub count: u16,
}

/// A published port as asked for on the command line, before an ephemeral port is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortRequest {
    pub protocol: Protocol,
    pub host_ip: Option<IpAddr>,
    /// `None`: any free port.
    pub host_port: Option<u16>,
    pub container_port: u16,
    pub count: u16,
}
