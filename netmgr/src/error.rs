//! The one error of this crate, with a kind for exit codes and for a later HTTP API.
//!
//! Where Docker's own text is what people script against, the text is Docker's.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::Ipv4Net;

use crate::kernel;

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

    #[error("Pool overlaps with other one on this address space")]
    SubnetOverlaps,
    #[error("invalid subnet {subnet}: it should be {canonical}")]
    SubnetHasHostBits { subnet: Ipv4Net, canonical: Ipv4Net },
    #[error("invalid subnet {0}: it has no room for a gateway and a container")]
    SubnetTooSmall(Ipv4Net),
    #[error("invalid subnet {0}: it is not for hosts' own addresses")]
    SubnetReserved(Ipv4Net),
    #[error("every ip-range or gateway must have a corresponding subnet")]
    GatewayWithoutSubnet,
    #[error("no matching subnet for gateway {0}")]
    GatewayOutsideSubnet(Ipv4Addr),
    #[error("gateway {gateway} is not an address that a host of {subnet} can have")]
    GatewayNotHost { gateway: Ipv4Addr, subnet: Ipv4Net },
    #[error(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
    )]
    PoolExhausted,
    #[error("no available IPv4 addresses on this network's address pools: {name} ({id})")]
    AddressesExhausted { name: String, id: String },

    #[error("invalid bridge name {0}: at most 15 of [a-zA-Z0-9_.-]")]
    BridgeName(String),
    #[error("cannot create network {network}: networks have same bridge name {bridge}")]
    BridgeTaken { network: String, bridge: String },
    #[error(
        "cannot create network {network}: interface {bridge} exists on this host and is not ours"
    )]
    InterfaceExists { network: String, bridge: String },
    #[error("invalid value {value} of option {key}")]
    OptionValue { key: &'static str, value: String },

    #[error("endpoint with name {container} already exists in network {network}")]
    AlreadyAttached { container: String, network: String },
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
            | Error::GatewayOutsideSubnet(_)
            | Error::GatewayNotHost { .. }
            | Error::BridgeName(_)
            | Error::OptionValue { .. }
            | Error::PortsOnInternal(_)
            | Error::PortRange { .. } => ErrorKind::Invalid,
            Error::NetworkExists(_)
            | Error::ActiveEndpoints { .. }
            | Error::SubnetOverlaps
            | Error::BridgeTaken { .. }
            | Error::InterfaceExists { .. }
            | Error::AlreadyAttached { .. }
            | Error::PortAllocated { .. }
            | Error::StillAttached { .. }
            | Error::OtherEngine { .. } => ErrorKind::Conflict,
            Error::CreatePredefined(_) | Error::RemovePredefined(_) => ErrorKind::Forbidden,
            Error::PoolExhausted | Error::AddressesExhausted { .. } | Error::NetworkFull(_) => {
                ErrorKind::Exhausted
            }
            Error::State { .. } | Error::Database { .. } | Error::Malformed { .. } => {
                ErrorKind::Internal
            }
            Error::Kernel(error) => error.kind(),
            Error::RepairFailed { cause, .. } => cause.kind(),
        }
    }
}
