//! What joining and leaving networks means for a container that goes on running: its default routes move.

use std::collections::{BTreeSet, HashSet};

use super::pieces::{default_hop, new_endpoints, veth, way_over};
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

/// The default routes as the model has them, wherever they go now: by whichever of the container's networks.
pub(super) fn route_again(model: &Model, container_id: &str) -> Vec<Op> {
    let endpoints = model.endpoints.iter();
    let own: Vec<&Endpoint> = endpoints
        .filter(|e| e.container_id == container_id)
        .collect();
    let Some(first) = own.first() else {
        return Vec::new();
    };
    let to = default_hop(model, container_id);
    let others = own
        .iter()
        .filter(|e| to.as_ref().is_none_or(|to| to.interface != e.interface))
        .filter_map(|e| Some(Some(way_over(model.network(&e.network_id)?, e))));
    // Setting a route takes the place of any other; one of a family in which there is to be none has to be named.
    [None]
        .into_iter()
        .chain(others)
        .filter(|from| from.is_some() || to.is_some())
        .map(|from| {
            Op::DefaultRoute(DefaultRoute {
                container_id: container_id.to_owned(),
                container_name: first.container_name.clone(),
                from,
                to: to.clone(),
            })
        })
        .collect()
}
