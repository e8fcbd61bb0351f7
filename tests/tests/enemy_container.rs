//! An enemy in a container, with every right over its own network namespace (`--cap-add NET_ADMIN --cap-add NET_RAW`): the test
//! works from inside it.

#[path = "enemy/wire.rs"]
mod wire;
#[path = "enemy/world.rs"]
mod world;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use harness::host::{HOST, NEIGHBOUR};
use harness::{Host, Netns, eventually, net};

use wire::{Inbox, Packet4, Packet6, say};
use world::{address6, each, idle};

const HOST6: &str = "2001:db8::1";
const NEIGHBOUR6: &str = "2001:db8::2";

fn network(host: &Host, name: &str, n: u8, options: &str) {
    host.run(&format!(
        "network create --subnet 10.{n}.0.0/24 -o com.docker.network.bridge.name=enemy{n} {options} {name}"
    ));
}

/// The hardware address of a network's bridge.
fn hardware_address(host: &Host, bridge: &str) -> String {
    let link = host.tool("ip", ["-br", "link", "show", bridge]).ok().stdout;
    let address = link.split_whitespace().nth(2);
    address.expect("a bridge has a hardware address").to_owned()
}

#[test]
fn an_internal_network_reaches_no_other_address_of_the_host() {
    each(|host, case| {
        network(host, "one", 98, "--ipv6 --subnet fd98::/64");
        network(host, "vault", 97, "--ipv6 --subnet fd97::/64 --internal");
        let enemy = idle(host, "enemy", "--network vault");
        enemy.ip("route replace default via 10.97.0.1\nroute replace default via fd97::1\n");
        let service = Inbox::open(&host.netns, "[::]:7000");
        let outside = Inbox::open(&host.neighbour, "[::]:7000");
        for to in [HOST, "10.98.0.1", NEIGHBOUR] {
            say(&enemy, &format!("{to}:7000"), to);
        }
        for everybody in ["224.0.0.1", "255.255.255.255"] {
            let to = SocketAddrV4::new(everybody.parse().unwrap(), 7000);
            let own = host.address_of("enemy").parse().unwrap();
            let gateway = "10.97.0.1".parse().unwrap();
            Packet4::udp(own, to, everybody).send_by(&enemy, gateway);
        }
        for to in [HOST6, "fd98::1", NEIGHBOUR6] {
            say(&enemy, &format!("[{to}]:7000"), to);
            // A link-local source passes for neighbour discovery.
            let to = SocketAddrV6::new(to.parse().unwrap(), 7000, 0, 0);
            Packet6::udp("fe80::2".parse().unwrap(), to, "link-local").send(&enemy);
        }
        for gateway in ["10.97.0.1:7000", "[fd97::1]:7000"] {
            let came = service.until(gateway, || say(&enemy, gateway, gateway));
            let honest = |word: &String| word == "10.97.0.1:7000";
            assert!(came.iter().all(honest), "{case}: {came:?}");
        }
        let last = || say(&host.netns, &format!("{NEIGHBOUR}:7000"), "the host");
        assert_eq!(outside.until("the host", last), [""; 0], "{case}");
    });
}

/// For a network without IPv6 there are no rules of that family: nothing of it may pass the bridge then, be it to a service
/// of the host that listens on every address, or through a host that is a router.
#[test]
fn a_network_without_ipv6_has_no_way_out_by_it() {
    each(|host, case| {
        network(host, "six", 98, "--ipv6 --subnet fd98::/64");
        let honest = idle(host, "honest", "--network six");
        let service = Inbox::open(&host.netns, "[::]:7000");
        let outside = Inbox::open(&host.neighbour, "[::]:7000");
        let victim = Inbox::open(&honest, "[::]:7000");
        for (name, n, options) in [("four", 96, ""), ("vault", 97, "--internal")] {
            network(host, name, n, options);
            let enemy = idle(host, name, &format!("--network {name}"));
            let bridge = hardware_address(host, &format!("enemy{n}"));
            // What the bridge's own address would be, were it to have one.
            let link_local = format!("fe80::42:aff:fe{n:02x}:1");
            enemy.ip(&format!(
                "addr add fd66::2/64 dev eth0 nodad\nneigh replace fd66::1 lladdr {bridge} dev eth0\nneigh replace {link_local} lladdr {bridge} dev eth0\nroute replace default via fd66::1\n"
            ));
            let to = [NEIGHBOUR6, HOST6, "fd98::1", "ff02::1%eth0"].map(str::to_owned);
            for to in to.into_iter().chain([format!("{link_local}%eth0")]) {
                speak(&enemy, &to, name);
            }
            for source in [NEIGHBOUR6, "fd66::2"] {
                for to in [address6(host, "honest"), NEIGHBOUR6.parse().unwrap()] {
                    let to = SocketAddrV6::new(to, 7000, 0, 0);
                    Packet6::udp(source.parse().unwrap(), to, name).send_by(&enemy, *to.ip());
                }
            }
            // Its IPv4 is well.
            let gateway = format!("10.{n}.0.1:7000");
            let came = service.until("by IPv4", || say(&enemy, &gateway, "by IPv4"));
            assert_eq!(came, [""; 0], "{case}: {name}");
        }
        for (inbox, from, to) in [
            (&service, &honest, "[fd98::1]:7000".to_owned()),
            (&outside, &honest, format!("[{NEIGHBOUR6}]:7000")),
            (
                &victim,
                &host.netns,
                format!("[{}]:7000", address6(host, "honest")),
            ),
        ] {
            let came = inbox.until("honest", || say(from, &to, "honest"));
            assert_eq!(came, [""; 0], "{case}: {to}");
        }
    });
}

