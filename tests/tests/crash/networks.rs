//! Kills of what changes the networks of containers that run, of runs with all there is to a network, and of a switch of firewalls.

use std::collections::BTreeSet;
use std::time::Duration;

use harness::{Host, Netns, eventually, net};

use super::{Scene, VICTIM};

const FIREWALLS: [&str; 2] = ["iptables", "nftables"];

/// Rounds for each of the firewalls.
const KILLS_OF_CONNECT: usize = 12;
const KILLS_OF_RUN: usize = 9;
const KILLS_OF_FIRST_V6: usize = 3;
const KILLS_OF_SWITCH: usize = 8;

fn on(firewall: &str, what: &str) -> Option<Scene> {
    let host = Host::builder().options(["--firewall", firewall]);
    Scene::on(&format!("kill of {what} with {firewall}"), host)
}

#[test]
fn killing_connect_and_disconnect_leaves_a_container_as_the_database_has_it_iptables() {
    connect_and_disconnect(FIREWALLS[0]);
}

#[test]
fn killing_connect_and_disconnect_leaves_a_container_as_the_database_has_it_nftables() {
    connect_and_disconnect(FIREWALLS[1]);
}

fn connect_and_disconnect(firewall: &str) {
    let Some(mut scene) = on(firewall, "network connect and disconnect") else {
        return;
    };
    // Before `small` in the alphabet: the default route and the ports move there and back.
    scene.host.run("network create --ipv6 aside");
    scene
        .host
        .run("run -d --name peer --network aside busybox sleep 100000");
    scene.look_again();
    scene.run_victim();
    let connect = scene.host.run("network connect aside victim").elapsed;
    let disconnect = scene.host.run("network disconnect aside victim").elapsed;
    check_places(&scene);
    for _ in 0..KILLS_OF_CONNECT {
        match networks(&scene.host).contains("aside") {
            true => scene.kill_within("network disconnect aside victim", disconnect),
            false => scene.kill_within("network connect aside victim", connect),
        }
        scene.host.run("ps");
        check_places(&scene);
    }
    scene.host.run("rm -f victim");
    scene.check();
    scene.end();
}

fn networks(host: &Host) -> BTreeSet<String> {
    let inspect = host.inspect("victim");
    let networks = inspect["NetworkSettings"]["Networks"].as_object();
    networks
        .into_iter()
        .flatten()
        .map(|(name, _)| name.clone())
        .collect()
}

