//! A failure injected at every operation of any change, on a kernel of plain data: it is left as it was, exactly.
//!
//! The code that runs and takes back is the product's, [`netmgr::apply`]; only what it calls on is a model.

mod common;
mod model_kernel;

use std::collections::{BTreeMap, HashSet};

use model_kernel::world::{self, Effects, World};
use model_kernel::{Cut, Kernel, Link, Namespace, State, is_injected, rules};
use netmgr::firewall::mend::Goal;
use netmgr::firewall::nftables::Guard;
use netmgr::firewall::ruleset::Table;
use netmgr::plan::{self, Aim, Backend, Found, FoundLink, Op, RulesAim, Written};
use netmgr::{Model, Profile, apply};

const LIVES: u64 = 45;
const STEPS: usize = 14;

/// One life on one kernel: a backend, others' rules, and what stands of ours.
struct Life {
    world: World,
    kernel: Kernel,
    backend: Backend,
    /// `None`: nothing of ours is there yet.
    standing: Option<Written>,
    /// Others have rules between ours.
    is_shared: bool,
    is_damaged: bool,
}

/// What was tried.
#[derive(Default)]
struct Count {
    changes: usize,
    failures: usize,
    by_call: BTreeMap<&'static str, usize>,
}

impl Life {
    fn new(seed: u64) -> Life {
        let profile = [Profile::Coracle, Profile::Docker][seed as usize % 2];
        let mut world = World::new(seed, profile);
        let backend = match world.below(20) {
            0 => Backend::None,
            1..10 => Backend::Iptables,
            _ => Backend::Nftables,
        };
        let mut kernel = Kernel::new(backend == Backend::Iptables);
        for forwards in &mut kernel.state.forwarding {
            *forwards = world.chance(3);
        }
        let is_shared = world.chance(4);
        if is_shared {
            sprinkle(&mut world, &mut kernel.state);
        }
        Life {
            world,
            kernel,
            backend,
            standing: None,
            is_shared,
            is_damaged: false,
        }
    }

    fn wants_ipv6(&self, model: &Model) -> bool {
        model.has_v6() || self.standing.is_some_and(|written| written.ipv6)
    }

    /// As `Session::look` reads it.
    fn found(&self, state: &State, model: &Model) -> Found {
        let ipv6 = self.wants_ipv6(model);
        let rules = self.backend != Backend::None;
        let master = |link: &Link| match link {
            Link::Bridge(_) => None,
            Link::Veth { bridge, .. } => bridge.clone(),
        };
        Found {
            forwarding: state.forwarding[0],
            forwarding6: ipv6 && state.forwarding[1],
            turned_on: Guard {
                v4: state.turned_on[0].is_some(),
                v6: state.turned_on[1].is_some(),
            },
            links: state
                .links
                .iter()
                .map(|(name, link)| FoundLink {
                    name: name.clone(),
                    is_bridge: matches!(link, Link::Bridge(_)),
                    master: master(link),
                })
                .collect(),
            chains: rules.then(|| state.chains[0].clone()),
            chains6: (rules && ipv6).then(|| state.chains[1].clone()),
            nft: (self.backend == Backend::Nftables).then(|| state.nft.clone()),
            ..Found::default()
        }
    }

    /// As `Session::aim` has it.
    fn aim(&self, model: &Model) -> Aim {
        Aim {
            links: Goal::Stand,
            iptables: match self.backend {
                Backend::None => RulesAim::Gone,
                Backend::Iptables => RulesAim::Policy,
                Backend::Nftables => RulesAim::Passage,
            },
            nftables: match self.backend {
                Backend::Nftables => Goal::Stand,
                _ => Goal::Gone,
            },
            ipv6: self.wants_ipv6(model),
        }
    }

    /// The plan of a change, what stands after it, and whether the kernel was read for it.
    fn plan(
        &mut self,
        before: &Model,
        after: &Model,
        effects: &Effects,
    ) -> (Vec<Op>, Written, bool) {
        // Now and then the slow way, as when somebody had changed what is ours.
        let trusted = match self.standing {
            Some(written) if after.has_v6() && !written.ipv6 => None,
            _ if std::mem::take(&mut self.is_damaged) => None,
            standing => standing.filter(|_| self.world.chance(7)),
        };
        if let Some(written) = trusted {
            let ops = plan::between(before, after, written, &effects.by_kernel);
            return (ops, written, false);
        }
        let found = self.found(&self.kernel.state, after);
        let aim = self.aim(after);
        let mending = plan::from_found(&found, before, after, aim, &effects.by_kernel);
        let written = Written {
            backend: self.backend,
            ipv6: self.wants_ipv6(after),
            passage: mending.passage,
        };
        (mending.ops, written, true)
    }

    /// Somebody deletes a bridge by hand: the next plan looks.
    fn damage(&mut self, before: &Model, after: &Model) {
        let stays = |bridge: &str| {
            [before, after]
                .iter()
                .all(|m| m.networks.iter().any(|n| n.bridge == bridge))
        };
        let bridges: Vec<String> = self
            .kernel
            .state
            .links
            .keys()
            .filter(|name| stays(name))
            .cloned()
            .collect();
        if bridges.is_empty() || !self.world.chance(1) {
            return;
        }
        let gone = &bridges[self.world.below(bridges.len())];
        self.kernel.state.remove_link(gone);
        self.is_damaged = true;
    }

