//! The operations from one model to the next, on a kernel that is as the first one says.

use std::borrow::Cow;
use std::collections::HashSet;

use super::moves::{reroute, routed_apart, staying};
use super::pieces::{bridge, new_endpoints, new_networks, reserved};
use super::{Backend, Batch, Op, ReservePorts, Tool, Written};
use crate::firewall::ruleset::Ruleset;
use crate::firewall::{diff, nftables, policy};
use crate::model::{Family, Model};

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
            let (before, after) = without_common_endpoints(before, after);
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

/// Leaves out the endpoints that both models begin with, where all that differs comes after them: their rules stand above
/// those of the difference and are not touched, so the usual change costs the same however many containers run. When
/// something in the middle changes, the positions of the others' rules are needed to undo it exactly; so they are for a
/// network's rules, which stand above those of its and of any other containers.
fn without_common_endpoints<'a>(
    before: &'a Model,
    after: &'a Model,
) -> (Cow<'a, Model>, Cow<'a, Model>) {
    let pairs = before.endpoints.iter().zip(&after.endpoints);
    let common = pairs.take_while(|(old, new)| old == new).count();
    let in_the_middle = common < before.endpoints.len() && common < after.endpoints.len();
    if in_the_middle || before.networks != after.networks {
        return (Cow::Borrowed(before), Cow::Borrowed(after));
    }
    let rest = |model: &Model| Model {
        profile: model.profile,
        networks: model.networks.clone(),
        endpoints: model.endpoints[common..].to_vec(),
    };
    (Cow::Owned(rest(before)), Cow::Owned(rest(after)))
}
