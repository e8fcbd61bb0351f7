//! The operations from what was read of the kernel to what must be there.

use std::collections::{BTreeSet, HashSet};

use super::moves::{reroute, route_again, routed_apart, staying};
use super::pieces::{bridge, is_our_name, new_endpoints, reserved, stray_bridge, stray_veth, veth};
use super::{Batch, Op, ReservePorts, Tool};
use crate::firewall::iptables::FoundChain;
use crate::firewall::mend::{self, Goal, Known};
use crate::firewall::nftables::{self, Guard};
use crate::firewall::policy::{self, COMMENT_TAG};
use crate::firewall::ruleset::{Ruleset, Table};
use crate::model::{Family, Model};

/// What is wanted of a kernel that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aim {
    pub links: Goal,
    pub iptables: RulesAim,
    pub nftables: Goal,
    /// Whether IPv6 rules and IPv6 forwarding are to stand.
    pub ipv6: bool,
}

/// What iptables is to hold of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RulesAim {
    /// All of the policy.
    Policy,
    /// With nftables: what lets our traffic through where FORWARD would drop it, and nothing else.
    Passage,
    Gone,
}

/// What was read of the kernel.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub forwarding: bool,
    pub forwarding6: bool,
    /// Which forwarding an earlier change of ours turned on.
    pub turned_on: Guard,
    pub links: Vec<FoundLink>,
    /// `None`: rules were not read, and none will be written.
    pub chains: Option<Vec<FoundChain>>,
    pub chains6: Option<Vec<FoundChain>>,
    /// The outer `None`: not read. The inner: there is no table of ours.
    pub nft: Option<Option<nftables::FoundTable>>,
    /// An earlier change of ours wrote passage rules. In the docker profile no comment tells them from others'.
    pub has_passage: bool,
    /// Interfaces and rules of ours by the word of the journal, whatever their names.
    pub journal_links: HashSet<String>,
    pub journal_rules: Known,
    pub journal_rules6: Known,
    /// Containers whose namespace is at hand: a veth of theirs that is missing can be made anew.
    pub reachable: HashSet<String>,
    /// Those of them whose default routes a change that was cut short may have moved.
    pub astray: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundLink {
    pub name: String,
    pub is_bridge: bool,
    /// The bridge that it is a port of.
    pub master: Option<String>,
}

/// Operations made from what was found, and what the user is to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mending {
    pub ops: Vec<Op>,
    pub notes: Vec<String>,
    /// iptables' FORWARD needs (and now has) passage rules.
    pub passage: bool,
}

/// The operations that bring the kernel, as found, to `after`; where the aim is [`Goal::Gone`], to none of ours at all.
///
/// `before` is what the kernel may hold besides: veths of endpoints that are only in `after` are made, everything else is
/// compared with what was found.
pub fn from_found(
    found: &Found,
    before: &Model,
    after: &Model,
    aim: Aim,
    by_kernel: &HashSet<String>,
) -> Mending {
    let mut out = Mending::default();
    if aim.links == Goal::Stand {
        forwarding(found, aim, &mut out.ops);
        links(found, before, after, by_kernel, &mut out.ops);
    }
    reserve(before, after, aim.links, &mut out.ops);
    iptables(found, before, after, aim, &mut out);
    nft(found, after, aim, &mut out);
    remove_leftovers(found, before, after, aim.links, by_kernel, &mut out.ops);
    out
}

fn forwarding(found: &Found, aim: Aim, ops: &mut Vec<Op>) {
    if !found.forwarding {
        ops.push(Op::EnableForwarding(Family::V4));
    }
    if aim.ipv6 && !found.forwarding6 {
        ops.push(Op::EnableForwarding(Family::V6));
    }
}

/// Bridges that are missing, veths that are new or missing, and veths that have lost their bridge.
fn links(
    found: &Found,
    before: &Model,
    after: &Model,
    by_kernel: &HashSet<String>,
    ops: &mut Vec<Op>,
) {
    let mut staying = staying(before, after, by_kernel);
    staying.extend(found.astray.iter().cloned());
    let there: HashSet<&str> = found.links.iter().map(|l| l.name.as_str()).collect();
    let missing = after
        .networks
        .iter()
        .filter(|n| !there.contains(n.bridge.as_str()));
    ops.extend(missing.map(|n| Op::CreateBridge(bridge(n))));
    let new: HashSet<&str> = new_endpoints(before, after)
        .map(|(_, e)| e.id.as_str())
        .collect();
    for endpoint in &after.endpoints {
        let Some(network) = after.network(&endpoint.network_id) else {
            continue;
        };
        let name = endpoint.host_interface.as_str();
        let link = found.links.iter().find(|link| link.name == name);
        let can_be_made =
            new.contains(endpoint.id.as_str()) || found.reachable.contains(&endpoint.container_id);
        match link {
            None if can_be_made => ops.push(Op::CreateVeth(routed_apart(
                after, network, endpoint, &staying,
            ))),
            Some(link) if link.master.as_deref() != Some(network.bridge.as_str()) => {
                ops.push(Op::JoinBridge(veth(after, network, endpoint)));
            }
            _ => {}
        }
    }
    for id in &staying {
        match found.astray.contains(id) {
            true => ops.extend(route_again(after, id)),
            false => ops.extend(reroute(before, after, id)),
        }
    }
}

