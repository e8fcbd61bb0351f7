//! From two models to the operations between them, each with its inverse. Pure.
//!
//! [`between`] trusts the kernel to be as the earlier model says, so its cost is that of the change. [`from_found`] starts
//! from what was read of the kernel; it serves `up`, `reload`, `down` and repair.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::firewall::diff;
use crate::firewall::iptables::FoundChain;
use crate::firewall::mend::{self, Goal, Known};
use crate::firewall::policy;
use crate::model::{Endpoint, Family, Model, Network, Profile};

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

/// Whether rules are written at all (`--iptables=false`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    Written,
    Omitted,
}

/// What is wanted of a kernel that was looked at: with `--iptables=false` bridges stand and rules go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aim {
    pub links: Goal,
    pub rules: Goal,
}

/// What was read of the kernel.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub forwarding: bool,
    pub links: Vec<FoundLink>,
    /// `None`: rules were not read, and none will be written.
    pub chains: Option<Vec<FoundChain>>,
    /// Interfaces and rules of ours by the word of the journal, whatever their names.
    pub journal_links: HashSet<String>,
    pub journal_rules: Known,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundLink {
    pub name: String,
    pub is_bridge: bool,
}

/// The operations from one model to the next, on a kernel that is as the first one says.
///
/// `by_kernel` are IDs of removed endpoints whose veth goes with its namespace. Things come in the order in which they
/// depend on each other, and go the other way round; what cannot be undone (a veth) goes last.
pub fn between(
    before: &Model,
    after: &Model,
    rules: Rules,
    by_kernel: &HashSet<String>,
) -> Vec<Op> {
    let mut ops = Vec::new();
    ops.extend(new_networks(before, after).map(|n| Op::CreateBridge(bridge(n))));
    ops.extend(
        new_endpoints(before, after)
            .map(|(n, e)| Op::CreateVeth(veth_between(before, after, n, e))),
    );
    ops.extend(default_routes(before, after));
    if rules == Rules::Written {
        let (before, after) = without_common_endpoints(before, after);
        let (old, new) = (
            policy::ruleset(&before, Family::V4),
            policy::ruleset(&after, Family::V4),
        );
        let forward = diff::delta(&old, &new);
        if !forward.is_empty() {
            ops.push(Op::Rules(Batch {
                tool: Tool::Iptables,
                forward: forward.render(),
                inverse: diff::delta(&new, &old).render(),
            }));
        }
    }
    let removed = new_endpoints(after, before).filter(|(_, e)| !by_kernel.contains(&e.id));
    ops.extend(removed.map(|(n, e)| Op::RemoveVeth(veth_between(after, before, n, e))));
    ops.extend(new_networks(after, before).map(|n| Op::RemoveBridge(bridge(n))));
    ops
}

/// Leaves out the endpoints that both models begin with, where all that differs comes after them: their rules stand above
/// those of the difference and are not touched, so the usual change costs the same however many containers run. When
/// something in the middle changes, the positions of the others' rules are needed to undo it exactly.
fn without_common_endpoints<'a>(
    before: &'a Model,
    after: &'a Model,
) -> (Cow<'a, Model>, Cow<'a, Model>) {
    let pairs = before.endpoints.iter().zip(&after.endpoints);
    let common = pairs.take_while(|(old, new)| old == new).count();
    if common < before.endpoints.len() && common < after.endpoints.len() {
        return (Cow::Borrowed(before), Cow::Borrowed(after));
    }
    let rest = |model: &Model| Model {
        profile: model.profile,
        networks: model.networks.clone(),
        endpoints: model.endpoints[common..].to_vec(),
    };
    (Cow::Owned(rest(before)), Cow::Owned(rest(after)))
}

/// Operations made from what was found, and what the user is to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mending {
    pub ops: Vec<Op>,
    pub notes: Vec<String>,
}

