//! From the model to the rules: the one place that decides which rules there are. Pure.
//!
//! Each group of rules has its iptables form above it, with `CORACLE` and `coracle0` as examples; IPv6's differ by their
//! addresses alone. The layout is Docker 20.10's; the docker profile must equal it line for line in `filter` and `nat`. Our own
//! profile adds what Docker learned later (28, 29), and moves the networks' rules from `FORWARD` to a chain of ours:
//! a new network is then inserted at the top of that chain, where iptables need not read what is below.

use super::ruleset::{Chain, Match, Owner, Place, Ruleset, Sign, Table, Verdict};
use crate::model::{Family, GatewayMode, Model, Network, Profile};
use published::{Published, published_ports};
use rules::{Rules, host, input_is, input_not, jump, label, output_is, output_not};

pub use passage::passage;
pub use rules::COMMENT_TAG;

mod hardening;
mod nat;
mod passage;
mod published;
pub(in crate::firewall) mod rules;

/// The names of the chains that a profile owns.
pub struct ChainNames {
    /// In `filter` and in `nat`; in our own profile in `raw` too.
    pub main: String,
    pub stage1: String,
    pub stage2: String,
    pub user: String,
    /// In `filter`, in our own profile only: what a network's packets may do.
    pub forward: String,
    /// In `nat`, in our own profile only: runs of ports with one listener.
    pub runs: String,
    /// In `raw`, in our own profile only: sources that lie.
    pub spoofed: String,
    /// In `raw`, in our own profile only: internal networks, and ports that are for this host itself.
    pub local: String,
    /// In `raw` of IPv6, in our own profile only: what leaves an internal network's subnet.
    pub internal: String,
}

pub fn chain_names(profile: Profile) -> ChainNames {
    let prefix = profile.chain_prefix();
    ChainNames {
        main: prefix.to_owned(),
        stage1: format!("{prefix}-ISOLATION-STAGE-1"),
        stage2: format!("{prefix}-ISOLATION-STAGE-2"),
        user: format!("{prefix}-USER"),
        forward: format!("{prefix}-FORWARD"),
        runs: format!("{prefix}-RUNS"),
        spoofed: format!("{prefix}-SPOOFED"),
        local: format!("{prefix}-LOCAL"),
        internal: format!("{prefix}-INTERNAL"),
    }
}

/// What every chain is made from.
struct Plan<'a> {
    profile: Profile,
    family: Family,
    names: ChainNames,
    /// Those with an address of this family, newest first: a newer network stands above an older one in every chain.
    networks: Vec<&'a Network>,
    published: Vec<Published<'a>>,
}

impl Plan<'_> {
    fn subnet(&self, network: &Network, sign: Sign) -> (Match, Match) {
        let subnet = network.subnet_of(self.family);
        let subnet = subnet.expect("networks without this family were left out");
        (
            Match::Source(sign, subnet),
            Match::Destination(sign, subnet),
        )
    }

    fn source(&self, network: &Network, sign: Sign) -> Match {
        self.subnet(network, sign).0
    }

    fn destination(&self, network: &Network, sign: Sign) -> Match {
        self.subnet(network, sign).1
    }
}

/// Every rule of one family that must be in place for a model. The base chains and the jumps to them are always there.
pub fn ruleset(model: &Model, family: Family) -> Ruleset {
    let networks = model.networks.iter().rev();
    let plan = Plan {
        profile: model.profile,
        family,
        names: chain_names(model.profile),
        networks: networks.filter(|n| n.subnet_of(family).is_some()).collect(),
        published: published_ports(model, family),
    };
    let mut chains = match model.profile {
        Profile::Docker => vec![forward_with_networks(&plan)],
        Profile::Coracle => forward_and_own_chain(&plan).into(),
    };
    chains.extend([
        main_filter(&plan),
        stage1(&plan),
        stage2(&plan),
        user(&plan),
    ]);
    chains.extend(nat::chains(&plan));
    if model.profile == Profile::Coracle {
        chains.extend(hardening::chains(&plan));
    }
    Ruleset { chains }
}

