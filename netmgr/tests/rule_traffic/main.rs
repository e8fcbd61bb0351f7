//! What the rules of our own profile let through and what they do not, by packets between namespaces: for both families,
//! TCP and UDP, whatever the policy of FORWARD.

#[path = "../common/mod.rs"]
mod common;
mod world;

use std::fs;
use std::net::IpAddr;

use common::{add_endpoint, add_network, in_own_netns, map, model};
use netmgr::model::{OPTION_GATEWAY_MODE_V4, OPTION_GATEWAY_MODE_V6, OPTION_TRUSTED_INTERFACES};
use netmgr::{Family, Model, Netns, PortMap, Profile, Protocol, V6};
use world::{World, ask, claims, host_addresses, serve, serve_at, serve_run};

const BOTH: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

fn network(model: &mut Model, n: u8, name: &str, options: &[(&str, &str)]) {
    let subnet = format!("10.99.{n}.0/24");
    let network = add_network(model, name, &subnet, &format!("cr-{name}"));
    network.v6 = Some(V6 {
        subnet: format!("fd00:{n}::/64").parse().unwrap(),
        gateway: format!("fd00:{n}::1").parse().unwrap(),
        ip_range: None,
    });
    let options = options.iter();
    network.options = options.map(|(k, v)| ((*k).into(), (*v).into())).collect();
}

fn container(model: &mut Model, name: &str, network: &str, ports: &[PortMap]) {
    add_endpoint(model, name, network, ports);
    let endpoint = model.endpoints.last_mut().unwrap();
    let side = model.networks.iter().find(|n| n.id == endpoint.network_id);
    let last = endpoint.address.octets()[3];
    endpoint.address6 = side.unwrap().v6.map(|v6| {
        let nth = usize::from(last);
        v6.subnet.hosts().nth(nth).unwrap()
    });
}

fn both(ip: Option<&str>, host: u16, inside: u16) -> [PortMap; 2] {
    BOTH.map(|protocol| map(ip, host, inside, 1, protocol))
}

/// `web` trusts wg0; c1 publishes 80 as 8080. `db` is another network. `routed`, `open` and `vault` are as their names say.
fn networks() -> Model {
    let mut m = model(Profile::Coracle);
    network(&mut m, 1, "web", &[(OPTION_TRUSTED_INTERFACES, "wg0")]);
    network(&mut m, 2, "db", &[]);
    let modes = |mode| {
        [
            (OPTION_GATEWAY_MODE_V4, mode),
            (OPTION_GATEWAY_MODE_V6, mode),
        ]
    };
    network(&mut m, 3, "routed", &modes("routed"));
    network(&mut m, 4, "open", &modes("nat-unprotected"));
    network(&mut m, 5, "vault", &[]);
    m.networks.last_mut().unwrap().internal = true;
    container(&mut m, "c1", "web", &both(None, 8080, 80));
    container(&mut m, "c2", "db", &[]);
    container(&mut m, "c3", "routed", &both(None, 8083, 80));
    container(&mut m, "c4", "open", &both(None, 8084, 80));
    container(&mut m, "c5", "vault", &both(None, 8085, 80));
    m
}

struct Addresses<'a> {
    model: &'a Model,
    family: Family,
}

impl Addresses<'_> {
    fn of(&self, container: &str) -> IpAddr {
        let mut all = self.model.endpoints.iter();
        let endpoint = all.find(|e| e.container_name == container).unwrap();
        endpoint.address_of(self.family).unwrap()
    }

    fn gateway(&self, network: &str) -> IpAddr {
        let mut all = self.model.networks.iter();
        let network = all.find(|n| n.name == network).unwrap();
        network.gateway_of(self.family).unwrap()
    }

    fn pick(&self, v4: &str, v6: &str) -> IpAddr {
        match self.family {
            Family::V4 => v4.parse().unwrap(),
            Family::V6 => v6.parse().unwrap(),
        }
    }
}