    fn step(&mut self, count: &mut Count, told: &str) {
        let before = self.world.model();
        let effects = self.world.edit();
        let after = self.world.model();
        self.damage(&before, &after);
        let (ops, written, is_read) = self.plan(&before, &after, &effects);
        let told = format!("{told}, {:?}\n{:?}\n{ops:#?}", self.backend, effects.edits);
        let netns = self.world.namespaces.clone();
        // A plan that has not read the kernel does not know between which rules of others ours stood: each keep their order.
        let comparable = |state: &State| match is_read || !self.is_shared {
            true => comparable(state),
            false => apart(&comparable(state)),
        };
        let was = comparable(&self.kernel.state);

        let mut kernel = self.kernel.clone();
        kernel.calls.clear();
        let done = apply::run_on(&mut kernel, &ops, &netns);
        done.unwrap_or_else(|error| panic!("{error}\n{told}"));
        for (call, (name, places)) in kernel.calls.iter().enumerate() {
            for tables in 0..*places {
                let cut = Cut { call, tables };
                let mut failing = self.kernel.failing_at(cut);
                let error = apply::run_on(&mut failing, &ops, &netns).unwrap_err();
                assert!(is_injected(&error), "{error} at {cut:?}\n{told}");
                assert_same(&comparable(&failing.state), &was, || {
                    format!("{cut:?} {name}, {told}")
                });
                count.failures += 1;
                *count.by_call.entry(name).or_default() += 1;
            }
        }
        // The transaction does not commit: all was done, and all goes back.
        let mut undone = kernel.clone();
        let undo = apply::roll_back_on(&mut undone, &ops, &netns);
        undo.unwrap_or_else(|error| panic!("{error}\n{told}"));
        assert_same(&comparable(&undone.state), &was, || {
            format!("all undone, {told}")
        });

        count.changes += usize::from(!ops.is_empty());
        self.kernel = kernel;
        self.standing = Some(written);
        for id in &effects.dying {
            self.kernel.destroy_namespace(&netns[id]);
            self.world.namespaces.remove(id);
        }
        self.assert_wanted(&after, &told);
    }

    /// The kernel holds what the model says, and nothing is left to be planned.
    fn assert_wanted(&self, after: &Model, told: &str) {
        let state = &self.kernel.state;
        let namespaces = &self.world.namespaces;
        assert_eq!(state.links, world::links(after, namespaces), "{told}");
        assert_eq!(state.reserved, world::reserved(after), "{told}");
        for (id, netns) in namespaces {
            let fd = std::os::fd::AsRawFd::as_raw_fd(netns.0.as_ref());
            let found = state.namespaces.get(&fd).cloned().unwrap_or_default();
            assert_eq!(found, world::namespace(after, id), "{told}");
        }
        let none = HashSet::new();
        let written = self.standing.unwrap();
        assert_eq!(plan::between(after, after, written, &none), [], "{told}");
        let (found, aim) = (self.found(state, after), self.aim(after));
        let mending = plan::from_found(&found, after, after, aim, &none);
        assert_eq!(mending.ops, [], "{told}");
        assert_eq!(mending.passage, written.passage, "{told}");
    }
}

/// The order in which chains are listed means nothing, nor does an empty namespace that was only looked at.
fn comparable(state: &State) -> State {
    let mut state = state.clone();
    for chains in &mut state.chains {
        chains.sort_by_key(|c| (c.table, c.name.clone()));
    }
    state
        .namespaces
        .retain(|_, namespace| *namespace != Namespace::default());
    state
}

/// Names the chain that differs: the whole is long.
fn assert_same(found: &State, was: &State, told: impl Fn() -> String) {
    let chains = |state: &State| state.chains.iter().flatten().cloned().collect::<Vec<_>>();
    for (found, was) in chains(found).into_iter().zip(chains(was)) {
        assert!(found == was, "{}\n{found:#?}\nwas {was:#?}", told());
    }
    assert!(found == was, "{}\n{found:#?}\nwas {was:#?}", told());
}

/// In each chain the rules of others after ours; those of ours that exclude each other (`Place::Tail`) in any order.
fn apart(state: &State) -> State {
    let mut state = state.clone();
    for chain in state.chains.iter_mut().flatten() {
        chain.rules.sort_by_key(|rule| {
            let is_tail = rule.spec.contains("reaches its own published port");
            let place = is_tail.then(|| rule.spec.clone());
            (rule.spec.contains(OTHERS), place)
        });
    }
    state
}

const OTHERS: &str = "-i eth9";

/// Rules of others in chains that we share, and a FORWARD that drops.
fn sprinkle(world: &mut World, state: &mut State) {
    for chains in &mut state.chains {
        for chain in chains.iter_mut() {
            let shared = [
                (Table::Filter, "FORWARD"),
                (Table::Nat, "POSTROUTING"),
                (Table::Nat, "PREROUTING"),
                (Table::Raw, "PREROUTING"),
            ];
            if !shared.contains(&(chain.table, chain.name.as_str())) {
                continue;
            }
            for n in 0..world.below(3) {
                let spec = format!("{OTHERS} -p tcp -m tcp --sport {n} -j ACCEPT");
                chain.rules.push(rules::rule(chain.table, &spec));
            }
            if chain.name == "FORWARD" && world.chance(3) {
                chain.policy = "DROP".into();
            }
        }
    }
}

#[test]
fn a_failure_at_any_operation_leaves_the_kernel_as_it_was() {
    let mut count = Count::default();
    for seed in 0..LIVES {
        let mut life = Life::new(seed);
        for step in 0..STEPS {
            life.step(&mut count, &format!("seed {seed}, step {step}"));
        }
    }
    println!(
        "{} failures injected into {} changes: {:?}",
        count.failures, count.changes, count.by_call
    );
    let often = count.by_call.values().filter(|n| **n >= 10).count();
    assert!(count.changes > 400 && often == 11, "{:?}", count.by_call);
}
