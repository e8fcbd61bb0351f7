//! Bridges and veths in namespaces of their own: what works, what fails cleanly, and what is left.

mod kernel_support;

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kernel_support::*;
use netmgr::kernel::{self, links, netns};
use netmgr::plan::{Batch, Op};
use netmgr::{ErrorKind, Netns, apply};

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
        let mut listener = Command::new("timeout")
            .args([
                "3",
                "tcpdump",
                "-n",
                "-i",
                BRIDGE,
                "-c",
                "1",
                "--immediate-mode",
                "arp",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(listener.stderr.take().unwrap()).lines();
        assert!(told.any(|line| line.unwrap().starts_with("listening on")));
        let inside = namespaces(&[7]);
        apply::run(&settings, &[Op::CreateVeth(veth(7))], &inside).unwrap();
        let heard = String::from_utf8(listener.wait_with_output().unwrap().stdout).unwrap();
        assert!(
            heard.contains("who-has 10.99.0.7 tell 10.99.0.7")
                || heard.contains("who-has 10.99.0.7 (ff:ff:ff:ff:ff:ff) tell 10.99.0.7"),
            "no gratuitous ARP: {heard:?}"
        );
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

/// The operations of a first container's start, then something that cannot succeed.
fn attach_ops() -> Vec<Op> {
    let batch = |forward: &str, inverse: &str| {
        Op::Rules(Batch {
            tool: netmgr::plan::Tool::Iptables,
            forward: forward.into(),
            inverse: inverse.into(),
        })
    };
    vec![
        Op::EnableForwarding(netmgr::Family::V4),
        Op::CreateBridge(bridge()),
        batch(
            "*nat\n:T - [0:0]\n-A PREROUTING -j T\nCOMMIT\n*filter\n:T - [0:0]\n-A FORWARD -j T\nCOMMIT\n",
            "*nat\n-D PREROUTING -j T\n-X T\nCOMMIT\n*filter\n-D FORWARD -j T\n-X T\nCOMMIT\n",
        ),
        Op::CreateVeth(veth(2)),
        Op::RemoveVeth(veth(2)),
        Op::CreateVeth(veth(3)),
        batch(
            "*nat\n-A T -d 10.99.0.3/32 -j RETURN\nCOMMIT\n*filter\n-A T -d 10.99.0.3/32 -j ACCEPT\nCOMMIT\n",
            "*nat\n-D T -d 10.99.0.3/32 -j RETURN\nCOMMIT\n*filter\n-D T -d 10.99.0.3/32 -j ACCEPT\nCOMMIT\n",
        ),
    ]
}

/// The tables are in use from the start: one with no rule differs from none only in the listing.
fn create_tables() {
    let tables = "*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n*filter\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n";
    kernel::commands::restore(tables).unwrap();
}

#[test]
fn failure_at_any_op_leaves_the_host_as_it_was() {
    // Half done itself: the first table is committed when the second fails.
    let failing = Op::Rules(Batch {
        tool: netmgr::plan::Tool::Iptables,
        forward: "*nat\n:HALF - [0:0]\nCOMMIT\n*filter\n-A NOWHERE -j ACCEPT\nCOMMIT\n".into(),
        inverse: "*nat\n-X HALF\nCOMMIT\n*filter\n-D NOWHERE -j ACCEPT\nCOMMIT\n".into(),
    });
    on_a_host(|| {
        create_tables();
        let before = state();
        let root = tempfile::tempdir().unwrap();
        let settings = settings(&root);
        for k in 0..=attach_ops().len() {
            let inside = namespaces(&[2, 3]);
            let mut ops = attach_ops();
            ops.truncate(k);
            ops.push(failing.clone());
            let error = apply::run(&settings, &ops, &inside).unwrap_err();
            match &error {
                kernel::Error::CommandFailed { name, line, .. } => {
                    assert_eq!(*name, "iptables-restore");
                    assert_eq!(line.as_deref(), Some("-A NOWHERE -j ACCEPT"), "{error}");
                }
                other => panic!("failing after {k} ops: {other}"),
            }
            assert_eq!(state(), before, "failing after {k} ops");
            assert!(!root.path().join("host.json").exists());
        }
    });
}

#[test]
fn roll_back_takes_back_whatever_a_killed_change_had_done() {
    on_a_host(|| {
        create_tables();
        let before = state();
        let root = tempfile::tempdir().unwrap();
        let settings = settings(&root);
        let ops = attach_ops();
        for k in 0..=ops.len() {
            let inside = namespaces(&[2, 3]);
            apply::run(&settings, &ops[..k], &inside).unwrap();
            apply::roll_back(&settings, &ops, &HashMap::new()).unwrap();
            assert_eq!(state(), before, "killed after {k} ops");
        }
    });
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
