//! From two models to the operations between them, each with its inverse. Pure.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::model::Endpoint;

/// One step of a change. `apply` runs them in order and, on failure, the inverses in reverse order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// ip_forward on, and FORWARD's policy to DROP if it was off, as Docker does; remembered for `system down`.
    EnableForwarding,
    CreateBridge(Bridge),
    RemoveBridge(Bridge),
    /// Creates the pair with one end in the container's namespace: lo and eth0 up, address, default route.
    CreateVeth(Veth),
    RemoveVeth(Veth),
    /// One `iptables-restore --noflush -w`, and the input that undoes it.
    Rules(Batch),
}

/// A bridge and the gateway address that it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    pub name: String,
    pub gateway: Ipv4Addr,
    pub subnet: Ipv4Net,
    /// `None`: the default route's, or 1500.
    pub mtu: Option<u32>,
}

/// A veth pair between a bridge and a container's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veth {
    pub bridge: String,
    pub endpoint: Endpoint,
    /// The prefix length of the endpoint's address.
    pub prefix: u8,
    /// `None` on an internal network: no default route.
    pub gateway: Option<Ipv4Addr>,
    pub mtu: Option<u32>,
    /// The bridge port's `isolated` flag: ports so marked do not reach each other.
    pub isolated: bool,
}

/// Input for `iptables-restore --noflush`, and its inverse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub forward: String,
    pub inverse: String,
}