/// The operations that bring the kernel, as found, to `after`; where the aim is [`Goal::Gone`], to none of ours at all.
///
/// `before` is what the kernel may hold besides: veths of endpoints that are only in `after` are made, everything else is
/// compared with what was found. A veth that is missing for an older endpoint cannot be made here, because its
/// namespace is not at hand.
pub fn from_found(
    found: &Found,
    before: &Model,
    after: &Model,
    aim: Aim,
    by_kernel: &HashSet<String>,
) -> Mending {
    let mut out = Mending::default();
    let there: HashSet<&str> = found.links.iter().map(|l| l.name.as_str()).collect();
    if aim.links == Goal::Stand {
        if !found.forwarding {
            out.ops.push(Op::EnableForwarding(Family::V4));
        }
        let missing = after
            .networks
            .iter()
            .filter(|n| !there.contains(n.bridge.as_str()));
        out.ops.extend(missing.map(|n| Op::CreateBridge(bridge(n))));
        let new = new_endpoints(before, after);
        out.ops
            .extend(new.map(|(n, e)| Op::CreateVeth(veth_between(before, after, n, e))));
        out.ops.extend(default_routes(before, after));
    }
    if let Some(chains) = &found.chains {
        let mut known = found.journal_rules.clone();
        known.extend(mend::known(&policy::ruleset(before, Family::V4)));
        let mending = mend::mend(
            chains,
            &policy::ruleset(after, Family::V4),
            aim.rules,
            &known,
        );
        if !mending.forward.is_empty() {
            out.ops.push(Op::Rules(Batch {
                tool: Tool::Iptables,
                forward: mending.forward.render(),
                inverse: mending.inverse.render(),
            }));
        }
        out.notes.extend(mending.notes);
    }
    remove_leftovers(found, before, after, aim.links, by_kernel, &mut out.ops);
    out
}

/// Veths first, then bridges: of networks that are gone, and strays that a killed command has left.
fn remove_leftovers(
    found: &Found,
    before: &Model,
    after: &Model,
    goal: Goal,
    by_kernel: &HashSet<String>,
    ops: &mut Vec<Op>,
) {
    let wanted: HashSet<&str> = match goal {
        Goal::Stand => after
            .networks
            .iter()
            .map(|n| n.bridge.as_str())
            .chain(after.endpoints.iter().map(|e| e.host_interface.as_str()))
            .collect(),
        Goal::Gone => HashSet::new(),
    };
    let gone: HashSet<&str> = before.networks.iter().map(|n| n.bridge.as_str()).collect();
    let dying: HashSet<&str> = before
        .endpoints
        .iter()
        .filter(|e| by_kernel.contains(&e.id))
        .map(|e| e.host_interface.as_str())
        .collect();
    let stray = |link: &&FoundLink| {
        let name = link.name.as_str();
        !wanted.contains(name)
            && !dying.contains(name)
            && (gone.contains(name)
                || found.journal_links.contains(name)
                || is_our_name(before.profile, name))
    };
    let (bridges, veths): (Vec<_>, Vec<_>) =
        found.links.iter().filter(stray).partition(|l| l.is_bridge);
    ops.extend(veths.iter().map(|l| Op::RemoveVeth(stray_veth(&l.name))));
    for link in bridges {
        let network = before.networks.iter().find(|n| n.bridge == link.name);
        ops.push(Op::RemoveBridge(match network {
            Some(network) => bridge(network),
            None => stray_bridge(&link.name),
        }));
    }
}

