//! `network doctor`: each damage has its line and makes the exit code 1; `--fix` mends it.

use harness::Host;

use crate::damage;
use crate::town::Town;

pub fn names_each_damage_and_mends_it(firewall: &'static str) {
    let town = Town::new(firewall);
    town.recovers("at first", || town.is_well());
    let healthy = town.host.try_run("network doctor").exits(0);
    for line in healthy.stdout.lines() {
        assert!(line.starts_with("note: "), "{firewall}: {line}");
    }
    for damage in damage::all(firewall) {
        damage.inflict(&town);
        let is_warning = damage.name == "ports no longer reserved";
        let found = town
            .host
            .try_run("network doctor")
            .exits(i32::from(!is_warning));
        let named = |line: &&str| damage.named.iter().all(|word| line.contains(word));
        let line = found.stdout.lines().find(named);
        let line = line.unwrap_or_else(|| panic!("{firewall}, {}: {found}", damage.name));
        assert!(line.contains("coracle network doctor --fix"), "{line}");
        println!("{firewall}: {}: {line}", damage.name);
        let left = town.host.try_run("network doctor --fix").exits(0);
        assert!(
            !left.stdout.contains("error: "),
            "{firewall}, {}: {left}",
            damage.name
        );
        town.host.try_run("network doctor").exits(0);
        town.recovers(damage.name, || {
            town.is_well()?;
            town.is_whole()
        });
        town.is_isolated();
    }
    // What a container has changed inside is told, and is its own business.
    town.web.netns.ip("route del default\n");
    let found = town.host.try_run("network doctor --fix").exits(0);
    let line = "warning: container web has no IPv4 default route by ";
    assert!(found.stdout.contains(line), "{found}");
    town.take_down();
}

fn complains(host: &Host, code: i32, words: &[&str]) {
    let found = host.try_run("network doctor").exits(code);
    let named = |line: &str| words.iter().all(|word| line.contains(word));
    assert!(
        found.stdout.lines().any(named),
        "nothing names {words:?}: {found}"
    );
}

/// Rules of others are named with what to add, and left alone by `--fix`.
pub fn names_rules_of_others(firewall: &'static str) {
    let host = Host::builder().options(["--firewall", firewall]).build();
    host.run("network create --ipv6 --opt com.docker.network.bridge.name=cr-net net");
    host.run("run -d --name web --network net -p 8080:80 busybox sleep 100000");
    host.try_run("network doctor").exits(0);
    let script = |text: &str| {
        harness::Cmd::new("nft")
            .args(["-f", "-"])
            .stdin(text)
            .run_in(&host.netns)
            .ok();
    };
    script(
        "table inet guard {\n chain wall {\n type filter hook forward priority 20; policy drop;\n ct state established accept\n }\n}\n",
    );
    complains(
        &host,
        1,
        &[
            "error: table inet guard, chain wall: policy drop",
            "nft insert rule inet guard wall",
        ],
    );
    host.try_run("network doctor --fix").exits(1);
    let rules = host.tool("nft", ["list", "table", "inet", "guard"]).ok();
    assert!(rules.stdout.contains("policy drop"), "{rules}");
    // What the doctor says to add is what helps.
    let advice = host.try_run("network doctor").stdout;
    for _ in 0..4 {
        let found = host.try_run("network doctor").stdout;
        let Some(line) = found.lines().find(|line| line.contains("nft insert rule")) else {
            break;
        };
        let command = line
            .rsplit_once('(')
            .expect("advice")
            .1
            .trim_end_matches(')');
        host.tool("sh", ["-c", command]).ok();
    }
    let cured = host.try_run("network doctor").exits(0);
    assert!(
        !cured.stdout.contains("table inet guard"),
        "{advice}{cured}"
    );
    script("delete table inet guard\n");

    // As ufw hangs its chains into FORWARD; by itself it drops all that it does not know.
    for line in [
        "-N ufw-before-forward",
        "-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-N ufw-reject-forward",
        "-A ufw-reject-forward -j REJECT",
        "-I FORWARD -j ufw-reject-forward",
        "-I FORWARD -j ufw-before-forward",
    ] {
        host.tool("iptables", line.split(' ')).ok();
    }
    complains(&host, 1, &["warning: ufw is enabled"]);
    host.try_run("network doctor --fix").exits(0);
    host.tool("iptables", ["-D", "FORWARD", "-j", "ufw-reject-forward"])
        .ok();

    // Legacy xtables beside nftables: a packet passes both.
    host.tool("iptables-legacy", ["-P", "FORWARD", "DROP"]).ok();
    complains(
        &host,
        1,
        &["error: iptables-legacy table filter, chain FORWARD: policy drop"],
    );
    host.tool("iptables-legacy", ["-P", "FORWARD", "ACCEPT"])
        .ok();
    host.try_run("network doctor").exits(0);
    host.remove_everything();
}
