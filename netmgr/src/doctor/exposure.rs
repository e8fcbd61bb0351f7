//! Published ports: who holds them on the host, and from where they are reached. Pure.

use std::net::IpAddr;

use super::{Facts, Finding, Severity};
use crate::model::{Endpoint, Family, GatewayMode, Model, PortMap};

fn published(model: &Model) -> impl Iterator<Item = (&Endpoint, &PortMap)> {
    let endpoints = model.endpoints.iter();
    endpoints.flat_map(|e| e.ports.iter().map(move |map| (e, map)))
}

fn name(map: &PortMap) -> String {
    let last = map.host_port + (map.count - 1);
    let protocol = map.protocol.as_str();
    match map.count {
        1 => format!("{}/{protocol}", map.host_port),
        _ => format!("{}-{last}/{protocol}", map.host_port),
    }
}

/// Host ports of ours that another program has.
pub(super) fn ports(model: &Model, facts: &Facts) -> Vec<Finding> {
    let mut out = Vec::new();
    for (endpoint, map) in published(model) {
        let last = map.host_port + (map.count - 1);
        let meets = |address: IpAddr| match map.host_ip {
            None => true,
            Some(ip) => {
                ip.is_ipv4() == address.is_ipv4()
                    && (ip == address || ip.is_unspecified() || address.is_unspecified())
            }
        };
        let theirs = facts.bound.iter().filter(|bound| {
            !bound.ours
                && bound.protocol == map.protocol
                && (map.host_port..=last).contains(&bound.port)
                && meets(bound.address)
        });
        let mut told: Vec<String> = Vec::new();
        for bound in theirs {
            let who = match &bound.program {
                Some((program, pid)) => format!("{program} (pid {pid})"),
                None => "another program".to_owned(),
            };
            let what = format!(
                "port {}/{} of container {} is held by {who}",
                bound.port,
                map.protocol.as_str(),
                endpoint.container_name
            );
            if told.contains(&what) {
                continue;
            }
            told.push(what.clone());
            let advice = format!(
                "stop that program, then restart container {}",
                endpoint.container_name
            );
            out.push(Finding::new(Severity::Error, what, advice));
        }
    }
    out
}

/// From where each published port is reached.
pub(super) fn report(model: &Model, facts: &Facts) -> Vec<Finding> {
    let mut out = Vec::new();
    for (endpoint, map) in published(model) {
        let Some(network) = model.network(&endpoint.network_id) else {
            continue;
        };
        let subject = format!(
            "port {} of container {}",
            name(map),
            endpoint.container_name
        );
        let from = match map.host_ip {
            Some(ip) if ip.is_loopback() => "this host alone".to_owned(),
            Some(ip) if !ip.is_unspecified() => match interface_of(facts, ip) {
                Some(interface) => format!(
                    "whoever reaches {ip} (interface {interface}), this host and its containers among them"
                ),
                None => format!("nobody: this host has no address {ip} now"),
            },
            _ => "anywhere: every network that this host is in, its other containers among them"
                .to_owned(),
        };
        out.push(Finding::new(
            Severity::Note,
            format!("{subject} is reachable from {from}"),
            "",
        ));
        let direct = Family::ALL.into_iter().any(|family| {
            network.subnet_of(family).is_some() && network.gateway_mode(family) != GatewayMode::Nat
        });
        if direct {
            let what = format!(
                "{subject} is reachable at {} too, by whoever routes to it (gateway mode of network {})",
                endpoint.address, network.name
            );
            out.push(Finding::new(Severity::Note, what, ""));
        }
    }
    out
}

fn interface_of(facts: &Facts, ip: IpAddr) -> Option<&str> {
    let mut interfaces = facts.interfaces.iter();
    interfaces
        .find(|i| i.addresses.iter().any(|net| net.addr() == ip))
        .map(|i| i.name.as_str())
}
