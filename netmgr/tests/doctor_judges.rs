//! The doctor's judgement on made-up facts: what other programs' rules mean for our traffic.

mod common;

use common::{add_endpoint, add_network, map, model};
use netmgr::doctor::{Bound, Facts, Finding, Interface, Save, Severity, judge};
use netmgr::firewall::iptables::render_save;
use netmgr::firewall::policy::ruleset;
use netmgr::firewall::ruleset::Table;
use netmgr::plan::Backend;
use netmgr::{Family, Model, Profile, Protocol};

fn web() -> Model {
    let mut model = model(Profile::Coracle);
    add_network(&mut model, "net", "10.77.0.0/24", "cr-net");
    add_endpoint(
        &mut model,
        "web",
        "net",
        &[map(None, 8080, 80, 1, Protocol::Tcp)],
    );
    model
}

/// A host on which all is as it should be.
fn healthy(model: &Model) -> Facts {
    let bridges = model.networks.iter().map(|n| Interface {
        name: n.bridge.clone(),
        kind: "bridge".into(),
        up: true,
        mtu: 1500,
        master: None,
        addresses: vec![
            format!("{}/{}", n.gateway, n.subnet.prefix_len())
                .parse()
                .unwrap(),
        ],
    });
    let veths = model.endpoints.iter().map(|e| Interface {
        name: e.host_interface.clone(),
        kind: "veth".into(),
        up: true,
        mtu: 1500,
        master: Some(model.network(&e.network_id).unwrap().bridge.clone()),
        addresses: vec![],
    });
    let tables = [Table::Raw, Table::Filter, Table::Nat];
    Facts {
        interfaces: bridges.chain(veths).collect(),
        sysctls: [("net/ipv4/ip_forward".to_owned(), "1\n".to_owned())].into(),
        saves: vec![Save {
            tool: "iptables",
            family: Family::V4,
            text: render_save(&ruleset(model, netmgr::Family::V4), &tables, "DROP"),
        }],
        uplink: Some("eth0".into()),
        ..Facts::default()
    }
}

fn complaints(model: &Model, facts: &Facts) -> Vec<Finding> {
    let mut found = judge(model, Backend::Iptables, facts);
    found.retain(|f| f.severity != Severity::Note);
    found
}

fn nft(objects: &str) -> String {
    format!("{{\"nftables\": [{objects}]}}")
}

fn named<'a>(found: &'a [Finding], text: &str) -> &'a Finding {
    let mut holding = found.iter().filter(|f| f.what.contains(text));
    holding
        .next()
        .unwrap_or_else(|| panic!("nothing says {text} in {found:#?}"))
}

#[test]
fn a_healthy_host_has_no_complaint_and_says_what_is_exposed() {
    let model = web();
    let facts = healthy(&model);
    assert_eq!(complaints(&model, &facts), []);
    let found = judge(&model, Backend::Iptables, &facts);
    named(
        &found,
        "port 8080/tcp of container web is reachable from anywhere",
    );
}

#[test]
fn doubled_rules_are_named() {
    let model = web();
    let mut facts = healthy(&model);
    let text = &mut facts.saves[0].text;
    let rule = text
        .lines()
        .find(|l| l.starts_with("-A CORACLE-FORWARD -o cr-net ") && l.ends_with("ACCEPT"))
        .unwrap()
        .to_owned();
    *text = text.replace(&rule, &format!("{rule}\n{rule}"));
    let found = complaints(&model, &facts);
    let finding = named(
        &found,
        "chain CORACLE-FORWARD: a rule of network net is there more than once",
    );
    assert!(finding.fixable);
}

