//! Every situation's rules, in the real kernel: accepted by each of the four restore commands, and read back as themselves.

mod common;
mod situations;

use std::io::Write;
use std::process::{Command, Stdio};

use common::{command, in_own_netns};
use netmgr::Family;
use netmgr::firewall::diff::delta;
use netmgr::firewall::iptables::{FoundChain, parse, render_save};
use netmgr::firewall::mend::{Goal, mend};
use netmgr::firewall::policy::ruleset;
use netmgr::firewall::ruleset::{Ruleset, Table};

const COMMANDS: [(&str, Family); 4] = [
    ("iptables-nft", Family::V4),
    ("ip6tables-nft", Family::V6),
    ("iptables-legacy", Family::V4),
    ("ip6tables-legacy", Family::V6),
];

fn restore(tool: &str, input: &str, noflush: bool) {
    let mut command = Command::new(format!("{tool}-restore"));
    command.args(noflush.then_some("--noflush"));
    let mut child = command
        .arg("-w")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool}: {said}\n{input}");
}

fn saved(tool: &str) -> Vec<FoundChain> {
    let save = format!("{tool}-save");
    let tables = Table::ALL.map(|table| command(&save, &["-t", table.as_str()]));
    let mut chains = parse(&tables.concat());
    chains.sort_by_key(|c| (c.table, c.name.clone()));
    chains
}

fn wanted(rules: &Ruleset) -> Vec<FoundChain> {
    let mut chains = parse(&render_save(rules, &Table::ALL, "ACCEPT"));
    chains.sort_by_key(|c| (c.table, c.name.clone()));
    chains
}

#[track_caller]
fn assert_reads_back(tool: &str, rules: &Ruleset, name: &str) {
    let found = saved(tool);
    assert_eq!(found, wanted(rules), "{tool} {name}");
    let mending = mend(&found, rules, Goal::Stand, &Default::default());
    assert!(mending.forward.is_empty(), "{tool} {name}: {mending:?}");
}

#[test]
fn every_situation_is_accepted_and_reads_back_as_itself() {
    for (tool, family) in COMMANDS {
        in_own_netns(move || {
            for (name, make) in situations::ALL {
                let rules = ruleset(&make(), family);
                restore(tool, &render_save(&rules, &Table::ALL, "ACCEPT"), false);
                assert_reads_back(tool, &rules, name);
            }
        });
    }
}

/// From each situation to the next and back, by the batches of a usual change.
#[test]
fn the_way_between_situations_is_accepted_and_reads_back() {
    for (tool, family) in COMMANDS {
        in_own_netns(move || {
            let base = ruleset(&situations::default_only(), family);
            let mend_all = mend(&saved(tool), &base, Goal::Stand, &Default::default());
            restore(tool, &mend_all.forward.render(), true);
            assert_reads_back(tool, &base, "the base, by mending");
            let mut before = base.clone();
            for (name, make) in situations::ALL {
                let after = ruleset(&make(), family);
                restore(tool, &delta(&before, &after).render(), true);
                assert_reads_back(tool, &after, name);
                restore(tool, &delta(&after, &before).render(), true);
                assert_reads_back(tool, &before, name);
                restore(tool, &delta(&before, &after).render(), true);
                before = after;
            }
            let gone = mend(&saved(tool), &before, Goal::Gone, &Default::default());
            assert_eq!(gone.notes, [""; 0]);
            restore(tool, &gone.forward.render(), true);
            assert_reads_back(tool, &Ruleset::default(), "taken away");
        });
    }
}
