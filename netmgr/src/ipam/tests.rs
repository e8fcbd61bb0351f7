use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::*;
use crate::change::Pool;
use crate::model::Profile;

fn n(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

#[test]
fn first_networks_are_the_documented_ones() {
    assert_eq!(
        default_subnet(Profile::Coracle, &[], &[]),
        Some(n("10.200.0.0/16"))
    );
    assert_eq!(
        default_subnet(Profile::Docker, &[], &[]),
        Some(n("172.17.0.0/16"))
    );
    assert_eq!(
        next_subnet(Profile::Coracle, &[], &[]),
        Some(n("10.201.0.0/24"))
    );
    let taken = [n("172.17.0.0/16")];
    assert_eq!(
        next_subnet(Profile::Docker, &[], &taken),
        Some(n("172.18.0.0/16"))
    );
}

#[test]
fn nested_engine_avoids_the_outer_ones_subnet() {
    let outer = [n("10.200.0.5/16"), n("10.201.0.0/24")];
    assert_eq!(
        default_subnet(Profile::Coracle, &[], &outer),
        Some(n("10.217.0.0/16"))
    );
    assert_eq!(
        next_subnet(Profile::Coracle, &[], &outer),
        Some(n("10.201.1.0/24"))
    );
}

#[test]
fn each_level_of_engines_has_a_subnet_that_no_outer_one_has() {
    let mut seen = Vec::new();
    let mut outer = Vec::new();
    for _ in 0..16 {
        // All that an engine sees of the levels above is the route of the nearest.
        let subnet = default_subnet(Profile::Coracle, &[], &outer).unwrap();
        assert!(!seen.contains(&subnet), "{subnet} again");
        seen.push(subnet);
        outer = vec![subnet];
    }
}

#[test]
fn pool_holds_4096_small_networks_before_it_turns_to_others() {
    let taken: Vec<Ipv4Net> = (0..4096_u128)
        .map(|i| Ipv4Net::of((10 << 24) + (201 << 16) + (i << 8), 24))
        .collect();
    assert_eq!(taken.last(), Some(&n("10.216.255.0/24")));
    for at in [0, 1, 255, 256, 4000, 4095] {
        let next = next_subnet(Profile::Coracle, &[], &taken[..at]);
        assert_eq!(next, Some(taken[at]));
    }
    assert_eq!(
        next_subnet(Profile::Coracle, &[], &taken),
        Some(n("172.17.0.0/16"))
    );
}

#[test]
fn nested_and_unordered_subnets_are_all_avoided() {
    let taken = [
        "10.201.3.0/24",
        "10.201.0.0/23",
        "10.201.1.128/25",
        "10.201.2.7/32",
        "10.201.0.0/30",
    ];
    let taken: Vec<_> = taken.into_iter().map(n).collect();
    assert_eq!(
        next_subnet(Profile::Coracle, &[], &taken),
        Some(n("10.201.4.0/24"))
    );
}

#[test]
fn a_single_address_at_either_end_takes_its_subnet() {
    for address in ["10.201.0.0/32", "10.201.0.255/32"] {
        assert_eq!(
            next_subnet(Profile::Coracle, &[], &[n(address)]),
            Some(n("10.201.1.0/24"))
        );
    }
}

#[test]
fn docker_pool_ends_after_31_networks() {
    let all = drained(Profile::Docker, &[], 100);
    assert_eq!(all.len(), 31);
    assert_eq!(next_subnet(Profile::Docker, &[], &all), None);
}

/// Takes subnets until there are none, or enough.
fn drained(profile: Profile, pools: &[Pool], most: usize) -> Vec<Ipv4Net> {
    let mut taken = Vec::new();
    while taken.len() < most
        && let Some(next) = next_subnet(profile, pools, &taken)
    {
        taken.push(next);
    }
    taken
}

#[test]
fn configured_pools_come_instead_of_the_built_in_ones() {
    let pools = [
        Pool {
            base: n("10.9.8.7/29"),
            size: 31,
        },
        Pool {
            base: n("192.168.4.0/23"),
            size: 24,
        },
    ];
    let all: Vec<String> = drained(Profile::Coracle, &pools, 100)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        all,
        [
            "10.9.8.0/31",
            "10.9.8.2/31",
            "10.9.8.4/31",
            "10.9.8.6/31",
            "192.168.4.0/24",
            "192.168.5.0/24"
        ]
    );
    assert_eq!(
        default_subnet(Profile::Coracle, &pools, &[n("10.9.8.0/30")]),
        Some(n("10.9.8.4/31"))
    );
}

