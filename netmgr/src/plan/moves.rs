//! What joining and leaving networks means for a container that goes on running: its default routes move.

use std::collections::{BTreeSet, HashSet};

use super::pieces::{default_hop, new_endpoints, veth};
use super::{DefaultRoute, Op, Veth};
use crate::model::{Endpoint, Model, Network};

/// Containers that keep running while their endpoints change: those that are in both models, and those whose last
/// endpoint goes although their namespace lives on.
pub(super) fn staying(
    before: &Model,
    after: &Model,
    by_kernel: &HashSet<String>,
) -> BTreeSet<String> {
    let gone = new_endpoints(after, before)
        .map(|(_, e)| e)
        .filter(|e| !by_kernel.contains(&e.id));
    let come = new_endpoints(before, after).map(|(_, e)| e);
    let touched: BTreeSet<&str> = gone.chain(come).map(|e| e.container_id.as_str()).collect();
    let is_in = |model: &Model, id: &str| model.endpoints.iter().any(|e| e.container_id == id);
    touched
        .into_iter()
        .filter(|id| is_in(before, id) && is_in(after, id))
        .map(str::to_owned)
        .collect()
}

/// A veth whose container has others beside it gets its default routes by [`Op::DefaultRoute`] alone, so that they move
/// in one step and back in one step.
pub(super) fn routed_apart(
    model: &Model,
    network: &Network,
    endpoint: &Endpoint,
    staying: &BTreeSet<String>,
) -> Veth {
    let mut veth = veth(model, network, endpoint);
    if staying.contains(&endpoint.container_id) {
        (veth.gateway, veth.gateway6) = (None, None);
    }
    veth
}

pub(super) fn reroute(before: &Model, after: &Model, container_id: &str) -> Option<Op> {
    let (from, to) = (
        default_hop(before, container_id),
        default_hop(after, container_id),
    );
    let mut endpoints = after.endpoints.iter();
    let endpoint = endpoints.find(|e| e.container_id == container_id)?;
    (from != to).then(|| {
        Op::DefaultRoute(DefaultRoute {
            container_id: container_id.to_owned(),
            container_name: endpoint.container_name.clone(),
            from,
            to,
        })
    })
}
