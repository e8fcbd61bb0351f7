//! The rules of the table `nat`: published ports by DNAT, the way out by masquerading, and runs of ports with one listener.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

use super::Plan;
use super::rules::{Rules, host, input_is, input_not, jump, label, output_not};
use crate::firewall::ruleset::{Chain, Dnat, Match, Owner, Place, Sign, Table, Verdict};
use crate::model::{Family, GatewayMode, Network, Profile, Protocol};

pub(super) fn chains(plan: &Plan<'_>) -> Vec<Chain> {
    let mut chains = vec![
        prerouting(plan),
        output(plan),
        postrouting(plan),
        main(plan),
    ];
    if plan.profile == Profile::Coracle {
        chains.push(runs(plan));
    }
    chains
}

/// `-A PREROUTING -m addrtype --dst-type LOCAL -j CORACLE`, and `-j CORACLE-RUNS` for what that chain left alone.
fn prerouting(plan: &Plan<'_>) -> Chain {
    let mut rules = Rules::new(plan.profile);
    rules.add(
        vec![Match::LocalDestination],
        jump(&plan.names.main),
        "what is sent to this host may be for a published port".into(),
    );
    add_jump_to_runs(plan, &mut rules);
    rules.chain(Table::Nat, "PREROUTING", Owner::Host)
}

/// `-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j CORACLE`: a packet to 127/8 cannot be sent on to a
/// container (ip-sysctl: route_localnet is off), so the loopback proxy serves those. Likewise `! -d ::1/128`.
fn output(plan: &Plan<'_>) -> Chain {
    let loopback: IpNet = match plan.family {
        Family::V4 => Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8).into(),
        Family::V6 => host(Ipv6Addr::LOCALHOST.into()),
    };
    let mut rules = Rules::new(plan.profile);
    rules.add(
        vec![
            Match::Destination(Sign::Not, loopback),
            Match::LocalDestination,
        ],
        jump(&plan.names.main),
        "packets of this host itself to a published port of its own".into(),
    );
    add_jump_to_runs(plan, &mut rules);
    rules.chain(Table::Nat, "OUTPUT", Owner::Host)
}

fn add_jump_to_runs(plan: &Plan<'_>, rules: &mut Rules) {
    if plan.profile == Profile::Coracle {
        rules.add(
            vec![Match::LocalDestination],
            jump(&plan.names.runs),
            "who is not sent on to a container may be for a run of ports with one listener".into(),
        );
    }
}

/// `-A POSTROUTING -s 10.200.0.0/16 ! -o coracle0 -j MASQUERADE`, newest network first, then for each published port
/// `-s 10.200.0.2/32 -d 10.200.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE`.
fn postrouting(plan: &Plan<'_>) -> Chain {
    let mut rules = Rules::new(plan.profile);
    for network in plan.networks.iter().filter(|n| masquerades(plan, n)) {
        rules.at(Place::Top).add(
            vec![plan.source(network, Sign::Is), output_not(&network.bridge)],
            Verdict::Masquerade,
            format!(
                "network {}: goes out under the address of this host",
                label(&network.name)
            ),
        );
    }
    for p in plan.published.iter().filter(|p| !p.is_routed()) {
        let Some(address) = p.address else { continue };
        rules.at(Place::Tail).add(
            vec![
                Match::Source(Sign::Is, host(address)),
                Match::Destination(Sign::Is, host(address)),
                p.container_ports(),
            ],
            Verdict::Masquerade,
            format!("{}: reaches its own published port", p.subject()),
        );
    }
    rules.chain(Table::Nat, "POSTROUTING", Owner::Host)
}

fn masquerades(plan: &Plan<'_>, network: &Network) -> bool {
    let routed = plan.profile == Profile::Coracle
        && network.gateway_mode(plan.family) == GatewayMode::Routed;
    !network.internal && network.masquerade() && !routed
}

/// `-A CORACLE -i coracle0 -j RETURN`, newest network first, then for each published port
/// `! -i coracle0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.200.0.2:80`, with `-d ADDRESS/32` where it is
/// published on one address. A run of ports is one rule: `--to-destination 10.200.0.2:80-89/8080`.
///
/// Docker has that RETURN for networks that masquerade only; a container of another kind is then sent on to a container
/// of another network, which the isolation forbids. Our own profile has it for all but internal networks.
fn main(plan: &Plan<'_>) -> Chain {
    let mut rules = Rules::new(plan.profile);
    let by_proxy = |n: &Network| match plan.profile {
        Profile::Docker => masquerades(plan, n),
        Profile::Coracle => !n.internal,
    };
    for network in plan.networks.iter().filter(|n| by_proxy(n)) {
        rules.add(
            vec![input_is(&network.bridge)],
            Verdict::Return,
            format!(
                "network {}: its containers use published ports by way of the proxy",
                label(&network.name)
            ),
        );
    }
    for p in plan.published.iter().filter(|p| !p.is_routed()) {
        let Some(address) = p.address else { continue };
        let mut matches = vec![input_not(&p.network.bridge), p.host_ports()];
        matches.extend(p.host_destination());
        let dnat = Dnat {
            address,
            first: p.map.container_port,
            last: p.map.container_port + (p.map.count - 1),
            base: (p.map.count > 1).then_some(p.map.host_port),
        };
        rules.add(
            matches,
            Verdict::Dnat(dnat),
            format!("{}: serves published port {}", p.subject(), p.port_text()),
        );
    }
    rules.chain(Table::Nat, &plan.names.main, Owner::Engine)
}

/// `-A CORACLE-RUNS -p tcp -m tcp --dport 1024:31023 -j REDIRECT --to-ports 40001`: a run of ports too long for a socket
/// each has one listener, which learns by `SO_ORIGINAL_DST` what was dialled.
///
/// Everyone whom the main chain sent on to the container is gone by now (DNAT ends the walk through `nat`). Who is left are
/// the clients of the loopback proxy: this host at 127.0.0.0/8, containers of our networks (their RETURN in the main
/// chain), and IPv6 clients of a container that has no IPv6 address. So one rule a run is enough, whatever the number of
/// networks.
fn runs(plan: &Plan<'_>) -> Chain {
    let mut rules = Rules::new(plan.profile);
    for p in plan.published.iter().filter(|p| !p.is_routed()) {
        let (Some(port), Protocol::Tcp) = (p.map.listener, p.map.protocol) else {
            continue;
        };
        let mut matches = vec![p.host_ports()];
        matches.extend(p.host_destination());
        rules.add(
            matches,
            Verdict::Redirect(port),
            format!(
                "{}: the proxy serves {} at one port",
                p.subject(),
                p.port_text()
            ),
        );
    }
    rules.chain(Table::Nat, &plan.names.runs, Owner::Engine)
}
