//! IPv6 on bridges and veths, several interfaces in one container, and ports that come back to their bridge.

mod kernel_support;

use std::collections::HashMap;
use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use kernel_support::*;
use netmgr::kernel::{self, netns};
use netmgr::plan::{Op, Veth};
use netmgr::{ErrorKind, Netns, apply};

fn inside(lasts: &[u8]) -> HashMap<String, Netns> {
    lasts
        .iter()
        .map(|last| (veth(*last).endpoint.container_id, netns::create().unwrap()))
        .collect()
}

fn apply(ops: &[Op], inside: &HashMap<String, Netns>) -> Result<(), kernel::Error> {
    let root = tempfile::tempdir().unwrap();
    apply::run(&settings(&root), ops, inside)
}

fn of(inside: &HashMap<String, Netns>, last: u8) -> &Netns {
    &inside[&veth(last).endpoint.container_id]
}

#[test]
fn containers_reach_each_other_and_the_gateway_by_ipv6() {
    on_a_host(|| {
        let inside = inside(&[2, 3]);
        let ops = [
            Op::CreateBridge(bridge6()),
            Op::CreateVeth(veth6(2)),
            Op::CreateVeth(veth6(3)),
        ];
        apply(&ops, &inside).unwrap();
        run_inside(of(&inside, 2), "ping -c1 -W1 fd00:99::3");
        run_inside(of(&inside, 3), "ping -c1 -W1 fd00:99::1");
        run("ping -c1 -W1 fd00:99::2");
        run_inside(of(&inside, 2), "ping -c1 -W1 10.99.0.3");
        let routes = run_inside(of(&inside, 2), "ip -6 route show default");
        assert!(routes.contains("via fd00:99::1 dev eth0"), "{routes}");
        let address = run_inside(
            of(&inside, 2),
            "ip -6 -o address show dev eth0 scope global",
        );
        assert!(address.contains("fd00:99::2/64"), "{address}");
        assert!(!address.contains("tentative"), "{address}");
    });
}

/// A lost neighbour solicitation is repeated after a second.
#[test]
fn first_packet_by_ipv6_needs_no_second_try() {
    on_a_host(|| {
        apply(&[Op::CreateBridge(bridge6())], &HashMap::new()).unwrap();
        // Bound at once, though nothing is attached yet.
        UdpSocket::bind("[fd00:99::1]:5353").unwrap();
        for last in 2..42 {
            let inside = inside(&[last]);
            apply(&[Op::CreateVeth(veth6(last))], &inside).unwrap();
            match last % 2 {
                0 => drop(run_inside(of(&inside, last), "ping -c1 -W0.5 fd00:99::1")),
                _ => drop(run(&format!("ping -c1 -W0.5 fd00:99::{last}"))),
            }
        }
    });
}

/// As for a packet from another machine: the host asks for the container from no address of the packet's.
#[test]
fn first_packet_from_elsewhere_needs_no_second_try() {
    on_a_host(|| {
        run("ip address add fd00:2::1/128 dev lo nodad");
        for _ in 0..5 {
            let inside = inside(&[2]);
            let ops = [Op::CreateBridge(bridge6()), Op::CreateVeth(veth6(2))];
            apply(&ops, &inside).unwrap();
            run("ping -c1 -W0.5 -I fd00:2::1 fd00:99::2");
            // The kernel makes itself no second one.
            let addresses = run("ip -6 -br address show dev cr-test");
            assert_eq!(addresses.matches("fe80::").count(), 1, "{addresses}");
            let ops = [Op::RemoveVeth(veth6(2)), Op::RemoveBridge(bridge6())];
            apply(&ops, &inside).unwrap();
        }
    });
}

#[test]
fn both_addresses_are_announced_to_the_bridge() {
    on_a_host(|| {
        apply(&[Op::CreateBridge(bridge6())], &HashMap::new()).unwrap();
        for last in 7..17 {
            let inside = inside(&[last]);
            let endpoint = veth6(last).endpoint;
            let (arp, advertisement) = (Wire::tap(), Wire::tap());
            apply(&[Op::CreateVeth(veth6(last))], &inside).unwrap();
            assert!(
                arp.hears(BRIDGE, |frame| {
                    is_gratuitous_arp(frame, endpoint.address, endpoint.mac)
                }),
                "no gratuitous ARP of {}",
                endpoint.address
            );
            let address = endpoint.address6.unwrap();
            assert!(
                advertisement.hears(BRIDGE, |frame| {
                    is_unsolicited_na(frame, address, endpoint.mac)
                }),
                "no neighbour advertisement of {address}"
            );
        }
    });
}

/// What the announcements are for: a neighbour that knows the address by its last owner follows it to the next.
#[test]
fn neighbour_follows_an_address_to_its_next_owner() {
    on_a_host(|| {
        let inside = inside(&[2, 3, 4]);
        let ops = [
            Op::CreateBridge(bridge6()),
            Op::CreateVeth(veth6(2)),
            Op::CreateVeth(veth6(3)),
        ];
        apply(&ops, &inside).unwrap();
        for address in ["10.99.0.3", "fd00:99::3"] {
            run_inside(of(&inside, 2), &format!("ping -c1 -W1 {address}"));
        }
        let mut next = veth6(4);
        next.endpoint.address = veth6(3).endpoint.address;
        next.endpoint.address6 = veth6(3).endpoint.address6;
        let ops = [Op::RemoveVeth(veth6(3)), Op::CreateVeth(next)];
        apply(&ops, &inside).unwrap();
        for address in ["10.99.0.3", "fd00:99::3"] {
            run_inside(of(&inside, 2), &format!("ping -c1 -W0.5 {address}"));
        }
    });
}

