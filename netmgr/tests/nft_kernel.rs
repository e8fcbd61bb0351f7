//! The nftables backend on the real kernel, in a network namespace for each test.

mod common;
mod situations;

use std::time::{Duration, Instant};

use common::{add_endpoint, command, in_own_netns, map};
use netmgr::firewall::mend::Goal;
use netmgr::firewall::nftables::{FoundTable, Guard, delta, differences, guard_delta, mend, parse};
use netmgr::kernel::commands::nft;
use netmgr::{Model, Protocol};

const GUARD: Guard = Guard {
    v4: true,
    v6: false,
};

fn found() -> Option<FoundTable> {
    nft::list().unwrap().map(|json| parse(&json).unwrap())
}

/// What people would compare: handles are of no meaning, nor is the order of chains and of elements.
fn listing() -> String {
    found().map_or_else(String::new, |table| format!("{table:#?}"))
}

fn stand(model: &Model) {
    let mending = mend(found().as_ref(), model, GUARD, Goal::Stand);
    if !mending.is_empty() {
        nft::apply(&mending.forward).unwrap_or_else(|e| panic!("{e}\n{}", mending.forward));
    }
}

fn assert_stands(model: &Model, what: &str) {
    let found = found();
    assert_eq!(
        differences(found.as_ref(), model, GUARD),
        Vec::<String>::new(),
        "{what}"
    );
    let mending = mend(found.as_ref(), model, GUARD, Goal::Stand);
    assert_eq!(mending.forward, "", "{what}");
}

fn damage(line: &str) {
    nft::apply(line).unwrap_or_else(|e| panic!("{line}: {e}"));
}

#[test]
fn every_situation_stands_after_it_was_applied_and_goes_without_a_trace() {
    for (name, make) in situations::ALL {
        in_own_netns(move || {
            let model = make();
            assert_eq!(found(), None, "{name}");
            stand(&model);
            assert_stands(&model, name);
            let gone = mend(found().as_ref(), &model, GUARD, Goal::Gone);
            let before = listing();
            nft::apply(&gone.forward).unwrap();
            assert_eq!(command("nft", &["list", "ruleset"]), "", "{name}");
            nft::apply(&gone.inverse).unwrap();
            assert_eq!(listing(), before, "{name}");
        });
    }
}

/// From each situation to the next by its delta, and back by its inverse.
#[test]
fn a_delta_leads_to_the_next_situation_and_its_inverse_back() {
    in_own_netns(|| {
        let models: Vec<Model> = situations::ALL.iter().map(|(_, make)| make()).collect();
        stand(&models[0]);
        let mut there = &models[0];
        for (model, (name, _)) in models.iter().zip(situations::ALL).skip(1) {
            if let Some(batch) = delta(there, model) {
                let before = listing();
                nft::apply(&batch.forward).unwrap_or_else(|e| panic!("{name}: {e}"));
                assert_stands(model, name);
                nft::apply(&batch.inverse).unwrap_or_else(|e| panic!("{name} back: {e}"));
                assert_eq!(listing(), before, "{name} back");
                nft::apply(&batch.forward).unwrap();
            }
            there = model;
        }
    });
}

/// Everything at once, so that every set has elements.
fn full() -> Model {
    let mut m = situations::two_networks();
    let ports = [
        map(None, 1000, 1000, 10, Protocol::Udp),
        map(Some("127.0.0.1"), 9090, 90, 1, Protocol::Tcp),
        map(Some("192.0.2.1"), 7000, 7100, 3, Protocol::Tcp),
    ];
    add_endpoint(&mut m, "more", "web", &ports);
    m
}

