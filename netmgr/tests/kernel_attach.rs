//! Bridges and veths in namespaces of their own: what works, what fails cleanly, and what is left.

mod kernel_support;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kernel_support::*;
use netmgr::kernel::{self, links, netns};
use netmgr::plan::{Batch, DefaultRoute, Hop, Op, ReservePorts, Tool, Veth};
use netmgr::{ErrorKind, Family, Netns, apply};

fn namespaces(lasts: &[u8]) -> HashMap<String, Netns> {
    lasts
        .iter()
        .map(|last| (veth(*last).endpoint.id, netns::create().unwrap()))
        .collect()
}

fn of(namespaces: &HashMap<String, Netns>, last: u8) -> &Netns {
    &namespaces[&veth(last).endpoint.id]
}

fn names() -> Vec<String> {
    links::list()
        .unwrap()
        .into_iter()
        .map(|link| link.name)
        .collect()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(5), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn containers_of_one_bridge_reach_each_other_and_the_gateway() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(&root);
        let inside = namespaces(&[2, 3]);
        let ops = [
            Op::CreateBridge(bridge()),
            Op::CreateVeth(veth(2)),
            Op::CreateVeth(veth(3)),
        ];
        apply::run(&settings, &ops, &inside).unwrap();

        run_inside(of(&inside, 2), "ping -c1 -W1 10.99.0.3");
        run_inside(of(&inside, 3), "ping -c1 -W1 10.99.0.1");
        run("ping -c1 -W1 10.99.0.2");
        let own = run_inside(of(&inside, 2), "ip -o link show eth0");
        assert!(own.contains("02:42:0a:63:00:02"), "{own}");
        let lo = run_inside(of(&inside, 2), "ip -4 -br address show lo");
        assert!(lo.contains("127.0.0.1/8"), "{lo}");
        let route = run_inside(of(&inside, 2), "ip route show default");
        assert!(route.contains("via 10.99.0.1 dev eth0"), "{route}");

        let listed = links::list().unwrap();
        let found = listed.iter().find(|link| link.name == BRIDGE).unwrap();
        assert_eq!(
            (found.kind.as_str(), found.mtu, found.up),
            ("bridge", 1500, true)
        );
        assert_eq!(found.addresses, ["10.99.0.1/24".parse().unwrap()]);
        let port = listed.iter().find(|link| link.name == "veth2").unwrap();
        assert_eq!(
            (port.kind.as_str(), port.master.as_deref()),
            ("veth", Some(BRIDGE))
        );
        let details = run("ip -d link show cr-test");
        assert!(details.contains("02:42:0a:63:00:01"), "{details}");
        assert!(details.contains("stp_state 0"), "{details}");
        let v6 = run("ip -6 -br address show dev veth2");
        assert!(
            !v6.contains("fe80"),
            "the host end has an IPv6 address: {v6}"
        );

        apply::roll_back(&settings, &ops, &HashMap::new()).unwrap();
        assert_eq!(names(), ["lo"]);
    });
}

#[test]
fn first_packet_of_a_container_needs_no_second_try() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(&root);
        apply::run(&settings, &[Op::CreateBridge(bridge())], &HashMap::new()).unwrap();
        for last in 2..42 {
            let inside = namespaces(&[last]);
            apply::run(&settings, &[Op::CreateVeth(veth(last))], &inside).unwrap();
            // A lost ARP request is repeated after a second.
            run_inside(of(&inside, last), "ping -c1 -W0.5 10.99.0.1");
        }
    });
}

#[test]
fn attached_address_is_announced_to_the_bridge() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(&root);
        apply::run(&settings, &[Op::CreateBridge(bridge())], &HashMap::new()).unwrap();
        for last in 7..17 {
            let wire = Wire::tap();
            let inside = namespaces(&[last]);
            apply::run(&settings, &[Op::CreateVeth(veth(last))], &inside).unwrap();
            let endpoint = veth(last).endpoint;
            assert!(
                wire.hears(BRIDGE, |frame| {
                    is_gratuitous_arp(frame, endpoint.address, endpoint.mac)
                }),
                "no gratuitous ARP of {}",
                endpoint.address
            );
        }
    });
}

#[test]
fn isolated_ports_do_not_reach_each_other_but_reach_the_gateway() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        let inside = namespaces(&[2, 3]);
        let isolated = |last| {
            let mut veth = veth(last);
            veth.isolated = true;
            Op::CreateVeth(veth)
        };
        let ops = [Op::CreateBridge(bridge()), isolated(2), isolated(3)];
        apply::run(&settings(&root), &ops, &inside).unwrap();
        run_inside(of(&inside, 2), "ping -c1 -W1 10.99.0.1");
        assert!(!attempt_inside(of(&inside, 2), "ping -c1 -W0.3 10.99.0.3").ok);
    });
}

