//! From the model to the elements of the sets and maps: what varies of the table. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::firewall::policy::COMMENT_TAG;
use crate::firewall::policy::rules::{label, subject};
use crate::model::{Endpoint, Family, GatewayMode, Model, Network, PortMap, Protocol};

/// nftables keeps at most this many bytes of an element's comment (`NFTNL_UDATA_COMMENT_MAXLEN` and its NUL).
const COMMENT_LIMIT: usize = 127;

/// The families whose forwarding the engine itself turned on: what is not from or to a network of ours is not forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guard {
    pub v4: bool,
    pub v6: bool,
}

/// What belongs to a key of a set or map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// The value, in a map.
    pub data: Option<String>,
    pub comment: String,
}

/// By set and key, both as nft writes them.
pub type Elements = BTreeMap<(&'static str, String), Element>;

/// Every element that there must be.
pub fn elements(model: &Model, guard: Guard) -> Elements {
    let mut all = Elements::new();
    for (on, family) in [(guard.v4, "ipv4"), (guard.v6, "ipv6")] {
        if on {
            let why = "what is not of our networks is not forwarded";
            put(&mut all, "guarded", family, None, why);
        }
    }
    for network in &model.networks {
        of_network(network, &mut all);
    }
    for endpoint in &model.endpoints {
        if let Some(network) = model.network(&endpoint.network_id) {
            of_endpoint(network, endpoint, &mut all);
        }
    }
    all
}

/// The first of equal keys stays, as it would be the first rule to match.
fn put(
    all: &mut Elements,
    set: &'static str,
    key: impl Into<String>,
    data: Option<String>,
    why: &str,
) {
    let comment = format!("{COMMENT_TAG}{why}");
    let comment = comment.chars().take(COMMENT_LIMIT).collect();
    all.entry((set, key.into()))
        .or_insert(Element { data, comment });
}

/// The name of a family's set.
fn by(family: Family, v4: &'static str, v6: &'static str) -> &'static str {
    match family {
        Family::V4 => v4,
        Family::V6 => v6,
    }
}

pub(super) fn of_network(network: &Network, all: &mut Elements) {
    let why = format!("network {}", label(&network.name));
    let bridge = format!("\"{}\"", network.bridge);
    put(all, "bridges", &bridge, None, &why);
    let kind = match network.internal {
        true => "internal",
        false => "proxied",
    };
    put(all, kind, &bridge, None, &why);
    let inside = match network.icc {
        true => "accept",
        false => "drop",
    };
    let pair = format!("{bridge} . {bridge}");
    put(all, "inside", pair, Some(inside.to_owned()), &why);
    for family in Family::ALL {
        of_network_side(network, family, &bridge, &why, all);
    }
}

fn of_network_side(network: &Network, family: Family, bridge: &str, why: &str, all: &mut Elements) {
    let (Some(subnet), Some(gateway)) = (network.subnet_of(family), network.gateway_of(family))
    else {
        return;
    };
    let mode = network.gateway_mode(family);
    let proto = by(family, "ipv4", "ipv6");
    let subnet = prefix(&subnet.trunc());
    let net = format!("{proto} . {subnet}");
    let home = format!("{bridge} . {subnet}");
    put(all, by(family, "home4", "home6"), home, None, why);
    put(all, by(family, "subnets4", "subnets6"), &net, None, why);
    // An internal network's own address is for its containers alone.
    if !network.internal {
        let set = by(family, "gateways4", "gateways6");
        put(all, set, gateway.to_string(), None, why);
    }
    let masqueraded = !network.internal && network.masquerade() && mode != GatewayMode::Routed;
    if masqueraded {
        let set = by(family, "masquerade4", "masquerade6");
        put(all, set, &net, None, why);
    }
    // A network without masquerading is routed on purpose: replies come back to the container's own address.
    if network.internal || (masqueraded && mode == GatewayMode::Nat) {
        put(all, by(family, "closed4", "closed6"), &net, None, why);
        if !network.internal {
            for name in network.trusted_interfaces().filter(|n| is_interface(n)) {
                let set = by(family, "trusted4", "trusted6");
                put(all, set, format!("\"{name}\" . {subnet}"), None, why);
            }
        }
    }
    if !network.internal && mode == GatewayMode::NatUnprotected {
        put(all, "open", format!("{proto} . {bridge}"), None, why);
    }
}

/// As nft writes it: a subnet of one address is the address.
fn prefix(subnet: &ipnet::IpNet) -> String {
    match subnet.prefix_len() == subnet.max_prefix_len() {
        true => subnet.addr().to_string(),
        false => subnet.to_string(),
    }
}

/// Whether nft takes it for the name of one interface: a name given by the user may hold anything.
fn is_interface(name: &str) -> bool {
    name.len() <= 15
        && name
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'*' | b'\\' | b'/'))
}

