//! Properties of the rules that hold for any model, tried on generated ones against a model of iptables itself.

mod common;

use std::collections::HashSet;

use common::{add_endpoint, add_network, map, model};
use netmgr::firewall::diff::delta;
use netmgr::firewall::iptables::{FoundChain, Line, Script, parse, render_save, spec};
use netmgr::firewall::mend::{Goal, mend};
use netmgr::firewall::policy::ruleset;
use netmgr::firewall::ruleset::{Ruleset, Table};
use netmgr::plan::{self, Rules};
use netmgr::{Model, Profile, Protocol};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

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
    if rng.random_bool(0.2) {
        let key = "com.docker.network.bridge.enable_ip_masquerade";
        network.options.push((key.into(), "false".into()));
    }
}

fn grow_endpoint(model: &mut Model, rng: &mut StdRng, n: u16) {
    let network = model.networks[rng.random_range(0..model.networks.len())]
        .name
        .clone();
    let ports: Vec<_> = (0..rng.random_range(0..4u16))
        .map(|p| {
            let ip =
                [None, Some("127.0.0.1"), Some("192.0.2.1"), Some("::1")][rng.random_range(0..4)];
            let protocol = [Protocol::Tcp, Protocol::Udp][rng.random_range(0..2)];
            // Few container ports, so that rules coincide.
            map(
                ip,
                1000 + n * 100 + p * 10,
                rng.random_range(80..83),
                rng.random_range(1..4),
                protocol,
            )
        })
        .collect();
    add_endpoint(model, &format!("c{n}"), &network, &ports);
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

fn for_many(check: impl Fn(&mut StdRng, Profile)) {
    for seed in 0..400 {
        let mut rng = StdRng::seed_from_u64(seed);
        let profile = [Profile::Coracle, Profile::Docker][usize::from(rng.random_bool(0.5))];
        eprintln!("seed {seed}, {profile:?}");
        check(&mut rng, profile);
    }
}

#[test]
fn what_is_written_reads_back_as_itself() {
    for_many(|rng, profile| {
        let rules = ruleset(&random_model(rng, profile));
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
    for_many(|rng, profile| {
        for chain in ruleset(&random_model(rng, profile)).chains {
            let specs: HashSet<_> = chain.rules.iter().map(spec).collect();
            assert_eq!(specs.len(), chain.rules.len(), "{}", chain.name);
        }
    });
}

#[test]
fn planning_what_is_there_is_empty() {
    for_many(|rng, profile| {
        let model = random_model(rng, profile);
        let none = HashSet::new();
        assert_eq!(plan::between(&model, &model, Rules::Written, &none), []);
        let rules = ruleset(&model);
        let mending = mend(
            &Kernel::of(&rules).0,
            &rules,
            Goal::Stand,
            &Default::default(),
        );
        assert!(mending.forward.is_empty(), "{:?}", mending.forward);
    });
}

#[test]
fn a_difference_applied_equals_writing_anew_and_its_inverse_restores() {
    for_many(|rng, profile| {
        let before = random_model(rng, profile);
        let after = changed(rng, &before);
        let (old, new) = (ruleset(&before), ruleset(&after));
        let mut kernel = Kernel::of(&old);
        kernel.run(&delta(&old, &new));
        assert_same(&kernel, &Kernel::of(&new));
        kernel.run(&delta(&new, &old));
        assert_same(&kernel, &Kernel::of(&old));
    });
}

/// The plan's batch takes a short cut where only the newest containers differ: it must write what the long way writes.
#[test]
fn the_plans_batch_is_that_of_the_whole_difference() {
    for_many(|rng, profile| {
        let before = random_model(rng, profile);
        let mut after = changed(rng, &before);
        if rng.random_bool(0.5) {
            after = before.clone();
            grow_endpoint(&mut after, rng, 60);
        }
        for (from, to) in [(&before, &after), (&after, &before)] {
            let ops = plan::between(from, to, Rules::Written, &HashSet::new());
            let batch = ops.iter().find_map(|op| match op {
                plan::Op::Rules(batch) => Some((batch.forward.clone(), batch.inverse.clone())),
                _ => None,
            });
            let (old, new) = (ruleset(from), ruleset(to));
            let whole = (delta(&old, &new).render(), delta(&new, &old).render());
            assert_eq!(batch.unwrap_or_default(), whole);
        }
    });
}

/// Foreign rules anywhere among ours: they stay, in their order, and ours stay in theirs.
#[test]
fn others_rules_stay_through_any_change() {
    for_many(|rng, profile| {
        let before = random_model(rng, profile);
        let after = changed(rng, &before);
        let (old, new) = (ruleset(&before), ruleset(&after));
        let mut kernel = Kernel::of(&old);
        sprinkle(rng, &mut kernel);
        let foreign = kernel.only("eth9");
        kernel.run(&delta(&old, &new));
        assert_eq!(kernel.only("eth9"), foreign);
        // Ordered rules are in order; for the others it is enough that they are there.
        let mending = mend(&kernel.0, &new, Goal::Stand, &Default::default());
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
    for_many(|rng, profile| {
        let rules = ruleset(&random_model(rng, profile));
        let mut kernel = match rng.random_bool(0.1) {
            true => Kernel::empty(),
            false => Kernel::of(&rules),
        };
        sprinkle(rng, &mut kernel);
        damage(rng, &mut kernel);
        let damaged = kernel.clone();
        let mending = mend(&kernel.0, &rules, Goal::Stand, &Default::default());
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
    for_many(|rng, profile| {
        let rules = ruleset(&random_model(rng, profile));
        let mut kernel = Kernel::of(&rules);
        sprinkle(rng, &mut kernel);
        let before = kernel.clone();
        let mending = mend(&kernel.0, &rules, Goal::Gone, &Default::default());
        kernel.run(&mending.forward);
        assert_same(&kernel.without("eth9").sorted(), &Kernel::empty().sorted());
        assert_eq!(kernel.only("eth9"), before.only("eth9"));
        assert!(mending.notes.is_empty());
        kernel.run(&mending.inverse);
        assert_same(&kernel.sorted(), &before.sorted());
    });
}

/// A published port costs the same few lines however much else runs.
#[test]
fn the_batch_of_a_change_does_not_grow_with_what_else_runs() {
    let lines = |others: u16| {
        let mut before = model(Profile::Coracle);
        for n in 0..others {
            add_endpoint(
                &mut before,
                &format!("o{n}"),
                "bridge",
                &[map(None, 1000 + n, 80, 1, Protocol::Tcp)],
            );
        }
        let mut after = before.clone();
        let big = map(None, 5000, 5000, 60_000, Protocol::Tcp);
        add_endpoint(&mut after, "new", "bridge", &[big]);
        let (old, new) = (ruleset(&before), ruleset(&after));
        delta(&old, &new).render().lines().count()
    };
    assert_eq!(lines(0), lines(500));
    // Three tables with their frames, three rules of Docker's and one of the raw table.
    assert_eq!(lines(0), 3 * 2 + 3 + 1);
}
