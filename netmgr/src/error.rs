//! The one error of this crate, with a kind for exit codes and for a later HTTP API.
//!
//! Where Docker's own text is what people script against, the text is Docker's.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::kernel;
use crate::model::Family;

/// What sort of failure it is: the caller maps it to an exit code or an HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request itself is wrong (a malformed port, a gateway outside its subnet).
    Invalid,
    NotFound,
    /// Something exists and is in the way: a port, a name, a subnet, an active endpoint.
    Conflict,
    /// Not allowed on this object (a predefined network).
    Forbidden,
    /// Addresses, ports or another finite thing has run out.
    Exhausted,
    /// This host failed: database, kernel, a missing command.
    Internal,
}

/// Grows a variant for each operation; names the object in each.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("network {0} not found")]
    NetworkNotFound(String),
    #[error("network {prefix} is ambiguous ({matches} matches found based on ID prefix)")]
    AmbiguousNetwork { prefix: String, matches: usize },
    #[error("network with name {0} already exists")]
    NetworkExists(String),
    #[error("Invalid network name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    NetworkName(String),
    #[error("operation is not permitted on predefined {0} network")]
    CreatePredefined(String),
    #[error("{0} is a pre-defined network and cannot be removed")]
    RemovePredefined(String),
    #[error("error while removing network: network {name} id {id} has active endpoints")]
    ActiveEndpoints { name: String, id: String },

    /// Docker's words come first: scripts look for them.
    #[error("Pool overlaps with other one on this address space: network {network} has {subnet}")]
    SubnetOverlaps { network: String, subnet: IpNet },
    #[error(
        "Pool overlaps with other one on this address space: {subnet} is in use on this host, on {interface}"
    )]
    SubnetOnHost { subnet: IpNet, interface: String },
    #[error("invalid subnet {subnet}: it should be {canonical}")]
    SubnetHasHostBits { subnet: IpNet, canonical: IpNet },
    #[error("invalid subnet {0}: it has no room for a gateway and a container")]
    SubnetTooSmall(IpNet),
    #[error("invalid subnet {0}: it is not for hosts' own addresses")]
    SubnetReserved(IpNet),
    #[error("every ip-range or gateway must have a corresponding subnet")]
    GatewayWithoutSubnet,
    #[error("an IPv6 subnet, gateway or ip-range needs --ipv6")]
    Ipv6Off,
    #[error("invalid ip-range {range}: it should be {canonical}")]
    RangeHasHostBits { range: IpNet, canonical: IpNet },
    #[error("no matching subnet for range {0}")]
    RangeOutsideSubnet(IpNet),
    #[error("invalid ip-range {range}: CIDR block is bigger than its parent subnet {subnet}")]
    RangeBeyondSubnet { range: IpNet, subnet: IpNet },
    #[error("no matching subnet for aux-address {0}")]
    AuxOutsideSubnet(IpAddr),
    #[error("no matching subnet for gateway {0}")]
    GatewayOutsideSubnet(IpAddr),
    #[error("gateway {gateway} is not an address that a host of {subnet} can have")]
    GatewayNotHost { gateway: IpAddr, subnet: IpNet },
    #[error(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network: \
         remove networks that are not in use (network prune), add to default-address-pools, or give a --subnet"
    )]
    PoolExhausted,
    #[error(
        "could not find an available IPv6 subnet in {0} to assign to the network: give a --subnet"
    )]
    UniqueLocalExhausted(Ipv6Net),
    #[error("invalid address pool {base}: it cannot be cut into subnets of prefix length {size}")]
    Pool { base: Ipv4Net, size: u8 },
    #[error("no available {} addresses on this network's address pools: {name} ({id})", .family.as_str())]
    AddressesExhausted {
        family: Family,
        name: String,
        id: String,
    },
    #[error("failed to allocate secondary ip address ({name}:{address}): Address already in use")]
    AuxInUse { name: String, address: IpAddr },
    /// Docker's whole text; which address it is the user has just typed.
    #[error("Address already in use")]
    AddressInUse(IpAddr),
    #[error("Invalid address {0}: It does not belong to any of this network's subnets")]
    AddressOutsideSubnets(IpAddr),
    #[error("Invalid address {address}: no host of {subnet} can have it")]
    AddressNotHost { address: IpAddr, subnet: IpNet },
    #[error("user specified IP address is supported on user defined networks only")]
    AddressOnDefault,
    #[error("network-scoped alias is supported only for containers in user defined networks")]
    AliasOnDefault,
    #[error("invalid MAC address {}: an interface's own is neither zero nor a group's", text_of(*.0))]
    Mac([u8; 6]),
    #[error("MAC address {} is already in use in network {network}", text_of(*.mac))]
    MacInUse { mac: [u8; 6], network: String },

    #[error("invalid bridge name {0}: at most 15 of [a-zA-Z0-9_.-]")]
    BridgeName(String),
    #[error("cannot create network {network}: networks have same bridge name {bridge}")]
    BridgeTaken { network: String, bridge: String },
    #[error(
        "cannot create network {network}: interface {bridge} exists on this host and is not ours"
    )]
    InterfaceExists { network: String, bridge: String },
    #[error("failed to parse {key} value: {value} (it should be {expected})")]
    OptionValue {
        key: &'static str,
        value: String,
        expected: &'static str,
    },

    #[error("endpoint with name {container} already exists in network {network}")]
    AlreadyAttached { container: String, network: String },
    #[error("container {container} is not connected to network {network}")]
    NotConnected { container: String, network: String },
    /// A Linux bridge has at most 1,023 ports (`net/bridge/br_private.h`, `BR_MAX_PORTS`).
    #[error("network {0} is full: a bridge joins at most 1023 containers")]
    NetworkFull(String),
    #[error("network {0} is internal: its containers cannot publish ports")]
    PortsOnInternal(String),
    #[error("invalid port range: {count} ports from {first}")]
    PortRange { first: u16, count: u16 },
    /// Docker's own text; see also `kernel::Error::PortTaken`, when another program has the port.
    #[error("Bind for {ip}:{port} failed: port is already allocated")]
    PortAllocated { ip: IpAddr, port: u16 },
    /// None of a choice of host ports is free.
    #[error("Bind for {ip}:{first}-{last} failed: all ports are allocated")]
    PortsAllocated { ip: IpAddr, first: u16, last: u16 },

    #[error("containers are attached to {networks}: stop them first")]
    StillAttached { networks: String },
    #[error("another engine's chains ({chains}) are in place: this profile would overwrite them")]
    OtherEngine { chains: String },

    #[error("cannot {operation} {}", path.display())]
    State {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("cannot {operation} in the database")]
    Database {
        operation: &'static str,
        source: rusqlite::Error,
    },
    #[error("the database holds a malformed {what}: {value}")]
    Malformed { what: &'static str, value: String },
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// The change failed, and then the kernel could not be brought back: the next command tries again.
    #[error("{cause}; and bringing the kernel back failed too: {repair}")]
    RepairFailed {
        #[source]
        cause: Box<Error>,
        repair: Box<Error>,
    },
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::NetworkNotFound(_) => ErrorKind::NotFound,
            Error::AmbiguousNetwork { .. }
            | Error::NetworkName(_)
            | Error::SubnetHasHostBits { .. }
            | Error::SubnetTooSmall(_)
            | Error::SubnetReserved(_)
            | Error::GatewayWithoutSubnet
            | Error::Ipv6Off
            | Error::RangeHasHostBits { .. }
            | Error::RangeOutsideSubnet(_)
            | Error::RangeBeyondSubnet { .. }
            | Error::AuxOutsideSubnet(_)
            | Error::Pool { .. }
            | Error::AddressOutsideSubnets(_)
            | Error::AddressNotHost { .. }
            | Error::AddressOnDefault
            | Error::AliasOnDefault
            | Error::Mac(_)
            | Error::GatewayOutsideSubnet(_)
            | Error::GatewayNotHost { .. }
            | Error::BridgeName(_)
            | Error::OptionValue { .. }
            | Error::PortsOnInternal(_)
            | Error::PortRange { .. } => ErrorKind::Invalid,
            Error::NetworkExists(_)
            | Error::ActiveEndpoints { .. }
            | Error::SubnetOverlaps { .. }
            | Error::SubnetOnHost { .. }
            | Error::AuxInUse { .. }
            | Error::AddressInUse(_)
            | Error::MacInUse { .. }
            | Error::NotConnected { .. }
            | Error::BridgeTaken { .. }
            | Error::InterfaceExists { .. }
            | Error::AlreadyAttached { .. }
            | Error::PortAllocated { .. }
            | Error::PortsAllocated { .. }
            | Error::StillAttached { .. }
            | Error::OtherEngine { .. } => ErrorKind::Conflict,
            Error::CreatePredefined(_) | Error::RemovePredefined(_) => ErrorKind::Forbidden,
            Error::PoolExhausted
            | Error::UniqueLocalExhausted(_)
            | Error::AddressesExhausted { .. }
            | Error::NetworkFull(_) => ErrorKind::Exhausted,
            Error::State { .. } | Error::Database { .. } | Error::Malformed { .. } => {
                ErrorKind::Internal
            }
            Error::Kernel(error) => error.kind(),
            Error::RepairFailed { cause, .. } => cause.kind(),
        }
    }
}

fn text_of(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
