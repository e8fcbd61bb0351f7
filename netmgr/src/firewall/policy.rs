//! From the model to the rules: the one place that decides which rules there are. Pure.
//!
//! Each group of rules has its iptables form above it, with `CORACLE` and `coracle0` as examples. The layout is Docker
//! 20.10's; the docker profile must equal it line for line in `filter` and `nat`. What Docker learned later (28, 29) goes
//! into `raw`, which the docker profile leaves alone.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::ruleset::{Chain, Dnat, Match, Owner, Place, Ruleset, Sign, Table, Verdict};
use crate::model::{Model, Network, Profile};
use published::{Published, published_ports};
use rules::{Rules, label, subject};

pub use passage::passage;
pub use rules::COMMENT_TAG;

mod passage;
mod published;
pub(in crate::firewall) mod rules;

/// The names of the chains that a profile owns.
pub struct ChainNames {
    /// In `filter` and in `nat`.
    pub main: String,
    pub stage1: String,
    pub stage2: String,
    pub user: String,
}

pub fn chain_names(profile: Profile) -> ChainNames {
    let prefix = profile.chain_prefix();
    ChainNames {
        main: prefix.to_owned(),
        stage1: format!("{prefix}-ISOLATION-STAGE-1"),
        stage2: format!("{prefix}-ISOLATION-STAGE-2"),
        user: format!("{prefix}-USER"),
    }
}

/// Every rule that must be in place for a model.
pub fn ruleset(model: &Model) -> Ruleset {
    let names = chain_names(model.profile);
    // A newer network stands above an older one in every chain.
    let networks: Vec<&Network> = model.networks.iter().rev().collect();
    let published = published_ports(model);
    let mut chains = vec![
        forward(model.profile, &names, &networks),
        main_filter(model.profile, &names, &published),
        stage1(model.profile, &names, &networks),
        stage2(model.profile, &names, &networks),
        user(&names),
        prerouting(model.profile, &names),
        output(model.profile, &names),
        postrouting(model.profile, &networks, &published),
        main_nat(model.profile, &names, &networks, &published),
    ];
    if model.profile == Profile::Coracle {
        chains.push(hardening(model, &published));
    }
    Ruleset { chains }
}

/// `-A FORWARD -j CORACLE-USER`, `-j CORACLE-ISOLATION-STAGE-1`, then four rules for each network, newest first:
/// `-o coracle0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`, `-o coracle0 -j CORACLE`,
/// `-i coracle0 ! -o coracle0 -j ACCEPT`, `-i coracle0 -o coracle0 -j ACCEPT`.
/// Without icc the last is `-j DROP` and is appended. An internal network has that last rule only.
fn forward(profile: Profile, names: &ChainNames, networks: &[&Network]) -> Chain {
    let mut rules = Rules::new(profile);
    rules
        .at(Place::Head)
        .add(
            vec![],
            jump(&names.user),
            "rules of the administrator come before all others".into(),
        )
        .add(
            vec![],
            jump(&names.stage1),
            "networks are isolated from each other before anything is accepted".into(),
        );
    for network in networks {
        let (name, bridge) = (label(&network.name), &network.bridge);
        rules.at(Place::Top);
        if !network.internal {
            rules
                .add(
                    vec![output_is(bridge), Match::Established],
                    Verdict::Accept,
                    format!("network {name}: replies come in"),
                )
                .add(
                    vec![output_is(bridge)],
                    jump(&names.main),
                    format!("network {name}: what else comes in must be published"),
                )
                .add(
                    vec![input_is(bridge), output_not(bridge)],
                    Verdict::Accept,
                    format!("network {name}: containers reach the outside"),
                );
        }
        if network.icc {
            rules.add(
                vec![input_is(bridge), output_is(bridge)],
                Verdict::Accept,
                format!("network {name}: its containers reach each other"),
            );
        }
    }
    for network in networks.iter().rev().filter(|n| !n.icc) {
        rules.at(Place::Tail).add(
            vec![input_is(&network.bridge), output_is(&network.bridge)],
            Verdict::Drop,
            format!(
                "network {}: its containers do not reach each other (icc is off)",
                label(&network.name)
            ),
        );
    }
    rules.chain(Table::Filter, "FORWARD", Owner::Host)
}