/// A word to an address with a scope.
fn speak(from: &Netns, to: &str, word: &str) {
    let (address, scope) = to.split_once('%').unwrap_or((to, ""));
    let address: Ipv6Addr = address.parse().expect("an IPv6 address");
    from.enter(|| {
        let index = match scope {
            "" => 0,
            name => nix::net::if_::if_nametoindex(name).expect("an interface"),
        };
        let socket = std::net::UdpSocket::bind("[::]:0").expect("a UDP socket");
        let to = SocketAddrV6::new(address, 7000, 0, index);
        let sent = socket.send_to(word.as_bytes(), to);
        assert!(sent.is_ok(), "{to}: {sent:?}");
    });
}

/// Isolated ports keep siblings apart on the bridge; the host itself must not carry from one to the other either.
#[test]
fn the_gateway_does_not_carry_between_siblings_without_icc() {
    each(|host, case| {
        for (name, n, options) in [
            ("quiet", 98, "-o com.docker.network.bridge.enable_icc=false"),
            ("open", 97, ""),
        ] {
            network(
                host,
                name,
                n,
                &format!("--ipv6 --subnet fd{n}::/64 {options}"),
            );
            let enemy = idle(host, &format!("enemy{n}"), &format!("--network {name}"));
            let victim = idle(host, &format!("victim{n}"), &format!("--network {name}"));
            let inbox = Inbox::open(&victim, "[::]:7000");
            let to: Ipv4Addr = host.address_of(&format!("victim{n}")).parse().unwrap();
            let to6 = address6(host, &format!("victim{n}"));
            let (own, own6) = (format!("10.{n}.0.2"), format!("fd{n}::2"));
            let bridge = hardware_address(host, &format!("enemy{n}"));
            enemy.ip(&format!(
                "neigh replace {to} lladdr {bridge} dev eth0\nneigh replace {to6} lladdr {bridge} dev eth0\n"
            ));
            let bounce = || {
                Packet4::udp(own.parse().unwrap(), SocketAddrV4::new(to, 7000), "4").send(&enemy);
                let to6 = SocketAddrV6::new(to6, 7000, 0, 0);
                Packet6::udp(own6.parse().unwrap(), to6, "6").send(&enemy);
            };
            if name == "open" {
                // The way is real: where siblings may speak, it leads there.
                inbox.until("4", bounce);
                inbox.until("6", bounce);
                continue;
            }
            bounce();
            // Nor by the bridge itself, with the victim's own hardware address, or by everybody's.
            let mac =
                host.inspect("victim98")["NetworkSettings"]["Networks"]["quiet"]["MacAddress"]
                    .as_str()
                    .expect("a hardware address")
                    .to_owned();
            enemy.ip(&format!(
                "neigh replace {to} lladdr {mac} dev eth0\nneigh replace {to6} lladdr {mac} dev eth0\n"
            ));
            bounce();
            enemy.ip(&format!(
                "neigh replace {to} lladdr ff:ff:ff:ff:ff:ff dev eth0\nneigh replace {to6} lladdr 33:33:00:00:00:01 dev eth0\n"
            ));
            bounce();
            let last = || say(&host.netns, &format!("{to}:7000"), "host");
            assert_eq!(inbox.until("host", last), [""; 0], "{case}");
        }
    });
}