/// The victim's links, addresses, routes, names and ports are those that `inspect` tells of.
#[track_caller]
fn check_places(scene: &Scene) {
    let (host, round) = (&scene.host, &scene.round);
    let inspect = host.inspect("victim");
    let places = inspect["NetworkSettings"]["Networks"]
        .as_object()
        .expect("networks");
    let text = |key: &str| -> BTreeSet<String> {
        let values = places.values().filter_map(|place| place[key].as_str());
        values
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let addresses: BTreeSet<String> = &text("IPAddress") | &text("GlobalIPv6Address");
    let inside = Netns::of_process(host.pid_of("victim")).expect("its namespace");
    assert_eq!(global_addresses(&inside), addresses, "{round}: addresses");
    // By the first of its networks.
    let first = places.values().next().expect("a network");
    let via = |family: &str| -> BTreeSet<String> {
        let list = harness::Cmd::new("ip").args([family, "-j", "route", "show", "default"]);
        let list = list.run_in(&inside).ok().json();
        let routes = list.as_array().into_iter().flatten();
        routes
            .filter_map(|route| route["gateway"].as_str().map(str::to_owned))
            .collect()
    };
    for (family, key) in [("-4", "Gateway"), ("-6", "IPv6Gateway")] {
        let gateway = first[key].as_str().filter(|text| !text.is_empty());
        let wanted: BTreeSet<String> = gateway.map(str::to_owned).into_iter().collect();
        assert_eq!(via(family), wanted, "{round}: default route {family}");
    }
    let hosts = host.run("exec victim cat /etc/hosts").stdout;
    let name = inspect["Config"]["Hostname"].as_str().expect("a hostname");
    let own = hosts
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .filter(|line| line.1 == name);
    let own: Vec<String> = own.map(|(address, _)| address.to_owned()).collect();
    assert_eq!(own.len(), addresses.len(), "{round}: {hosts}");
    assert_eq!(
        own.into_iter().collect::<BTreeSet<_>>(),
        addresses,
        "{round}: /etc/hosts"
    );
    for (from, at) in [
        (&host.neighbour, "192.0.2.1:8080"),
        (&host.netns, "127.0.0.1:8080"),
    ] {
        eventually(&format!("{round}: the victim serves at {at}"), || {
            net::http_get(from, at)
        });
    }
    let found = host.try_run("exec victim nslookup peer");
    assert_eq!(
        found.code() == 0,
        places.contains_key("aside"),
        "{round}: {found}"
    );
    let doctor = host.try_run("network doctor");
    assert_eq!(doctor.code(), 0, "{round}: {doctor}");
}

fn global_addresses(inside: &Netns) -> BTreeSet<String> {
    let list = harness::Cmd::new("ip").args(["-j", "addr", "show", "scope", "global"]);
    let list = list.run_in(inside).ok().json();
    let links = list.as_array().into_iter().flatten();
    let all = links.flat_map(|link| link["addr_info"].as_array().into_iter().flatten());
    all.filter_map(|address| address["local"].as_str().map(str::to_owned))
        .collect()
}

/// Runs that have much to leave behind.
const RUNS: [&str; 3] = [
    VICTIM,
    "run -d --name victim --network aside --network-alias other -p 8080:80 busybox httpd -f -p 80 -h /www",
    "run -d --name victim --network small -p 20000-40000:20000-40000 -p 8080:80 busybox httpd -f -p 80 -h /www",
];

#[test]
fn killing_runs_on_every_kind_of_network_is_repaired_iptables() {
    runs(FIREWALLS[0]);
}

#[test]
fn killing_runs_on_every_kind_of_network_is_repaired_nftables() {
    runs(FIREWALLS[1]);
}

fn runs(firewall: &str) {
    let Some(mut scene) = on(firewall, "run") else {
        return;
    };
    scene.host.run("network create --ipv6 aside");
    scene.look_again();
    let reserved = |scene: &Scene| {
        scene
            .host
            .netns
            .enter(|| std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports"))
            .expect("a sysctl")
    };
    let before = reserved(&scene);
    for line in RUNS {
        let usual = scene.host.run(line).elapsed;
        scene.host.run("rm -f victim");
        for _ in 0..KILLS_OF_RUN / RUNS.len() {
            scene.kill_within(line, usual);
            scene.repair();
            scene.check();
            assert_eq!(reserved(&scene), before, "{}: reserved ports", scene.round);
        }
        scene.host.run(line);
        eventually("the victim serves", || {
            net::http_get(&scene.host.neighbour, "192.0.2.1:8080")
        });
        scene.host.run("rm -f victim");
    }
    scene.end();
}

#[test]
fn killing_the_first_network_with_ipv6_leaves_nothing() {
    for firewall in FIREWALLS {
        let Some(mut scene) = on(firewall, "network create --ipv6") else {
            return;
        };
        for _ in 0..KILLS_OF_FIRST_V6 {
            scene.host.run("rm -f bystander echo");
            scene.host.remove_everything();
            scene.host.assert_clean();
            scene.host.run("network create --subnet 10.98.0.0/28 small");
            scene.host.start_web("bystander", "-p 8081:80");
            let before = super::facts(&scene.host);
            scene.kill_within("network create --ipv6 fleeting", Duration::from_millis(150));
            let networks = scene.host.run("network ls --format {{.Name}}");
            assert_eq!(super::facts(&scene.host), before, "{}", scene.round);
            if !networks.stdout.lines().any(|name| name == "fleeting") {
                scene.host.run("network create --ipv6 fleeting");
            }
            // It is of use.
            scene.host.run(
                "run -d --name victim --network fleeting -p 8080:80 busybox httpd -f -p 80 -h /www",
            );
            for at in ["192.0.2.1:8080", "[2001:db8::1]:8080", "192.0.2.1:8081"] {
                eventually(&format!("{}: {at} is served", scene.round), || {
                    net::http_get(&scene.host.neighbour, at)
                });
            }
            let doctor = scene.host.try_run("network doctor");
            assert_eq!(doctor.code(), 0, "{}: {doctor}", scene.round);
        }
        scene.end();
    }
}

#[test]
fn killing_a_switch_of_firewalls_leaves_one_of_them() {
    let Some(mut scene) = Scene::on("kill of a switch", Host::builder()) else {
        return;
    };
    scene.host.run("network create --ipv6 aside");
    scene
        .host
        .run("run -d --name six --network aside -p 8082:80 busybox httpd -f -p 80 -h /www");
    let mut wanted = Vec::new();
    for firewall in FIREWALLS {
        let usual = scene
            .host
            .run(&format!("--firewall {firewall} system reload"))
            .elapsed;
        wanted.push((harness::rules::everywhere(&scene.host.netns), usual));
    }
    for round in 0..KILLS_OF_SWITCH {
        // It stands by one of them now; the switch to the other is killed.
        let (from, to) = (FIREWALLS[(round + 1) % 2], FIREWALLS[round % 2]);
        scene.kill_within(
            &format!("--firewall {to} system reload"),
            wanted[round % 2].1,
        );
        // The next command may be of either mind, and anything it changes works.
        let next = [from, to][round / 2 % 2];
        scene.host.run(&format!("--firewall {next} ps"));
        scene.host.run(&format!("--firewall {next} {VICTIM}"));
        for at in ["192.0.2.1:8080", "192.0.2.1:8081", "[2001:db8::1]:8082"] {
            eventually(&format!("{}: {at} is served", scene.round), || {
                net::http_get(&scene.host.neighbour, at)
            });
        }
        scene.host.run(&format!("--firewall {next} rm -f victim"));
        scene.host.run(&format!("--firewall {to} system reload"));
        scene.rules.clone_from(&wanted[round % 2].0);
        scene.links = super::links(&scene.host);
        scene.check();
    }
    scene.end();
}
