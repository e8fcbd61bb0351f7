//! Networks that others damage, seen from outside: by packets, by what the commands print and by their exit codes.
//!
//! Each test has a host of its own, with either firewall: `repair nftables/watch-mends-what-others-break`. All run side by side.

#[path = "repair/damage.rs"]
mod damage;
#[path = "repair/doctor.rs"]
mod doctor;
#[path = "repair/dry_run.rs"]
mod dry_run;
// The matrix of behaviours asks more of it than these tests.
#[allow(dead_code)]
#[path = "behaviours/talk.rs"]
mod talk;
#[path = "repair/town.rs"]
mod town;
#[path = "repair/watch.rs"]
mod watch;

use libtest_mimic::{Arguments, Failed, Trial};

const FIREWALLS: [&str; 2] = ["iptables", "nftables"];

type Check = fn(&'static str);

const CHECKS: [(&str, Check); 5] = [
    (
        "watch-mends-what-others-break",
        watch::mends_what_others_break,
    ),
    (
        "doctor-names-each-damage-and-mends-it",
        doctor::names_each_damage_and_mends_it,
    ),
    (
        "doctor-names-rules-of-others",
        doctor::names_rules_of_others,
    ),
    (
        "dry-run-tells-what-the-command-then-does",
        dry_run::tells_what_the_command_then_does,
    ),
    (
        "dry-run-fails-as-the-command-does",
        dry_run::fails_as_the_command_does,
    ),
];

fn main() {
    let mut arguments = Arguments::from_args();
    // They wait more than they compute.
    arguments
        .test_threads
        .get_or_insert(CHECKS.len() * FIREWALLS.len());
    let trials = FIREWALLS.iter().flat_map(|firewall| {
        CHECKS.map(|(name, check)| {
            Trial::test(format!("{firewall}/{name}"), move || {
                check(firewall);
                Ok::<(), Failed>(())
            })
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}