#[test]
fn mtu_is_the_networks_or_the_default_routes() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(&root);
        assert_eq!(links::default_mtu().unwrap(), 1500);
        run("ip link add up0 type veth peer name up1");
        run("ip link set up1 mtu 1400 up");
        run("ip link set up0 mtu 1400 up");
        run("ip address add 192.0.2.2/24 dev up0");
        run("ip route add default via 192.0.2.1");
        run("ip route add 198.51.100.0/24 via 192.0.2.1");
        assert_eq!(links::default_mtu().unwrap(), 1400);
        let routes = links::routes().unwrap();
        let expected = ["127.0.0.0/8", "192.0.2.0/24", "198.51.100.0/24"];
        assert_eq!(routes, expected.map(|subnet| subnet.parse().unwrap()));

        let inside = namespaces(&[2, 3]);
        let add = |last| [Op::CreateVeth(veth(last))];
        apply::run(&settings, &[Op::CreateBridge(bridge())], &inside).unwrap();
        apply::run(&settings, &add(2), &inside).unwrap();
        apply::run(&settings, &[Op::RemoveVeth(veth(2))], &inside).unwrap();
        apply::run(&settings, &add(3), &inside).unwrap();
        let own = run_inside(of(&inside, 3), "ip -o link show eth0");
        assert!(own.contains("mtu 1400"), "{own}");
        let mtu_of = |name: &str| {
            let listed = links::list().unwrap();
            listed.iter().find(|link| link.name == name).unwrap().mtu
        };
        assert_eq!((mtu_of(BRIDGE), mtu_of("veth3")), (1400, 1400));
    });
}

#[test]
fn internal_network_has_no_default_route() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        let inside = namespaces(&[2]);
        let mut internal = veth(2);
        internal.gateway = None;
        let ops = [Op::CreateBridge(bridge()), Op::CreateVeth(internal)];
        apply::run(&settings(&root), &ops, &inside).unwrap();
        assert_eq!(run_inside(of(&inside, 2), "ip route show default"), "");
        run_inside(of(&inside, 2), "ping -c1 -W1 10.99.0.1");
    });
}

#[test]
fn veth_goes_with_its_namespace() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        let inside = namespaces(&[2]);
        let ops = [Op::CreateBridge(bridge()), Op::CreateVeth(veth(2))];
        apply::run(&settings(&root), &ops, &inside).unwrap();
        assert!(names().contains(&"veth2".into()));
        drop(inside);
        wait_until("the veth outlives its namespace", || {
            !names().contains(&"veth2".into())
        });
        // And then there is nothing to remove, which is no error.
        let ops = [Op::RemoveVeth(veth(2)), Op::RemoveBridge(bridge())];
        apply::run(&settings(&root), &ops, &HashMap::new()).unwrap();
        apply::run(&settings(&root), &ops, &HashMap::new()).unwrap();
    });
}

#[test]
fn works_where_the_host_has_ipv6_switched_off() {
    on_a_host(|| {
        std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        let root = tempfile::tempdir().unwrap();
        let inside = namespaces(&[2]);
        let ops = [Op::CreateBridge(bridge()), Op::CreateVeth(veth(2))];
        apply::run(&settings(&root), &ops, &inside).unwrap();
        run_inside(of(&inside, 2), "ping -c1 -W1 10.99.0.1");
    });
}

fn batch(tool: Tool, forward: &str, inverse: &str) -> Op {
    Op::Rules(Batch {
        tool,
        forward: forward.into(),
        inverse: inverse.into(),
    })
}

fn hop(veth: &Veth, gateway: &str, gateway6: &str) -> Option<Hop> {
    Some(Hop {
        interface: veth.endpoint.interface.clone(),
        gateway: Some(gateway.parse().unwrap()),
        gateway6: Some(gateway6.parse().unwrap()),
    })
}