/// What the kernel's list holds is not compared here: `kernel::settle` does that.
fn reserve(before: &Model, after: &Model, goal: Goal, ops: &mut Vec<Op>) {
    let change = ReservePorts {
        before: reserved(before),
        after: match goal {
            Goal::Stand => reserved(after),
            Goal::Gone => Vec::new(),
        },
    };
    if change.before != change.after {
        ops.push(Op::ReservePorts(change));
    }
}

fn iptables(found: &Found, before: &Model, after: &Model, aim: Aim, out: &mut Mending) {
    // Without a network of it a family has no rule of ours, not even the chains.
    let aim6 = match aim.ipv6 {
        true => aim.iptables,
        false => RulesAim::Gone,
    };
    let families = [
        (
            Family::V4,
            aim.iptables,
            &found.chains,
            &found.journal_rules,
        ),
        (Family::V6, aim6, &found.chains6, &found.journal_rules6),
    ];
    // For both families or for none: the live marker remembers one answer, and later changes go by it.
    out.passage = families.iter().any(|(_, aim, chains, _)| {
        let chains = chains.as_ref().filter(|_| *aim == RulesAim::Passage);
        chains.is_some_and(|chains| drops_what_it_does_not_know(chains))
    });
    for (family, aim, chains, journal) in families {
        let Some(chains) = chains else { continue };
        let mut known = journal.clone();
        known.extend(mend::known(&policy::ruleset(before, family)));
        if found.has_passage {
            known.extend(mend::known(&policy::passage(before)));
        }
        let wanted = policy::ruleset(after, family);
        let (goal, standing) = match aim {
            RulesAim::Policy => (Goal::Stand, Ruleset::default()),
            RulesAim::Gone => (Goal::Gone, Ruleset::default()),
            RulesAim::Passage if out.passage => (Goal::Gone, policy::passage(after)),
            RulesAim::Passage => (Goal::Gone, Ruleset::default()),
        };
        let mending = mend::mend(chains, &wanted, goal, &standing, &known);
        if !mending.forward.is_empty() {
            out.ops.push(Op::Rules(Batch {
                tool: Tool::iptables(family),
                forward: mending.forward.render(),
                inverse: mending.inverse.render(),
            }));
        }
        out.notes.extend(mending.notes);
    }
}

/// Whether somebody has written a FORWARD chain that may drop what our own table accepts: an accept in one table does not
/// override a drop in another.
pub(crate) fn drops_what_it_does_not_know(chains: &[FoundChain]) -> bool {
    let forward = chains
        .iter()
        .find(|c| c.table == Table::Filter && c.name == "FORWARD");
    forward.is_some_and(|chain| {
        let others = chain.rules.iter().filter(|rule| {
            let comment = rule.comment.as_deref().unwrap_or_default();
            !comment.starts_with(COMMENT_TAG)
        });
        chain.policy == "DROP" || others.count() > 0
    })
}

fn nft(found: &Found, after: &Model, aim: Aim, out: &mut Mending) {
    let Some(table) = &found.nft else { return };
    let turned_on =
        |family: Family, before: bool| before || out.ops.contains(&Op::EnableForwarding(family));
    let guard = Guard {
        v4: turned_on(Family::V4, found.turned_on.v4),
        v6: turned_on(Family::V6, found.turned_on.v6),
    };
    let mending = nftables::mend(table.as_ref(), after, guard, aim.nftables);
    if !mending.forward.is_empty() {
        out.ops.push(Op::Rules(Batch {
            tool: Tool::Nft,
            forward: mending.forward,
            inverse: mending.inverse,
        }));
    }
    out.notes.extend(mending.notes);
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
    // With all that it takes to bring it back.
    let staying = staying(before, after, by_kernel);
    ops.extend(veths.iter().map(|link| {
        let mut endpoints = before.endpoints.iter();
        let endpoint = endpoints.find(|e| e.host_interface == link.name);
        let known = endpoint.and_then(|e| Some((before.network(&e.network_id)?, e)));
        Op::RemoveVeth(match known {
            Some((network, endpoint)) => routed_apart(before, network, endpoint, &staying),
            None => stray_veth(&link.name),
        })
    }));
    for link in bridges {
        let network = before.networks.iter().find(|n| n.bridge == link.name);
        ops.push(Op::RemoveBridge(match network {
            Some(network) => bridge(network),
            None => stray_bridge(&link.name),
        }));
    }
}
