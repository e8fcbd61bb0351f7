//! `network watch` beside a host whose rules, links and sysctls others damage: traffic recovers, isolation too.

use std::time::Duration;

use harness::Cmd;
use nix::sys::signal::Signal;

use crate::damage;
use crate::town::Town;

pub fn mends_what_others_break(firewall: &'static str) {
    let town = Town::new(firewall);
    town.recovers("at first", || town.is_well());
    town.gone_answers();
    let watch = as_the_unit_runs_it(town.host.command(["network", "watch"]))
        .limit(Duration::from_secs(300))
        .spawn_in(&town.host.netns);
    for (round, damage) in damage::all(firewall).iter().enumerate() {
        // Reserved ports are not announced and nobody waits for them: the next mending brings them back.
        if damage.name == "ports no longer reserved" {
            continue;
        }
        if town.administrators_rules() == 0 {
            town.add_administrators_rule();
        }
        damage.inflict(&town);
        if round == 0 {
            town.host.run("rm -f gone");
        }
        let took = town.recovers(damage.name, || {
            town.is_well()?;
            town.is_whole()
        });
        println!(
            "{firewall}: {}: well again after {} ms",
            damage.name,
            took.as_millis()
        );
        town.is_isolated();
        town.gone_stays_away();
        // Nobody can bring back what only the administrator knew; nothing is doubled.
        let left = usize::from(!damage.takes_users_chain);
        assert_eq!(
            town.administrators_rules(),
            left,
            "{firewall}: {}",
            damage.name
        );
        assert_eq!(
            town.jumps_to_administrator(),
            1,
            "{firewall}: {}",
            damage.name
        );
    }
    watch.signal(Signal::SIGTERM);
    let output = watch.wait().exits(0);
    let said_aloud = |line: &str| line.starts_with("WARNING: turned IPv");
    assert!(output.stderr.lines().all(said_aloud), "{output}");
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert!(lines[0].ends_with(" watching"), "{output}");
    assert!(lines.len() > 10, "{output}");
    for line in &lines[1..] {
        assert!(line.contains(" mended"), "{firewall}: {line}");
        println!("{firewall}: {line}");
    }
    town.take_down();
}

/// With the capabilities that the systemd unit leaves to it, and no others.
fn as_the_unit_runs_it(watch: Cmd) -> Cmd {
    let path = harness::images::repository().join("contrib/systemd/coracle-network-watch.service");
    let unit = std::fs::read_to_string(path).expect("the unit");
    let mut settings = unit.lines();
    let names = settings
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
        .expect("a capability bounding set");
    let kept = names.split(' ').map(|name| {
        let name = name.strip_prefix("CAP_").expect("CAP_NAME");
        format!(",+{}", name.to_lowercase())
    });
    let set = format!("--bounding-set=-all{}", kept.collect::<String>());
    watch.wrapped_in("setpriv", ["--no-new-privs", set.as_str()])
}