const DAMAGES: [(&str, &str); 19] = [
    ("the table is gone", "delete table inet coracle"),
    ("all rules are gone", "flush table inet coracle"),
    ("the ruleset is gone", "flush ruleset"),
    ("a chain is empty", "flush chain inet coracle into-network"),
    ("a chain is gone", "delete chain inet coracle forward"),
    (
        "another chain",
        "add chain inet coracle stray { type filter hook input priority 0; policy drop; }",
    ),
    (
        "another hook",
        "delete chain inet coracle forward\nadd chain inet coracle forward { type filter hook input priority 7; policy accept; }",
    ),
    (
        "another policy",
        "add chain inet coracle forward { type filter hook forward priority -5; policy drop; }",
    ),
    (
        "a rule too many",
        "add rule inet coracle forward ip saddr 192.0.2.9 drop",
    ),
    (
        "a rule of unknown words",
        "insert rule inet coracle forward limit rate 1/second accept",
    ),
    (
        "a rule twice",
        "add rule inet coracle forward meta nfproto @guarded drop comment \"coracle: forwarding was turned on for our networks alone\"",
    ),
    (
        "an element is gone",
        "delete element inet coracle dnat4 { tcp . 8080 }",
    ),
    (
        "a run is gone",
        "delete element inet coracle runs4 { udp . 1000-1009 }",
    ),
    ("a set is empty", "flush set inet coracle bridges"),
    (
        "an element too many",
        "add element inet coracle dnat4 { tcp . 1 : 10.201.0.9 . 22 }",
    ),
    (
        "another value",
        "delete element inet coracle dnat4 { tcp . 8080 }\nadd element inet coracle dnat4 { tcp . 8080 : 10.201.0.9 . 22 }",
    ),
    (
        "another comment",
        "delete element inet coracle bridges { \"coracle0\" }\nadd element inet coracle bridges { \"coracle0\" comment \"mine\" }",
    ),
    (
        "another set",
        "add set inet coracle stray { type ipv4_addr; flags interval; size 99; }\nadd element inet coracle stray { 10.0.0.0/8 }",
    ),
    (
        "another type",
        "flush chain inet coracle into-network\ndelete set inet coracle open\nadd set inet coracle open { type ipv4_addr; }",
    ),
];

#[test]
fn damage_of_each_kind_is_told_and_mended() {
    for (what, line) in DAMAGES {
        in_own_netns(move || {
            let model = full();
            stand(&model);
            damage(line);
            let told = differences(found().as_ref(), &model, GUARD);
            assert!(!told.is_empty(), "{what}");
            let broken = listing();
            let mending = mend(found().as_ref(), &model, GUARD, Goal::Stand);
            nft::apply(&mending.forward)
                .unwrap_or_else(|e| panic!("{what}: {e}\n{}", mending.forward));
            assert_stands(&model, what);
            nft::apply(&mending.inverse)
                .unwrap_or_else(|e| panic!("{what}, back: {e}\n{}", mending.inverse));
            if what == "a rule of unknown words" {
                assert_eq!(mending.notes.len(), 1, "{what}");
            } else {
                assert_eq!(listing(), broken, "{what}, back");
                assert_eq!(mending.notes, Vec::<String>::new(), "{what}");
            }
        });
    }
}

#[test]
fn a_dormant_table_is_woken_and_then_mended() {
    in_own_netns(|| {
        let model = full();
        stand(&model);
        damage("flush set inet coracle bridges");
        damage("add table inet coracle { flags dormant; }");
        let told = differences(found().as_ref(), &model, GUARD);
        assert_eq!(told, ["table inet coracle is dormant"]);
        let mending = mend(found().as_ref(), &model, GUARD, Goal::Stand);
        nft::apply(&mending.forward).unwrap();
        nft::apply(&mending.inverse).unwrap();
        assert!(found().unwrap().dormant);
        stand(&model);
        assert!(!found().unwrap().dormant);
        stand(&model);
        assert_stands(&model, "woken");
    });
}

#[test]
fn a_guard_comes_and_goes_as_elements() {
    in_own_netns(|| {
        let model = situations::default_only();
        let none = Guard::default();
        let start = mend(None, &model, none, Goal::Stand);
        nft::apply(&start.forward).unwrap();
        let before = listing();
        assert_eq!(guard_delta(none, none), None);
        let batch = guard_delta(none, GUARD).unwrap();
        nft::apply(&batch.forward).unwrap();
        assert_stands(&model, "guarded");
        nft::apply(&batch.inverse).unwrap();
        assert_eq!(listing(), before);
    });
}

