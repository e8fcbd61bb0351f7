//! Which published ports need rules, and in which order. Pure.

use std::net::{IpAddr, Ipv4Addr};

use super::rules::subject;
use crate::firewall::ruleset::Match;
use crate::model::{Endpoint, Model, Network, PortMap};

/// A published port with everything that its rules need.
pub(super) struct Published<'a> {
    pub(super) network: &'a Network,
    pub(super) endpoint: &'a Endpoint,
    pub(super) map: &'a PortMap,
    /// `None`: every IPv4 address of the host.
    pub(super) host_address: Option<Ipv4Addr>,
}

impl Published<'_> {
    pub(super) fn host_ports(&self) -> Match {
        let last = self.map.host_port + (self.map.count - 1);
        Match::Ports(self.map.protocol, self.map.host_port, last)
    }

    pub(super) fn container_ports(&self) -> Match {
        let last = self.map.container_port + (self.map.count - 1);
        Match::Ports(self.map.protocol, self.map.container_port, last)
    }

    pub(super) fn subject(&self) -> String {
        subject(self.endpoint)
    }

    pub(super) fn port_text(&self) -> String {
        let (first, count) = (self.map.host_port, self.map.count);
        let protocol = self.map.protocol.as_str();
        match count {
            1 => format!("{first}/{protocol}"),
            _ => format!("{first}-{}/{protocol}", first + (count - 1)),
        }
    }
}

/// Endpoints in order of attachment; the ports of one in Docker's order: the larger host port first, then the larger
/// container port (nat.SortPortMap). Ports published on an IPv6 address have no rule: the proxy carries them.
pub(super) fn published_ports(model: &Model) -> Vec<Published<'_>> {
    let mut all = Vec::new();
    for endpoint in &model.endpoints {
        let Some(network) = model
            .networks
            .iter()
            .find(|n| n.id == endpoint.network_id && !n.internal)
        else {
            continue;
        };
        let mut maps: Vec<&PortMap> = endpoint.ports.iter().collect();
        maps.sort_by_key(|m| {
            (
                std::cmp::Reverse(m.host_port),
                std::cmp::Reverse(m.container_port),
                m.protocol,
            )
        });
        for map in maps {
            let host_address = match map.host_ip {
                None => None,
                Some(IpAddr::V4(ip)) if ip.is_unspecified() => None,
                Some(IpAddr::V4(ip)) => Some(ip),
                Some(IpAddr::V6(_)) => continue,
            };
            all.push(Published {
                network,
                endpoint,
                map,
                host_address,
            });
        }
    }
    all
}