#[test]
fn a_search_jumps_over_what_is_in_use() {
    // Four million candidates, all but the last in use: without the jump this test would not end.
    let pools = [Pool {
        base: n("10.0.0.0/8"),
        size: 30,
    }];
    let mut taken: Vec<Ipv4Net> = (9..=30).map(|p| Ipv4Net::of(0, p)).collect();
    taken = taken
        .iter()
        .scan(10_u128 << 24, |first, net| {
            let block = Ipv4Net::of(*first, net.prefix_len());
            *first = block.last() + 1;
            Some(block)
        })
        .collect();
    for _ in 0..10_000 {
        assert_eq!(
            next_subnet(Profile::Coracle, &pools, &taken),
            Some(n("10.255.255.252/30"))
        );
    }
}

#[test]
fn pools_that_cannot_be_cut_are_refused() {
    let check = |base: &str, size| {
        check_pool(&Pool {
            base: n(base),
            size,
        })
    };
    check("10.0.0.0/8", 24).unwrap();
    check("10.0.0.0/24", 24).unwrap();
    check("10.0.0.0/24", 31).unwrap();
    for (base, size) in [
        ("10.0.0.0/8", 32),
        ("10.0.0.0/24", 16),
        ("10.0.0.0/24", 99),
        ("0.0.0.0/0", 0),
        ("127.0.0.0/8", 24),
    ] {
        assert!(
            matches!(check(base, size), Err(Error::Pool { .. })),
            "{base} {size}"
        );
    }
}

#[test]
fn a_network_as_wide_as_half_the_addresses_is_avoided_too() {
    let prefix = unique_local([1, 2, 3, 4, 5]);
    assert_eq!(next_unique_local(prefix, &[n6("8000::/1")]), None);
    assert_eq!(next_subnet(Profile::Docker, &[], &[n("128.0.0.0/1")]), None);
}

#[test]
fn a_route_for_all_of_ten_moves_us_elsewhere() {
    let corporate = [n("10.0.0.0/8")];
    assert_eq!(
        default_subnet(Profile::Coracle, &[], &corporate),
        Some(n("172.17.0.0/16"))
    );
}

#[test]
fn lowest_free_address_is_reused() {
    let subnet = n("10.1.0.0/29");
    let gw = gateway(subnet, None, &HashSet::new()).unwrap();
    assert_eq!(gw, Ipv4Addr::new(10, 1, 0, 1));
    let mut used = HashSet::from([gw]);
    let all: Vec<_> = std::iter::from_fn(|| {
        let next = lowest_free(subnet, None, &used)?;
        used.insert(next);
        Some(next.octets()[3])
    })
    .collect();
    assert_eq!(all, [2, 3, 4, 5, 6]);
    used.remove(&Ipv4Addr::new(10, 1, 0, 3));
    assert_eq!(
        lowest_free(subnet, None, &used),
        Some(Ipv4Addr::new(10, 1, 0, 3))
    );
}

#[test]
fn smallest_subnet_joins_a_gateway_and_one_container() {
    let subnet = n("10.1.0.4/31");
    check_subnet(subnet).unwrap();
    let gw = gateway(subnet, None, &HashSet::new()).unwrap();
    assert_eq!(gw, Ipv4Addr::new(10, 1, 0, 4));
    let mut used = HashSet::from([gw]);
    let only = lowest_free(subnet, None, &used).unwrap();
    assert_eq!(only, Ipv4Addr::new(10, 1, 0, 5));
    used.insert(only);
    assert_eq!(lowest_free(subnet, None, &used), None);
    assert!(matches!(
        check_subnet(n("10.1.0.4/32")),
        Err(Error::SubnetTooSmall(_))
    ));
}

#[test]
fn unusable_gateways_are_refused() {
    let subnet = n("10.1.0.0/24");
    let at = |text: &str| gateway(subnet, Some(text.parse().unwrap()), &HashSet::new());
    assert!(matches!(
        at("10.2.0.1"),
        Err(Error::GatewayOutsideSubnet(_))
    ));
    assert!(matches!(at("10.1.0.0"), Err(Error::GatewayNotHost { .. })));
    assert!(matches!(
        at("10.1.0.255"),
        Err(Error::GatewayNotHost { .. })
    ));
    assert_eq!(at("10.1.0.254").unwrap(), Ipv4Addr::new(10, 1, 0, 254));
}

#[test]
fn unusable_subnets_are_refused() {
    assert!(matches!(
        check_subnet(n("10.1.0.1/24")),
        Err(Error::SubnetHasHostBits { .. })
    ));
    for reserved in ["0.0.0.0/0", "0.0.0.0/8", "127.1.0.0/16", "224.0.0.0/24"] {
        assert!(
            matches!(check_subnet(n(reserved)), Err(Error::SubnetReserved(_))),
            "{reserved}"
        );
    }
}

fn n6(text: &str) -> Ipv6Net {
    text.parse().unwrap()
}

fn a6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