fn in_every_world(test: fn(&World, &Model, Family)) {
    for policy in ["ACCEPT", "DROP"] {
        for family in Family::ALL {
            in_own_netns(move || {
                eprintln!("FORWARD {policy}, {family:?}");
                let model = networks();
                let world = World::of(&model, policy);
                for (name, netns) in &world.containers {
                    serve(netns, 80, name);
                    serve(netns, 82, name);
                }
                // In place of the proxy, and a service of the host's own.
                let addresses = host_addresses(&model);
                serve_at(&world.host, 8080, "proxy", &addresses);
                serve_at(&world.host, 7000, "host", &addresses);
                test(&world, &model, family);
            });
        }
    }
}

/// Who asks whom, and who answers.
type Row<'a> = (&'a str, &'a Netns, IpAddr, u16, Option<&'a str>);

#[track_caller]
fn assert_answers(rows: &[Row<'_>]) {
    for protocol in BOTH {
        for (what, from, to, port, expected) in rows {
            let answer = ask(from, protocol, *to, *port);
            let who = answer.as_deref().and_then(|text| text.split(' ').next());
            assert_eq!(who, *expected, "{what}: {protocol:?} {to} port {port}");
        }
    }
}

#[test]
fn published_ports_are_reached_and_nothing_else_is() {
    in_every_world(|world, model, family| {
        let at = Addresses { model, family };
        let (lan, wg, c2) = (&world.lan, &world.wg, &world.containers["c2"]);
        let host = at.pick("192.0.2.1", "2001:db8:1::1");
        let (c1, c3, c4) = (at.of("c1"), at.of("c3"), at.of("c4"));
        assert_answers(&[
            ("the published port", lan, host, 8080, Some("c1")),
            (
                "from this host by its own address",
                &world.host,
                host,
                8080,
                Some("c1"),
            ),
            (
                "at a gateway's address",
                lan,
                at.gateway("web"),
                8080,
                Some("c1"),
            ),
            ("a published port by a route", lan, c1, 80, None),
            ("an unpublished port by a route", lan, c1, 82, None),
            ("a container without ports", lan, at.of("c2"), 80, None),
            ("from a trusted interface", wg, c1, 80, Some("c1")),
            ("unpublished, from a trusted interface", wg, c1, 82, None),
            ("trusted by another network", wg, at.of("c2"), 80, None),
            ("routed, published", lan, c3, 80, Some("c3")),
            ("routed, unpublished", lan, c3, 82, None),
            ("routed, at the host", lan, host, 8083, None),
            ("nat-unprotected, published", lan, host, 8084, Some("c4")),
            ("nat-unprotected, by a route", lan, c4, 82, Some("c4")),
            (
                "from this host to any port",
                &world.host,
                c1,
                82,
                Some("c1"),
            ),
            ("between networks", c2, c1, 80, None),
            ("into a routed network", c2, c3, 80, None),
            ("into an open network", c2, c4, 82, None),
            (
                "another network's port at the host",
                c2,
                host,
                8080,
                Some("proxy"),
            ),
            (
                "another network's port at its gateway",
                c2,
                at.gateway("web"),
                8080,
                Some("proxy"),
            ),
            (
                "out of a routed network to another's port",
                &world.containers["c3"],
                host,
                8080,
                Some("proxy"),
            ),
            (
                "the container's own port at the host",
                &world.containers["c1"],
                host,
                8080,
                Some("proxy"),
            ),
        ]);
        // Who is sent on keeps its address; who goes out gets the host's, unless routed.
        let outside = at.pick("192.0.2.2", "2001:db8:1::2");
        serve(lan, 9000, "lan");
        for protocol in BOTH {
            let seen = |from: &Netns, to, port| ask(from, protocol, to, port).unwrap();
            assert_eq!(seen(lan, host, 8080), format!("c1 {outside}"));
            assert_eq!(seen(c2, outside, 9000), format!("lan {host}"));
        }
        for protocol in BOTH {
            let seen = ask(&world.containers["c3"], protocol, outside, 9000);
            assert_eq!(seen.unwrap(), format!("lan {c3}"));
        }
    });
}

#[test]
fn an_internal_network_has_its_bridge_and_nothing_else() {
    in_every_world(|world, model, family| {
        let at = Addresses { model, family };
        let (lan, c5) = (&world.lan, &world.containers["c5"]);
        let host = at.pick("192.0.2.1", "2001:db8:1::1");
        serve(lan, 9000, "lan");
        assert_answers(&[
            ("from this host", &world.host, at.of("c5"), 82, Some("c5")),
            ("to its bridge", c5, at.gateway("vault"), 7000, Some("host")),
            (
                "to the outside",
                c5,
                at.pick("192.0.2.2", "2001:db8:1::2"),
                9000,
                None,
            ),
            ("to another address of the host", c5, host, 7000, None),
            (
                "to another network's gateway",
                c5,
                at.gateway("web"),
                7000,
                None,
            ),
            ("to another network's published port", c5, host, 8080, None),
            ("to another network", c5, at.of("c1"), 80, None),
            (
                "from another network",
                &world.containers["c1"],
                at.of("c5"),
                80,
                None,
            ),
            (
                "from another network to its bridge",
                &world.containers["c1"],
                at.gateway("vault"),
                7000,
                None,
            ),
            (
                "from outside to its bridge",
                lan,
                at.gateway("vault"),
                7000,
                None,
            ),
            ("from outside", lan, at.of("c5"), 80, None),
            ("its port, published in vain", lan, host, 8085, None),
        ]);
    });
}

#[test]
fn nobody_speaks_for_another_network() {
    in_every_world(|world, model, family| {
        let at = Addresses { model, family };
        let (lan, host) = (&world.lan, at.pick("192.0.2.1", "2001:db8:1::1"));
        let outside = at.pick("192.0.2.2", "2001:db8:1::2");
        let stranger = at.pick("203.0.113.5", "2001:db8:77::5");
        let (c1, c2) = (&world.containers["c1"], at.of("c2"));
        // Without the rule under test the kernel would take them: no rp_filter, and a route back.
        for entry in ["all", "lan0", "cr-web"] {
            fs::write(format!("/proc/sys/net/ipv4/conf/{entry}/rp_filter"), "0").unwrap();
        }
        assert_eq!(claims(lan, c2, outside, &world.host, host), [outside]);
        assert_eq!(
            claims(c1, c2, at.of("c1"), &world.host, at.gateway("web")),
            [at.of("c1")]
        );
        assert_eq!(
            claims(c1, stranger, at.of("c1"), &world.host, at.gateway("web")),
            [at.of("c1")]
        );
        assert_eq!(
            claims(lan, stranger, outside, &world.host, host),
            [stranger, outside]
        );
    });
}

/// moby#41872. The kernel itself drops what comes to 127/8 by a wire until route_localnet is on, as some programs set it.
#[test]
fn a_port_published_on_loopback_stays_on_this_host() {
    in_own_netns(|| {
        let mut m = model(Profile::Coracle);
        container(&mut m, "c1", "bridge", &both(Some("127.0.0.2"), 8081, 80));
        let world = World::of(&m, "ACCEPT");
        // Where the DNAT rule would send it.
        serve(&world.containers["c1"], 80, "c1");
        fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
        let target: IpAddr = "127.0.0.2".parse().unwrap();
        serve_at(&world.host, 8081, "proxy", &[target]);
        serve_at(&world.host, 8082, "another service", &[target]);
        netmgr::kernel::netns::run_in(&world.lan, || {
            fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
            common::command(
                "ip",
                &[
                    "route",
                    "del",
                    "local",
                    "127.0.0.0/8",
                    "dev",
                    "lo",
                    "table",
                    "local",
                ],
            );
            common::command("ip", &["route", "add", "127.0.0.2/32", "via", "192.0.2.1"]);
        })
        .unwrap();
        assert_answers(&[
            ("from this host", &world.host, target, 8081, Some("proxy")),
            ("from a neighbour", &world.lan, target, 8081, None),
            // The way there is real: what is not published is not ours to guard.
            (
                "from a neighbour, not published",
                &world.lan,
                target,
                8082,
                Some("another"),
            ),
        ]);
    });
}

/// Local clients and containers come to the one listener, which learns what they dialled; all others to the container.
#[test]
fn a_run_with_one_listener_serves_local_clients_by_redirection() {
    in_every_policy(|policy| {
        let mut m = model(Profile::Coracle);
        network(&mut m, 1, "web", &[]);
        network(&mut m, 2, "db", &[]);
        let run = |ip, first, listener| PortMap {
            listener: Some(listener),
            ..map(ip, first, first, 5_000, Protocol::Tcp)
        };
        container(
            &mut m,
            "c1",
            "web",
            &[
                run(None, 20_000, 40_001),
                run(Some("127.0.0.1"), 30_000, 40_002),
            ],
        );
        container(&mut m, "c2", "db", &[]);
        // Without an IPv6 address: there the listener serves everyone.
        container(&mut m, "c6", "bridge", &[run(None, 50_000, 40_003)]);
        let world = World::of(&m, policy);
        for port in [20_001, 20_002] {
            serve(&world.containers["c1"], port, "c1");
        }
        for listener in [40_001, 40_002, 40_003] {
            serve_run(&world.host, listener);
        }
        let (c1, c2) = (&world.containers["c1"], &world.containers["c2"]);
        let dialled = |from: &Netns, ip: &str, port| {
            let ip: IpAddr = ip.parse().unwrap();
            let answer = ask(from, Protocol::Tcp, ip, port);
            assert_eq!(
                answer,
                Some(std::net::SocketAddr::from((ip, port)).to_string()),
                "{ip} {port}"
            );
        };
        for (from, ip) in [
            (&world.host, "127.0.0.1"),
            (&world.host, "127.0.0.9"),
            (&world.host, "::1"),
            (c1, "192.0.2.1"),
            (c1, "2001:db8:1::1"),
            (c2, "192.0.2.1"),
            (c2, "10.99.1.1"),
            (c2, "10.99.2.1"),
            (c2, "fd00:1::1"),
        ] {
            dialled(from, ip, 20_001);
            dialled(from, ip, 24_999);
        }
        dialled(&world.host, "127.0.0.1", 30_123);
        dialled(&world.lan, "2001:db8:1::1", 50_001);
        dialled(c2, "2001:db8:1::1", 50_001);
        dialled(&world.host, "::1", 50_001);
        for (from, ip) in [
            (&world.lan, "192.0.2.1"),
            (&world.lan, "2001:db8:1::1"),
            (&world.host, "192.0.2.1"),
            (&world.host, "2001:db8:1::1"),
        ] {
            let answer = ask(from, Protocol::Tcp, ip.parse().unwrap(), 20_001).unwrap();
            assert!(answer.starts_with("c1 "), "{ip}: {answer}");
        }
        // The listener itself is nobody's to dial, and what is for 127.0.0.1 alone is for nobody else.
        for (from, ip, port) in [
            (&world.lan, "192.0.2.1", 40_001),
            (&world.lan, "2001:db8:1::1", 40_003),
            (c2, "10.99.2.1", 40_001),
            (&world.lan, "192.0.2.1", 30_123),
            (c2, "192.0.2.1", 30_123),
            (&world.lan, "192.0.2.1", 25_000),
        ] {
            assert_eq!(
                ask(from, Protocol::Tcp, ip.parse().unwrap(), port),
                None,
                "{ip} {port}"
            );
        }
    });
}

fn in_every_policy(test: fn(&str)) {
    for policy in ["ACCEPT", "DROP"] {
        in_own_netns(move || test(policy));
    }
}