/// Whatever nft, or a listing cut short, hands us: an error or a table, never a panic.
#[test]
fn a_garbled_listing_is_an_error_and_no_panic() {
    in_own_netns(|| {
        stand(&full());
        let json = nft::list().unwrap().unwrap();
        assert!(parse(&json[..json.len() / 2]).is_err());
        assert!(parse("").is_err());
        assert!(parse("{}").is_err());
        let wrong = json.replace("\"concat\": [\"tcp\", 8080]", "\"concat\": [8080]");
        assert_ne!(json, wrong);
        assert!(parse(&wrong).is_err());
        for (from, to) in [
            ("[", "{"),
            (":", ","),
            ("\"rule\"", "\"set\""),
            ("8080", "{}"),
        ] {
            for (at, _) in json.match_indices(from).step_by(11) {
                let mut garbled = json.clone();
                garbled.replace_range(at..at + from.len(), to);
                let _ = parse(&garbled).map(|found| {
                    mend(Some(&found), &full(), GUARD, Goal::Stand);
                });
            }
        }
    });
}

#[test]
fn differences_say_which_element_of_which_map_it_is() {
    in_own_netns(|| {
        let model = situations::publish_tcp();
        stand(&model);
        damage("delete element inet coracle dnat4 { tcp . 8080 }");
        damage("flush set inet coracle guarded");
        assert_eq!(
            differences(found().as_ref(), &model, GUARD),
            [
                "element tcp . 8080 of map dnat4 is missing (coracle: container c1 (633100000000): port 8080/tcp)",
                "element ipv4 of set guarded is missing (coracle: what is not of our networks is not forwarded)",
            ]
        );
        damage("delete table inet coracle");
        assert_eq!(
            differences(None, &model, GUARD),
            ["table inet coracle is missing"]
        );
    });
}

/// The administrator's chain, with one of his own and a set that it looks into, survives whatever is mended around it.
#[test]
fn the_administrators_rules_survive_repair_and_removal() {
    let own = "add set inet coracle blocked { type ipv4_addr; }\n\
        add element inet coracle blocked { 198.51.100.7 }\n\
        add chain inet coracle office\n\
        add rule inet coracle office limit rate 3/second accept\n\
        add rule inet coracle CORACLE-USER ip saddr @blocked drop\n\
        add rule inet coracle CORACLE-USER jump office";
    let theirs = || {
        let chain = |name| command("nft", &["list", "chain", "inet", "coracle", name]);
        let set = command("nft", &["list", "set", "inet", "coracle", "blocked"]);
        chain("CORACLE-USER") + &chain("office") + &set
    };
    for (what, line) in DAMAGES {
        if line.contains("delete table")
            || line.contains("flush table")
            || line.contains("flush ruleset")
        {
            continue;
        }
        in_own_netns(move || {
            let model = full();
            stand(&model);
            damage(own);
            assert_stands(&model, "with rules of the administrator");
            let before = theirs();
            damage(line);
            stand(&model);
            assert_stands(&model, what);
            assert_eq!(theirs(), before, "{what}");
            let gone = mend(found().as_ref(), &model, GUARD, Goal::Gone);
            assert_eq!(gone.notes.len(), 1, "{:?}", gone.notes);
            let all = listing();
            nft::apply(&gone.forward).unwrap();
            nft::apply(&gone.inverse).unwrap();
            assert_eq!(listing(), all, "{what}, gone and back");
            nft::apply(&gone.forward).unwrap();
            assert_eq!(theirs(), before, "{what}, gone");
            let left = found().unwrap();
            let chains: Vec<&String> = left.chains.keys().collect();
            assert_eq!(chains, ["CORACLE-USER", "office"]);
            assert_eq!(left.sets.len(), 1);
            let again = mend(Some(&left), &model, GUARD, Goal::Gone);
            assert_eq!(again.forward, "", "gone twice");
            stand(&model);
            assert_stands(&model, "up again");
            assert_eq!(theirs(), before, "{what}, up again");
        });
    }
}

