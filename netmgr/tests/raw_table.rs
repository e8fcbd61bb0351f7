//! What the raw table drops, packet by packet: its rules are walked as the kernel walks them, and each verdict compared with
//! what the model asks for, said in another way. In whatever order networks came, no rule of one shields packets from another's.

mod common;
mod situations;

use std::net::IpAddr;

use ipnet::IpNet;
use netmgr::firewall::policy::ruleset;
use netmgr::firewall::ruleset::{Match, Rule, Ruleset, Sign, Table, Verdict};
use netmgr::{Family, GatewayMode, Model, Network, Protocol};

#[derive(Clone, Copy, Debug)]
struct Packet<'a> {
    interface: &'a str,
    source: IpAddr,
    destination: IpAddr,
    protocol: Protocol,
    port: u16,
    /// Whether the destination is an address of this host.
    local: bool,
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

// The rules, as the kernel walks them.

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Dropped,
    Passed,
}

fn matches(m: &Match, packet: &Packet<'_>) -> bool {
    let signed = |sign: &Sign, holds: bool| holds == (*sign == Sign::Is);
    match m {
        Match::Source(sign, net) => signed(sign, net.contains(&packet.source)),
        Match::Destination(sign, net) => signed(sign, net.contains(&packet.destination)),
        Match::In(sign, interface) => signed(sign, interface == packet.interface),
        Match::Ports(protocol, first, last) => {
            *protocol == packet.protocol && (*first..=*last).contains(&packet.port)
        }
        Match::LocalDestination => packet.local,
        Match::Out(..) | Match::Established => panic!("{m:?} has no place in raw PREROUTING"),
    }
}

/// `None`: the end of the chain, or RETURN.
fn walk(rules: &Ruleset, chain: &str, packet: &Packet<'_>) -> Option<End> {
    let chain = rules.chain(Table::Raw, chain).unwrap();
    let hit = |rule: &&Rule| rule.matches.iter().all(|m| matches(m, packet));
    for rule in chain.rules.iter().filter(hit) {
        match &rule.verdict {
            Verdict::Drop => return Some(End::Dropped),
            Verdict::Return => return None,
            Verdict::Jump(to) => match walk(rules, to, packet) {
                Some(end) => return Some(end),
                None => continue,
            },
            other => panic!("{other:?} has no place in raw"),
        }
    }
    None
}

fn by_rules(rules: &Ruleset, packet: &Packet<'_>) -> End {
    walk(rules, "PREROUTING", packet).unwrap_or(End::Passed)
}

// The model, asked directly.

fn by_model(model: &Model, family: Family, packet: &Packet<'_>) -> End {
    let networks = model.networks.iter();
    let mut networks = networks.filter(|n| n.subnet_of(family).is_some());
    let forbidden = packet.interface != "lo"
        && (networks.any(|n| forbids(n, family, packet)) || is_for_this_host(model, packet));
    match forbidden {
        true => End::Dropped,
        false => End::Passed,
    }
}

fn forbids(network: &Network, family: Family, packet: &Packet<'_>) -> bool {
    let subnet = network.subnet_of(family).unwrap();
    let from_it = packet.interface == network.bridge;
    let source_inside = subnet.contains(&packet.source);
    let inside = subnet.contains(&packet.destination);
    let any_source =
        net("fe80::/10").contains(&packet.source) || packet.source == net("::/128").addr();
    let any_destination = [net("fe80::/10"), net("ff00::/8")]
        .iter()
        .any(|n| n.contains(&packet.destination));
    let spoofed = match from_it {
        true => !source_inside && !any_source,
        false => source_inside,
    };
    let leaves_internal = network.internal && from_it && !inside && !any_destination;
    let enters_internal = network.internal && !from_it && inside;
    let guarded = !network.internal
        && network.masquerade()
        && network.gateway_mode(family) == GatewayMode::Nat;
    let allowed = Some(packet.destination) == network.gateway_of(family)
        || network.trusted_interfaces().any(|i| i == packet.interface);
    let direct = guarded && !from_it && inside && !allowed;
    spoofed || leaves_internal || enters_internal || direct
}

fn is_for_this_host(model: &Model, packet: &Packet<'_>) -> bool {
    let ports = model.endpoints.iter().filter(|e| {
        let network = model.network(&e.network_id).unwrap();
        let family = match packet.destination {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        };
        !network.internal && network.gateway_mode(family) != GatewayMode::Routed
    });
    ports.flat_map(|e| &e.ports).any(|map| {
        let run = map.host_port..=map.host_port + (map.count - 1);
        let on_loopback = map.host_ip == Some(packet.destination)
            && packet.destination.is_loopback()
            && map.protocol == packet.protocol
            && run.contains(&packet.port);
        let other_family = map
            .host_ip
            .is_some_and(|ip| ip.is_ipv4() != packet.destination.is_ipv4());
        let listener = packet.local
            && !other_family
            && map.protocol == Protocol::Tcp
            && packet.protocol == Protocol::Tcp
            && map.listener == Some(packet.port);
        on_loopback || listener
    })
}

