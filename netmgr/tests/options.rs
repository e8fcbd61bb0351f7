//! What may be asked of networks and attachments, on a real host: each test in a network namespace of its own.

mod common;

use common::{
    Host, attach_request, command, container_id, in_own_netns, interfaces, request, saved,
};
use netmgr::firewall::iptables::render_save;
use netmgr::firewall::policy::ruleset;
use netmgr::firewall::ruleset::Table;
use netmgr::{
    AttachRequest, Attachment, Error, ErrorKind, GatewayMode, Network, NetworkRequest, Profile,
    VethRemoval, store,
};

/// A network of a subnet, with driver options by their full names.
fn network(name: &str, subnet: &str, options: &[(&str, &str)]) -> NetworkRequest {
    NetworkRequest {
        options: options
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        ..request(name, subnet, &[])
    }
}

fn told<T: std::fmt::Debug>(result: Result<T, Error>) -> (String, ErrorKind) {
    let error = result.unwrap_err();
    (error.to_string(), error.kind())
}

fn is(text: &str, kind: ErrorKind) -> (String, ErrorKind) {
    (text.to_owned(), kind)
}

/// Enters a network and takes it back: what is tested is the answer, and no bridge is needed for it.
fn answer(host: &mut Host, request: &NetworkRequest) -> Result<Network, Error> {
    let mut answer = None;
    let undone = netmgr::change(&host.settings, &mut host.conn, |edit| {
        answer = Some(edit.create_network(request));
        Err::<(), Error>(Error::NetworkNotFound("undone".into()))
    });
    assert!(undone.is_err());
    answer.unwrap()
}

fn join(host: &mut Host, request: &AttachRequest) -> Result<Attachment, Error> {
    netmgr::change(&host.settings, &mut host.conn, |edit| edit.attach(request))
}

#[test]
fn subnets_that_the_host_uses_are_refused_by_the_interfaces_name() {
    in_own_netns(|| {
        command("ip", &["link", "add", "lan0", "type", "bridge"]);
        command("ip", &["address", "add", "192.168.7.9/24", "dev", "lan0"]);
        command("ip", &["link", "set", "lan0", "up"]);
        command(
            "ip",
            &["route", "add", "10.50.0.0/16", "via", "192.168.7.1"],
        );
        for wide in ["default", "0.0.0.0/1", "128.0.0.0/1"] {
            command("ip", &["route", "add", wide, "via", "192.168.7.1"]);
        }
        let mut host = Host::new(Profile::Coracle);
        let pool = "Pool overlaps with other one on this address space: ";
        for subnet in ["192.168.7.0/24", "192.168.0.0/16", "192.168.7.128/25"] {
            let (text, kind) = told(answer(&mut host, &network("n", subnet, &[])));
            assert!(
                text.starts_with(pool) && text.contains("lan0") && text.contains(subnet),
                "{text}"
            );
            assert_eq!(kind, ErrorKind::Conflict);
        }
        let (text, _) = told(answer(&mut host, &network("n", "10.50.3.0/24", &[])));
        assert!(text.starts_with(pool), "{text}");
        // A default route, whole or split, is in nobody's way; and our own bridges are named by their networks.
        let web = host.create("web", "192.168.8.0/24", &[]);
        assert!(interfaces().contains(&web.bridge));
        assert_eq!(
            told(answer(&mut host, &network("n", "192.168.8.0/23", &[]))),
            is(
                &format!("{pool}network web has 192.168.8.0/24"),
                ErrorKind::Conflict
            )
        );
    });
}