/// `-A CORACLE -d 10.200.0.2/32 ! -i coracle0 -o coracle0 -p tcp -m tcp --dport 80 -j ACCEPT`
fn main_filter(profile: Profile, names: &ChainNames, published: &[Published<'_>]) -> Chain {
    let mut rules = Rules::new(profile);
    for p in published {
        rules.add(
            vec![
                Match::Destination(Sign::Is, host(p.endpoint.address)),
                input_not(&p.network.bridge),
                output_is(&p.network.bridge),
                p.container_ports(),
            ],
            Verdict::Accept,
            format!(
                "{}: accepts what came to published port {}",
                p.subject(),
                p.port_text()
            ),
        );
    }
    rules.chain(Table::Filter, &names.main, Owner::Engine)
}

/// `-A CORACLE-ISOLATION-STAGE-1 -i coracle0 ! -o coracle0 -j CORACLE-ISOLATION-STAGE-2`; an internal network:
/// `! -s 10.201.0.0/24 -o cr-x -j DROP` and `! -d 10.201.0.0/24 -i cr-x -j DROP`.
fn stage1(profile: Profile, names: &ChainNames, networks: &[&Network]) -> Chain {
    let mut rules = Rules::new(profile);
    for network in networks {
        let (name, bridge) = (label(&network.name), &network.bridge);
        if network.internal {
            rules
                .add(
                    vec![Match::Source(Sign::Not, network.subnet), output_is(bridge)],
                    Verdict::Drop,
                    format!("network {name}: internal, nothing comes in"),
                )
                .add(
                    vec![
                        Match::Destination(Sign::Not, network.subnet),
                        input_is(bridge),
                    ],
                    Verdict::Drop,
                    format!("network {name}: internal, nothing goes out"),
                );
        } else {
            rules.add(
                vec![input_is(bridge), output_not(bridge)],
                jump(&names.stage2),
                format!("network {name}: what leaves it may not enter another network"),
            );
        }
    }
    rules.add(
        vec![],
        Verdict::Return,
        "not between networks of ours".into(),
    );
    rules.chain(Table::Filter, &names.stage1, Owner::Engine)
}

/// `-A CORACLE-ISOLATION-STAGE-2 -o coracle0 -j DROP`
fn stage2(profile: Profile, names: &ChainNames, networks: &[&Network]) -> Chain {
    let mut rules = Rules::new(profile);
    for network in networks.iter().filter(|n| !n.internal) {
        rules.add(
            vec![output_is(&network.bridge)],
            Verdict::Drop,
            format!(
                "network {}: nothing enters from another network",
                label(&network.name)
            ),
        );
    }
    rules.add(vec![], Verdict::Return, "bound for the outside".into());
    rules.chain(Table::Filter, &names.stage2, Owner::Engine)
}

/// `-A CORACLE-USER -j RETURN`, uncommented: from here on the chain is the administrator's.
fn user(names: &ChainNames) -> Chain {
    let mut rules = Rules::new(Profile::Docker);
    rules.add(
        vec![],
        Verdict::Return,
        "a chain for the administrator: write your own rules above this one".into(),
    );
    rules.chain(Table::Filter, &names.user, Owner::Administrator)
}

/// `-A PREROUTING -m addrtype --dst-type LOCAL -j CORACLE`
fn prerouting(profile: Profile, names: &ChainNames) -> Chain {
    let mut rules = Rules::new(profile);
    rules.add(
        vec![Match::LocalDestination],
        jump(&names.main),
        "what is sent to this host may be for a published port".into(),
    );
    rules.chain(Table::Nat, "PREROUTING", Owner::Host)
}

/// `-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j CORACLE`: a packet to 127/8 cannot be sent on to a
/// container (ip-sysctl: route_localnet is off), so the loopback proxy serves those.
fn output(profile: Profile, names: &ChainNames) -> Chain {
    let loopback = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
    let mut rules = Rules::new(profile);
    rules.add(
        vec![
            Match::Destination(Sign::Not, loopback),
            Match::LocalDestination,
        ],
        jump(&names.main),
        "packets of this host itself to a published port of its own".into(),
    );
    rules.chain(Table::Nat, "OUTPUT", Owner::Host)
}

/// `-A POSTROUTING -s 10.200.0.0/16 ! -o coracle0 -j MASQUERADE`, newest network first, then for each published port
/// `-s 10.200.0.2/32 -d 10.200.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE`.
fn postrouting(profile: Profile, networks: &[&Network], published: &[Published<'_>]) -> Chain {
    let mut rules = Rules::new(profile);
    for network in networks.iter().filter(|n| !n.internal && n.masquerade()) {
        rules.at(Place::Top).add(
            vec![
                Match::Source(Sign::Is, network.subnet),
                output_not(&network.bridge),
            ],
            Verdict::Masquerade,
            format!(
                "network {}: goes out under the address of this host",
                label(&network.name)
            ),
        );
    }
    for p in published {
        rules.at(Place::Tail).add(
            vec![
                Match::Source(Sign::Is, host(p.endpoint.address)),
                Match::Destination(Sign::Is, host(p.endpoint.address)),
                p.container_ports(),
            ],
            Verdict::Masquerade,
            format!("{}: reaches its own published port", p.subject()),
        );
    }
    rules.chain(Table::Nat, "POSTROUTING", Owner::Host)
}

/// `-A CORACLE -i coracle0 -j RETURN`, newest network first, then for each published port
/// `! -i coracle0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.200.0.2:80`, with `-d ADDRESS/32` where it is
/// published on one address. A run of ports is one rule: `--to-destination 10.200.0.2:80-89/8080`.
fn main_nat(
    profile: Profile,
    names: &ChainNames,
    networks: &[&Network],
    published: &[Published<'_>],
) -> Chain {
    let mut rules = Rules::new(profile);
    for network in networks.iter().filter(|n| !n.internal && n.masquerade()) {
        rules.add(
            vec![input_is(&network.bridge)],
            Verdict::Return,
            format!(
                "network {}: its containers use published ports by way of the proxy",
                label(&network.name)
            ),
        );
    }
    for p in published {
        let mut matches = vec![input_not(&p.network.bridge), p.host_ports()];
        if let Some(address) = p.host_address {
            matches.push(Match::Destination(Sign::Is, host(address)));
        }
        let dnat = Dnat {
            address: p.endpoint.address,
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
    rules.chain(Table::Nat, &names.main, Owner::Engine)
}

/// What Docker 28 added, in `raw` so that the other tables stay as they are:
/// `-A PREROUTING -d 10.200.0.2/32 ! -i coracle0 -j DROP`: a neighbour with a route to the container's subnet does not
/// get round the published ports (moby#45610). Not where masquerading is off: such a network is routed on purpose, and
/// replies come back to the container's own address.
/// `-A PREROUTING -d 127.0.0.1/32 ! -i lo -p tcp -m tcp --dport 8080 -j DROP`: a port published on a loopback address
/// stays on this host, whatever a neighbour routes here (moby#41872).
fn hardening(model: &Model, published: &[Published<'_>]) -> Chain {
    let mut rules = Rules::new(model.profile);
    for endpoint in &model.endpoints {
        let network = model
            .networks
            .iter()
            .find(|n| n.id == endpoint.network_id && (n.internal || n.masquerade()));
        if let Some(network) = network {
            rules.add(
                vec![
                    Match::Destination(Sign::Is, host(endpoint.address)),
                    input_not(&network.bridge),
                ],
                Verdict::Drop,
                format!(
                    "{}: not reachable by a route, only by published ports",
                    subject(endpoint)
                ),
            );
        }
        for p in published.iter().filter(|p| p.endpoint.id == endpoint.id) {
            if let Some(address) = p.host_address.filter(Ipv4Addr::is_loopback) {
                rules.add(
                    vec![
                        Match::Destination(Sign::Is, host(address)),
                        input_not("lo"),
                        p.host_ports(),
                    ],
                    Verdict::Drop,
                    format!(
                        "{}: port {} is for this host only",
                        p.subject(),
                        p.port_text()
                    ),
                );
            }
        }
    }
    rules.chain(Table::Raw, "PREROUTING", Owner::Host)
}

fn jump(chain: &str) -> Verdict {
    Verdict::Jump(chain.to_owned())
}

fn input_is(interface: &str) -> Match {
    Match::In(Sign::Is, interface.to_owned())
}

fn input_not(interface: &str) -> Match {
    Match::In(Sign::Not, interface.to_owned())
}

fn output_is(interface: &str) -> Match {
    Match::Out(Sign::Is, interface.to_owned())
}

fn output_not(interface: &str) -> Match {
    Match::Out(Sign::Not, interface.to_owned())
}

fn host(address: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::from(address)
}