#[test]
fn ipv6_subnets_of_any_size_serve_without_being_walked_through() {
    for (subnet, first, second) in [
        ("8000::/1", "8000::1", "8000::2"),
        ("fd00::/8", "fd00::1", "fd00::2"),
        ("2001:db8::/64", "2001:db8::1", "2001:db8::2"),
        ("2001:db8::fffc/126", "2001:db8::fffd", "2001:db8::fffe"),
        ("2001:db8::fffe/127", "2001:db8::fffe", "2001:db8::ffff"),
    ] {
        check_subnet(n6(subnet)).unwrap();
        let gw = gateway(n6(subnet), None, &HashSet::new()).unwrap();
        assert_eq!(gw, a6(first));
        let next = lowest_free(n6(subnet), None, &HashSet::from([gw]));
        assert_eq!(next, Some(a6(second)));
    }
    // The last address of IPv6 is a host's, and nothing comes after it.
    let end = n6("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127");
    let both = HashSet::from([end.network(), end.broadcast()]);
    assert_eq!(lowest_free(end, None, &both), None);
}

#[test]
fn unusable_ipv6_subnets_are_refused() {
    for reserved in [
        "::/0",
        "::/1",
        "::/8",
        "::/96",
        "::1:0/112",
        "::ffff:0:0/96",
        "fe80::/64",
        "ff02::/64",
    ] {
        assert!(
            matches!(check_subnet(n6(reserved)), Err(Error::SubnetReserved(_))),
            "{reserved}"
        );
    }
    assert!(matches!(
        check_subnet(n6("fd00::1/128")),
        Err(Error::SubnetTooSmall(_))
    ));
    check_subnet(n6("64:ff9b:1::/64")).unwrap();
}

#[test]
fn addresses_come_from_the_range_and_pass_over_what_is_kept() {
    let (subnet, range) = (n("10.1.0.0/24"), n("10.1.0.248/29"));
    check_range(subnet, range).unwrap();
    let mut taken: HashSet<Ipv4Addr> = ["10.1.0.1", "10.1.0.249", "10.1.0.251"]
        .iter()
        .map(|a| a.parse().unwrap())
        .collect();
    let mut got = Vec::new();
    while let Some(next) = lowest_free(subnet, Some(range), &taken) {
        taken.insert(next);
        got.push(next.octets()[3]);
    }
    // Not 255: a range at the end of its subnet ends before the broadcast address.
    assert_eq!(got, [248, 250, 252, 253, 254]);
    let single = n("10.1.0.9/32");
    check_range(subnet, single).unwrap();
    assert_eq!(
        lowest_free(subnet, Some(single), &taken),
        Some(Ipv4Addr::new(10, 1, 0, 9))
    );
}

#[test]
fn unusable_ranges_are_refused_in_dockers_words() {
    let subnet = n("10.1.0.0/24");
    let told = |range: &str| check_range(subnet, n(range)).unwrap_err().to_string();
    assert_eq!(
        told("10.1.0.9/29"),
        "invalid ip-range 10.1.0.9/29: it should be 10.1.0.8/29"
    );
    assert_eq!(
        told("10.2.0.0/29"),
        "no matching subnet for range 10.2.0.0/29"
    );
    assert_eq!(
        told("10.0.0.0/8"),
        "no matching subnet for range 10.0.0.0/8"
    );
    assert_eq!(
        told("10.1.0.0/16"),
        "invalid ip-range 10.1.0.0/16: CIDR block is bigger than its parent subnet 10.1.0.0/24"
    );
}

#[test]
fn gateway_keeps_off_the_auxiliary_addresses() {
    let subnet = n("10.1.0.0/24");
    let aux = HashSet::from([Ipv4Addr::new(10, 1, 0, 1)]);
    assert_eq!(
        gateway(subnet, None, &aux).unwrap(),
        Ipv4Addr::new(10, 1, 0, 2)
    );
}

#[test]
fn unique_local_subnets_are_the_lowest_free_of_one_prefix() {
    let prefix = unique_local([1, 2, 3, 4, 5]);
    assert_eq!(prefix, n6("fd01:203:405::/48"));
    let next = |taken: &[Ipv6Net]| next_unique_local(prefix, taken);
    assert_eq!(next(&[]), Some(n6("fd01:203:405::/64")));
    let first = n6("fd01:203:405::/64");
    let inside = n6("fd01:203:405:1:8000::/80");
    assert_eq!(next(&[inside, first]), Some(n6("fd01:203:405:2::/64")));
    let far = n6("fd99::/64");
    assert_eq!(next(&[far]), Some(first));
    assert_eq!(next(&[prefix]), None);
    assert_eq!(next(&[n6("fd00::/8")]), None);
}

#[test]
fn default_routes_are_in_nobodys_way() {
    let subnet = IpNet::from(n("10.1.0.0/24"));
    let overlaps = |route: &str| overlaps_route(subnet, route.parse().unwrap());
    assert!(overlaps("10.0.0.0/8") && overlaps("10.1.0.7/32") && overlaps("10.1.0.0/24"));
    for other in ["0.0.0.0/0", "0.0.0.0/1", "10.1.1.0/24", "fd00::/8", "::/0"] {
        assert!(!overlaps(other), "{other}");
    }
}