#[test]
fn address_options_are_honoured_or_refused_in_dockers_words() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        let base = NetworkRequest {
            ip_range: Some("10.9.0.128/25".parse().unwrap()),
            ..network("n", "10.9.0.0/24", &[])
        };
        let aux = |addresses: &[&str]| {
            let named = |a: &&str| ("other".to_owned(), a.parse().unwrap());
            addresses.iter().map(named).collect::<Vec<_>>()
        };
        let made = answer(
            &mut host,
            &NetworkRequest {
                aux_addresses: aux(&["10.9.0.1", "fd00:9::7"]),
                ipv6: true,
                subnet6: Some("fd00:9::/8".parse::<ipnet::Ipv6Net>().unwrap().trunc()),
                ip_range6: Some("fd00:9::/32".parse().unwrap()),
                ..base.clone()
            },
        )
        .unwrap();
        assert_eq!(made.gateway.to_string(), "10.9.0.2");
        assert_eq!(made.ip_range, base.ip_range);
        let v6 = made.v6.unwrap();
        assert_eq!(v6.subnet.to_string(), "fd00::/8");
        assert_eq!(v6.gateway.to_string(), "fd00::1");
        assert_eq!(v6.ip_range.unwrap().to_string(), "fd00:9::/32");
        let mut refused = |request: NetworkRequest, text: &str, kind| {
            assert_eq!(told(answer(&mut host, &request)), is(text, kind));
        };
        use ErrorKind::{Conflict, Invalid};
        refused(
            NetworkRequest {
                subnet: None,
                ..base.clone()
            },
            "every ip-range or gateway must have a corresponding subnet",
            Invalid,
        );
        refused(
            NetworkRequest {
                gateway6: "fd00::1".parse().ok(),
                ipv6: true,
                ..base.clone()
            },
            "every ip-range or gateway must have a corresponding subnet",
            Invalid,
        );
        refused(
            NetworkRequest {
                subnet6: "fd00::/64".parse().ok(),
                ..base.clone()
            },
            "an IPv6 subnet, gateway or ip-range needs --ipv6",
            Invalid,
        );
        refused(
            NetworkRequest {
                aux_addresses: aux(&["10.9.1.1"]),
                ..base.clone()
            },
            "no matching subnet for aux-address 10.9.1.1",
            Invalid,
        );
        refused(
            NetworkRequest {
                aux_addresses: aux(&["fd00::1"]),
                ..base.clone()
            },
            "no matching subnet for aux-address fd00::1",
            Invalid,
        );
        refused(
            NetworkRequest {
                aux_addresses: aux(&["10.9.0.4"]),
                gateway: "10.9.0.4".parse().ok(),
                ..base.clone()
            },
            "failed to allocate secondary ip address (other:10.9.0.4): Address already in use",
            Conflict,
        );
        refused(
            NetworkRequest {
                aux_addresses: aux(&["10.9.0.4", "10.9.0.4"]),
                ..base.clone()
            },
            "failed to allocate secondary ip address (other:10.9.0.4): Address already in use",
            Conflict,
        );
        refused(
            NetworkRequest {
                ip_range: "10.10.0.0/25".parse().ok(),
                ..base.clone()
            },
            "no matching subnet for range 10.10.0.0/25",
            Invalid,
        );
    });
}

