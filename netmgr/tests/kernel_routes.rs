//! The default routes of a running container, from one interface to another.

mod kernel_support;

use std::collections::HashMap;

use kernel_support::*;
use netmgr::kernel::{self, netns};
use netmgr::plan::{DefaultRoute, Hop, Op};
use netmgr::{Netns, apply};

fn first() -> Option<Hop> {
    hop("eth0", "10.99.0.1", Some("fd00:99::1"))
}

fn second() -> Option<Hop> {
    hop("eth1", "10.98.0.1", Some("fd00:98::1"))
}

fn hop(interface: &str, gateway: &str, gateway6: Option<&str>) -> Option<Hop> {
    Some(Hop {
        interface: interface.into(),
        gateway: Some(gateway.parse().unwrap()),
        gateway6: gateway6.map(|gateway| gateway.parse().unwrap()),
    })
}

/// A container on two bridges, with default routes over the first.
fn container() -> (String, HashMap<String, Netns>) {
    let id = veth(2).endpoint.container_id;
    let inside = HashMap::from([(id.clone(), netns::create().unwrap())]);
    let ops = [
        Op::CreateBridge(bridge6()),
        Op::CreateBridge(second_bridge()),
        Op::CreateVeth(veth6(2)),
        Op::CreateVeth(second_veth(2)),
    ];
    let root = tempfile::tempdir().unwrap();
    apply::run(&settings(&root), &ops, &inside).unwrap();
    (id, inside)
}

fn set(
    inside: &HashMap<String, Netns>,
    from: Option<Hop>,
    to: Option<Hop>,
) -> Result<(), kernel::Error> {
    let root = tempfile::tempdir().unwrap();
    let op = Op::DefaultRoute(DefaultRoute {
        container_id: veth(2).endpoint.container_id,
        container_name: "c2".into(),
        from,
        to,
    });
    apply::run(&settings(&root), &[op], inside)
}

/// Gateway and interface of the default routes of both families.
fn defaults(netns: &Netns) -> Vec<String> {
    let text =
        run_inside(netns, "ip route show default") + &run_inside(netns, "ip -6 route show default");
    let over = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        format!("{} {}", words[2], words[4])
    };
    text.lines().map(over).collect()
}

#[test]
fn default_routes_move_there_and_back_and_away() {
    on_a_host(|| {
        let (id, inside) = container();
        let own = &inside[&id];
        let (over_first, over_second) = (
            ["10.99.0.1 eth0", "fd00:99::1 eth0"],
            ["10.98.0.1 eth1", "fd00:98::1 eth1"],
        );
        assert_eq!(defaults(own), over_first);
        set(&inside, first(), second()).unwrap();
        assert_eq!(defaults(own), over_second);
        run("ip address add 192.0.2.9/32 dev lo");
        run_inside(own, "ping -c1 -W1 192.0.2.9");
        // Done already.
        set(&inside, first(), second()).unwrap();
        assert_eq!(defaults(own), over_second);
        set(&inside, second(), first()).unwrap();
        assert_eq!(defaults(own), over_first);
        set(&inside, None, second()).unwrap();
        assert_eq!(defaults(own), over_second);
        set(&inside, second(), None).unwrap();
        assert_eq!(defaults(own), [""; 0]);
        set(&inside, second(), None).unwrap();
        set(&inside, None, None).unwrap();
        assert_eq!(defaults(own), [""; 0]);
        set(&inside, None, first()).unwrap();
        // A network without IPv6: that family loses its route.
        set(&inside, first(), hop("eth1", "10.98.0.1", None)).unwrap();
        assert_eq!(defaults(own), ["10.98.0.1 eth1"]);
        // Its interface went first, and its routes with it.
        set(&inside, hop("eth7", "10.97.0.1", None), None).unwrap();
        assert_eq!(defaults(own), ["10.98.0.1 eth1"]);
    });
}

#[test]
fn routes_of_the_containers_own_stay() {
    on_a_host(|| {
        let (id, inside) = container();
        let own = &inside[&id];
        run_inside(own, "ip route add default via 10.98.0.9 dev eth1 metric 50");
        run_inside(own, "ip route add 198.51.100.0/24 via 10.98.0.9");
        set(&inside, first(), None).unwrap();
        assert_eq!(defaults(own), ["10.98.0.9 eth1"]);
        let all = run_inside(own, "ip route show");
        assert!(all.contains("198.51.100.0/24 via 10.98.0.9"), "{all}");
    });
}

#[test]
fn failure_in_one_family_leaves_both_as_they_were() {
    on_a_host(|| {
        let (id, inside) = container();
        let own = &inside[&id];
        for from in [first(), None] {
            let before = state_inside(own);
            // Nobody's gateway: the kernel refuses a route over a gateway that is on no subnet of the interface.
            let beyond = hop("eth1", "10.98.0.1", Some("fd00:77::1"));
            let error = set(&inside, from, beyond).unwrap_err();
            assert!(
                matches!(error, kernel::Error::DefaultRoute { .. }),
                "{error}"
            );
            assert!(error.to_string().contains("fd00:77::1"), "{error}");
            assert_eq!(state_inside(own), before);
            // And again, from where there is no route.
            set(&inside, first(), None).unwrap();
        }
        assert_eq!(defaults(own), [""; 0]);
        let error = set(&inside, None, hop("eth7", "10.98.0.1", None)).unwrap_err();
        assert!(error.to_string().contains("eth7"), "{error}");
    });
}
