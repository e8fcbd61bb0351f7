//! The change loop on a real kernel, each test in a network namespace of its own.

mod common;

use std::sync::Arc;

use common::{
    Host, attach_request, command, golden, in_own_netns, interfaces, iptables, publish, request,
    saved,
};
use netmgr::firewall::iptables::render_save;
use netmgr::firewall::policy::ruleset;
use netmgr::firewall::ruleset::Table;
use netmgr::{Error, ErrorKind, Firewall, Netns, PortRequest, Profile, Protocol};

const ALL: [&str; 3] = ["raw", "filter", "nat"];

/// What the kernel must hold for the model, had nobody else a rule.
fn wanted(host: &Host) -> String {
    let tables = [Table::Raw, Table::Filter, Table::Nat];
    render_save(&ruleset(&host.model(), netmgr::Family::V4), &tables, "DROP")
}

fn assert_as_wanted(host: &Host) {
    assert_same(&saved(&ALL), &wanted(host));
    assert!(!host.journal().exists(), "a journal is left");
}

/// Names the lines that differ: the whole text is long.
fn assert_same(found: &str, wanted: &str) {
    let missing: Vec<&str> = wanted
        .lines()
        .filter(|l| !found.lines().any(|f| f == *l))
        .collect();
    let extra: Vec<&str> = found
        .lines()
        .filter(|l| !wanted.lines().any(|w| w == *l))
        .collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "missing: {missing:#?}\nextra: {extra:#?}"
    );
    assert_eq!(found, wanted, "the order differs");
}

fn tcp(host: u16, container: u16) -> PortRequest {
    publish(None, host, container, Protocol::Tcp)
}

fn capture(name: &str) {
    assert_eq!(
        saved(&["filter", "nat"]),
        golden(&format!("docker/{name}.rules")),
        "{name}"
    );
}

#[test]
fn docker_profile_leaves_the_kernel_as_docker_does() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Docker);
        host.up();
        capture("01-empty");
        host.attach("c1", "bridge", &[tcp(6379, 6379)]);
        capture("03-publish-tcp");
        host.detach("c1");
        host.attach(
            "c1",
            "bridge",
            &[publish(Some("127.0.0.1"), 8080, 80, Protocol::Tcp)],
        );
        capture("04-publish-loopback");
        host.detach("c1");
        let range = PortRequest {
            count: 3,
            ..publish(None, 8000, 8000, Protocol::Udp)
        };
        host.attach("c1", "bridge", &[range]);
        capture("05-publish-udp-range.folded");
        host.detach("c1");
        host.create("moelove", "172.18.0.0/16", &[("name", "br-moelove")]);
        capture("02-network-create");
        host.attach("c1", "moelove", &[tcp(8080, 80)]);
        capture("06-publish-on-user-network");
        host.detach("c1");
        host.create(
            "int",
            "172.19.0.0/16",
            &[("name", "br-int"), ("internal", "")],
        );
        capture("07-internal-network");
        host.remove("int").unwrap();
        let options = [("name", "br-noicc"), ("enable_icc", "false")];
        host.create("noicc", "172.20.0.0/16", &options);
        capture("08-icc-false");
        host.remove("moelove").unwrap();
        host.remove("noicc").unwrap();
        capture("09-after-removal");
        for n in 1..=3 {
            let bridge = format!("br-n{n}");
            host.create(
                &format!("n{n}"),
                &format!("172.{}.0.0/16", 30 + n),
                &[("name", &bridge)],
            );
        }
        capture("10-three-networks");
        for n in [2, 3, 1] {
            host.remove(&format!("n{n}")).unwrap();
        }
        iptables("-I DOCKER-USER -i eth9 ! -s 100.84.94.62 -j DROP");
        capture("11-user-rule");
        host.reload();
        capture("12-user-rule-after-restart");
    });
}