#[test]
fn driver_options_are_checked_and_unknown_ones_kept() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        let bridge = |key: &str| format!("com.docker.network.bridge.{key}");
        let prefix = "com.docker.network.container_iface_prefix";
        for (key, value) in [
            (bridge("gateway_mode_ipv4"), "nat-protected"),
            (bridge("gateway_mode_ipv6"), ""),
            (bridge("trusted_host_interfaces"), "eth0:wg+"),
            (bridge("trusted_host_interfaces"), "eth0::eth1"),
            (bridge("trusted_host_interfaces"), "interface-name-16"),
            (bridge("host_binding_ipv4"), "localhost"),
            (bridge("host_binding_ipv4"), "::1"),
            (bridge("enable_icc"), "no"),
            (bridge("enable_ip_masquerade"), "off"),
            ("com.docker.network.driver.mtu".to_owned(), "67"),
            (prefix.to_owned(), "much-too-long"),
            (prefix.to_owned(), "a/b"),
        ] {
            let request = network("n", "", &[(&key, value)]);
            let (text, kind) = told(answer(&mut host, &request));
            let docker = format!("failed to parse {key} value: {value} (");
            assert!(text.starts_with(&docker), "{text}");
            assert_eq!(kind, ErrorKind::Invalid);
        }
        let small = network("n", "", &[("com.docker.network.driver.mtu", "1279")]);
        answer(&mut host, &small).unwrap();
        let small6 = NetworkRequest {
            ipv6: true,
            ..small
        };
        let (text, _) = told(answer(&mut host, &small6));
        assert!(text.contains("1280"), "{text}");
        let options = [
            ("com.docker.network.bridge.gateway_mode_ipv4", "routed"),
            (
                "com.docker.network.bridge.gateway_mode_ipv6",
                "nat-unprotected",
            ),
            (
                "com.docker.network.bridge.trusted_host_interfaces",
                "eth0:wg0.7",
            ),
            ("example.com/unknown", "anything: \"at all\""),
        ];
        let made = answer(&mut host, &network("n", "", &options)).unwrap();
        assert_eq!(made.gateway_mode(netmgr::Family::V4), GatewayMode::Routed);
        assert_eq!(
            made.gateway_mode(netmgr::Family::V6),
            GatewayMode::NatUnprotected
        );
        let trusted: Vec<&str> = made.trusted_interfaces().collect();
        assert_eq!(trusted, ["eth0", "wg0.7"]);
        assert_eq!(made.options.last().unwrap().1, "anything: \"at all\"");
    });
}

#[test]
fn networks_of_one_host_share_a_unique_local_prefix() {
    in_own_netns(|| {
        let v6 = |name: &str| NetworkRequest {
            ipv6: true,
            ..network(name, "", &[])
        };
        let (mut one, mut other) = (Host::new(Profile::Coracle), Host::new(Profile::Coracle));
        let subnets = |host: &mut Host| {
            let make = |edit: &mut netmgr::Edit<'_>| {
                let all = ["a", "b", "c"].map(|name| edit.create_network(&v6(name)));
                let subnets = all.map(|network| network.unwrap().v6.unwrap());
                edit.remove_network("b")?;
                let again = edit.create_network(&v6("again"))?.v6.unwrap();
                // The lowest that is free.
                assert_eq!(again, subnets[1]);
                for name in ["a", "again", "c"] {
                    edit.remove_network(name)?;
                }
                Ok::<_, Error>(subnets)
            };
            netmgr::change(&host.settings, &mut host.conn, make).unwrap()
        };
        let mine = subnets(&mut one);
        for (n, v6) in mine.iter().enumerate() {
            assert_eq!(v6.subnet.prefix_len(), 64);
            let segments = v6.subnet.network().segments();
            assert_eq!(segments[0] >> 8, 0xfd);
            assert_eq!(segments[..3], mine[0].subnet.network().segments()[..3]);
            assert_eq!(segments[3], n as u16);
            assert_eq!(v6.gateway.segments()[4..], [0, 0, 0, 1]);
        }
        // Remembered when no network is left, and another host has another.
        assert_eq!(subnets(&mut one), mine);
        assert_ne!(subnets(&mut other), mine);
    });
}