/// `-A FORWARD -j CORACLE-USER`, `-j CORACLE-ISOLATION-STAGE-1`.
fn forward_head(plan: &Plan<'_>) -> Rules {
    let mut rules = Rules::new(plan.profile);
    rules
        .at(Place::Head)
        .add(
            vec![],
            jump(&plan.names.user),
            "rules of the administrator come before all others".into(),
        )
        .add(
            vec![],
            jump(&plan.names.stage1),
            "networks are isolated from each other before anything is accepted".into(),
        );
    rules
}

/// Docker's way: four rules for each network in `FORWARD` itself, newest network first. That which forbids is appended.
fn forward_with_networks(plan: &Plan<'_>) -> Chain {
    let mut rules = forward_head(plan);
    for network in &plan.networks {
        rules.at(Place::Top);
        add_forward_rules(plan, network, &mut rules);
        if network.icc {
            add_icc_rule(network, &mut rules);
        }
    }
    rules.at(Place::Tail);
    for network in plan.networks.iter().rev().filter(|n| !n.icc) {
        add_icc_rule(network, &mut rules);
    }
    rules.chain(Table::Filter, "FORWARD", Owner::Host)
}

/// Our way: `-A FORWARD -j CORACLE-FORWARD`, and the same rules there. What is appended to `FORWARD` by others, a trailing
/// `DROP` say, stays below ours (moby#49518).
fn forward_and_own_chain(plan: &Plan<'_>) -> [Chain; 2] {
    let mut head = forward_head(plan);
    head.add(
        vec![],
        jump(&plan.names.forward),
        "what each network's packets may do".into(),
    );
    let mut rules = Rules::new(plan.profile);
    for network in &plan.networks {
        add_forward_rules(plan, network, &mut rules);
        add_icc_rule(network, &mut rules);
    }
    [
        head.chain(Table::Filter, "FORWARD", Owner::Host),
        rules.chain(Table::Filter, &plan.names.forward, Owner::Engine),
    ]
}

/// `-o coracle0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`, `-o coracle0 -j CORACLE`, in our own profile
/// `! -i coracle0 -o coracle0 -j DROP`, and `-i coracle0 ! -o coracle0 -j ACCEPT`. Nothing of it for an internal network.
fn add_forward_rules(plan: &Plan<'_>, network: &Network, rules: &mut Rules) {
    if network.internal {
        return;
    }
    let (name, bridge) = (label(&network.name), &network.bridge);
    rules
        .add(
            vec![output_is(bridge), Match::Established],
            Verdict::Accept,
            format!("network {name}: replies come in"),
        )
        .add(
            vec![output_is(bridge)],
            jump(&plan.names.main),
            format!("network {name}: what else comes in must be published"),
        );
    if plan.profile == Profile::Coracle {
        let entering = vec![input_not(bridge), output_is(bridge)];
        match network.gateway_mode(plan.family) {
            // Whatever FORWARD's policy is (moby#14041).
            GatewayMode::Nat | GatewayMode::Routed => rules.add(
                entering,
                Verdict::Drop,
                format!("network {name}: what is not published does not come in"),
            ),
            GatewayMode::NatUnprotected => rules.add(
                entering,
                Verdict::Accept,
                format!("network {name}: every port may be reached (nat-unprotected)"),
            ),
        };
    }
    rules.add(
        vec![input_is(bridge), output_not(bridge)],
        Verdict::Accept,
        format!("network {name}: containers reach the outside"),
    );
}

/// `-i coracle0 -o coracle0 -j ACCEPT`; without icc `-j DROP`. It matters where br_netfilter is loaded.
fn add_icc_rule(network: &Network, rules: &mut Rules) {
    let (name, bridge) = (label(&network.name), &network.bridge);
    let within = vec![input_is(bridge), output_is(bridge)];
    match network.icc {
        true => rules.add(
            within,
            Verdict::Accept,
            format!("network {name}: its containers reach each other"),
        ),
        false => rules.add(
            within,
            Verdict::Drop,
            format!("network {name}: its containers do not reach each other (icc is off)"),
        ),
    };
}

