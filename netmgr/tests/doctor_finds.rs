//! `network doctor` on a real kernel: each damage is named, and mended where that is possible.

mod common;

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Attached, Host, command, in_own_netns, iptables, publish};
use netmgr::doctor::{self, Finding, Severity};
use netmgr::{Netns, Profile, Protocol};

struct Patient {
    host: Host,
    attached: Attached,
}

impl Patient {
    fn new() -> Patient {
        let mut host = Host::new(Profile::Coracle);
        host.up();
        host.create("net", "10.77.0.0/24", &[("name", "cr-net")]);
        let ports = [
            publish(None, 18080, 80, Protocol::Tcp),
            publish(Some("127.0.0.1"), 18081, 81, Protocol::Tcp),
        ];
        let attached = host.attach("web", "net", &ports);
        Patient { host, attached }
    }

    fn veth(&self) -> &str {
        &self.attached.attachment.endpoint.host_interface
    }

    fn examine(&self) -> Vec<Finding> {
        let netns = self.attached.netns.clone();
        let id = common::container_id("web");
        let netns_of = move |asked: &str| -> Option<Netns> { (asked == id).then(|| netns.clone()) };
        doctor::examine(&self.host.settings, &self.host.conn, &netns_of).unwrap()
    }

    fn complaints(&self) -> Vec<Finding> {
        let mut found = self.examine();
        found.retain(|f| f.severity != Severity::Note);
        found
    }

    fn fix(&mut self) -> Vec<Finding> {
        let mut left = doctor::fix(&self.host.settings, &mut self.host.conn, &|_| None).unwrap();
        left.retain(|f| f.severity != Severity::Note);
        left
    }
}

fn run(line: &str) {
    let mut words = line.split(' ');
    let name = words.next().unwrap();
    command(name, &words.collect::<Vec<_>>());
}

fn nft(text: &str) {
    let words: Vec<&str> = text.split(' ').collect();
    command("nft", &words);
}

/// Some finding holds all the words; returns it.
fn named<'a>(found: &'a [Finding], words: &[&str]) -> &'a Finding {
    let holds = |f: &&Finding| words.iter().all(|word| f.what.contains(word));
    found
        .iter()
        .find(holds)
        .unwrap_or_else(|| panic!("nothing names {words:?} in {found:#?}"))
}

#[test]
fn each_damage_of_ours_is_named_and_mended() {
    in_own_netns(|| {
        let mut patient = Patient::new();
        assert_eq!(patient.complaints(), [], "a healthy host");
        let veth = patient.veth().to_owned();
        let damages: Vec<(String, Vec<&str>)> = vec![
            ("iptables -F FORWARD".into(), vec!["filter", "chain FORWARD", "what each network's packets may do", "missing"]),
            ("iptables -F CORACLE-FORWARD".into(), vec!["filter", "chain CORACLE-FORWARD", "network net", "missing"]),
            ("iptables -F CORACLE".into(), vec!["chain CORACLE:", "container web", "missing", "18080"]),
            ("iptables -t nat -F".into(), vec!["table nat", "POSTROUTING", "network net", "missing"]),
            ("iptables -t raw -F".into(), vec!["table raw", "container web", "missing"]),
            ("iptables -A CORACLE -j ACCEPT".into(), vec!["chain CORACLE:", "too much", "-j ACCEPT"]),
            ("iptables -A FORWARD -j CORACLE-USER".into(), vec![]),
            (
                "iptables -A FORWARD -o coracle0 -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment x -j ACCEPT".into(),
                vec![],
            ),
            ("iptables -I FORWARD -s 192.0.2.1 -j ACCEPT".into(), vec!["chain FORWARD", "out of order"]),
            ("nft flush ruleset".into(), vec!["chain CORACLE-ISOLATION-STAGE-1: the chain is missing"]),
            ("ip link del cr-net".into(), vec!["bridge cr-net of network net is missing"]),
            ("ip link set cr-net down".into(), vec!["bridge cr-net of network net is down"]),
            ("ip address del 10.77.0.1/24 dev cr-net".into(), vec!["bridge cr-net", "lacks the address 10.77.0.1/24"]),
            (format!("ip link set {veth} nomaster"), vec![&veth, "container web", "not a port of bridge cr-net"]),
            (format!("ip link set {veth} down"), vec![&veth, "is down"]),
            ("sysctl -q -w net.ipv4.ip_forward=0".into(), vec!["ip_forward is 0"]),
            ("sysctl -q -w net.ipv6.conf.cr-net.accept_ra=1".into(), vec!["bridge cr-net", "accept_ra"]),
        ];
        for (damage, words) in damages {
            run(&damage);
            let found = patient.complaints();
            if !words.is_empty() {
                let finding = named(&found, &words);
                assert!(finding.fixable, "{damage}: {finding:?}");
                println!("{damage}\n  {finding}");
            }
            assert_eq!(patient.fix(), [], "after {damage}");
        }
    });
}