#[test]
fn addresses_asked_for_are_given_or_refused_in_dockers_words() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        let wanted = NetworkRequest {
            ip_range: "10.9.0.8/29".parse().ok(),
            aux_addresses: vec![("printer".into(), "10.9.0.9".parse().unwrap())],
            ..network("web", "10.9.0.0/24", &[])
        };
        host.try_create(&wanted).unwrap();
        let auto = host.create("auto", "", &[]);
        let netns = netmgr::kernel::netns::create().unwrap();
        let mut on = |name: &str, network: &str, address: &str, mac: Option<[u8; 6]>| {
            let request = AttachRequest {
                address: address.parse().ok(),
                mac,
                ..attach_request(
                    name,
                    network,
                    &[],
                    &netmgr::kernel::netns::create().unwrap(),
                )
            };
            join(&mut host, &request).map(|a| (a.endpoint.address.to_string(), a.endpoint.mac))
        };
        // From the range, past the auxiliary address; and outside the range when asked for.
        assert_eq!(on("a", "web", "", None).unwrap().0, "10.9.0.8");
        assert_eq!(on("b", "web", "", None).unwrap().0, "10.9.0.10");
        let mac = [0x02, 0x42, 1, 2, 3, 4];
        assert_eq!(
            on("c", "web", "10.9.0.200", Some(mac)).unwrap(),
            ("10.9.0.200".to_owned(), mac)
        );
        // Docker refuses this in an automatic subnet.
        let chosen = auto.subnet.hosts().nth(40).unwrap().to_string();
        assert_eq!(on("d", "auto", &chosen, None).unwrap().0, chosen);
        use ErrorKind::{Conflict, Invalid};
        for taken in ["10.9.0.1", "10.9.0.8", "10.9.0.9", "10.9.0.200"] {
            assert_eq!(
                told(on("e", "web", taken, None)),
                is("Address already in use", Conflict)
            );
        }
        assert_eq!(
            told(on("e", "web", "10.8.0.1", None)),
            is(
                "Invalid address 10.8.0.1: It does not belong to any of this network's subnets",
                Invalid
            )
        );
        for edge in ["10.9.0.0", "10.9.0.255"] {
            assert_eq!(
                told(on("e", "web", edge, None)),
                is(
                    &format!("Invalid address {edge}: no host of 10.9.0.0/24 can have it"),
                    Invalid
                )
            );
        }
        assert_eq!(
            told(on("e", "bridge", "10.200.0.9", None)),
            is(
                "user specified IP address is supported on user defined networks only",
                Invalid
            )
        );
        assert_eq!(
            told(on("e", "web", "", Some(mac))),
            is(
                "MAC address 02:42:01:02:03:04 is already in use in network web",
                Conflict
            )
        );
        // The bridge's own.
        let bridge_mac = Some([0x02, 0x42, 10, 9, 0, 1]);
        assert_eq!(told(on("e", "web", "", bridge_mac)).1, Conflict);
        for wrong in [[0; 6], [0x01, 0, 0x5e, 0, 0, 1], [0xff; 6]] {
            assert_eq!(told(on("e", "web", "", Some(wrong))).1, Invalid);
        }
        // One whose usual hardware address somebody has asked for gets another.
        on("f", "web", "", Some([0x02, 0x42, 10, 9, 0, 12])).unwrap();
        let (address, mac) = on("g", "web", "", None).unwrap();
        assert_eq!(address, "10.9.0.12");
        assert_eq!(mac[2..], [10, 9, 0, 12]);
        assert_eq!(mac[0], 2);
        let v6 = AttachRequest {
            address6: "fd00::9".parse().ok(),
            ..attach_request("h", "web", &[], &netns)
        };
        assert_eq!(
            told(join(&mut host, &v6)),
            is(
                "Invalid address fd00::9: It does not belong to any of this network's subnets",
                Invalid
            )
        );
    });
}

#[test]
fn ports_without_an_address_are_published_on_the_networks_own() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        let binding = "com.docker.network.bridge.host_binding_ipv4";
        host.try_create(&network("local", "", &[(binding, "127.0.0.1")]))
            .unwrap();
        host.try_create(&network("all", "", &[(binding, "0.0.0.0")]))
            .unwrap();
        let port = common::publish(None, 8080, 80, netmgr::Protocol::Tcp);
        let elsewhere = common::publish(Some("127.0.0.2"), 8080, 80, netmgr::Protocol::Tcp);
        let local = host.attach("a", "local", &[port, elsewhere]);
        let shown: Vec<String> = local
            .attachment
            .endpoint
            .ports
            .iter()
            .map(|map| map.host_ip.unwrap().to_string())
            .collect();
        assert_eq!(shown, ["127.0.0.1", "127.0.0.2"]);
        assert_eq!(local.attachment.forwards.len(), 2);
        host.detach("a");
        drop(local);
        let port = common::publish(None, 8081, 80, netmgr::Protocol::Tcp);
        let all = host.attach("b", "all", &[port]);
        assert_eq!(all.attachment.endpoint.ports[0].host_ip, None);
    });
}

