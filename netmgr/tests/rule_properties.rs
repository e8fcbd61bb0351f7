//! Properties of the rules that hold for any model, tried on generated ones against a model of iptables itself.

mod common;

use std::collections::HashSet;

use common::{add_endpoint, add_network, map, model};
use netmgr::firewall::diff::delta;
use netmgr::firewall::iptables::{FoundChain, Line, Script, parse, render_save, spec};
use netmgr::firewall::mend::{Goal, mend};
use netmgr::firewall::policy::ruleset;
use netmgr::firewall::ruleset::{Ruleset, Table};
use netmgr::model::{
    OPTION_GATEWAY_MODE_V4, OPTION_GATEWAY_MODE_V6, OPTION_MASQUERADE, OPTION_TRUSTED_INTERFACES,
};
use netmgr::plan::Tool;
use netmgr::plan::{self, Backend, Written};
use netmgr::{Family, Model, PortMap, Profile, Protocol, V6};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const IPTABLES: Written = Written {
    backend: Backend::Iptables,
    ipv6: true,
    passage: false,
};

const TABLES: [Table; 3] = Table::ALL;

/// The kernel's tables, as far as a batch can tell.
#[derive(Clone, Debug, PartialEq)]
struct Kernel(Vec<FoundChain>);

impl Kernel {
    fn of(ruleset: &Ruleset) -> Kernel {
        Kernel(parse(&render_save(ruleset, &TABLES, "DROP")))
    }

    fn empty() -> Kernel {
        Kernel::of(&Ruleset::default())
    }

    /// Runs a batch as `iptables-restore --noflush` does; an impossible line fails the test.
    fn run(&mut self, script: &Script) {
        for table in TABLES {
            for line in script.lines(table) {
                self.line(table, line);
            }
        }
    }

    fn line(&mut self, table: Table, line: &Line) {
        match line {
            Line::Chain(name) => match self.find(table, name) {
                Some(chain) => chain.rules.clear(),
                None => self
                    .0
                    .extend(parse(&format!("*{}\n:{name} - [0:0]\n", table.as_str()))),
            },
            Line::Append(chain, rule) => self.insert(table, chain, None, rule),
            Line::Insert(chain, at, rule) => self.insert(table, chain, Some(*at), rule),
            Line::Delete(chain, rule) => {
                let rules = &mut self.find(table, chain).unwrap().rules;
                let at = rules.iter().position(|r| r.spec == *rule);
                rules.remove(at.unwrap_or_else(|| panic!("no rule {rule} in {chain}")));
            }
            Line::RemoveChain(name) => {
                assert!(
                    self.find(table, name).unwrap().rules.is_empty(),
                    "{name} is not empty"
                );
                let jump = format!("-j {name}");
                let rules = self
                    .0
                    .iter()
                    .filter(|c| c.table == table)
                    .flat_map(|c| &c.rules);
                assert!(
                    !rules.into_iter().any(|r| r.spec.ends_with(&jump)),
                    "{name} is in use"
                );
                self.0.retain(|c| c.table != table || c.name != *name);
            }
        }
    }

    fn insert(&mut self, table: Table, chain: &str, at: Option<usize>, rule: &str) {
        let text = format!("*{}\n-A {chain} {rule}\n", table.as_str());
        let found = parse(&text).remove(0).rules.remove(0);
        let target = rule
            .rsplit_once("-j ")
            .map(|(_, target)| target)
            .unwrap_or_default();
        let known = ["ACCEPT", "DROP", "RETURN", "MASQUERADE", "LOG"];
        assert!(
            known.contains(&target)
                || rule.contains("-j DNAT")
                || rule.contains("-j REDIRECT")
                || self.find(table, target).is_some(),
            "no chain {target}"
        );
        let rules = &mut self
            .find(table, chain)
            .unwrap_or_else(|| panic!("no chain {chain}"))
            .rules;
        let at = at.unwrap_or(rules.len() + 1);
        assert!(at <= rules.len() + 1, "position {at} of {}", rules.len());
        rules.insert(at - 1, found);
    }

    fn find(&mut self, table: Table, name: &str) -> Option<&mut FoundChain> {
        self.0
            .iter_mut()
            .find(|c| c.table == table && c.name == name)
    }