/// Every interface with every source, every destination, both protocols and the ports of interest.
fn for_each_packet(model: &Model, family: Family, mut check: impl FnMut(&Packet<'_>)) {
    let mut interfaces = vec!["lo", "eth0", "wg0"];
    interfaces.extend(model.networks.iter().map(|n| n.bridge.as_str()));
    let mut addresses: Vec<(IpAddr, bool)> = match family {
        Family::V4 => [
            ("192.0.2.1", true),
            ("198.51.100.7", false),
            ("127.0.0.1", true),
            ("127.0.0.2", true),
        ],
        Family::V6 => [
            ("2001:db8::1", true),
            ("2001:db8:9::7", false),
            ("::1", true),
            ("fe80::1", true),
        ],
    }
    .map(|(text, local)| (text.parse().unwrap(), local))
    .to_vec();
    if family == Family::V6 {
        addresses.extend([("ff02::1", false), ("::", false)].map(|(a, l)| (a.parse().unwrap(), l)));
    }
    for network in &model.networks {
        if let (Some(subnet), Some(gateway)) =
            (network.subnet_of(family), network.gateway_of(family))
        {
            addresses.push((gateway, true));
            addresses.push((subnet.hosts().nth(2).unwrap(), false));
        }
    }
    let ports: Vec<u16> = [9, 80, 8080, 50_000]
        .into_iter()
        .chain(
            model
                .endpoints
                .iter()
                .flat_map(|e| &e.ports)
                .filter_map(|m| m.listener),
        )
        .collect();
    // All of them are too many where there are many networks; a prime stride takes from every kind.
    let stride = if model.networks.len() > 5 { 31 } else { 1 };
    let mut number = 0;
    for interface in interfaces {
        for (source, _) in &addresses {
            for (destination, local) in &addresses {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    for &port in &ports {
                        number += 1;
                        if number % stride != 0 {
                            continue;
                        }
                        check(&Packet {
                            interface,
                            source: *source,
                            destination: *destination,
                            protocol,
                            port,
                            local: *local,
                        });
                    }
                }
            }
        }
    }
}

/// All the kinds of networks beside each other.
fn every_kind() -> Model {
    let mut all = situations::default_only();
    let kinds = [
        "two-networks",
        "internal",
        "v6-network",
        "routed",
        "nat-unprotected",
        "trusted-interface",
        "no-masquerade",
        "range-listener",
        "publish-on-loopback",
        "v6-publish-on-loopback",
    ];
    for (n, kind) in kinds.into_iter().enumerate() {
        let mut part = situations::situation(kind);
        for (m, network) in part.networks.iter_mut().enumerate() {
            let id = format!("{n}{m}{}", &network.id[2..]);
            for endpoint in part
                .endpoints
                .iter_mut()
                .filter(|e| e.network_id == network.id)
            {
                endpoint.network_id = id.clone();
            }
            network.id = id;
            network.name = format!("{}{n}", network.name);
            network.bridge = format!("cr-{n}x{m}");
            network.subnet = format!("10.{n}.{m}.0/24").parse().unwrap();
            network.gateway = format!("10.{n}.{m}.1").parse().unwrap();
            if let Some(v6) = &mut network.v6 {
                v6.subnet = format!("fd00:{n}:{m}::/64").parse().unwrap();
                v6.gateway = format!("fd00:{n}:{m}::1").parse().unwrap();
            }
            // Half of the others get an IPv6 side too, whatever their kind.
            if network.v6.is_none() && m % 2 == 1 {
                network.v6 = Some(netmgr::V6 {
                    subnet: format!("fd00:{n}:{m}::/64").parse().unwrap(),
                    gateway: format!("fd00:{n}:{m}::1").parse().unwrap(),
                    ip_range: None,
                });
            }
        }
        all.networks.extend(part.networks);
        all.endpoints.extend(part.endpoints);
    }
    all
}

#[test]
fn the_raw_table_drops_what_the_model_forbids_in_any_order_of_networks() {
    let mut models: Vec<(String, Model)> = situations::ALL
        .iter()
        .map(|(name, make)| ((*name).to_owned(), make()))
        .collect();
    let mut all = every_kind();
    models.push(("every kind".to_owned(), all.clone()));
    all.networks.reverse();
    models.push(("every kind, reversed".to_owned(), all.clone()));
    for turn in 0..3 {
        all.networks.rotate_left(7);
        models.push((format!("every kind, turned {turn}"), all.clone()));
    }
    let (mut dropped, mut passed) = (0, 0);
    for (name, model) in &models {
        for family in Family::ALL {
            let rules = ruleset(model, family);
            for_each_packet(model, family, |packet| {
                let end = by_rules(&rules, packet);
                assert_eq!(end, by_model(model, family, packet), "{name}: {packet:?}");
                match end {
                    End::Dropped => dropped += 1,
                    End::Passed => passed += 1,
                }
            });
        }
    }
    assert!(
        dropped > 10_000 && passed > 10_000,
        "{dropped} dropped, {passed} passed"
    );
}