#[test]
fn rules_of_published_ports_follow_the_primary_network() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        host.create("beta", "", &[]);
        host.create("alpha", "", &[]);
        let port = common::publish(None, 8080, 80, netmgr::Protocol::Tcp);
        let a = host.attach("a", "beta", &[port]);
        let _other = host.attach("b", "beta", &[]);
        let leads_to = |host: &Host, address: std::net::Ipv4Addr| {
            let tables = [Table::Raw, Table::Filter, Table::Nat];
            let wanted = render_save(&ruleset(&host.model()), &tables, "DROP");
            let saved = saved(&["raw", "filter", "nat"]);
            assert_eq!(saved, wanted);
            let target = format!("--to-destination {address}:80");
            assert_eq!(saved.matches("--to-destination").count(), 1, "{saved}");
            assert!(saved.contains(&target), "{saved}");
        };
        leads_to(&host, a.attachment.endpoint.address);
        let second = join(&mut host, &attach_request("a", "alpha", &[], &a.netns)).unwrap();
        assert_eq!(second.endpoint.ports, a.attachment.endpoint.ports);
        leads_to(&host, second.endpoint.address);
        let leave = |host: &mut Host, network: &str| {
            netmgr::change(&host.settings, &mut host.conn, |edit| {
                edit.known_netns(&container_id("a"), a.netns.clone());
                edit.detach_from(&container_id("a"), network, VethRemoval::Now)
            })
            .unwrap()
        };
        leave(&mut host, "alpha");
        leads_to(&host, a.attachment.endpoint.address);
        leave(&mut host, "beta");
        assert!(!saved(&["nat"]).contains("--to-destination"));
        assert_eq!(
            store::ports_of(&host.conn, &container_id("a")).unwrap(),
            a.attachment.endpoint.ports
        );
        let back = join(&mut host, &attach_request("a", "alpha", &[], &a.netns)).unwrap();
        leads_to(&host, back.endpoint.address);
        host.detach("a");
        assert!(!saved(&["nat"]).contains("--to-destination"));
        assert!(
            store::ports_of(&host.conn, &container_id("a"))
                .unwrap()
                .is_empty()
        );
    });
}

#[test]
fn a_container_in_several_networks_leaves_one_of_them() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        host.create("web", "", &[]);
        let netns = netmgr::kernel::netns::create().unwrap();
        let mut attach = |network: &str, aliases: &[&str]| {
            let request = AttachRequest {
                aliases: aliases.iter().map(|a| (*a).to_owned()).collect(),
                ..attach_request("a", network, &[], &netns)
            };
            join(&mut host, &request).map(|a| a.endpoint)
        };
        assert_eq!(
            told(attach("bridge", &["db"])).0,
            "network-scoped alias is supported only for containers in user defined networks"
        );
        let first = attach("bridge", &[]).unwrap();
        let second = attach("web", &["db", "cache", "db"]).unwrap();
        assert_eq!(second.aliases, ["db", "cache"]);
        assert_eq!((&*first.interface, &*second.interface), ("eth0", "eth1"));
        let names = store::names_on(&host.conn, &[&second.network_id]).unwrap();
        assert_eq!(names[0].aliases, ["db", "cache"]);
        assert_eq!(names[0].container_name, "a");
        let left = netmgr::change(&host.settings, &mut host.conn, |edit| {
            edit.known_netns(&container_id("a"), netns.clone());
            edit.detach_from(&container_id("a"), "bridge", VethRemoval::Now)
        })
        .unwrap();
        assert_eq!(left, first);
        assert!(!interfaces().contains(&first.host_interface));
        assert!(interfaces().contains(&second.host_interface));
        assert_eq!(host.model().endpoints, [second]);
    });
}
