//! What Docker 28 and 29 added, in the table `raw`: before connection tracking, and whatever the policy of FORWARD is.
//!
//! One jump, `-A PREROUTING ! -i lo -j CORACLE`: what this host sends to itself is its own business (and has source
//! addresses of our bridges). The cost is per network: a container without ports has no rule here.
//!
//! No RETURN skips another network's DROP, in whatever order networks come and go, so each change only appends:
//! - Sources are judged in a chain of their own, `CORACLE-SPOOFED`. A RETURN there ends that chain alone, and the
//!   destination is judged all the same.
//! - Internal networks, and ports for this host only, are in `CORACLE-LOCAL`, which has no RETURN.
//! - In `CORACLE` itself what follows is about containers' addresses. The RETURN at the head names this host's own, which
//!   are none of those. Each later RETURN and DROP names a destination inside one network's subnet. Subnets are disjoint,
//!   hence after a RETURN no rule of another network could have matched that packet any more.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

use super::Plan;
use super::rules::{Rules, host, input_is, input_not, jump, label};
use crate::firewall::ruleset::{Chain, Match, Owner, Sign, Table, Verdict};
use crate::model::{Family, GatewayMode, Network, Protocol};

pub(super) fn chains(plan: &Plan<'_>) -> Vec<Chain> {
    let mut chains = vec![prerouting(plan), main(plan), spoofed(plan), local(plan)];
    if plan.family == Family::V6 {
        chains.push(internal(plan));
    }
    chains
}

/// `-A PREROUTING ! -i lo -j CORACLE`
fn prerouting(plan: &Plan<'_>) -> Chain {
    let mut rules = Rules::new(plan.profile);
    rules.add(
        vec![input_not("lo")],
        jump(&plan.names.main),
        "what comes from outside or from containers is judged before all else".into(),
    );
    rules.chain(Table::Raw, "PREROUTING", Owner::Host)
}

/// `-A CORACLE -j CORACLE-SPOOFED`, `-j CORACLE-LOCAL`, `-m addrtype --dst-type LOCAL -j RETURN`, then what may be sent to
/// containers' addresses.
fn main(plan: &Plan<'_>) -> Chain {
    let mut rules = Rules::new(plan.profile);
    rules
        .add(
            vec![],
            jump(&plan.names.spoofed),
            "no source address of a network but from that network".into(),
        )
        .add(
            vec![],
            jump(&plan.names.local),
            "internal networks, and ports that are for this host only".into(),
        )
        .add(
            vec![Match::LocalDestination],
            Verdict::Return,
            "addresses of this host, gateways included, are where ports are published".into(),
        );
    for network in plan.networks.iter().rev().filter(|n| !n.internal) {
        add_direct(plan, network, &mut rules);
    }
    rules.chain(Table::Raw, &plan.names.main, Owner::Engine)
}

/// `-d 10.201.0.0/24 -i wg0 -j RETURN` for a trusted interface, then `-d 10.201.0.0/24 ! -i cr-x -j DROP`: a neighbour with
/// a route to the subnet does not get round the published ports (moby#45610). Not where the network is routed on purpose,
/// by its gateway mode or because masquerading is off: replies come back to the container's own address.
fn add_direct(plan: &Plan<'_>, network: &Network, rules: &mut Rules) {
    if !network.masquerade() || network.gateway_mode(plan.family) != GatewayMode::Nat {
        return;
    }
    let (name, bridge) = (label(&network.name), &network.bridge);
    let trusted = network.trusted_interfaces();
    for interface in trusted.filter(|name| is_interface_name(name)) {
        rules.add(
            vec![plan.destination(network, Sign::Is), input_is(interface)],
            Verdict::Return,
            format!("network {name}: {interface} is trusted"),
        );
    }
    rules.add(
        vec![plan.destination(network, Sign::Is), input_not(bridge)],
        Verdict::Drop,
        format!("network {name}: not reachable by a route, only by published ports"),
    );
}

/// What may stand in a rule as it is: no blanks, no quotes, and no `+`, which would match a whole family of names.
fn is_interface_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'@');
    (1..=15).contains(&name.len()) && !name.starts_with('-') && name.bytes().all(allowed)
}

