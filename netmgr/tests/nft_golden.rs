//! The elements of known situations, line for line, and the layout that is the same for all of them.

mod common;
mod situations;

use std::path::Path;

use common::{add_endpoint, golden, map};
use netmgr::firewall::iptables::render_save;
use netmgr::firewall::nftables::{Guard, delta, elements, render_elements, render_layout};
use netmgr::firewall::policy::passage;
use netmgr::firewall::ruleset::Table;
use netmgr::{Model, Protocol};

const NO_GUARD: Guard = Guard {
    v4: false,
    v6: false,
};

/// `UPDATE_GOLDEN=1` writes the files anew; read the difference.
fn check(name: &str, text: &str) {
    let path = match name.starts_with("passage") {
        true => format!("nftables/{name}.rules"),
        false => format!("nftables/{name}.nft"),
    };
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        std::fs::create_dir_all(folder.join("nftables")).unwrap();
        std::fs::write(folder.join(&path), text).unwrap();
    }
    assert_eq!(text, golden(&path), "{name}");
}

#[test]
fn every_situation_equals_its_golden_file() {
    for (name, make) in situations::ALL {
        check(name, &render_elements(&elements(&make(), NO_GUARD)));
    }
}

#[test]
fn the_layout_equals_its_golden_file() {
    check("layout", &render_layout());
}

#[test]
fn a_guarded_host_equals_its_golden_file() {
    let guard = Guard { v4: true, v6: true };
    let model = situations::default_only();
    check("guard", &render_elements(&elements(&model, guard)));
}

#[test]
fn what_was_removed_leaves_no_element() {
    let left = elements(&situations::after_removal(), NO_GUARD);
    assert_eq!(left, elements(&situations::default_only(), NO_GUARD));
}

/// Beside other people's rules in iptables' FORWARD: wildcards, and a pair for a bridge with a name of the user's own.
#[test]
fn the_passage_equals_its_golden_file() {
    for name in ["two-networks", "custom-bridge"] {
        let rules = passage(&situations::situation(name));
        let text = render_save(&rules, &[Table::Filter], "DROP");
        check(&format!("passage-{name}"), &text);
    }
}

/// A change is as many lines as it has elements, however many containers run.
#[test]
fn one_more_port_is_two_elements_whatever_else_there_is() {
    let mut before = situations::default_only();
    let port = |n: u16| map(None, 1000 + n, 80, 1, Protocol::Tcp);
    for n in 0..200 {
        add_endpoint(&mut before, &format!("c{n}"), "bridge", &[port(n)]);
    }
    let mut after: Model = before.clone();
    add_endpoint(&mut after, "new", "bridge", &[port(200)]);
    let batch = delta(&before, &after).unwrap();
    check(
        "one-more-port",
        &format!("{}---\n{}", batch.forward, batch.inverse),
    );
    assert_eq!(delta(&after, &after), None);
}

#[test]
fn a_run_of_equal_ports_is_one_element_in_each_place() {
    let mut m = situations::default_only();
    let run = map(None, 1024, 1024, 60_000, Protocol::Tcp);
    add_endpoint(&mut m, "c1", "bridge", &[run]);
    let more = elements(&m, NO_GUARD).len() - elements(&situations::default_only(), NO_GUARD).len();
    assert_eq!(more, 2);
}

#[test]
fn comments_stay_within_what_nft_takes() {
    let mut m = situations::default_only();
    let run = map(None, 10_000, 20_000, 40_000, Protocol::Sctp);
    add_endpoint(&mut m, &"n".repeat(300), "bridge", &[run]);
    let all = elements(&m, NO_GUARD);
    assert!(all.values().all(|e| e.comment.len() < 128));
    let mut ports = all.iter().filter(|((set, _), _)| *set == "dnat4");
    let (_, port) = ports.next().unwrap();
    assert!(
        port.comment.ends_with("10000-49999/sctp"),
        "{}",
        port.comment
    );
}
