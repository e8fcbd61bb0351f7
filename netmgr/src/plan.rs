//! From two models to the operations between them, each with its inverse. Pure.
//!
//! [`between`] trusts the kernel to be as the earlier model says, so its cost is that of the change. [`from_found`] starts
//! from what was read of the kernel; it serves `up`, `reload`, `down` and repair.

mod between;
mod found;
mod moves;
mod pieces;

pub use between::between;
pub(crate) use found::drops_what_it_does_not_know;
pub use found::{Aim, Found, FoundLink, Mending, RulesAim, from_found};
pub use pieces::{VETH_DIGITS, VETH_PREFIX, host_interface};
pub(crate) use pieces::{default_hop, reserved};

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::model::{Endpoint, Family};

/// One step of a change. `apply` runs them in order and, on failure, the inverses in reverse order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Forwarding on, and FORWARD's policy to DROP if it was off, as Docker does; remembered for `system down`.
    EnableForwarding(Family),
    CreateBridge(Bridge),
    RemoveBridge(Bridge),
    /// Creates the pair with one end in the container's namespace: lo and eth0 up, address, default route.
    CreateVeth(Veth),
    RemoveVeth(Veth),
    /// The host's end of a veth becomes a port of its bridge again, after the bridge was deleted by hand and remade.
    JoinBridge(Veth),
    /// A running container's default routes move from one of its interfaces to another.
    DefaultRoute(DefaultRoute),
    /// Host ports that no program gets as an ephemeral one (`ip_local_reserved_ports`); others' entries stay.
    ReservePorts(ReservePorts),
    /// One `iptables-restore --noflush -w`, and the input that undoes it.
    Rules(Batch),
}

/// A bridge and the gateway address that it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    pub name: String,
    pub gateway: Ipv4Addr,
    pub subnet: Ipv4Net,
    /// The IPv6 gateway and the length of its prefix.
    pub gateway6: Option<(Ipv6Addr, u8)>,
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
    /// Of the endpoint's IPv6 address, where it has one.
    pub prefix6: u8,
    /// `None` on an internal network, and on all but one of a container's networks: no default route.
    pub gateway: Option<Ipv4Addr>,
    pub gateway6: Option<Ipv6Addr>,
    pub mtu: Option<u32>,
    /// The bridge port's `isolated` flag: ports so marked do not reach each other.
    pub isolated: bool,
}

/// By which interface of a container, and over which gateways, its default routes go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    pub interface: String,
    pub gateway: Option<Ipv4Addr>,
    pub gateway6: Option<Ipv6Addr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    pub container_id: String,
    pub container_name: String,
    pub from: Option<Hop>,
    pub to: Option<Hop>,
}

/// Runs of ports, first and last, that ours are before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservePorts {
    pub before: Vec<(u16, u16)>,
    pub after: Vec<(u16, u16)>,
}

/// The command that a batch of rules is input for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tool {
    /// `iptables-restore --noflush -w`: commits table by table.
    Iptables,
    /// `ip6tables-restore --noflush -w`: likewise.
    Ip6tables,
    /// `nft -f -`: one transaction, all or nothing.
    Nft,
}

impl Tool {
    pub fn iptables(family: Family) -> Tool {
        match family {
            Family::V4 => Tool::Iptables,
            Family::V6 => Tool::Ip6tables,
        }
    }
}

/// Input for a command that writes rules, and its inverse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub tool: Tool,
    pub forward: String,
    pub inverse: String,
}

impl Batch {
    fn inverted(&self) -> Batch {
        Batch {
            tool: self.tool,
            forward: self.inverse.clone(),
            inverse: self.forward.clone(),
        }
    }
}

/// What undoes an operation. `None` for [`Op::EnableForwarding`] (what was before is in the host's memory file, and
/// `kernel::host::restore` brings it back) and for [`Op::JoinBridge`] (a port leaves with its bridge).
pub fn inverse(op: &Op) -> Option<Op> {
    Some(match op {
        Op::EnableForwarding(_) | Op::JoinBridge(_) => return None,
        Op::CreateBridge(bridge) => Op::RemoveBridge(bridge.clone()),
        Op::RemoveBridge(bridge) => Op::CreateBridge(bridge.clone()),
        Op::CreateVeth(veth) => Op::RemoveVeth(veth.clone()),
        Op::RemoveVeth(veth) => Op::CreateVeth(veth.clone()),
        Op::DefaultRoute(change) => Op::DefaultRoute(DefaultRoute {
            from: change.to.clone(),
            to: change.from.clone(),
            ..change.clone()
        }),
        Op::ReservePorts(change) => Op::ReservePorts(ReservePorts {
            before: change.after.clone(),
            after: change.before.clone(),
        }),
        Op::Rules(batch) => Op::Rules(batch.inverted()),
    })
}

/// Which firewall is written, once `auto` is decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    Iptables,
    Nftables,
    /// No rule at all (`--iptables=false`).
    #[default]
    None,
}

/// Which rules stand in the kernel, as the live marker remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    pub backend: Backend,
    /// The IPv6 rules and IPv6 forwarding are in place: from the first network with IPv6 to `system down`.
    pub ipv6: bool,
    /// With nftables: iptables' FORWARD has our passage rules (see `policy::passage`).
    pub passage: bool,
}

/// The interfaces that a plan makes or removes: the journal's names.
pub fn link_names(ops: &[Op]) -> Vec<String> {
    ops.iter()
        .filter_map(|op| match op {
            Op::CreateBridge(b) | Op::RemoveBridge(b) => Some(b.name.clone()),
            Op::CreateVeth(v) | Op::RemoveVeth(v) => Some(v.endpoint.host_interface.clone()),
            Op::EnableForwarding(_)
            | Op::JoinBridge(_)
            | Op::DefaultRoute(_)
            | Op::ReservePorts(_)
            | Op::Rules(_) => None,
        })
        .collect()
}
