//! Rules of others that drop our traffic: sample packets are led through every chain of the host. Pure.
//!
//! An accept of ours cannot override a drop in another table on the same hook (lxd#8716): so each such table is named,
//! with the rule and what to add to it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::packet::{Allow, Chain, Fate, Packet, Table, fate};
use super::{Facts, Finding, Severity};
use super::{nft, xtables};
use crate::firewall::{nftables, policy};
use crate::model::{Family, Model, Network};
use crate::plan::Backend;

/// Somewhere outside, of the blocks for documentation (RFC 5737, RFC 3849).
const OUTSIDE_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x77);

pub(super) fn judge(model: &Model, backend: Backend, facts: &Facts) -> Vec<Finding> {
    if backend == Backend::None {
        return Vec::new();
    }
    let packets = packets(model, facts);
    let user = policy::chain_names(model.profile).user;
    let mut told: BTreeMap<String, Finding> = BTreeMap::new();
    for table in tables(facts) {
        for chain in &table.chains {
            let Some((hook, _)) = &chain.base else {
                continue;
            };
            let passing = packets.iter().filter(|p| {
                let family = if p.destination.is_ipv4() { 4 } else { 6 };
                p.hook == hook && table.families.contains(&family)
            });
            for packet in passing {
                let found = fate(&table, chain, packet);
                if let Some((key, finding)) = word(&table, chain, packet, found, &user) {
                    told.entry(key).or_insert(finding);
                }
            }
        }
    }
    told.into_values().collect()
}

/// Every table once: what `iptables-nft` keeps is in both listings, and its own is the one that says more.
fn tables(facts: &Facts) -> Vec<Table> {
    let mut tables: Vec<Table> = facts.saves.iter().flat_map(xtables::tables).collect();
    let is_known = |table: &Table| {
        let same = |other: &&Table| other.name == table.name && other.families == table.families;
        let built_in = |c: &Chain| c.base.is_none() || c.name.to_uppercase() == c.name;
        tables.iter().any(|t| same(&t)) && table.chains.iter().all(built_in)
    };
    // What is wrong with ours is told by comparing it with what it must be.
    let own = format!("table {} {}", nftables::FAMILY, nftables::TABLE);
    let native: Vec<Table> = nft::tables(&facts.nft)
        .into_iter()
        .filter(|table| !is_known(table))
        .filter(|table| table.title != own)
        .collect();
    tables.extend(native);
    tables
}

fn word(
    table: &Table,
    base: &Chain,
    packet: &Packet,
    found: Fate,
    user: &str,
) -> Option<(String, Finding)> {
    let Fate::Dropped {
        chain,
        by,
        certain,
        ours,
        policy,
    } = found
    else {
        return None;
    };
    // Our own rules, or beside the nftables backend their passage, come before the policy; if they are missing, that is
    // what is told.
    let homes = ["iptables table filter", "ip6tables table filter"];
    let our_home = packet.hook == "forward" && homes.contains(&table.title.as_str());
    if ours || (policy && our_home) {
        return None;
    }
    let place = format!("{}, chain {chain}: {by}", table.title);
    if chain == user {
        let what = format!(
            "{place}: the administrator drops packets by which {}",
            packet.what
        );
        return Some((place, Finding::new(Severity::Note, what, "")));
    }
    let (severity, drops) = match certain {
        // Who confines his own host's programs means it, most of the time.
        true if packet.hook == "output" => (Severity::Warning, "drops"),
        true => (Severity::Error, "drops"),
        false => (Severity::Warning, "may drop"),
    };
    let what = format!("{place} {drops} packets by which {}", packet.what);
    Some((
        place,
        Finding::new(severity, what, advice(table, base, packet)),
    ))
}

