//! Properties of the deltas that hold for any change, tried on generated ones against a model of the table's elements.

mod common;
mod situations;

use std::collections::BTreeMap;

use common::{add_endpoint, add_network, in_own_netns, map};
use netmgr::firewall::mend::Goal;
use netmgr::firewall::nftables::{
    Element, Elements, Guard, delta, differences, elements, mend, parse, render_elements,
};
use netmgr::kernel::commands::nft;
use netmgr::model::{OPTION_GATEWAY_MODE_V4, OPTION_MASQUERADE, OPTION_TRUSTED_INTERFACES};
use netmgr::{Model, PortMap, Protocol, V6};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The sets of the table as far as a batch can tell: an add of what is there and a delete of what is not fail, as in the
/// kernel a delete does and an add with another value.
#[derive(Clone, Debug, Default, PartialEq)]
struct Kernel(BTreeMap<(String, String), (Option<String>, String)>);

impl Kernel {
    fn of(elements: &Elements) -> Kernel {
        let mut kernel = Kernel::default();
        kernel.run(&render_elements(elements));
        kernel
    }

    fn run(&mut self, batch: &str) {
        let mut at: Option<(String, String)> = None;
        for line in batch.lines() {
            let line = line.trim();
            let words: Vec<&str> = line.splitn(6, ' ').collect();
            if let [
                verb @ ("add" | "delete"),
                "element",
                "inet",
                "coracle",
                set,
                rest,
            ] = words.as_slice()
            {
                let place = (verb.to_string(), set.to_string());
                match rest.trim_start_matches("{ ").strip_suffix(" }") {
                    Some(one) => self.element(&place, one),
                    None => at = Some(place),
                }
            } else if line == "}" {
                at = None;
            } else {
                let place = at.clone().unwrap_or_else(|| panic!("not in a set: {line}"));
                self.element(&place, line.trim_end_matches(','));
            }
        }
    }

    fn element(&mut self, (verb, set): &(String, String), text: &str) {
        let (key, data, comment) = match text.split_once(" comment \"") {
            Some((key, rest)) => {
                let (comment, rest) = rest.split_once('"').unwrap();
                (key, rest.strip_prefix(" : ").map(str::to_owned), comment)
            }
            None => (text, None, ""),
        };
        let place = (set.clone(), key.to_owned());
        match verb.as_str() {
            "add" => {
                let old = self.0.insert(place, (data, comment.to_owned()));
                assert_eq!(old, None, "{set} has {key} already");
            }
            _ => assert!(self.0.remove(&place).is_some(), "{set} has no {key}"),
        }
    }
}

struct World {
    random: StdRng,
    model: Model,
    /// Ever growing, so that host ports are never given twice.
    next: u16,
}

impl World {
    fn new(seed: u64) -> World {
        World {
            random: StdRng::seed_from_u64(seed),
            model: situations::default_only(),
            next: 1,
        }
    }

    fn below(&mut self, end: usize) -> usize {
        self.random.random_range(0..end)
    }

    fn chance(&mut self) -> bool {
        self.random.random_range(0..2) == 0
    }

    fn serial(&mut self) -> u16 {
        self.next += 1;
        self.next
    }

    fn step(&mut self) {
        match self.below(7) {
            0 => self.network(),
            1 | 2 => self.endpoint(),
            3 if !self.model.endpoints.is_empty() => {
                let at = self.below(self.model.endpoints.len());
                self.model.endpoints.remove(at);
            }
            4 if self.model.networks.len() > 1 => {
                let at = 1 + self.below(self.model.networks.len() - 1);
                let gone = self.model.networks.remove(at);
                self.model.endpoints.retain(|e| e.network_id != gone.id);
            }
            5 if !self.model.endpoints.is_empty() => {
                let at = self.below(self.model.endpoints.len());
                self.model.endpoints[at].ports = self.ports();
                self.model.endpoints[at].container_name = format!("new{}", self.next);
            }
            6 => {
                let at = self.below(self.model.networks.len());
                let (icc, internal) = (self.chance(), self.chance());
                let network = &mut self.model.networks[at];
                (network.icc, network.internal) = (icc, internal);
            }
            _ => {}
        }
    }