/// The three ports one by one, in any order: Docker's order comes out, by inserts and not by a rewrite.
#[test]
fn ports_of_one_container_stand_in_dockers_order() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Docker);
        let udp = |port| publish(None, port, port, Protocol::Udp);
        host.attach("c1", "bridge", &[udp(8001), udp(8002), udp(8000)]);
        capture("05-publish-udp-range");
    });
}

#[test]
fn without_rules_there_is_none_but_links_and_sockets_are() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Docker);
        host.settings.firewall = Firewall::None;
        let attached = host.attach("c1", "bridge", &[tcp(8080, 80)]);
        assert_eq!(command("nft", &["list", "ruleset"]), "");
        assert_eq!(golden("docker/13-iptables-false.rules"), "");
        assert!(interfaces().contains(&"docker0".to_owned()));
        assert!(!attached.attachment.forwards.is_empty());
        host.detach("c1");
        host.down();
        assert_eq!(interfaces(), ["lo"]);
    });
}

#[test]
fn every_step_of_a_life_leaves_exactly_the_models_rules() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        let mut held = Vec::new();
        host.create("web", "", &[]);
        assert_as_wanted(&host);
        held.push(host.attach("a", "bridge", &[tcp(8080, 80), tcp(8081, 80)]));
        assert_as_wanted(&host);
        held.push(host.attach(
            "b",
            "web",
            &[publish(Some("127.0.0.2"), 8082, 80, Protocol::Udp)],
        ));
        held.push(host.attach("c", "web", &[tcp(8083, 80)]));
        host.create("late", "", &[("enable_icc", "false")]);
        assert_as_wanted(&host);
        // From the middle of everything.
        host.detach("b");
        assert_as_wanted(&host);
        host.detach("a");
        host.attach("a", "late", &[]);
        assert_as_wanted(&host);
        host.detach("c");
        host.remove("web").unwrap();
        assert_as_wanted(&host);
        host.detach("a");
        host.remove("late").unwrap();
        assert_as_wanted(&host);
        assert!(host.down().is_empty());
        assert_nothing_left();
    });
}

/// What iptables itself leaves of a table that it has used: empty chains.
fn assert_nothing_left() {
    for table in ALL {
        for line in saved(&[table]).lines() {
            assert!(
                line.starts_with('*') || line == "COMMIT" || line.ends_with(" ACCEPT [0:0]"),
                "left in {table}: {line}"
            );
        }
    }
    assert_eq!(interfaces(), ["lo"]);
    let forward = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    assert_eq!(forward.trim(), "0");
}

#[test]
fn others_rules_survive_everything() {
    in_own_netns(|| {
        let foreign = [
            "-A FORWARD -i eth8 -j ACCEPT",
            "-A FORWARD -i coracle0 -d 192.0.2.0/24 -j DROP",
            "-A INPUT -p tcp --dport 22 -j ACCEPT",
            "-t nat -A POSTROUTING -s 192.0.2.0/24 -o eth8 -j MASQUERADE",
            "-t nat -A PREROUTING -i eth8 -p tcp --dport 81 -j DNAT --to-destination 192.0.2.1:81",
            "-t raw -A PREROUTING -i eth8 -j ACCEPT",
        ];
        foreign.iter().for_each(|line| iptables(line));
        let only_foreign = |text: String| -> Vec<String> {
            text.lines()
                .filter(|l| {
                    l.contains("eth8") || l.contains("192.0.2.") || l.contains("--dport 22")
                })
                .map(str::to_owned)
                .collect()
        };
        let before = only_foreign(saved(&ALL));
        assert_eq!(before.len(), foreign.len());
        let mut host = Host::new(Profile::Coracle);
        host.up();
        assert_eq!(only_foreign(saved(&ALL)), before);
        host.create("web", "", &[]);
        host.attach("a", "web", &[tcp(8080, 80)]);
        assert_eq!(only_foreign(saved(&ALL)), before);
        // Between ours, and above them.
        iptables("-I FORWARD 3 -i eth8 -o coracle0 -j ACCEPT");
        iptables("-I FORWARD -i eth8 -j LOG");
        let before = only_foreign(saved(&ALL));
        host.create("more", "", &[]);
        host.reload();
        let forward = saved(&["filter"]);
        let first = forward
            .lines()
            .find(|l| l.starts_with("-A FORWARD"))
            .unwrap();
        assert!(first.contains("CORACLE-USER"), "{first}");
        host.detach("a");
        host.remove("web").unwrap();
        host.remove("more").unwrap();
        assert_eq!(only_foreign(saved(&ALL)), before);
        host.down();
        assert_eq!(only_foreign(saved(&ALL)), before);
        assert!(!saved(&ALL).contains("coracle:") && !saved(&ALL).contains("CORACLE"));
    });
}