fn advice(table: &Table, base: &Chain, packet: &Packet) -> String {
    let bridge = &packet.bridge;
    if table.name == "firewalld" {
        return format!(
            "firewall-cmd --permanent --zone=trusted --add-interface={bridge} && firewall-cmd --reload"
        );
    }
    let (side, short) = match packet.from_bridge {
        true => ("iifname", "-i"),
        false => ("oifname", "-o"),
    };
    match &table.allow {
        Allow::Nft { family } if packet.hook == "forward" => format!(
            "nft insert rule {family} {} {} {side} \"{bridge}\" accept",
            table.name, base.name
        ),
        Allow::Nft { family } => format!(
            "nft insert rule {family} {} {} {} dport {} accept",
            table.name, base.name, packet.protocol, packet.port
        ),
        Allow::Xtables { command, table } if packet.hook == "forward" => {
            format!(
                "{command} -t {table} -I {} {short} {bridge} -j ACCEPT",
                base.name
            )
        }
        Allow::Xtables { command, table } => format!(
            "{command} -t {table} -I {} -p {} --dport {} -j ACCEPT",
            base.name, packet.protocol, packet.port
        ),
    }
}

/// For each network: out, the answer in, and in to a published port by each hook that it meets.
fn packets(model: &Model, facts: &Facts) -> Vec<Packet> {
    let uplink = uplink(model, facts);
    let mut out = Vec::new();
    for network in model.networks.iter().filter(|n| !n.internal) {
        for family in Family::ALL {
            out.extend(packets_of(model, network, family, &uplink));
        }
    }
    out
}

fn packets_of(model: &Model, network: &Network, family: Family, uplink: &str) -> Vec<Packet> {
    let outside: IpAddr = match family {
        Family::V4 => OUTSIDE_V4.into(),
        Family::V6 => OUTSIDE_V6.into(),
    };
    let endpoints = || {
        model
            .endpoints
            .iter()
            .filter(|e| e.network_id == network.id)
    };
    // Any address of the network will do where no container has one yet.
    let subnet = network.subnet_of(family).map(|subnet| subnet.broadcast());
    let Some(container) = endpoints().find_map(|e| e.address_of(family)).or(subnet) else {
        return Vec::new();
    };
    let bridge = network.bridge.clone();
    let leaving = Packet {
        what: format!("containers of network {} reach the outside", network.name),
        hook: "forward",
        bridge: bridge.clone(),
        from_bridge: true,
        input: Some(bridge.clone()),
        output: Some(uplink.to_owned()),
        source: container,
        destination: outside,
        protocol: "tcp",
        port: 443,
        states: &["new"],
    };
    let answer = Packet {
        what: format!("containers of network {} get answers", network.name),
        from_bridge: false,
        input: leaving.output.clone(),
        output: leaving.input.clone(),
        source: outside,
        destination: container,
        port: 40000,
        states: &["established"],
        ..leaving.clone()
    };
    let mut all = vec![leaving, answer.clone()];
    for endpoint in endpoints() {
        let Some(address) = endpoint.address_of(family) else {
            continue;
        };
        for map in &endpoint.ports {
            if map.host_ip.is_some_and(|ip| ip.is_loopback()) {
                continue;
            }
            let protocol = map.protocol.as_str();
            let what = format!(
                "port {}/{protocol} of container {} is reached",
                map.host_port, endpoint.container_name
            );
            let forwarded = Packet {
                what,
                destination: address,
                protocol,
                port: map.container_port,
                states: &["new", "dnat"],
                ..answer.clone()
            };
            let Some(host) = network.gateway_of(family) else {
                continue;
            };
            // Before its destination is translated.
            let arriving = Packet {
                hook: "prerouting",
                output: None,
                destination: map
                    .host_ip
                    .filter(|ip| ip.is_ipv4() == host.is_ipv4())
                    .unwrap_or(host),
                port: map.host_port,
                states: &["new"],
                ..forwarded.clone()
            };
            let local = Packet {
                what: format!("{} from this host itself", forwarded.what),
                hook: "output",
                input: None,
                source: host,
                ..forwarded.clone()
            };
            all.extend([forwarded, arriving, local]);
        }
    }
    all
}

/// The default route's interface, or any other by which a neighbour may come.
fn uplink(model: &Model, facts: &Facts) -> String {
    let ours = |name: &str| model.networks.iter().any(|n| n.bridge == name);
    let mut others = facts
        .interfaces
        .iter()
        .filter(|i| i.name != "lo" && i.master.is_none() && i.up && !ours(&i.name));
    let any = || others.next().map(|i| i.name.clone());
    facts
        .uplink
        .clone()
        .or_else(any)
        .unwrap_or_else(|| "eth0".to_owned())
}