/// Every kind of operation there is, but what removes the container's last interface, on a host where the second bridge
/// and its veth are in place already.
fn ops_of_every_kind() -> Vec<Op> {
    let chain = "*nat\n:T - [0:0]\n-A PREROUTING -j T\nCOMMIT\n*filter\n:T - [0:0]\n-A FORWARD -j T\nCOMMIT\n";
    let no_chain =
        "*nat\n-D PREROUTING -j T\n-X T\nCOMMIT\n*filter\n-D FORWARD -j T\n-X T\nCOMMIT\n";
    vec![
        Op::EnableForwarding(Family::V4),
        Op::EnableForwarding(Family::V6),
        Op::CreateBridge(bridge6()),
        batch(Tool::Iptables, chain, no_chain),
        batch(Tool::Ip6tables, chain, no_chain),
        batch(
            Tool::Nft,
            "table inet coracle_test { set s { type inet_service; elements = { 80 }; }; }\n",
            "delete table inet coracle_test\n",
        ),
        Op::CreateVeth(veth6(2)),
        Op::RemoveVeth(veth6(2)),
        Op::CreateVeth(veth6(3)),
        Op::DefaultRoute(DefaultRoute {
            container_id: veth(3).endpoint.container_id,
            container_name: "c3".into(),
            from: hop(&veth6(3), "10.99.0.1", GATEWAY6),
            to: hop(&second_veth(3), "10.98.0.1", "fd00:98::1"),
        }),
        Op::JoinBridge(veth6(3)),
        Op::ReservePorts(ReservePorts {
            before: vec![],
            after: vec![(7000, 8000)],
        }),
        batch(
            Tool::Iptables,
            "*nat\n-A T -d 10.99.0.3/32 -j RETURN\nCOMMIT\n*filter\n-A T -d 10.99.0.3/32 -j ACCEPT\nCOMMIT\n",
            "*nat\n-D T -d 10.99.0.3/32 -j RETURN\nCOMMIT\n*filter\n-D T -d 10.99.0.3/32 -j ACCEPT\nCOMMIT\n",
        ),
        batch(
            Tool::Nft,
            "add element inet coracle_test s { 443 }\n",
            "delete element inet coracle_test s { 443 }\n",
        ),
        Op::RemoveVeth(second_veth(3)),
        Op::RemoveBridge(second_bridge()),
    ]
}

/// A host with tables in use (one with no rule differs from none only in the listing), an administrator's reserved port,
/// and a container on the second bridge.
fn host_in_use(settings: &netmgr::Settings) -> HashMap<String, Netns> {
    let tables = "*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n*filter\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n";
    kernel::commands::write(Tool::Iptables, tables).unwrap();
    kernel::commands::write(Tool::Ip6tables, tables).unwrap();
    std::fs::write("/proc/sys/net/ipv4/ip_local_reserved_ports", "7500,9000\n").unwrap();
    let inside = namespaces(&[2, 3]);
    let ops = [
        Op::CreateBridge(second_bridge()),
        Op::CreateVeth(second_veth(3)),
    ];
    apply::run(settings, &ops, &inside).unwrap();
    inside
}

/// Without what is no configuration: the bridge's link-local address, which comes and goes with its carrier, the index of
/// a veth's other end, and the spaces between columns.
fn settled(inside: &HashMap<String, Netns>) -> String {
    let host: Vec<String> = state()
        .lines()
        .map(|line| {
            let words = line.split_whitespace();
            let kept = words.filter(|word| !word.starts_with("fe80:"));
            let kept = kept.map(|word| word.split("@if").next().unwrap_or_default());
            kept.collect::<Vec<_>>().join(" ")
        })
        .collect();
    format!(
        "{}\n{}\n{}",
        host.join("\n"),
        state_inside(of(inside, 2)),
        state_inside(of(inside, 3))
    )
}

#[test]
fn failure_at_any_op_leaves_the_host_as_it_was() {
    // Half done itself: the first table is committed when the second fails.
    let half = |tool| {
        batch(
            tool,
            "*nat\n:HALF - [0:0]\nCOMMIT\n*filter\n-A NOWHERE -j ACCEPT\nCOMMIT\n",
            "*nat\n-X HALF\nCOMMIT\n*filter\n-D NOWHERE -j ACCEPT\nCOMMIT\n",
        )
    };
    let refused = batch(
        Tool::Nft,
        "add table inet coracle_half\nadd element inet coracle_nowhere s { 1 }\n",
        "delete table inet coracle_half\n",
    );
    let failing = [
        (half(Tool::Iptables), "iptables-restore"),
        (half(Tool::Ip6tables), "ip6tables-restore"),
        (refused, "nft"),
    ];
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(&root);
        let inside = host_in_use(&settings);
        netns::loopback_up(of(&inside, 2)).unwrap();
        let before = settled(&inside);
        for k in 0..=ops_of_every_kind().len() {
            let (failing, command) = &failing[k % failing.len()];
            let mut ops = ops_of_every_kind();
            ops.truncate(k);
            ops.push(failing.clone());
            let error = apply::run(&settings, &ops, &inside).unwrap_err();
            match &error {
                kernel::Error::CommandFailed { name, line, .. } => {
                    assert_eq!(name, command, "failing after {k} ops: {error}");
                    if *command != "nft" {
                        assert_eq!(line.as_deref(), Some("-A NOWHERE -j ACCEPT"), "{error}");
                    }
                }
                other => panic!("failing after {k} ops: {other}"),
            }
            similar(
                &settled(&inside),
                &before,
                &format!("failing after {k} ops"),
            );
            assert_eq!(left_in(&root), [""; 0], "failing after {k} ops");
        }
    });
}