#[test]
fn reload_mends_whatever_was_done_to_the_rules() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        host.create("web", "", &[]);
        let _a = host.attach("a", "web", &[tcp(8080, 80)]);
        let _b = host.attach(
            "b",
            "bridge",
            &[publish(Some("127.0.0.1"), 8081, 80, Protocol::Tcp)],
        );
        let damages: [&[&str]; 7] = [
            &["-F CORACLE"],
            &["-t nat -F CORACLE"],
            &["-F", "-t nat -F", "-t raw -F"],
            &["-F", "-X", "-t nat -F", "-t nat -X", "-t raw -F"],
            &["-D FORWARD 1"],
            &["-D CORACLE-FORWARD 4", "-t nat -D POSTROUTING 1"],
            &["-A CORACLE -j ACCEPT", "-F CORACLE-ISOLATION-STAGE-2"],
        ];
        for damage in damages {
            damage.iter().for_each(|line| iptables(line));
            assert_ne!(saved(&ALL), wanted(&host), "{damage:?} did nothing");
            host.reload();
            assert_as_wanted(&host);
        }
        // What an earlier life has left.
        restore(
            "filter",
            &["-A FORWARD -o gone0 -m comment --comment \"coracle: old\" -j ACCEPT"],
        );
        restore(
            "nat",
            &["-I POSTROUTING -m comment --comment \"coracle: old\" -j MASQUERADE"],
        );
        host.reload();
        assert_as_wanted(&host);
        // A rule of ours doubled, and the jumps pushed down.
        let text = saved(&["filter"]);
        let ours = "-A FORWARD -m comment";
        let line = text.lines().find(|l| l.starts_with(ours)).unwrap();
        restore("filter", &[line, line]);
        iptables("-I FORWARD -i eth9 -j DROP");
        host.reload();
        let mended = saved(&ALL);
        assert!(mended.contains("-A FORWARD -i eth9 -j DROP"));
        assert_eq!(
            mended.replace("-A FORWARD -i eth9 -j DROP\n", ""),
            wanted(&host)
        );
        // The administrator's own chain stays as it is.
        iptables("-D FORWARD -i eth9 -j DROP");
        iptables("-I CORACLE-USER -i eth9 ! -s 100.84.94.62 -j DROP");
        iptables("-F CORACLE");
        host.reload();
        let rule = "-A CORACLE-USER ! -s 100.84.94.62/32 -i eth9 -j DROP\n";
        assert_eq!(saved(&ALL).replace(rule, ""), wanted(&host));
        assert!(saved(&ALL).contains(rule));
    });
}

fn restore(table: &str, lines: &[&str]) {
    let input = format!("*{table}\n{}\nCOMMIT\n", lines.join("\n"));
    netmgr::kernel::commands::restore(&input).unwrap();
}

/// The fast way assumes that the rules are there; when they are not, the change mends them on its way.
#[test]
fn a_change_after_a_flush_succeeds_and_mends() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        let _a = host.attach("a", "bridge", &[tcp(8080, 80)]);
        for line in ["-F", "-X", "-t nat -F", "-t nat -X"] {
            iptables(line);
        }
        host.create("web", "", &[]);
        assert_as_wanted(&host);
        command("ip", &["link", "del", "coracle0"]);
        let _b = host.attach("b", "bridge", &[tcp(8081, 80)]);
        assert_as_wanted(&host);
        assert!(interfaces().contains(&"coracle0".to_owned()));
    });
}