#[test]
fn switched_off_ipv6_is_an_error_only_where_it_is_wanted() {
    on_a_host(|| {
        fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        let before = state();
        let error = apply(&[Op::CreateBridge(bridge6())], &HashMap::new()).unwrap_err();
        assert!(matches!(error, kernel::Error::Ipv6Off { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("disable_ipv6"), "{error}");
        assert_eq!(state(), before);

        let inside = inside(&[2]);
        for (setting, veth) in [("all", veth6(2)), ("default", veth6(2))] {
            let path = format!("/proc/sys/net/ipv6/conf/{setting}/disable_ipv6");
            netns::run_in(of(&inside, 2), || fs::write(path, "1").unwrap()).unwrap();
            let ops = [Op::CreateBridge(bridge()), Op::CreateVeth(veth)];
            let error = apply(&ops, &inside).unwrap_err();
            assert!(matches!(error, kernel::Error::Ipv6Off { .. }), "{error}");
            assert_eq!(state(), before);
        }
        let ops = [Op::CreateBridge(bridge()), Op::CreateVeth(veth(2))];
        apply(&ops, &inside).unwrap();
        run_inside(of(&inside, 2), "ping -c1 -W1 10.99.0.1");
    });
}

#[test]
fn several_interfaces_have_one_default_route_of_each_family() {
    on_a_host(|| {
        let inside = inside(&[2]);
        let ops = [
            Op::CreateBridge(bridge6()),
            Op::CreateBridge(second_bridge()),
            Op::CreateVeth(second_veth(2)),
            Op::CreateVeth(veth6(2)),
        ];
        apply(&ops, &inside).unwrap();
        let own = of(&inside, 2);
        for gateway in ["10.99.0.1", "fd00:99::1", "10.98.0.1", "fd00:98::1"] {
            run_inside(own, &format!("ping -c1 -W1 {gateway}"));
        }
        let v4 = run_inside(own, "ip route show default");
        assert_eq!(v4.lines().count(), 1, "{v4}");
        assert!(v4.contains("via 10.99.0.1 dev eth0"), "{v4}");
        let v6 = run_inside(own, "ip -6 route show default");
        assert_eq!(v6.lines().count(), 1, "{v6}");
        assert!(v6.contains("via fd00:99::1 dev eth0"), "{v6}");
        apply(&[Op::RemoveVeth(veth6(2))], &inside).unwrap();
        run_inside(own, "ping -c1 -W1 fd00:98::1");
        assert_eq!(run_inside(own, "ip -6 route show default"), "");
    });
}

fn remade(ports: [Veth; 2]) -> [Op; 3] {
    let [one, other] = ports;
    [
        Op::CreateBridge(bridge6()),
        Op::JoinBridge(one),
        Op::JoinBridge(other),
    ]
}

#[test]
fn ports_come_back_to_a_bridge_that_was_deleted_by_hand() {
    on_a_host(|| {
        let inside = inside(&[2, 3]);
        let ops = [
            Op::CreateBridge(bridge6()),
            Op::CreateVeth(veth6(2)),
            Op::CreateVeth(veth6(3)),
        ];
        apply(&ops, &inside).unwrap();
        let [sender, receiver] = [2, 3].map(|last| {
            let own = of(&inside, last);
            netns::run_in(own, || UdpSocket::bind("0.0.0.0:9000").unwrap()).unwrap()
        });
        let patience = Some(Duration::from_millis(500));
        receiver.set_read_timeout(patience).unwrap();
        // Known to each other: no question comes before the packet.
        run_inside(of(&inside, 2), "ping -c1 -W1 10.99.0.3");
        for _ in 0..10 {
            run("ip link delete cr-test");
            apply(&remade([veth6(2), veth6(3)]), &inside).unwrap();
            // The first packet: both ports forward.
            sender.send_to(b"x", "10.99.0.3:9000").unwrap();
            assert_eq!(receiver.recv(&mut [0; 8]).expect("a packet was lost"), 1);
            run_inside(of(&inside, 2), "ping -c1 -W0.5 10.99.0.1");
        }
        // Set down by hand it comes up too. Its other end is ready when the kernel has noticed (linkwatch), in a namespace
        // that is not at hand: here a second try is allowed.
        run("ip link set veth2 down");
        apply(&[Op::JoinBridge(veth6(2))], &inside).unwrap();
        run_inside(of(&inside, 2), "ping -c3 -i0.3 -w5 10.99.0.1");
        let before = state();
        apply(&[Op::JoinBridge(veth6(2))], &inside).unwrap();
        assert_eq!(state(), before);
        run_inside(of(&inside, 2), "ping -c1 -W1 fd00:99::3");

        // Isolation comes along, and goes too.
        let isolated = |isolated| {
            [2, 3].map(|last| Veth {
                isolated,
                ..veth6(last)
            })
        };
        run("ip link delete cr-test");
        apply(&remade(isolated(true)), &inside).unwrap();
        run_inside(of(&inside, 2), "ping -c1 -W1 10.99.0.1");
        assert!(!attempt_inside(of(&inside, 2), "ping -c1 -W0.3 10.99.0.3").ok);
        apply(&isolated(false).map(Op::JoinBridge), &inside).unwrap();
        run_inside(of(&inside, 2), "ping -c1 -W1 10.99.0.3");
    });
}

#[test]
fn port_that_is_gone_is_named() {
    on_a_host(|| {
        apply(&[Op::CreateBridge(bridge6())], &HashMap::new()).unwrap();
        let error = apply(&[Op::JoinBridge(veth6(2))], &HashMap::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let text = error.to_string();
        assert!(text.contains("veth2") && text.contains("c2"), "{text}");
    });
}