    /// The order of user chains is of no meaning.
    fn sorted(mut self) -> Kernel {
        self.0.sort_by_key(|c| (c.table, c.name.clone()));
        self
    }

    fn without(&self, mark: &str) -> Kernel {
        let mut copy = self.clone();
        for chain in &mut copy.0 {
            chain.rules.retain(|r| !r.spec.contains(mark));
        }
        copy
    }

    fn only(&self, mark: &str) -> Vec<(String, String)> {
        let rules = self
            .0
            .iter()
            .flat_map(|c| c.rules.iter().map(|r| (c.name.clone(), r.spec.clone())));
        rules.filter(|(_, spec)| spec.contains(mark)).collect()
    }
}

fn random_model(rng: &mut StdRng, profile: Profile) -> Model {
    let mut model = model(profile);
    for n in 0..rng.random_range(0..5u8) {
        grow_network(&mut model, rng, n);
    }
    for n in 0..rng.random_range(0..8u16) {
        grow_endpoint(&mut model, rng, n);
    }
    model
}

fn grow_network(model: &mut Model, rng: &mut StdRng, n: u8) {
    let subnet = format!("10.99.{n}.0/24");
    let network = add_network(model, &format!("net{n}"), &subnet, &format!("cr-{n:012x}"));
    network.internal = rng.random_bool(0.2);
    network.icc = rng.random_bool(0.8);
    if rng.random_bool(0.5) {
        network.v6 = Some(V6 {
            subnet: format!("fd00:{n}::/64").parse().unwrap(),
            gateway: format!("fd00:{n}::1").parse().unwrap(),
            ip_range: None,
        });
    }
    let modes = ["routed", "nat-unprotected"];
    for (key, value) in [
        (OPTION_MASQUERADE, "false"),
        (OPTION_GATEWAY_MODE_V4, modes[rng.random_range(0..2)]),
        (OPTION_GATEWAY_MODE_V6, modes[rng.random_range(0..2)]),
        (OPTION_TRUSTED_INTERFACES, "wg0:tailscale0"),
    ] {
        if rng.random_bool(0.2) {
            network.options.push((key.into(), value.into()));
        }
    }
}

fn grow_endpoint(model: &mut Model, rng: &mut StdRng, n: u16) {
    let network = model.networks[rng.random_range(0..model.networks.len())]
        .name
        .clone();
    let addresses = [
        None,
        Some("0.0.0.0"),
        Some("127.0.0.1"),
        Some("192.0.2.1"),
        Some("::"),
        Some("::1"),
        Some("2001:db8::1"),
    ];
    let ports: Vec<_> = (0..rng.random_range(0..4u16))
        .map(|p| {
            let ip = addresses[rng.random_range(0..addresses.len())];
            let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp][rng.random_range(0..3)];
            let host_port = 1000 + n * 100 + p * 10;
            // Few container ports, so that rules coincide.
            let container_port = rng.random_range(80..83);
            let count = rng.random_range(1..4);
            PortMap {
                listener: rng.random_bool(0.3).then_some(40_000 + host_port),
                ..map(ip, host_port, container_port, count, protocol)
            }
        })
        .collect();
    add_endpoint(model, &format!("c{n}"), &network, &ports);
    let endpoint = model.endpoints.last_mut().unwrap();
    let v6 = model
        .networks
        .iter()
        .find(|n| n.id == endpoint.network_id)
        .and_then(|n| n.v6);
    endpoint.address6 = v6.map(|v6| v6.subnet.hosts().nth(usize::from(n) + 2).unwrap());
}

/// Takes some away and adds some, as a life does; what stays keeps its order.
fn changed(rng: &mut StdRng, before: &Model) -> Model {
    let mut after = before.clone();
    after.endpoints.retain(|_| rng.random_bool(0.6));
    let used: HashSet<String> = after
        .endpoints
        .iter()
        .map(|e| e.network_id.clone())
        .collect();
    after
        .networks
        .retain(|n| n.name == "bridge" || used.contains(&n.id) || rng.random_bool(0.6));
    if rng.random_bool(0.5) {
        grow_network(&mut after, rng, 50);
    }
    for n in 0..rng.random_range(0..3) {
        grow_endpoint(&mut after, rng, 50 + n);
    }
    after
}

