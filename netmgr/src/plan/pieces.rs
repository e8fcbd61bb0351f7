//! The parts of a plan made from the model: bridges, veths, routes, reserved ports, and the names that only we give.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{Bridge, Hop, Veth};
use crate::model::{Endpoint, Model, Network, Profile};
use crate::ports;

/// Whether a name is one that only we give. The docker profile's bridges have a real Docker's names, so there only the
/// journal tells.
pub(super) fn is_our_name(profile: Profile, name: &str) -> bool {
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

pub(super) fn new_networks<'a>(
    old: &'a Model,
    new: &'a Model,
) -> impl Iterator<Item = &'a Network> {
    let ids: HashSet<&str> = old.networks.iter().map(|n| n.id.as_str()).collect();
    new.networks
        .iter()
        .filter(move |n| !ids.contains(n.id.as_str()))
}

pub(super) fn new_endpoints<'a>(
    old: &'a Model,
    new: &'a Model,
) -> impl Iterator<Item = (&'a Network, &'a Endpoint)> {
    let ids: HashSet<&str> = old.endpoints.iter().map(|e| e.id.as_str()).collect();
    new.endpoints
        .iter()
        .filter(move |e| !ids.contains(e.id.as_str()))
        .filter_map(|e| {
            let network = new.network(&e.network_id)?;
            Some((network, e))
        })
}

pub(super) fn bridge(network: &Network) -> Bridge {
    Bridge {
        name: network.bridge.clone(),
        gateway: network.gateway,
        subnet: network.subnet,
        gateway6: network.v6.map(|v6| (v6.gateway, v6.subnet.prefix_len())),
        mtu: network.mtu(),
    }
}

/// `model` tells whether this endpoint carries its container's default routes.
pub(super) fn veth(model: &Model, network: &Network, endpoint: &Endpoint) -> Veth {
    let hop = hop(model, endpoint);
    Veth {
        bridge: network.bridge.clone(),
        endpoint: endpoint.clone(),
        prefix: network.subnet.prefix_len(),
        prefix6: network.v6.map_or(128, |v6| v6.subnet.prefix_len()),
        gateway: hop.as_ref().and_then(|hop| hop.gateway),
        gateway6: hop.and_then(|hop| hop.gateway6),
        mtu: network.mtu(),
        isolated: !network.icc,
    }
}

/// The default routes by this endpoint: `None` if another one of its container is the primary, or if its network is
/// internal.
fn hop(model: &Model, endpoint: &Endpoint) -> Option<Hop> {
    let primary = model.primary(&endpoint.container_id)?;
    let network = model.network(&endpoint.network_id)?;
    (primary.id == endpoint.id && !network.internal).then(|| way_over(network, endpoint))
}

pub(super) fn way_over(network: &Network, endpoint: &Endpoint) -> Hop {
    Hop {
        interface: endpoint.interface.clone(),
        gateway: Some(network.gateway),
        gateway6: network.v6.map(|v6| v6.gateway),
    }
}

/// By which endpoint and how a container's default routes go, if they do.
pub(crate) fn default_hop(model: &Model, container_id: &str) -> Option<Hop> {
    hop(model, model.primary(container_id)?)
}

/// The runs of host ports that are kept from ephemeral use, in order.
pub(crate) fn reserved(model: &Model) -> Vec<(u16, u16)> {
    let maps = model.endpoints.iter().flat_map(|e| &e.ports);
    let mut runs: Vec<(u16, u16)> = maps
        .filter(|map| ports::is_long(map))
        .map(|map| (map.host_port, map.host_port + (map.count - 1)))
        .collect();
    runs.sort_unstable();
    runs.dedup();
    runs
}

impl Veth {
    /// Nobody knows whose it was: once it is removed it does not come back.
    pub(crate) fn is_stray(&self) -> bool {
        self.endpoint.id.is_empty()
    }
}

impl Bridge {
    /// As [`Veth::is_stray`].
    pub(crate) fn is_stray(&self) -> bool {
        self.gateway.is_unspecified()
    }
}

/// Enough of a veth to be removed by its name.
pub(super) fn stray_veth(name: &str) -> Veth {
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

pub(super) fn stray_bridge(name: &str) -> Bridge {
    Bridge {
        name: name.to_owned(),
        gateway: Ipv4Addr::UNSPECIFIED,
        subnet: Ipv4Net::from(Ipv4Addr::UNSPECIFIED),
        gateway6: None,
        mtu: None,
    }
}
