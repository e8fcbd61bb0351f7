//! The operations from one model to the next, on a kernel that is as the first one says.

use std::borrow::Cow;
use std::collections::HashSet;

use super::moves::{reroute, routed_apart, staying};
use super::pieces::{bridge, new_endpoints, new_networks, reserved};
use super::{Backend, Batch, Op, ReservePorts, Tool, Written};
use crate::firewall::ruleset::Ruleset;
use crate::firewall::{diff, nftables, policy};
use crate::model::{Endpoint, Family, Model, Network, PortMap};

/// The operations from one model to the next.
///
/// `by_kernel` are IDs of removed endpoints whose veth goes with its namespace. Things come in the order in which they
/// depend on each other, and go the other way round; what cannot be undone (a veth) goes last.
pub fn between(
    before: &Model,
    after: &Model,
    written: Written,
    by_kernel: &HashSet<String>,
) -> Vec<Op> {
    let mut ops = Vec::new();
    ops.extend(new_networks(before, after).map(|n| Op::CreateBridge(bridge(n))));
    let staying = staying(before, after, by_kernel);
    ops.extend(
        new_endpoints(before, after)
            .map(|(n, e)| Op::CreateVeth(routed_apart(after, n, e, &staying))),
    );
    ops.extend(staying.iter().filter_map(|id| reroute(before, after, id)));
    ops.extend(reserve(before, after));
    ops.extend(rules(before, after, written));
    let removed = new_endpoints(after, before).filter(|(_, e)| !by_kernel.contains(&e.id));
    ops.extend(removed.map(|(n, e)| Op::RemoveVeth(routed_apart(before, n, e, &staying))));
    ops.extend(new_networks(after, before).map(|n| Op::RemoveBridge(bridge(n))));
    ops
}

fn reserve(before: &Model, after: &Model) -> Option<Op> {
    let change = ReservePorts {
        before: reserved(before),
        after: reserved(after),
    };
    (change.before != change.after).then_some(Op::ReservePorts(change))
}

fn rules(before: &Model, after: &Model, written: Written) -> Vec<Op> {
    let families = [(Family::V4, true), (Family::V6, written.ipv6)];
    let families = families.into_iter().filter(|(_, there)| *there);
    let mut batches = Vec::new();
    match written.backend {
        Backend::None => {}
        Backend::Iptables => {
            let (before, after) = without_common(before, after);
            batches.extend(families.filter_map(|(family, _)| {
                let (old, new) = (
                    policy::ruleset(&before, family),
                    policy::ruleset(&after, family),
                );
                iptables_batch(family, &old, &new)
            }));
        }
        Backend::Nftables => {
            batches.extend(nftables::delta(before, after));
            if written.passage {
                let (old, new) = (policy::passage(before), policy::passage(after));
                batches
                    .extend(families.filter_map(|(family, _)| iptables_batch(family, &old, &new)));
            }
        }
    }
    batches.into_iter().map(Op::Rules).collect()
}

fn iptables_batch(family: Family, old: &Ruleset, new: &Ruleset) -> Option<Batch> {
    let forward = diff::delta(old, new);
    (!forward.is_empty()).then(|| Batch {
        tool: Tool::iptables(family),
        forward: forward.render(),
        inverse: diff::delta(new, old).render(),
    })
}

/// Leaves out what both models begin with, where all that differs comes after it: the rules of that are inserted at the top of
/// their chains or appended, and those of the rest are not touched, so the usual change costs the same however many
/// containers and networks there are. When something in the middle changes, the positions of the others' rules are needed
/// to undo it exactly.
fn without_common<'a>(before: &'a Model, after: &'a Model) -> (Cow<'a, Model>, Cow<'a, Model>) {
    let Some(endpoints) = common(&before.endpoints, &after.endpoints) else {
        return (Cow::Borrowed(before), Cow::Borrowed(after));
    };
    let networks = common(&before.networks, &after.networks).unwrap_or(0);
    // In `CORACLE-LOCAL` rules of networks stand above those of ports, without a rule of its own between them.
    let for_this_host = |e: &&Endpoint| {
        let is_one = |map: &PortMap| {
            map.listener.is_some() || map.host_ip.is_some_and(|ip| ip.is_loopback())
        };
        before.networks != after.networks && e.ports.iter().any(is_one)
    };
    let common_endpoints = before.endpoints[..endpoints].iter();
    let above: Vec<Endpoint> = common_endpoints.filter(for_this_host).cloned().collect();
    let of = |model: &Model| [&above, &model.endpoints[endpoints..]].concat();
    let kept = one_of_a_kind(
        &before.networks[..networks],
        &[of(before), of(after)].concat(),
    );
    let rest = |model: &Model| Model {
        profile: model.profile,
        networks: [&kept, &model.networks[networks..]].concat(),
        endpoints: of(model),
    };
    (Cow::Owned(rest(before)), Cow::Owned(rest(after)))
}

/// How many items two lists begin with alike; `None` if both go on after that.
fn common<T: PartialEq>(before: &[T], after: &[T]) -> Option<usize> {
    let count = before
        .iter()
        .zip(after)
        .take_while(|(old, new)| old == new)
        .count();
    (count == before.len() || count == after.len()).then_some(count)
}

/// Those of the networks that `endpoints` are in, the internal ones, and one of each kind of the others, so that every
/// chain that has a rule of them still does: whether a rule comes at the top or at the end depends on that.
fn one_of_a_kind(networks: &[Network], endpoints: &[Endpoint]) -> Vec<Network> {
    let in_use: HashSet<&str> = endpoints.iter().map(|e| e.network_id.as_str()).collect();
    let mut kinds = HashSet::new();
    let kept = networks.iter().filter(|n| {
        // All that decides which rules a network has.
        let is_new = kinds.insert((n.internal, n.icc, n.v6.is_some(), &n.options));
        is_new || n.internal || in_use.contains(n.id.as_str())
    });
    kept.cloned().collect()
}