/// What leaves the host bears the host's address, whatever the container writes into its packets.
#[test]
fn a_container_speaks_for_nobody_else() {
    each(|host, case| {
        network(host, "one", 98, "--ipv6 --subnet fd98::/64");
        network(host, "two", 97, "--ipv6 --subnet fd97::/64");
        let enemy = idle(host, "enemy", "--network one");
        let victim = idle(host, "victim", "--network two");
        let inboxes =
            [&host.neighbour, &host.netns, &victim].map(|at| Inbox::open(at, "[::]:7000"));
        let victim4: Ipv4Addr = host.address_of("victim").parse().unwrap();
        let victim6 = address6(host, "victim");
        let to4 = [NEIGHBOUR, HOST, "10.97.0.1"].map(|to| to.parse().unwrap());
        for source in [
            "10.97.0.1",
            "10.97.0.2",
            "192.0.2.3",
            "192.0.2.1",
            "127.0.0.1",
            "8.8.8.8",
        ] {
            for to in to4.into_iter().chain([victim4]) {
                let to = SocketAddrV4::new(to, 7000);
                Packet4::udp(source.parse().unwrap(), to, source).send(&enemy);
            }
        }
        let to6 = [NEIGHBOUR6, HOST6, "fd97::1"].map(|to| to.parse().unwrap());
        for source in [
            "fd97::1",
            "fd97::2",
            "2001:db8::3",
            HOST6,
            "::1",
            "::ffff:10.97.0.2",
        ] {
            for to in to6.into_iter().chain([victim6]) {
                let to = SocketAddrV6::new(to, 7000, 0, 0);
                Packet6::udp(source.parse().unwrap(), to, source).send(&enemy);
            }
        }
        for (inbox, to) in inboxes.iter().zip([NEIGHBOUR, HOST]) {
            let last = || {
                let to = SocketAddrV4::new(to.parse().unwrap(), 7000);
                Packet4::udp("10.98.0.2".parse().unwrap(), to, "honest").send(&enemy);
            };
            assert_eq!(inbox.until("honest", last), [""; 0], "{case}: {to}");
        }
        for (inbox, to) in inboxes.iter().zip([NEIGHBOUR6, HOST6]) {
            let last = || {
                let to = SocketAddrV6::new(to.parse().unwrap(), 7000, 0, 0);
                Packet6::udp("fd98::2".parse().unwrap(), to, "honest, v6").send(&enemy);
            };
            let came = inbox.until("honest, v6", last);
            assert!(came.iter().all(|word| word == "honest"), "{case}: {came:?}");
        }
        let last = || say(&host.netns, &format!("{victim4}:7000"), "host");
        assert_eq!(inboxes[2].until("host", last), [""; 0], "{case}");
    });
}

/// The responder listens in its own container, on loopback: a sibling's packets for that address are refused by the kernel
/// of the victim, which is the host's.
#[test]
fn a_siblings_responder_is_out_of_reach() {
    each(|host, case| {
        network(host, "one", 98, "");
        let enemy = idle(host, "enemy", "--network one");
        let victim = idle(host, "victim", "--network one");
        let address: Ipv4Addr = host.address_of("victim").parse().unwrap();
        let own: Ipv4Addr = host.address_of("enemy").parse().unwrap();
        let loopback = Inbox::open(&victim, "127.0.0.11:5999");
        let public = Inbox::open(&victim, "0.0.0.0:6000");
        let at = |port| SocketAddrV4::new([127, 0, 0, 11].into(), port);
        Packet4::udp(own, at(5999), "sibling").send_by(&enemy, address);
        Packet4::udp([127, 0, 0, 1].into(), at(5999), "liar").send_by(&enemy, address);
        let last = || Packet4::udp(own, SocketAddrV4::new(address, 6000), "x").send(&enemy);
        public.until("x", last);
        let last = || say(&victim, "127.0.0.11:5999", "itself");
        assert_eq!(loopback.until("itself", last), [""; 0], "{case}");
        // Neither from the other networks nor from the host's own responder is there an open port 53 on the host.
        for server in [HOST, "10.98.0.1"] {
            net::connect(&enemy, &format!("{server}:53")).expect_err("no responder on the host");
        }
    });
}

/// A run of ports for this host alone has one listener on every address: who dials that from outside gets nowhere.
#[test]
fn the_listener_of_a_run_serves_no_neighbour() {
    each(|host, case| {
        network(host, "one", 98, "");
        host.start_web("web", "--network one -p 127.0.0.1:20000-20999:80-1079");
        eventually("this host reaches the run", || {
            net::http_get(&host.netns, "127.0.0.1:20000")
        });
        let enemy = idle(host, "enemy", "--network one");
        let sockets = host.tool("ss", ["-Hltn"]).ok().stdout;
        let ports: Vec<u16> = sockets
            .lines()
            .filter_map(|line| {
                line.split_whitespace()
                    .nth(3)?
                    .rsplit_once(':')?
                    .1
                    .parse()
                    .ok()
            })
            .collect();
        assert!(
            !ports.is_empty(),
            "{case}: the run has a listener: {sockets}"
        );
        for port in ports.into_iter().chain([20_000]) {
            for (from, to) in [
                (&host.attacker, HOST),
                (&enemy, HOST),
                (&enemy, "10.98.0.1"),
            ] {
                let reached = net::http_get(from, &format!("{to}:{port}"));
                assert!(reached.is_err(), "{case}: {to}:{port}: {reached:?}");
            }
        }
    });
}