#[test]
fn roll_back_takes_back_whatever_a_killed_change_had_done() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(&root);
        let inside = host_in_use(&settings);
        netns::loopback_up(of(&inside, 2)).unwrap();
        let before = settled(&inside);
        let ops = ops_of_every_kind();
        for k in 0..=ops.len() {
            apply::run(&settings, &ops[..k], &inside).unwrap();
            apply::roll_back(&settings, &ops, &inside).unwrap();
            similar(&settled(&inside), &before, &format!("killed after {k} ops"));
            assert_eq!(left_in(&root), [""; 0], "killed after {k} ops");
        }
    });
}

#[test]
fn roll_back_without_the_namespace_leaves_the_container_alone() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(&root);
        let inside = host_in_use(&settings);
        let ops = [Op::RemoveVeth(second_veth(3))];
        apply::run(&settings, &ops, &inside).unwrap();
        apply::roll_back(&settings, &ops, &HashMap::new()).unwrap();
        assert!(!names().contains(&"second3".into()));
        apply::roll_back(&settings, &ops, &inside).unwrap();
        assert!(names().contains(&"second3".into()));
    });
}

fn similar(found: &str, expected: &str, when: &str) {
    let differ: Vec<_> = found
        .lines()
        .zip(expected.lines())
        .filter(|(a, b)| a != b)
        .collect();
    assert!(
        found == expected,
        "{when}: {differ:#?}\n{found}\nand not\n{expected}"
    );
}

fn left_in(root: &tempfile::TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(root.path()).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn name_in_use_is_a_conflict_and_leaves_the_other_link_alone() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        run("ip link add cr-test type veth peer name other");
        let error = apply::run(
            &settings(&root),
            &[Op::CreateBridge(bridge())],
            &HashMap::new(),
        )
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(names().contains(&BRIDGE.into()));
        let error = apply::run(
            &settings(&root),
            &[Op::CreateVeth(veth(2))],
            &HashMap::new(),
        )
        .unwrap_err();
        assert!(
            matches!(error, kernel::Error::NetnsUnknown { .. }),
            "{error}"
        );
    });
}

#[test]
fn failed_roll_back_keeps_both_causes() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(&root);
        let rules = |forward: &str, inverse: &str| {
            Op::Rules(Batch {
                tool: netmgr::plan::Tool::Iptables,
                forward: forward.into(),
                inverse: inverse.into(),
            })
        };
        let ops = [
            rules(
                "*nat\n:KEPT - [0:0]\nCOMMIT\n",
                "*nat\n-X MISSING\nCOMMIT\n",
            ),
            Op::CreateVeth(veth(2)),
        ];
        match apply::run(&settings, &ops, &namespaces(&[2])).unwrap_err() {
            kernel::Error::RollBack { cause, undo } => {
                assert!(
                    matches!(*cause, kernel::Error::FindBridge { .. }),
                    "{cause}"
                );
                assert_eq!(undo.len(), 1);
            }
            other => panic!("{other}"),
        }
    });
}

#[test]
#[ignore = "prints times; run with --ignored --nocapture"]
fn times_of_each_step() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(&root);
        let mut table: Vec<(&str, Vec<f64>)> = Vec::new();
        let mut time = |step: &'static str, work: &mut dyn FnMut()| {
            let start = Instant::now();
            work();
            let took = start.elapsed().as_secs_f64() * 1000.0;
            match table.iter_mut().find(|(name, _)| *name == step) {
                Some((_, times)) => times.push(took),
                None => table.push((step, vec![took])),
            }
        };
        let none = HashMap::new();
        for _ in 0..30 {
            let mut inside = HashMap::new();
            time("create netns", &mut || inside = namespaces(&[2]));
            time("create bridge", &mut || {
                apply::run(&settings, &[Op::CreateBridge(bridge())], &none).unwrap()
            });
            time("create veth", &mut || {
                apply::run(&settings, &[Op::CreateVeth(veth(2))], &inside).unwrap()
            });
            time("links::list", &mut || drop(links::list().unwrap()));
            time("links::routes", &mut || drop(links::routes().unwrap()));
            time("iptables-restore of 2 tables", &mut || {
                kernel::commands::restore("*nat\n:T - [0:0]\n-A T -j RETURN\nCOMMIT\n*filter\n:T - [0:0]\n-A T -j RETURN\nCOMMIT\n").unwrap()
            });
            time("remove veth", &mut || {
                apply::run(&settings, &[Op::RemoveVeth(veth(2))], &none).unwrap()
            });
            time("remove bridge", &mut || {
                apply::run(&settings, &[Op::RemoveBridge(bridge())], &none).unwrap()
            });
            time("drop netns", &mut || inside.clear());
        }
        for (step, mut times) in table {
            times.sort_by(f64::total_cmp);
            println!(
                "{step:30} median {:7.3} ms  max {:7.3} ms",
                times[times.len() / 2],
                times[times.len() - 1]
            );
        }
    });
}