/// Names the chains that differ.
fn assert_same(found: &Kernel, wanted: &Kernel) {
    for chain in &wanted.0 {
        let other = found
            .0
            .iter()
            .find(|c| c.table == chain.table && c.name == chain.name);
        let specs = |c: &FoundChain| c.rules.iter().map(|r| r.spec.clone()).collect::<Vec<_>>();
        assert_eq!(
            other.map(specs),
            Some(specs(chain)),
            "{} {}",
            chain.table.as_str(),
            chain.name
        );
    }
    assert_eq!(found.0.len(), wanted.0.len());
}

fn for_many(check: impl Fn(&mut StdRng, Profile, Family)) {
    for seed in 0..400 {
        let mut rng = StdRng::seed_from_u64(seed);
        let profile = [Profile::Coracle, Profile::Docker][usize::from(rng.random_bool(0.5))];
        let family = Family::ALL[usize::from(rng.random_bool(0.5))];
        eprintln!("seed {seed}, {profile:?}, {family:?}");
        check(&mut rng, profile, family);
    }
}

#[test]
fn what_is_written_reads_back_as_itself() {
    for_many(|rng, profile, family| {
        let rules = ruleset(&random_model(rng, profile), family);
        let chains = parse(&render_save(&rules, &TABLES, "DROP"));
        for chain in &rules.chains {
            let found = chains
                .iter()
                .find(|c| c.table == chain.table && c.name == chain.name);
            let read: Vec<_> =
                found.map_or(vec![], |c| c.rules.iter().map(|r| r.spec.clone()).collect());
            let written: Vec<_> = chain.rules.iter().map(spec).collect();
            assert_eq!(read, written);
            let comments: Vec<_> = chain.rules.iter().map(|r| r.comment.clone()).collect();
            let read: Vec<_> = found.map_or(vec![], |c| {
                c.rules.iter().map(|r| r.comment.clone()).collect()
            });
            assert_eq!(read, comments);
        }
    });
}

#[test]
fn no_two_rules_of_a_chain_are_the_same() {
    for_many(|rng, profile, family| {
        for chain in ruleset(&random_model(rng, profile), family).chains {
            let specs: HashSet<_> = chain.rules.iter().map(spec).collect();
            assert_eq!(specs.len(), chain.rules.len(), "{}", chain.name);
        }
    });
}

#[test]
fn planning_what_is_there_is_empty() {
    for_many(|rng, profile, family| {
        let model = random_model(rng, profile);
        let none = HashSet::new();
        assert_eq!(plan::between(&model, &model, IPTABLES, &none), []);
        let rules = ruleset(&model, family);
        let mending = mend(
            &Kernel::of(&rules).0,
            &rules,
            Goal::Stand,
            &Default::default(),
            &Default::default(),
        );
        assert!(mending.forward.is_empty(), "{:?}", mending.forward);
    });
}

#[test]
fn a_difference_applied_equals_writing_anew_and_its_inverse_restores() {
    for_many(|rng, profile, family| {
        let before = random_model(rng, profile);
        let after = changed(rng, &before);
        let (old, new) = (ruleset(&before, family), ruleset(&after, family));
        let mut kernel = Kernel::of(&old);
        kernel.run(&delta(&old, &new));
        assert_same(&kernel, &Kernel::of(&new));
        kernel.run(&delta(&new, &old));
        assert_same(&kernel, &Kernel::of(&old));
    });
}

/// The plan's batch takes a short cut where only the newest containers and networks differ: it must write what the long way
/// writes.
#[test]
fn the_plans_batch_is_that_of_the_whole_difference() {
    for_many(|rng, profile, _| {
        let before = random_model(rng, profile);
        let mut after = changed(rng, &before);
        if rng.random_bool(0.7) {
            after = before.clone();
            let (network, container) = (rng.random_bool(0.5), rng.random_bool(0.5));
            if network {
                grow_network(&mut after, rng, 60);
            }
            if container || !network {
                grow_endpoint(&mut after, rng, 60);
            }
        }
        for (from, to) in [(&before, &after), (&after, &before)] {
            let ops = plan::between(from, to, IPTABLES, &HashSet::new());
            let batch = ops.iter().find_map(|op| match op {
                plan::Op::Rules(batch) if batch.tool == Tool::Iptables => {
                    Some((batch.forward.clone(), batch.inverse.clone()))
                }
                _ => None,
            });
            let (old, new) = (ruleset(from, Family::V4), ruleset(to, Family::V4));
            let whole = (delta(&old, &new).render(), delta(&new, &old).render());
            assert_eq!(batch.unwrap_or_default(), whole);
        }
    });
}