#[test]
fn down_keeps_the_administrators_chain_if_it_is_in_use_and_says_so() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        host.up();
        iptables("-I CORACLE-USER -i eth9 -j DROP");
        let notes = host.down();
        assert!(
            notes.iter().any(|n| n.contains("CORACLE-USER")),
            "{notes:?}"
        );
        let left = saved(&["filter"]);
        assert!(
            left.contains("-A CORACLE-USER -i eth9 -j DROP") && left.contains("-j CORACLE-USER")
        );
        assert!(!left.contains("CORACLE-ISOLATION") && !left.contains(":CORACLE -"));
        host.up();
        let rule = "-A CORACLE-USER -i eth9 -j DROP\n";
        assert_eq!(saved(&ALL).replace(rule, ""), wanted(&host));
        iptables("-D CORACLE-USER 1");
        assert!(host.down().is_empty());
        assert_nothing_left();
    });
}

#[test]
fn down_is_refused_while_containers_are_attached() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        let _a = host.attach("a", "bridge", &[]);
        let error = netmgr::down(&host.settings, &mut host.conn).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_as_wanted(&host);
        host.detach("a");
        host.down();
        assert_nothing_left();
        // Twice is once.
        host.down();
        assert_nothing_left();
    });
}

#[test]
fn a_failed_attach_leaves_everything_as_it_was() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        // As the very first change: nothing may be left at all.
        let no_netns = Netns(Arc::new(std::fs::File::open("/dev/null").unwrap().into()));
        let bad = attach_request("bad", "bridge", &[tcp(8080, 80)], &no_netns);
        let fails = |host: &mut Host| {
            let result = netmgr::change(&host.settings, &mut host.conn, |edit| {
                edit.attach(&bad).map(|_| ())
            });
            assert!(result.is_err());
            assert!(!host.journal().exists());
        };
        fails(&mut host);
        assert_nothing_left();
        assert!(host.model().networks.is_empty() && host.model().endpoints.is_empty());
        // Then beside others.
        let _a = host.attach("a", "bridge", &[tcp(8081, 80)]);
        let links = interfaces();
        fails(&mut host);
        assert_as_wanted(&host);
        assert_eq!(interfaces(), links);
    });
}

#[test]
fn a_commit_that_fails_takes_the_kernel_back() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        host.conn
            .execute_batch(
                "PRAGMA foreign_keys = ON; CREATE TABLE p (id INTEGER PRIMARY KEY);
                 CREATE TABLE c (p REFERENCES p (id) DEFERRABLE INITIALLY DEFERRED);",
            )
            .unwrap();
        for up_before in [false, true] {
            if up_before {
                host.up();
            }
            let links = interfaces();
            let result = netmgr::change(&host.settings, &mut host.conn, |edit| {
                edit.create_network(&request("web", "", &[]))?;
                edit.transaction()
                    .execute("INSERT INTO c VALUES (7)", [])
                    .unwrap();
                Ok::<(), Error>(())
            });
            assert!(matches!(result, Err(Error::Database { .. })), "{result:?}");
            assert_eq!(interfaces(), links);
            match up_before {
                false => assert_nothing_left(),
                true => assert_as_wanted(&host),
            }
        }
    });
}

