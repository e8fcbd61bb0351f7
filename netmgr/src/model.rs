//! What should be there: networks, endpoints and published ports, as plain data.
//!
//! Everything that netmgr decides is decided from a [`Model`]; this file must not touch files,
//! processes or the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
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
    /// Containers get their addresses from here (`--ip-range`); `None`: from the whole subnet.
    pub ip_range: Option<Ipv4Net>,
    /// `--ipv6`: beside IPv4, which every network has.
    pub v6: Option<V6>,
    /// Addresses that no container gets, with a name each (`--aux-address`).
    pub aux_addresses: Vec<(String, IpAddr)>,
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

/// A network's IPv6 side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct V6 {
    pub subnet: Ipv6Net,
    pub gateway: Ipv6Addr,
    pub ip_range: Option<Ipv6Net>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    pub fn as_str(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }
}

/// How containers of a network are reached from outside (`com.docker.network.bridge.gateway_mode_ipv4`, `..._ipv6`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GatewayMode {
    /// By published ports of the host alone; containers leave under the host's address.
    #[default]
    Nat,
    /// As [`GatewayMode::Nat`], and every port is reachable at the container's own address too.
    NatUnprotected,
    /// No address translation: published ports are reachable at the container's own address.
    Routed,
}

impl GatewayMode {
    pub fn parse(text: &str) -> Option<GatewayMode> {
        match text {
            "nat" => Some(GatewayMode::Nat),
            "nat-unprotected" => Some(GatewayMode::NatUnprotected),
            "routed" => Some(GatewayMode::Routed),
            _ => None,
        }
    }
}

impl Network {
    /// Of a container's networks the one of the least rank carries its default routes and its published ports: internal
    /// ones last, those with both families first, then by name, as Docker chooses. [`Network::RANK_SQL`] is the same.
    pub fn rank(&self) -> (bool, bool, &str) {
        (self.internal, self.v6.is_none(), &self.name)
    }

    pub(crate) const RANK_SQL: &'static str =
        "networks.internal, networks.v6 IS NULL, networks.name";

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

    pub fn gateway_mode(&self, family: Family) -> GatewayMode {
        let key = match family {
            Family::V4 => OPTION_GATEWAY_MODE_V4,
            Family::V6 => OPTION_GATEWAY_MODE_V6,
        };
        self.option(key)
            .and_then(GatewayMode::parse)
            .unwrap_or_default()
    }

    /// Interfaces of the host from which published ports may be reached at a container's own address.
    pub fn trusted_interfaces(&self) -> impl Iterator<Item = &str> {
        let names = self.option(OPTION_TRUSTED_INTERFACES).unwrap_or_default();
        names.split(':').filter(|name| !name.is_empty())
    }

    /// The host address of ports that are published without one (`com.docker.network.bridge.host_binding_ipv4`).
    pub fn host_binding(&self) -> Option<IpAddr> {
        let address: Ipv4Addr = self.option(OPTION_HOST_BINDING)?.parse().ok()?;
        (!address.is_unspecified()).then_some(address.into())
    }

    /// What the names of interfaces inside containers start with; a number follows.
    pub fn interface_prefix(&self) -> &str {
        self.option(OPTION_INTERFACE_PREFIX).unwrap_or("eth")
    }

    pub fn subnet_of(&self, family: Family) -> Option<IpNet> {
        match family {
            Family::V4 => Some(self.subnet.into()),
            Family::V6 => self.v6.map(|v6| v6.subnet.into()),
        }
    }

    pub fn gateway_of(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => Some(self.gateway.into()),
            Family::V6 => self.v6.map(|v6| v6.gateway.into()),
        }
    }

    fn option(&self, key: &str) -> Option<&str> {
        option(&self.options, key)
    }
}

impl Model {
    pub fn network(&self, id: &str) -> Option<&Network> {
        self.networks.iter().find(|network| network.id == id)
    }

    /// Whether a network has an IPv6 side.
    pub fn has_v6(&self) -> bool {
        self.networks.iter().any(|network| network.v6.is_some())
    }

    /// Of a container's endpoints the one that carries its default routes and its published ports: of the network
    /// with both families, of several that whose name comes first, internal networks last, as Docker chooses.
    pub fn primary(&self, container_id: &str) -> Option<&Endpoint> {
        let mine = self
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.container_id == container_id);
        mine.filter_map(|endpoint| Some((self.network(&endpoint.network_id)?, endpoint)))
            .min_by_key(|(network, _)| network.rank())
            .map(|(_, endpoint)| endpoint)
    }
}

pub const OPTION_BRIDGE: &str = "com.docker.network.bridge.name";
pub const OPTION_ICC: &str = "com.docker.network.bridge.enable_icc";
pub const OPTION_MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
pub const OPTION_MTU: &str = "com.docker.network.driver.mtu";
pub const OPTION_GATEWAY_MODE_V4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
pub const OPTION_GATEWAY_MODE_V6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
/// Names separated by colons.
pub const OPTION_TRUSTED_INTERFACES: &str = "com.docker.network.bridge.trusted_host_interfaces";
pub const OPTION_HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
pub const OPTION_INTERFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";

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
    /// On a network with IPv6.
    pub address6: Option<Ipv6Addr>,
    /// `02:42:` and the four bytes of the address, as Docker makes it.
    pub mac: [u8; 6],
    /// The veth's name on the host's side, at most 15 bytes.
    pub host_interface: String,
    /// The interface's name inside the container: `eth0`.
    pub interface: String,
    /// Further names by which the containers of this network find it.
    pub aliases: Vec<String>,
    /// In the order given on the command line. Only the container's primary endpoint has any ([`Model::primary`]).
    pub ports: Vec<PortMap>,
}

impl Endpoint {
    pub fn address_of(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => Some(self.address.into()),
            Family::V6 => self.address6.map(IpAddr::V6),
        }
    }
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
    /// A run too long for a socket each has one TCP listener on this port of the host, to which clients of the
    /// loopback proxy are redirected. `None`: a socket for each port.
    pub listener: Option<u16>,
}

/// A published port as asked for on the command line, before an ephemeral port is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortRequest {
    pub protocol: Protocol,
    pub host_ip: Option<IpAddr>,
    /// `None`: any free port.
    pub host_port: Option<u16>,
    /// `8000-8010:80`: any free port from `host_port` to here. Then `count` is 1.
    pub host_port_last: Option<u16>,
    pub container_port: u16,
    pub count: u16,
}