/// Foreign rules anywhere among ours: they stay, in their order, and ours stay in theirs.
#[test]
fn others_rules_stay_through_any_change() {
    for_many(|rng, profile, family| {
        let before = random_model(rng, profile);
        let after = changed(rng, &before);
        let (old, new) = (ruleset(&before, family), ruleset(&after, family));
        let mut kernel = Kernel::of(&old);
        sprinkle(rng, &mut kernel);
        let foreign = kernel.only("eth9");
        kernel.run(&delta(&old, &new));
        assert_eq!(kernel.only("eth9"), foreign);
        // Ordered rules are in order; for the others it is enough that they are there.
        let mending = mend(
            &kernel.0,
            &new,
            Goal::Stand,
            &Default::default(),
            &Default::default(),
        );
        kernel.run(&mending.forward);
        assert_same(&kernel.without("eth9"), &Kernel::of(&new));
        assert_eq!(kernel.only("eth9"), foreign);
    });
}

fn sprinkle(rng: &mut StdRng, kernel: &mut Kernel) {
    for (table, chain) in [
        (Table::Filter, "FORWARD"),
        (Table::Nat, "POSTROUTING"),
        (Table::Nat, "PREROUTING"),
        (Table::Raw, "PREROUTING"),
    ] {
        for n in 0..rng.random_range(0..4) {
            let at = rng.random_range(0..=kernel.find(table, chain).unwrap().rules.len()) + 1;
            kernel.insert(
                table,
                chain,
                Some(at),
                &format!("-i eth9 -p tcp -m tcp --sport {n} -j ACCEPT"),
            );
        }
    }
}

#[test]
fn any_damage_is_mended_and_the_mending_undone() {
    for_many(|rng, profile, family| {
        let rules = ruleset(&random_model(rng, profile), family);
        let mut kernel = match rng.random_bool(0.1) {
            true => Kernel::empty(),
            false => Kernel::of(&rules),
        };
        sprinkle(rng, &mut kernel);
        damage(rng, &mut kernel);
        let damaged = kernel.clone();
        let mending = mend(
            &kernel.0,
            &rules,
            Goal::Stand,
            &Default::default(),
            &Default::default(),
        );
        kernel.run(&mending.forward);
        assert_same(
            &kernel.without("eth9").sorted(),
            &Kernel::of(&rules).sorted(),
        );
        assert_eq!(kernel.only("eth9"), damaged.only("eth9"));
        kernel.run(&mending.inverse);
        assert_same(&kernel.sorted(), &damaged.sorted());
    });
}

fn damage(rng: &mut StdRng, kernel: &mut Kernel) {
    for _ in 0..rng.random_range(0..6) {
        let at = rng.random_range(0..kernel.0.len());
        let chain = &mut kernel.0[at];
        if chain.name.ends_with("-USER") || chain.rules.is_empty() {
            continue;
        }
        let rule = rng.random_range(0..chain.rules.len());
        if chain.rules[rule].spec.contains("eth9") {
            continue;
        }
        match rng.random_range(0..4) {
            0 => {
                chain.rules.remove(rule);
            }
            1 => {
                let copy = chain.rules[rule].clone();
                let to = rng.random_range(0..=chain.rules.len());
                chain.rules.insert(to, copy);
            }
            2 => {
                let other = rng.random_range(0..chain.rules.len());
                if !chain.rules[other].spec.contains("eth9") {
                    chain.rules.swap(rule, other);
                }
            }
            _ => chain.rules.retain(|r| r.spec.contains("eth9")),
        }
    }
}

