//! Bridges, veths and what is inside the containers. Pure.

use std::net::IpAddr;

use super::{FIX, Facts, Finding, Interface, Severity};
use crate::kernel::settle::wanted_addresses;
use crate::model::{Endpoint, Family, Model, Network};
use crate::plan::default_hop;

pub(super) fn judge(model: &Model, facts: &Facts) -> Vec<Finding> {
    let mut out = Vec::new();
    for network in &model.networks {
        bridge(network, facts, &mut out);
    }
    for endpoint in &model.endpoints {
        let Some(network) = model.network(&endpoint.network_id) else {
            continue;
        };
        veth(network, endpoint, facts, &mut out);
        // Without its host's end there is no other end either.
        if facts.interface(&endpoint.host_interface).is_some()
            && let Some(inside) = facts.inside.get(&endpoint.container_id)
        {
            container(network, endpoint, inside, &mut out);
        }
    }
    out.extend(default_routes(model, facts));
    out
}

fn bridge(network: &Network, facts: &Facts, out: &mut Vec<Finding>) {
    let subject = format!("bridge {} of network {}", network.bridge, network.name);
    let Some(bridge) = facts.interface(&network.bridge) else {
        out.push(Finding::fixable(format!("{subject} is missing")));
        return;
    };
    if bridge.kind != "bridge" {
        let what = format!(
            "{subject} is missing: an interface {} that is no bridge is in its place",
            bridge.name
        );
        out.push(Finding::new(
            Severity::Error,
            what,
            format!("ip link del {}, then {FIX}", bridge.name),
        ));
        return;
    }
    if !bridge.up {
        out.push(Finding::fixable(format!("{subject} is down")));
    }
    for wanted in wanted_addresses(network) {
        if !bridge.addresses.contains(&wanted) {
            out.push(Finding::fixable(format!(
                "{subject} lacks the address {wanted}"
            )));
        }
    }
    if let Some(mtu) = network.mtu()
        && mtu != bridge.mtu
    {
        let what = format!("{subject} has the mtu {} instead of {mtu}", bridge.mtu);
        out.push(Finding::fixable(what));
    }
    for setting in ["accept_ra", "accept_redirects"] {
        let name = format!("net/ipv6/conf/{}/{setting}", network.bridge);
        if facts.sysctl(&name).is_some_and(|value| value != "0") {
            out.push(Finding::fixable(format!(
                "{subject}: {setting} is on, by which a container can change this host's IPv6 routes"
            )));
        }
    }
}

fn veth(network: &Network, endpoint: &Endpoint, facts: &Facts, out: &mut Vec<Finding>) {
    let subject = format!(
        "veth {} of container {} on network {}",
        endpoint.host_interface, endpoint.container_name, network.name
    );
    let Some(veth) = facts.interface(&endpoint.host_interface) else {
        let what = format!("{subject} is missing");
        // It is made anew in the container's namespace, where that is at hand.
        out.push(match facts.inside.contains_key(&endpoint.container_id) {
            true => Finding::fixable(what),
            false => {
                let advice = format!("restart container {}", endpoint.container_name);
                Finding::new(Severity::Error, what, advice)
            }
        });
        return;
    };
    // A bridge that is missing is told by itself, and its ports come with it.
    if veth.master.as_deref() != Some(&network.bridge) {
        let what = match &veth.master {
            None => format!("{subject} is not a port of bridge {}", network.bridge),
            Some(other) => format!(
                "{subject} is a port of {other} instead of bridge {}",
                network.bridge
            ),
        };
        out.push(Finding::fixable(what));
    }
    if !veth.up {
        out.push(Finding::fixable(format!("{subject} is down")));
    }
}

/// What a container with CAP_NET_ADMIN has changed is its own business: told, not mended.
fn container(network: &Network, endpoint: &Endpoint, inside: &[Interface], out: &mut Vec<Finding>) {
    let subject = format!(
        "interface {} in container {}",
        endpoint.interface, endpoint.container_name
    );
    let advice = format!("restart container {}", endpoint.container_name);
    let mut warn = |what: String| {
        out.push(Finding::new(Severity::Warning, what, advice.clone()));
    };
    let Some(interface) = inside.iter().find(|i| i.name == endpoint.interface) else {
        warn(format!("{subject} is missing (network {})", network.name));
        return;
    };
    if !interface.up {
        warn(format!("{subject} is down"));
    }
    let families = Family::ALL.into_iter();
    for address in families.filter_map(|family| endpoint.address_of(family)) {
        let there = interface.addresses.iter().any(|net| net.addr() == address);
        if !there {
            warn(format!("{subject} lacks the address {address}"));
        }
    }
}

/// Which way a container sends is its own business too: told, not mended.
fn default_routes(model: &Model, facts: &Facts) -> Vec<Finding> {
    let mut out = Vec::new();
    for endpoint in &model.endpoints {
        let container = &endpoint.container_id;
        let is_primary = model
            .primary(container)
            .is_some_and(|p| p.id == endpoint.id);
        let (Some(hop), Some(found)) =
            (default_hop(model, container), facts.gateways.get(container))
        else {
            continue;
        };
        if !is_primary || facts.interface(&endpoint.host_interface).is_none() {
            continue;
        }
        let v6 = hop.gateway6.filter(|_| endpoint.address6.is_some());
        let gateways = [hop.gateway.map(IpAddr::V4), v6.map(IpAddr::V6)];
        for gateway in gateways.into_iter().flatten() {
            if found.contains(&gateway) {
                continue;
            }
            let family = match gateway {
                IpAddr::V4(_) => Family::V4,
                IpAddr::V6(_) => Family::V6,
            };
            let name = &endpoint.container_name;
            let what = format!(
                "container {name} has no {} default route by {gateway}: it does not reach the outside",
                family.as_str()
            );
            let advice = format!("restart container {name}");
            out.push(Finding::new(Severity::Warning, what, advice));
        }
    }
    out
}