pub(super) fn of_endpoint(network: &Network, endpoint: &Endpoint, all: &mut Elements) {
    if network.internal || endpoint.ports.is_empty() {
        return;
    }
    for family in Family::ALL {
        let address = endpoint.address_of(family);
        let mut inside = Vec::new();
        for map in &endpoint.ports {
            let Some(at) = host_address(map, family) else {
                continue;
            };
            let port = Port {
                why: format!("{}: port {}", subject(endpoint), port_text(map)),
                family,
                map,
                at,
            };
            if at.is_some_and(|ip| ip.is_loopback()) {
                port.loopback(all);
            } else if let Some(address) = address {
                if network.gateway_mode(family) != GatewayMode::Routed {
                    port.dnat(address, all);
                }
                inside.push((
                    map.protocol,
                    map.container_port,
                    last(map.container_port, map),
                ));
            }
            port.listener(all);
        }
        if let Some(address) = address {
            published(endpoint, family, address, inside, all);
        }
    }
}

/// The inner `None`: every address of the family. The outer: none of it.
fn host_address(map: &PortMap, family: Family) -> Option<Option<IpAddr>> {
    match map.host_ip {
        None => Some(None),
        Some(ip) if ip.is_ipv4() != (family == Family::V4) => None,
        Some(ip) => Some((!ip.is_unspecified()).then_some(ip)),
    }
}

fn last(first: u16, map: &PortMap) -> u16 {
    first + (map.count - 1)
}

fn run(first: u16, last: u16) -> String {
    match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    }
}

fn port_text(map: &PortMap) -> String {
    let ports = run(map.host_port, last(map.host_port, map));
    format!("{ports}/{}", map.protocol.as_str())
}

/// A published port in one family.
struct Port<'a> {
    map: &'a PortMap,
    family: Family,
    at: Option<IpAddr>,
    why: String,
}

impl Port<'_> {
    fn key(&self, ports: &str) -> String {
        let port = format!("{} . {ports}", self.map.protocol.as_str());
        match self.at {
            Some(ip) => format!("{ip} . {port}"),
            None => port,
        }
    }

    fn host_ports(&self) -> String {
        run(self.map.host_port, last(self.map.host_port, self.map))
    }

    fn loopback(&self, all: &mut Elements) {
        let set = match self.map.count {
            1 => by(self.family, "loopback4", "loopback6"),
            _ => by(self.family, "loopback-runs4", "loopback-runs6"),
        };
        put(all, set, self.key(&self.host_ports()), None, &self.why);
    }

    fn dnat(&self, address: IpAddr, all: &mut Elements) {
        let (map, family) = (self.map, self.family);
        if map.count > 1 && map.host_port == map.container_port {
            let set = match self.at {
                None => by(family, "runs4", "runs6"),
                Some(_) => by(family, "runs-at4", "runs-at6"),
            };
            let to = Some(address.to_string());
            put(all, set, self.key(&self.host_ports()), to, &self.why);
            return;
        }
        let set = match self.at {
            None => by(family, "dnat4", "dnat6"),
            Some(_) => by(family, "dnat-at4", "dnat-at6"),
        };
        for offset in 0..map.count {
            let to = format!("{address} . {}", map.container_port + offset);
            let key = self.key(&(map.host_port + offset).to_string());
            put(all, set, key, Some(to), &self.why);
        }
    }

    fn listener(&self, all: &mut Elements) {
        let (Some(listener), Protocol::Tcp) = (self.map.listener, self.map.protocol) else {
            return;
        };
        let set = match self.at {
            None => by(self.family, "listeners4", "listeners6"),
            Some(_) => by(self.family, "listeners-at4", "listeners-at6"),
        };
        let to = Some(listener.to_string());
        put(all, set, self.key(&self.host_ports()), to, &self.why);
    }
}

/// The container's ports, joined where they overlap or touch: several host ports may lead to one of them, and an interval
/// set takes no overlaps.
fn published(
    endpoint: &Endpoint,
    family: Family,
    address: IpAddr,
    mut ports: Vec<(Protocol, u16, u16)>,
    all: &mut Elements,
) {
    ports.sort();
    let mut joined: Vec<(Protocol, u16, u16)> = Vec::new();
    for (protocol, first, last) in ports {
        match joined.last_mut() {
            Some((p, _, end)) if *p == protocol && first <= end.saturating_add(1) => {
                *end = last.max(*end);
            }
            _ => joined.push((protocol, first, last)),
        }
    }
    for (protocol, first, last) in joined {
        let set = match first == last {
            true => by(family, "published4", "published6"),
            false => by(family, "published-runs4", "published-runs6"),
        };
        let key = format!("{address} . {} . {}", protocol.as_str(), run(first, last));
        put(all, set, key, None, &subject(endpoint));
    }
}