#[test]
fn taking_all_away_leaves_others_rules_only_and_can_be_undone() {
    for_many(|rng, profile, family| {
        let rules = ruleset(&random_model(rng, profile), family);
        let mut kernel = Kernel::of(&rules);
        sprinkle(rng, &mut kernel);
        let before = kernel.clone();
        let mending = mend(
            &kernel.0,
            &rules,
            Goal::Gone,
            &Default::default(),
            &Default::default(),
        );
        kernel.run(&mending.forward);
        assert_same(&kernel.without("eth9").sorted(), &Kernel::empty().sorted());
        assert_eq!(kernel.only("eth9"), before.only("eth9"));
        assert!(mending.notes.is_empty());
        kernel.run(&mending.inverse);
        assert_same(&kernel.sorted(), &before.sorted());
    });
}

/// What comes or goes costs the same few lines however much else there is, and what comes is appended or inserted at the
/// top: nothing of it makes iptables read a chain.
#[test]
fn the_batch_of_a_change_does_not_grow_with_what_else_runs() {
    for family in Family::ALL {
        let lines = |others: u8, grow: &dyn Fn(&mut Model)| {
            let mut before = model(Profile::Coracle);
            before.networks[0].v6 = Some(V6 {
                subnet: "fd01::/64".parse().unwrap(),
                gateway: "fd01::1".parse().unwrap(),
                ip_range: None,
            });
            for n in 0..others {
                busy_network(&mut before, n);
            }
            let mut after = before.clone();
            grow(&mut after);
            let (old, new) = (ruleset(&before, family), ruleset(&after, family));
            let (come, go) = (delta(&old, &new), delta(&new, &old));
            let cheap = |line: &Line| matches!(line, Line::Append(..) | Line::Insert(_, 1, _));
            for line in TABLES.iter().flat_map(|&table| come.lines(table)) {
                assert!(cheap(line), "{line:?}");
            }
            [come, go].map(|script| TABLES.map(|table| script.lines(table).len()))
        };
        let container = |m: &mut Model| {
            let big = map(None, 5000, 5000, 60_000, Protocol::Tcp);
            add_endpoint(m, "new", "bridge", &[big]);
            m.endpoints.last_mut().unwrap().address6 = Some("fd01::9".parse().unwrap());
        };
        // Docker's three rules, none of the raw table.
        assert_eq!(lines(0, &container), [[0, 1, 2]; 2]);
        assert_eq!(lines(200, &container), [[0, 1, 2]; 2]);
        let silent = |m: &mut Model| add_endpoint(m, "new", "bridge", &[]);
        assert_eq!(lines(200, &silent), [[0, 0, 0]; 2]);
        let network = |m: &mut Model| busy_network(m, 250);
        assert_eq!(lines(0, &network), lines(200, &network));
        let internal = |m: &mut Model| {
            busy_network(m, 250);
            m.networks.last_mut().unwrap().internal = true;
        };
        assert_eq!(lines(0, &internal), lines(200, &internal));
    }
}

/// A network of both families with a container that publishes a port on every address, one on a loopback address, and a
/// run with one listener.
fn busy_network(model: &mut Model, n: u8) {
    let (name, first) = (format!("n{n}"), 10_000 + u16::from(n));
    let subnet = format!("10.99.{n}.0/24");
    let network = add_network(model, &name, &subnet, &format!("cr-{n:012x}"));
    network.v6 = Some(V6 {
        subnet: format!("fd00:{n}::/64").parse().unwrap(),
        gateway: format!("fd00:{n}::1").parse().unwrap(),
        ip_range: None,
    });
    let run = PortMap {
        listener: Some(first + 40_000),
        ..map(None, first + 1_000, 80, 1, Protocol::Tcp)
    };
    let ports = [
        map(None, first, 80, 1, Protocol::Tcp),
        map(Some("127.0.0.1"), first + 2_000, 80, 1, Protocol::Tcp),
        map(Some("::1"), first + 3_000, 80, 1, Protocol::Tcp),
        run,
    ];
    add_endpoint(model, &format!("c{n}"), &name, &ports);
    let address = format!("fd00:{n}::2").parse().unwrap();
    model.endpoints.last_mut().unwrap().address6 = Some(address);
}