#[test]
fn what_is_inside_a_container_and_a_lost_veth_are_told_and_not_mended() {
    in_own_netns(|| {
        let mut patient = Patient::new();
        netmgr::kernel::netns::run_in(&patient.attached.netns, || {
            run("ip address flush dev eth0");
        })
        .unwrap();
        let found = patient.complaints();
        let finding = named(
            &found,
            &["eth0 in container web", "lacks the address 10.77.0.2"],
        );
        assert!(!finding.fixable && finding.advice == "restart container web");
        run(&format!("ip link del {}", patient.veth()));
        let left = patient.fix();
        let finding = named(&left, &[patient.veth(), "container web", "is missing"]);
        assert!(!finding.fixable && finding.advice == "restart container web");
    });
}

#[test]
fn foreign_rules_that_drop_our_traffic_are_named_with_what_to_add() {
    in_own_netns(|| {
        let patient = Patient::new();
        nft("add table inet guard");
        nft(
            "add chain inet guard forward { type filter hook forward priority 10 ; policy drop ; }",
        );
        let found = patient.complaints();
        let finding = named(
            &found,
            &["table inet guard, chain forward: policy drop", "network"],
        );
        assert_eq!(finding.severity, Severity::Error);
        assert!(
            finding
                .advice
                .starts_with("nft insert rule inet guard forward "),
            "{finding}"
        );
        println!("{finding}");
        // What lets all of ours through is no harm any more.
        nft("add rule inet guard forward ct state established,related accept");
        nft("add rule inet guard forward iifname { coracle0, cr-net } accept");
        nft("add rule inet guard forward ct status dnat accept");
        assert_eq!(patient.complaints(), []);
        nft("insert rule inet guard forward tcp dport 80 reject");
        let found = patient.complaints();
        let finding = named(
            &found,
            &[
                "table inet guard, chain forward: rule with handle",
                "port 18080/tcp",
                "container web",
            ],
        );
        println!("{finding}");
        nft("delete table inet guard");

        nft("add table ip early");
        nft("add chain ip early pre { type filter hook prerouting priority -300 ; }");
        nft("add rule ip early pre tcp dport 18080 drop");
        let found = patient.complaints();
        named(
            &found,
            &[
                "table ip early, chain pre",
                "port 18080/tcp of container web",
            ],
        );
        nft("delete table ip early");

        nft("add table inet guard");
        nft("add chain inet guard out { type filter hook output priority 0 ; policy drop ; }");
        let found = patient.complaints();
        let finding = named(
            &found,
            &[
                "table inet guard, chain out: policy drop",
                "port 18080/tcp of container web is reached from this host itself",
            ],
        );
        assert_eq!(finding.severity, Severity::Warning);
        nft("delete table inet guard");

        iptables("-I FORWARD 3 -i cr-net -j REJECT");
        let found = patient.complaints();
        let finding = named(
            &found,
            &["iptables table filter, chain FORWARD: rule 3", "-j REJECT"],
        );
        println!("{finding}");
        iptables("-D FORWARD -i cr-net -j REJECT");
        iptables("-t mangle -P FORWARD DROP");
        let found = patient.complaints();
        named(
            &found,
            &["iptables table mangle, chain FORWARD: policy drop drops"],
        );
        iptables("-t mangle -P FORWARD ACCEPT");
        // Below ours it harms nobody.
        iptables("-A FORWARD -j DROP");
        assert_eq!(patient.complaints(), []);

        command("iptables-legacy", &["-A", "FORWARD", "-j", "DROP"]);
        let found = patient.complaints();
        let finding = named(
            &found,
            &[
                "iptables-legacy table filter, chain FORWARD: rule 1",
                "-j DROP",
            ],
        );
        println!("{finding}");
        named(
            &found,
            &["legacy iptables (tables filter) and nftables are both in use"],
        );
        command("iptables-legacy", &["-F"]);
        assert_eq!(patient.complaints(), []);
    });
}

#[test]
fn ports_that_another_program_took_and_the_exposure_are_told() {
    in_own_netns(|| {
        let mut patient = Patient::new();
        let found = patient.examine();
        named(
            &found,
            &["port 18080/tcp of container web is reachable from anywhere"],
        );
        named(
            &found,
            &["port 18081/tcp of container web is reachable from this host alone"],
        );
        // The monitor is killed, and another program is quicker than the next command.
        patient.attached.attachment.forwards.clear();
        let mut thief = Command::new("busybox")
            .args(["nc", "-ll", "-p", "18080", "-e", "true"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        let listens = || {
            let table = fs::read_to_string("/proc/thread-self/net/tcp6").unwrap()
                + &fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
            let port = format!(":{:04X} ", 18080);
            table
                .lines()
                .any(|line| line.contains(&port) && line.split_whitespace().nth(3) == Some("0A"))
        };
        while !listens() {
            assert!(Instant::now() < end, "the other program does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        let found = patient.complaints();
        thief.kill().unwrap();
        thief.wait().unwrap();
        let finding = named(
            &found,
            &["port 18080/tcp of container web is held by busybox"],
        );
        println!("{finding}");
        assert_eq!(patient.complaints(), []);
    });
}

#[test]
fn a_host_where_nothing_is_up_has_one_note() {
    in_own_netns(|| {
        let host = Host::new(Profile::Coracle);
        let found = doctor::examine(&host.settings, &host.conn, &|_| None).unwrap();
        assert_eq!(found.len(), 1);
        assert!(found[0].what.starts_with("nothing is up"));
        assert!(!fs::exists(host.settings.run_root.join("network.live")).unwrap());
    });
}