/// The listing of firewalld's own table, as `nft -j` prints it, cut to what counts.
#[test]
fn firewalld_is_named_with_its_zone() {
    let model = web();
    let mut facts = healthy(&model);
    facts.nft = nft(
        r#"{"table": {"family": "inet", "name": "firewalld", "handle": 1}},
        {"chain": {"family": "inet", "table": "firewalld", "name": "filter_FORWARD", "handle": 2,
                   "type": "filter", "hook": "forward", "prio": 10, "policy": "accept"}},
        {"chain": {"family": "inet", "table": "firewalld", "name": "filter_FORWARD_POLICIES", "handle": 3}},
        {"rule": {"family": "inet", "table": "firewalld", "chain": "filter_FORWARD", "handle": 4, "expr": [
            {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": {"set": ["established", "related"]}}},
            {"accept": null}]}},
        {"rule": {"family": "inet", "table": "firewalld", "chain": "filter_FORWARD", "handle": 5, "expr": [
            {"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}}, {"accept": null}]}},
        {"rule": {"family": "inet", "table": "firewalld", "chain": "filter_FORWARD", "handle": 6, "expr": [
            {"jump": {"target": "filter_FORWARD_POLICIES"}}]}},
        {"rule": {"family": "inet", "table": "firewalld", "chain": "filter_FORWARD_POLICIES", "handle": 7, "expr": [
            {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "virbr0"}}, {"accept": null}]}},
        {"rule": {"family": "inet", "table": "firewalld", "chain": "filter_FORWARD", "handle": 8, "expr": [
            {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}]}}"#,
    );
    let found = complaints(&model, &facts);
    let finding = named(
        &found,
        "table inet firewalld, chain filter_FORWARD: rule with handle 8 drops",
    );
    assert_eq!(finding.severity, Severity::Error);
    assert!(finding.what.contains("reach the outside"), "{finding}");
    assert!(
        finding.advice.contains("--zone=trusted --add-interface="),
        "{finding}"
    );
    named(&found, "firewalld is running");
    // Published ports and answers pass: nothing else is complained of.
    assert_eq!(found.len(), 2, "{found:#?}");
}

#[test]
fn a_drop_behind_a_rule_that_is_not_understood_is_doubtful() {
    let model = web();
    let mut facts = healthy(&model);
    let chain = r#"{"table": {"family": "ip", "name": "g", "handle": 1}},
        {"chain": {"family": "ip", "table": "g", "name": "f", "handle": 1, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}}"#;
    let unknown = r#"{"rule": {"family": "ip", "table": "g", "chain": "f", "handle": 2, "expr": [
        {"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 7}}, {"accept": null}]}}"#;
    facts.nft = nft(chain);
    let found = complaints(&model, &facts);
    assert_eq!(
        named(&found, "table ip g, chain f: policy drop").severity,
        Severity::Error
    );
    facts.nft = nft(&format!("{chain},{unknown}"));
    let found = complaints(&model, &facts);
    let finding = named(&found, "table ip g, chain f: policy drop may drop");
    assert_eq!(finding.severity, Severity::Warning);
    // A drop under a test that is not understood is no finding: half the firewalls of the world have one.
    facts.nft = nft(&format!("{chain},{unknown}")
        .replace("policy\": \"drop", "policy\": \"accept")
        .replace("accept\": null", "drop\": null"));
    assert_eq!(complaints(&model, &facts), []);
}

#[test]
fn ufw_both_iptables_and_other_engines_are_told() {
    let model = web();
    let mut facts = healthy(&model);
    facts.ufw = true;
    facts.saves.push(Save {
        tool: "iptables-legacy",
        family: Family::V4,
        text: "*filter\n:FORWARD ACCEPT [0:0]\n:DOCKER - [0:0]\n-A FORWARD -o docker0 -j DOCKER\nCOMMIT\n".into(),
    });
    let found = judge(&model, Backend::Iptables, &facts);
    assert_eq!(named(&found, "ufw is enabled").severity, Severity::Warning);
    named(
        &found,
        "legacy iptables (tables filter) and nftables are both in use",
    );
    assert_eq!(
        named(&found, "chains of Docker (DOCKER)").severity,
        Severity::Note
    );
}

/// With nftables our accept cannot override the policy of iptables' FORWARD.
#[test]
fn the_policy_of_forward_counts_where_our_rules_are_elsewhere() {
    let model = web();
    let mut facts = healthy(&model);
    facts.saves[0].text =
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n".into();
    facts.own_table = vec!["map dnat4: element 8080 of container web is missing".into()];
    let found = judge(&model, Backend::Nftables, &facts);
    // Our passage through it is missing: that is told once, and mended.
    assert!(named(&found, "table filter, chain FORWARD: 4 rules are missing").fixable);
    let of_policy = |f: &Finding| f.what.contains("policy drop");
    assert!(!found.iter().any(of_policy), "{found:#?}");
    // The policy of a table in which nothing of ours stands is named.
    facts.saves.push(Save {
        tool: "iptables-legacy",
        ..facts.saves[0].clone()
    });
    let found = judge(&model, Backend::Nftables, &facts);
    let finding = named(
        &found,
        "iptables-legacy table filter, chain FORWARD: policy drop drops",
    );
    assert!(
        finding
            .advice
            .starts_with("iptables-legacy -t filter -I FORWARD "),
        "{finding}"
    );
    assert!(named(&found, "element 8080 of container web is missing").fixable);
}

#[test]
fn a_port_of_ours_that_is_held_by_us_is_no_finding() {
    let model = web();
    let mut facts = healthy(&model);
    let held = Bound {
        protocol: Protocol::Tcp,
        address: "0.0.0.0".parse().unwrap(),
        port: 8080,
        program: Some(("coracle".into(), 10)),
        ours: true,
    };
    facts.bound = vec![held.clone()];
    assert_eq!(complaints(&model, &facts), []);
    facts.bound = vec![Bound {
        ours: false,
        program: Some(("nginx".into(), 11)),
        ..held
    }];
    let found = complaints(&model, &facts);
    named(
        &found,
        "port 8080/tcp of container web is held by nginx (pid 11)",
    );
}