    fn network(&mut self) {
        let n = self.serial();
        let (has_v6, options) = (self.chance(), self.below(5));
        let subnet = format!("10.{}.{}.0/24", 64 + n / 256, n % 256);
        let name = format!("n{n}");
        let network = add_network(&mut self.model, &name, &subnet, &format!("cr-{n:012x}"));
        if has_v6 {
            network.v6 = Some(V6 {
                subnet: format!("fd00:{n:x}::/64").parse().unwrap(),
                gateway: format!("fd00:{n:x}::1").parse().unwrap(),
                ip_range: None,
            });
        }
        let option = match options {
            0 => (OPTION_GATEWAY_MODE_V4, "routed"),
            1 => (OPTION_GATEWAY_MODE_V4, "nat-unprotected"),
            2 => (OPTION_MASQUERADE, "false"),
            3 => (OPTION_TRUSTED_INTERFACES, "wg0:\"; flush ruleset:tail*"),
            _ => return,
        };
        network.options = vec![(option.0.to_owned(), option.1.to_owned())];
    }

    fn endpoint(&mut self) {
        let n = self.serial();
        let at = self.below(self.model.networks.len());
        let network = self.model.networks[at].clone();
        let ports = self.ports();
        add_endpoint(&mut self.model, &format!("c{n}"), &network.name, &ports);
        let newest = self.model.endpoints.last_mut().unwrap();
        newest.address6 = network.v6.map(|v6| {
            let net: u128 = v6.subnet.network().into();
            (net + 16 + u128::from(n)).into()
        });
    }

    fn ports(&mut self) -> Vec<PortMap> {
        let count = self.below(4);
        (0..count).map(|_| self.port()).collect()
    }

    fn port(&mut self) -> PortMap {
        let host = 20 * self.serial();
        let count = [1, 1, 2, 10][self.below(4)];
        let container = [host, 80, 85][self.below(3)];
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp][self.below(3)];
        let ips = [
            None,
            Some("0.0.0.0"),
            Some("::"),
            Some("192.0.2.1"),
            Some("127.0.0.1"),
            Some("::1"),
        ];
        let ip = ips[self.below(ips.len())];
        let listener = self.chance().then_some(40_000);
        PortMap {
            listener,
            ..map(ip, host, container, count, protocol)
        }
    }
}

#[test]
fn a_delta_leads_to_the_wanted_elements_and_its_inverse_back() {
    let mut changes = 0;
    for seed in 0..150 {
        let mut world = World::new(seed);
        let mut kernel = Kernel::of(&elements(&world.model, Guard::default()));
        for step in 0..25 {
            let before = world.model.clone();
            for _ in 0..=world.below(2) {
                world.step();
            }
            let wanted = Kernel::of(&elements(&world.model, Guard::default()));
            let Some(batch) = delta(&before, &world.model) else {
                assert_eq!(kernel, wanted, "seed {seed}, step {step}");
                continue;
            };
            changes += 1;
            let mut there = kernel.clone();
            there.run(&batch.forward);
            assert_eq!(there, wanted, "seed {seed}, step {step}\n{}", batch.forward);
            let mut back = there.clone();
            back.run(&batch.inverse);
            assert_eq!(back, kernel, "seed {seed}, step {step}\n{}", batch.inverse);
            kernel = there;
        }
    }
    assert!(changes > 1_000, "only {changes} changes");
}

/// The same walk on the real kernel, which has its own mind about overlaps and replacements.
#[test]
fn deltas_lead_the_kernel_to_a_table_with_nothing_to_mend() {
    for seed in 0..4 {
        in_own_netns(move || {
            let mut world = World::new(seed);
            let guard = Guard::default();
            let start = mend(None, &world.model, guard, Goal::Stand);
            nft::apply(&start.forward).unwrap();
            for step in 0..30 {
                let before = world.model.clone();
                world.step();
                if let Some(batch) = delta(&before, &world.model) {
                    for text in [&batch.forward, &batch.inverse, &batch.forward] {
                        let failed = |e| panic!("seed {seed}, step {step}: {e}\n{text}");
                        nft::apply(text).unwrap_or_else(failed);
                    }
                }
                let found = parse(&nft::list().unwrap().unwrap()).unwrap();
                let told = differences(Some(&found), &world.model, guard);
                assert_eq!(told, Vec::<String>::new(), "seed {seed}, step {step}");
            }
        });
    }
}

/// Whatever a user calls things, a batch holds nothing but what it says: the names end up in words of one line.
#[test]
fn names_cannot_break_out_of_their_place() {
    for seed in 0..50 {
        let mut world = World::new(seed);
        for _ in 0..20 {
            world.step();
        }
        for endpoint in &mut world.model.endpoints {
            endpoint.container_name = "x\" } ; flush ruleset\n# ".to_owned();
        }
        let all = elements(&world.model, Guard::default());
        assert!(
            !render_elements(&all).contains("flush ruleset"),
            "seed {seed}"
        );
        let quotes = |e: &Element| e.comment.contains('"') || e.comment.contains('\n');
        assert!(!all.values().any(quotes), "seed {seed}");
    }
}
