//! What the host's own addresses and routes are, and what a subnet would overlap with.

mod kernel_support;

use ipnet::IpNet;
use kernel_support::*;
use netmgr::kernel::links;

fn overlapping(subnet: &str) -> Option<String> {
    links::overlapping(subnet.parse::<IpNet>().unwrap()).unwrap()
}

fn host() {
    run("ip link add uplink type veth peer name other");
    run("ip link set other up");
    run("ip link set uplink up");
    run("ip address add 192.0.2.7/24 dev uplink");
    run("ip -6 address add fd00:2::7/64 dev uplink nodad");
    run("ip address add 198.51.100.1 peer 198.51.100.2/32 dev uplink");
    run("ip route add default via 192.0.2.1");
    run("ip -6 route add default via fd00:2::1");
    run("ip route add 10.0.0.0/8 via 192.0.2.1");
    run("ip -6 route add fd12::/16 via fd00:2::1");
    run("ip route add blackhole 172.31.0.0/16");
    run("ip route add 172.30.0.0/16 via 192.0.2.1 table 77");
}

#[test]
fn addresses_of_both_families_are_listed() {
    on_a_host(|| {
        host();
        let links = links::list().unwrap();
        let uplink = links.iter().find(|link| link.name == "uplink").unwrap();
        let expected = ["192.0.2.7/24", "198.51.100.1/32"];
        assert_eq!(uplink.addresses, expected.map(|net| net.parse().unwrap()));
        let own = "fd00:2::7/64".parse().unwrap();
        assert!(uplink.addresses6.contains(&own), "{uplink:?}");
        let lo = &links[0];
        assert_eq!(lo.addresses6, ["::1/128".parse().unwrap()]);
    });
}

#[test]
fn routes_are_those_of_a_family_and_no_default() {
    on_a_host(|| {
        host();
        let expected = [
            "10.0.0.0/8",
            "127.0.0.0/8",
            "172.30.0.0/16",
            "172.31.0.0/16",
            "192.0.2.0/24",
            "198.51.100.1/32",
            "198.51.100.2/32",
        ];
        let routes = links::routes().unwrap();
        assert_eq!(routes, expected.map(|net| net.parse().unwrap()));
        let expected = ["::1/128", "fd00:2::/64", "fd12::/16"];
        let routes = links::routes6().unwrap();
        assert_eq!(routes, expected.map(|net| net.parse().unwrap()));
    });
}

#[test]
fn overlap_is_named() {
    on_a_host(|| {
        host();
        let cases = [
            (
                "192.0.2.128/25",
                "the address 192.0.2.7/24 of interface uplink",
            ),
            (
                "192.0.0.0/16",
                "the address 192.0.2.7/24 of interface uplink",
            ),
            ("10.7.0.0/16", "the route 10.0.0.0/8 of interface uplink"),
            ("172.31.5.0/24", "the route 172.31.0.0/16"),
            (
                "172.30.5.0/24",
                "the route 172.30.0.0/16 of interface uplink",
            ),
            (
                "fd00:2::/48",
                "the address fd00:2::7/64 of interface uplink",
            ),
            ("fd12:5::/64", "the route fd12::/16 of interface uplink"),
            ("127.1.0.0/24", "the address 127.0.0.1/8 of interface lo"),
        ];
        for (subnet, expected) in cases {
            assert_eq!(overlapping(subnet).as_deref(), Some(expected), "{subnet}");
        }
        for free in ["172.17.0.0/16", "192.0.3.0/24", "fd00:3::/64"] {
            assert_eq!(overlapping(free), None, "{free}");
        }
    });
}
