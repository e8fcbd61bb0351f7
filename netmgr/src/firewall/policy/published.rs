//! Which published ports concern a family, and in which order. Pure.

use std::collections::HashMap;
use std::net::IpAddr;

use super::rules::{host, subject};
use crate::firewall::ruleset::{Match, Sign};
use crate::model::{Endpoint, Family, GatewayMode, Model, Network, PortMap, Profile};

/// A published port with everything that its rules need.
pub(super) struct Published<'a> {
    pub(super) network: &'a Network,
    pub(super) endpoint: &'a Endpoint,
    pub(super) map: &'a PortMap,
    /// `None`: every address of the host, of this family.
    pub(super) host_address: Option<IpAddr>,
    /// The container's own; `None` where it has none of this family: then the proxy carries the port alone.
    pub(super) address: Option<IpAddr>,
    mode: GatewayMode,
}

impl Published<'_> {
    /// Without address translation, nothing of the host's own is published.
    pub(super) fn is_routed(&self) -> bool {
        self.mode == GatewayMode::Routed
    }

    /// A port that is published for this host only is not forwarded to: the proxy serves it. Docker accepts it all the
    /// same, which opens it to neighbours where no rule of `raw` keeps them from the container's address (a network
    /// without masquerading, a trusted interface).
    pub(super) fn is_forwarded(&self, profile: Profile) -> bool {
        profile == Profile::Docker || !self.host_address.is_some_and(|ip| ip.is_loopback())
    }

    pub(super) fn host_destination(&self) -> Option<Match> {
        let address = self.host_address?;
        Some(Match::Destination(Sign::Is, host(address)))
    }

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
/// container port (nat.SortPortMap).
pub(super) fn published_ports(model: &Model, family: Family) -> Vec<Published<'_>> {
    let networks = model.networks.iter().filter(|n| !n.internal);
    let networks: HashMap<&str, &Network> = networks.map(|n| (n.id.as_str(), n)).collect();
    let mut all = Vec::new();
    for endpoint in &model.endpoints {
        let Some(&network) = networks.get(endpoint.network_id.as_str()) else {
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
            let Some(host_address) = host_address(map.host_ip, family) else {
                continue;
            };
            all.push(Published {
                network,
                endpoint,
                map,
                host_address,
                address: network.subnet_of(family).and(endpoint.address_of(family)),
                // The docker profile is Docker 20.10's, which knows no modes.
                mode: match model.profile {
                    Profile::Coracle => network.gateway_mode(family),
                    Profile::Docker => GatewayMode::Nat,
                },
            });
        }
    }
    all
}

/// Where a port is published in one family: on all addresses (`Some(None)`), on one, or not at all (`None`).
/// `0.0.0.0` is every IPv4 address and `::` every IPv6 address; without an address it is both.
fn host_address(host_ip: Option<IpAddr>, family: Family) -> Option<Option<IpAddr>> {
    match (host_ip, family) {
        (None, _) => Some(None),
        (Some(ip @ IpAddr::V4(_)), Family::V4) | (Some(ip @ IpAddr::V6(_)), Family::V6) => {
            Some((!ip.is_unspecified()).then_some(ip))
        }
        (Some(_), _) => None,
    }
}