/// `-A CORACLE-SPOOFED -s 10.200.0.0/16 ! -i coracle0 -j DROP`, `! -s 10.200.0.0/16 -i coracle0 -j DROP`. IPv6 speaks from
/// link-local addresses and, while an address is still tentative, from none: `-s fe80::/10`, `-s ::/128 -j RETURN` come first.
fn spoofed(plan: &Plan<'_>) -> Chain {
    let mut rules = Rules::new(plan.profile);
    if plan.family == Family::V6 {
        for (net, what) in [
            (link_local(), "link-local sources"),
            (host(Ipv6Addr::UNSPECIFIED.into()), "no source yet"),
        ] {
            rules.add(
                vec![Match::Source(Sign::Is, net)],
                Verdict::Return,
                format!("{what}: neighbour discovery, never forwarded"),
            );
        }
    }
    for network in plan.networks.iter().rev() {
        let (name, bridge) = (label(&network.name), &network.bridge);
        rules
            .add(
                vec![plan.source(network, Sign::Is), input_not(bridge)],
                Verdict::Drop,
                format!("network {name}: its addresses come from nowhere else"),
            )
            .add(
                vec![plan.source(network, Sign::Not), input_is(bridge)],
                Verdict::Drop,
                format!("network {name}: no other addresses come from it"),
            );
    }
    rules.chain(Table::Raw, &plan.names.spoofed, Owner::Engine)
}

/// An internal network's containers and its bridge's address have each other, and nobody else has either:
/// `-A CORACLE-LOCAL -d 10.201.0.0/24 ! -i cr-x -j DROP`, `! -d 10.201.0.0/24 -i cr-x -j DROP`, the latter for IPv6
/// `-j CORACLE-INTERNAL`, which lets neighbour discovery pass. Newest first. Then
/// `-A CORACLE-LOCAL -d 127.0.0.1/32 ! -i lo -p tcp -m tcp --dport 8080 -j DROP`: a port published on a loopback address
/// stays on this host, whatever a neighbour routes here (moby#41872).
/// `-p tcp -m tcp --dport 40001 -m addrtype --dst-type LOCAL -j DROP`: the listener of a run is met by redirection only.
fn local(plan: &Plan<'_>) -> Chain {
    let mut rules = Rules::new(plan.profile);
    for network in plan.networks.iter().filter(|n| n.internal) {
        let (name, bridge) = (label(&network.name), &network.bridge);
        rules
            .add(
                vec![plan.destination(network, Sign::Is), input_not(bridge)],
                Verdict::Drop,
                format!("network {name}: internal, nobody else reaches its addresses"),
            )
            .add(
                vec![plan.destination(network, Sign::Not), input_is(bridge)],
                match plan.family {
                    Family::V4 => Verdict::Drop,
                    Family::V6 => jump(&plan.names.internal),
                },
                format!("network {name}: internal, no other address is reached from it"),
            );
    }
    for p in plan.published.iter().filter(|p| !p.is_routed()) {
        if p.host_address.as_ref().is_some_and(IpAddr::is_loopback) {
            let mut matches = vec![input_not("lo"), p.host_ports()];
            matches.extend(p.host_destination());
            rules.add(
                matches,
                Verdict::Drop,
                format!(
                    "{}: port {} is for this host only",
                    p.subject(),
                    p.port_text()
                ),
            );
        }
        if let (Some(port), Protocol::Tcp) = (p.map.listener, p.map.protocol) {
            rules.add(
                vec![
                    Match::Ports(Protocol::Tcp, port, port),
                    Match::LocalDestination,
                ],
                Verdict::Drop,
                format!("{}: nobody dials the listener itself", p.subject()),
            );
        }
    }
    rules.chain(Table::Raw, &plan.names.local, Owner::Engine)
}

/// `-A CORACLE-INTERNAL -d fe80::/10 -j RETURN`, `-d ff00::/8 -j RETURN`, `-j DROP`
fn internal(plan: &Plan<'_>) -> Chain {
    let mut rules = Rules::new(plan.profile);
    for (net, what) in [
        (link_local(), "link-local destinations"),
        (multicast(), "multicast"),
    ] {
        rules.add(
            vec![Match::Destination(Sign::Is, net)],
            Verdict::Return,
            format!("{what}: neighbour discovery, never forwarded"),
        );
    }
    rules.add(
        vec![],
        Verdict::Drop,
        "an internal network reaches no other address".into(),
    );
    rules.chain(Table::Raw, &plan.names.internal, Owner::Engine)
}

fn link_local() -> IpNet {
    Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10).into()
}

fn multicast() -> IpNet {
    Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8).into()
}