#[test]
fn a_transaction_that_fails_leaves_everything_and_names_the_line() {
    in_own_netns(|| {
        let model = situations::publish_tcp();
        stand(&model);
        let bad = "delete element inet coracle dnat4 { tcp . 8080 }\nadd element inet coracle nowhere { 1 }\n";
        let error = nft::apply(bad).unwrap_err().to_string();
        assert!(
            error.contains("at `add element inet coracle nowhere { 1 }`"),
            "{error}"
        );
        assert_stands(&model, "after a failure");
        let gone = "delete element inet coracle bridges { \"coracle0\" }\n\
            delete element inet coracle dnat4 { tcp . 4711 }\n";
        let error = nft::apply(gone).unwrap_err().to_string();
        assert!(error.contains("4711"), "{error}");
        assert_stands(&model, "after a failure of the kernel's");
    });
}

fn with_endpoints(count: u16) -> Model {
    let mut m = situations::default_only();
    for n in 0..count {
        let ports = [map(None, 10_000 + n, 80, 1, Protocol::Tcp)];
        add_endpoint(&mut m, &format!("c{n}"), "bridge", &ports);
    }
    m
}

/// The fastest of some runs: what the change itself costs, whatever else the machine does.
fn time_of_one_more(endpoints: u16) -> Duration {
    let before = with_endpoints(endpoints);
    let mut after = before.clone();
    let ports = [map(None, 9_000, 80, 1, Protocol::Tcp)];
    add_endpoint(&mut after, "one more", "bridge", &ports);
    stand(&before);
    let times = (0..15).map(|_| {
        let start = Instant::now();
        let batch = delta(&before, &after).unwrap();
        nft::apply(&batch.forward).unwrap();
        let time = start.elapsed();
        nft::apply(&batch.inverse).unwrap();
        time
    });
    times.min().unwrap()
}

#[test]
fn one_more_port_costs_the_same_beside_a_thousand_endpoints() {
    in_own_netns(|| {
        let alone = time_of_one_more(0);
        let crowded = time_of_one_more(1_000);
        println!("one more port: {alone:?} alone, {crowded:?} beside 1,000 endpoints");
        assert!(crowded < alone * 2, "{alone:?}, {crowded:?}");
    });
}

#[test]
fn sixty_thousand_ports_are_one_element_and_cost_what_one_port_costs() {
    in_own_netns(|| {
        let before = situations::default_only();
        stand(&before);
        let time = |count: u16| {
            let mut after = before.clone();
            let ports = [map(None, 1024, 1024, count, Protocol::Tcp)];
            add_endpoint(&mut after, "c1", "bridge", &ports);
            let batch = delta(&before, &after).unwrap();
            let times = (0..10).map(|_| {
                let start = Instant::now();
                nft::apply(&batch.forward).unwrap();
                let time = start.elapsed();
                assert_stands(&after, "a run");
                nft::apply(&batch.inverse).unwrap();
                time
            });
            times.min().unwrap()
        };
        let (one, run) = (time(1), time(60_000));
        println!("one port: {one:?}, 60,000 ports: {run:?}");
        assert!(run < one * 2, "{one:?}, {run:?}");
    });
}

#[test]
fn a_shifted_run_of_sixty_thousand_ports_is_one_transaction() {
    in_own_netns(|| {
        let before = situations::default_only();
        stand(&before);
        let mut after = before.clone();
        let ports = [map(None, 1024, 2024, 60_000, Protocol::Udp)];
        add_endpoint(&mut after, "c1", "bridge", &ports);
        let start = Instant::now();
        let batch = delta(&before, &after).unwrap();
        nft::apply(&batch.forward).unwrap();
        println!("60,000 shifted ports: {:?}", start.elapsed());
        assert_stands(&after, "a shifted run");
        nft::apply(&batch.inverse).unwrap();
        assert_stands(&before, "its inverse");
    });
}