/// Whether a name is one that only we give. The docker profile's bridges have a real Docker's names, so there only the
/// journal tells.
fn is_our_name(profile: Profile, name: &str) -> bool {
    let digits_after = |prefix: &str, count: usize| {
        name.strip_prefix(prefix).is_some_and(|rest| {
            rest.len() == count && rest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    digits_after(VETH_PREFIX, VETH_DIGITS)
        || (profile == Profile::Coracle
            && (name == profile.default_bridge() || digits_after(profile.bridge_prefix(), 12)))
}

/// The host's end of an endpoint's veth: this, and the first digits of the endpoint's ID.
pub const VETH_PREFIX: &str = "cv";
pub const VETH_DIGITS: usize = 10;

pub fn host_interface(endpoint_id: &str) -> String {
    format!(
        "{VETH_PREFIX}{}",
        &endpoint_id[..VETH_DIGITS.min(endpoint_id.len())]
    )
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

fn new_networks<'a>(old: &'a Model, new: &'a Model) -> impl Iterator<Item = &'a Network> {
    let ids: HashSet<&str> = old.networks.iter().map(|n| n.id.as_str()).collect();
    new.networks
        .iter()
        .filter(move |n| !ids.contains(n.id.as_str()))
}

fn new_endpoints<'a>(
    old: &'a Model,
    new: &'a Model,
) -> impl Iterator<Item = (&'a Network, &'a Endpoint)> {
    let ids: HashSet<&str> = old.endpoints.iter().map(|e| e.id.as_str()).collect();
    new.endpoints
        .iter()
        .filter(move |e| !ids.contains(e.id.as_str()))
        .filter_map(|e| {
            let network = new.networks.iter().find(|n| n.id == e.network_id)?;
            Some((network, e))
        })
}

fn bridge(network: &Network) -> Bridge {
    Bridge {
        name: network.bridge.clone(),
        gateway: network.gateway,
        subnet: network.subnet,
        gateway6: network.v6.map(|v6| (v6.gateway, v6.subnet.prefix_len())),
        mtu: network.mtu(),
    }
}

fn veth(network: &Network, endpoint: &Endpoint) -> Veth {
    Veth {
        bridge: network.bridge.clone(),
        endpoint: endpoint.clone(),
        prefix: network.subnet.prefix_len(),
        prefix6: network.v6.map_or(128, |v6| v6.subnet.prefix_len()),
        gateway: (!network.internal).then_some(network.gateway),
        gateway6: network
            .v6
            .filter(|_| !network.internal)
            .map(|v6| v6.gateway),
        mtu: network.mtu(),
        isolated: !network.icc,
    }
}

/// A veth that is in `there` and not in `other`. It brings default routes along only where the container has none
/// otherwise; else they are moved ([`default_routes`]).
fn veth_between(other: &Model, there: &Model, network: &Network, endpoint: &Endpoint) -> Veth {
    let id = &endpoint.container_id;
    let is_primary = there.primary(id).is_some_and(|e| e.id == endpoint.id);
    let mut veth = veth(network, endpoint);
    if !is_primary || other.primary(id).is_some() {
        veth.gateway = None;
        veth.gateway6 = None;
    }
    veth
}

/// Of containers that stay, and whose primary endpoint is another one than before.
fn default_routes(before: &Model, after: &Model) -> Vec<Op> {
    let changed = new_endpoints(before, after).chain(new_endpoints(after, before));
    let containers: BTreeSet<(&str, &str)> = changed
        .map(|(_, e)| (e.container_id.as_str(), e.container_name.as_str()))
        .collect();
    let moves = containers.into_iter().filter_map(|(id, name)| {
        let (from, to) = (before.primary(id)?, after.primary(id)?);
        (from.id != to.id).then(|| {
            Op::DefaultRoute(DefaultRoute {
                container_id: id.to_owned(),
                container_name: name.to_owned(),
                from: hop(before, from),
                to: hop(after, to),
            })
        })
    });
    moves.collect()
}

/// No way out of an internal network.
fn hop(model: &Model, endpoint: &Endpoint) -> Option<Hop> {
    let network = model.network(&endpoint.network_id)?;
    let veth = veth(network, endpoint);
    (!network.internal).then(|| Hop {
        interface: endpoint.interface.clone(),
        gateway: veth.gateway,
        gateway6: veth.gateway6,
    })
}

/// Enough of a veth to be removed by its name.
fn stray_veth(name: &str) -> Veth {
    Veth {
        bridge: String::new(),
        endpoint: Endpoint {
            id: String::new(),
            network_id: String::new(),
            container_id: String::new(),
            container_name: String::new(),
            address: Ipv4Addr::UNSPECIFIED,
            address6: None,
            mac: [0; 6],
            host_interface: name.to_owned(),
            interface: String::new(),
            aliases: Vec::new(),
            ports: Vec::new(),
        },
        prefix: 32,
        prefix6: 128,
        gateway: None,
        gateway6: None,
        mtu: None,
        isolated: false,
    }
}

fn stray_bridge(name: &str) -> Bridge {
    Bridge {
        name: name.to_owned(),
        gateway: Ipv4Addr::UNSPECIFIED,
        subnet: Ipv4Net::from(Ipv4Addr::UNSPECIFIED),
        gateway6: None,
        mtu: None,
    }
}