/// `-A CORACLE -d 10.200.0.2/32 ! -i coracle0 -o coracle0 -p tcp -m tcp --dport 80 -j ACCEPT`. On a routed network too:
/// there it is the only rule of a published port.
fn main_filter(plan: &Plan<'_>) -> Chain {
    let mut rules = Rules::new(plan.profile);
    for p in plan
        .published
        .iter()
        .filter(|p| p.is_forwarded(plan.profile))
    {
        let Some(address) = p.address else { continue };
        rules.add(
            vec![
                Match::Destination(Sign::Is, host(address)),
                input_not(&p.network.bridge),
                output_is(&p.network.bridge),
                p.container_ports(),
            ],
            Verdict::Accept,
            match p.is_routed() {
                false => format!(
                    "{}: accepts what came to published port {}",
                    p.subject(),
                    p.port_text()
                ),
                true => format!(
                    "{}: accepts what comes to its own address, published as {}",
                    p.subject(),
                    p.port_text()
                ),
            },
        );
    }
    rules.chain(Table::Filter, &plan.names.main, Owner::Engine)
}

/// `-A CORACLE-ISOLATION-STAGE-1 -i coracle0 ! -o coracle0 -j CORACLE-ISOLATION-STAGE-2`; an internal network:
/// `! -i cr-x -o cr-x -j DROP` and `-i cr-x ! -o cr-x -j DROP`. Docker has `! -s 10.201.0.0/24 -o cr-x` and
/// `! -d 10.201.0.0/24 -i cr-x`: with br_netfilter that drops a network's own broadcasts, and with IPv6 its neighbour
/// discovery. Addresses are judged in `raw`.
fn stage1(plan: &Plan<'_>) -> Chain {
    let mut rules = Rules::new(plan.profile);
    for network in &plan.networks {
        let (name, bridge) = (label(&network.name), &network.bridge);
        if network.internal {
            let (from_elsewhere, to_elsewhere) = match plan.profile {
                Profile::Docker => (
                    plan.source(network, Sign::Not),
                    plan.destination(network, Sign::Not),
                ),
                Profile::Coracle => (input_not(bridge), output_not(bridge)),
            };
            rules
                .add(
                    vec![from_elsewhere, output_is(bridge)],
                    Verdict::Drop,
                    format!("network {name}: internal, nothing comes in"),
                )
                .add(
                    vec![input_is(bridge), to_elsewhere],
                    Verdict::Drop,
                    format!("network {name}: internal, nothing goes out"),
                );
        } else {
            rules.add(
                vec![input_is(bridge), output_not(bridge)],
                jump(&plan.names.stage2),
                format!("network {name}: what leaves it may not enter another network"),
            );
        }
    }
    rules.add(
        vec![],
        Verdict::Return,
        "not between networks of ours".into(),
    );
    rules.chain(Table::Filter, &plan.names.stage1, Owner::Engine)
}

/// `-A CORACLE-ISOLATION-STAGE-2 -o coracle0 -j DROP`
fn stage2(plan: &Plan<'_>) -> Chain {
    let mut rules = Rules::new(plan.profile);
    for network in plan.networks.iter().filter(|n| !n.internal) {
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
    rules.chain(Table::Filter, &plan.names.stage2, Owner::Engine)
}

/// `-A CORACLE-USER -j RETURN`, uncommented: from here on the chain is the administrator's.
fn user(plan: &Plan<'_>) -> Chain {
    let mut rules = Rules::new(Profile::Docker);
    rules.add(
        vec![],
        Verdict::Return,
        "a chain for the administrator: write your own rules above this one".into(),
    );
    rules.chain(Table::Filter, &plan.names.user, Owner::Administrator)
}