#[test]
fn requests_that_conflict_are_refused_in_dockers_words() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Docker);
        let web = host.create("web", "172.18.0.0/16", &[]);
        let _a = host.attach("a", "web", &[tcp(8080, 80)]);
        let told = |result: Result<(), Error>| {
            let error = result.unwrap_err();
            (error.to_string(), error.kind())
        };
        let mut create = |name: &str, subnet: &str| {
            let result = host.try_create(&request(name, subnet, &[]));
            told(result.map(|_| ()))
        };
        use ErrorKind::{Conflict, Forbidden, NotFound};
        let is = |text: &str, kind| (text.to_owned(), kind);
        assert_eq!(
            create("web", ""),
            is("network with name web already exists", Conflict)
        );
        assert_eq!(
            create("other", "172.18.5.0/24"),
            is(
                "Pool overlaps with other one on this address space: network web has 172.18.0.0/16",
                Conflict
            )
        );
        assert_eq!(
            create("bridge", ""),
            is(
                "operation is not permitted on predefined bridge network",
                Forbidden
            )
        );
        let mut remove = |name: &str| told(host.remove(name).map(|_| ()));
        assert_eq!(
            remove("bridge"),
            is(
                "bridge is a pre-defined network and cannot be removed",
                Forbidden
            )
        );
        assert_eq!(remove("nonet"), is("network nonet not found", NotFound));
        let active = format!(
            "error while removing network: network web id {} has active endpoints",
            web.id
        );
        assert_eq!(remove(&web.id[..12]), is(&active, Conflict));
        let range = PortRequest {
            count: 10,
            ..tcp(8075, 8075)
        };
        for (port, ip) in [
            (tcp(8080, 81), "0.0.0.0"),
            (
                publish(Some("127.0.0.1"), 8080, 80, Protocol::Tcp),
                "127.0.0.1",
            ),
            (range, "0.0.0.0"),
        ] {
            let text = format!("Bind for {ip}:8080 failed: port is already allocated");
            let result = host.try_attach("b", "bridge", &[port]);
            assert_eq!(told(result.map(|_| ())), is(&text, Conflict));
        }
        // Another protocol is another port.
        host.attach("c", "bridge", &[publish(None, 8080, 80, Protocol::Udp)]);
        assert_eq!(
            saved(&["filter", "nat"]),
            render_save(
                &ruleset(&host.model(), netmgr::Family::V4),
                &[Table::Filter, Table::Nat],
                "DROP",
            )
        );
    });
}

#[test]
fn docker_profile_keeps_its_hands_off_another_engine() {
    in_own_netns(|| {
        iptables("-t nat -N DOCKER");
        iptables("-t nat -A DOCKER -i docker0 -j RETURN");
        let before = saved(&["nat"]);
        let mut host = Host::new(Profile::Docker);
        let error = netmgr::up(&host.settings, &mut host.conn).unwrap_err();
        assert!(matches!(error, Error::OtherEngine { .. }), "{error}");
        host.down();
        assert_eq!(saved(&["nat"]), before);
        assert_eq!(interfaces(), ["lo"]);
        // Our own profile lives beside it.
        let mut ours = Host::new(Profile::Coracle);
        ours.up();
        ours.down();
        assert_eq!(saved(&["nat"]), before);
    });
}

#[test]
fn switching_rules_off_takes_them_away_and_on_brings_them_back() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        let _a = host.attach("a", "bridge", &[tcp(8080, 80)]);
        host.settings.firewall = Firewall::None;
        let _b = host.attach("b", "bridge", &[tcp(8081, 80)]);
        assert!(!saved(&ALL).contains("CORACLE") && !saved(&ALL).contains("coracle:"));
        host.settings.firewall = Firewall::Auto;
        host.detach("b");
        assert_as_wanted(&host);
    });
}

#[test]
fn subnets_in_use_on_the_host_are_avoided() {
    in_own_netns(|| {
        command("ip", &["link", "add", "outer", "type", "bridge"]);
        command("ip", &["address", "add", "10.200.0.9/16", "dev", "outer"]);
        command("ip", &["link", "set", "outer", "up"]);
        command(
            "ip",
            &["route", "add", "10.201.0.0/24", "via", "10.200.0.1"],
        );
        let mut host = Host::new(Profile::Coracle);
        let web = host.create("web", "", &[]);
        assert_eq!(web.subnet.to_string(), "10.201.1.0/24");
        assert_eq!(host.model().networks[0].subnet.to_string(), "10.217.0.0/16");
    });
}
