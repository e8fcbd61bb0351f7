//! What the nftables table does to packets: between a host, its neighbour on the LAN, a machine beyond, and containers.
//!
//! Each case says who asks whom, and what answers; what is to be dropped is shown to answer without the table.

mod common;
mod situations;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use common::{add_endpoint, add_network, command, in_own_netns, map};
use netmgr::firewall::diff;
use netmgr::firewall::mend::Goal;
use netmgr::firewall::nftables::{Guard, mend, parse};
use netmgr::firewall::policy::passage;
use netmgr::firewall::ruleset::Ruleset;
use netmgr::kernel::commands::{self, nft};
use netmgr::kernel::netns;
use netmgr::model::{OPTION_GATEWAY_MODE_V4, OPTION_GATEWAY_MODE_V6, OPTION_TRUSTED_INTERFACES};
use netmgr::{Model, Netns, PortMap, Protocol, V6};

const NO_GUARD: Guard = Guard {
    v4: false,
    v6: false,
};

/// How long a packet that is not dropped may take, at most.
const PATIENCE: Duration = Duration::from_millis(400);

fn ip(line: &str) {
    command("ip", &line.split_whitespace().collect::<Vec<_>>());
}

fn inside(netns: &Netns, lines: &[&str]) {
    netns::run_in(netns, || lines.iter().for_each(|line| ip(line))).unwrap();
}

fn sysctl(path: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{path}"), value).unwrap();
}

/// A machine on a cable of its own to the host: `port` is the host's end, `eth0` its own.
fn machine(port: &str) -> Netns {
    let netns = netns::create().unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), netns.0.as_raw_fd());
    ip(&format!(
        "link add {port} type veth peer name eth0 netns {path}"
    ));
    ip(&format!("link set {port} up"));
    netns::run_in(&netns, || {
        sysctl("ipv6/conf/eth0/accept_dad", "0");
        sysctl("ipv6/bindv6only", "1");
    })
    .unwrap();
    inside(&netns, &["link set lo up", "link set eth0 up"]);
    netns
}

/// The host (the calling thread's namespace), its neighbours and the containers of a model.
struct World {
    lan: Netns,
    far: Netns,
    containers: Vec<Netns>,
}

impl World {
    fn new(model: &Model) -> World {
        sysctl("ipv4/ip_forward", "1");
        sysctl("ipv6/conf/all/forwarding", "1");
        sysctl("ipv6/conf/default/accept_dad", "0");
        sysctl("ipv6/bindv6only", "1");
        sysctl("ipv4/conf/all/rp_filter", "0");
        sysctl("ipv4/conf/default/rp_filter", "0");
        let lan = machine("lan0");
        ip("address add 192.0.2.1/24 dev lan0");
        ip("address add 2001:db8::1/64 dev lan0 nodad");
        ip("address add fe80::a/64 dev lan0 nodad");
        inside(
            &lan,
            &[
                "address add 192.0.2.2/24 dev eth0",
                "address add 2001:db8::2/64 dev eth0 nodad",
                "route add default via 192.0.2.1",
                "route add default via 2001:db8::1",
            ],
        );
        let far = machine("far0");
        ip("address add 198.51.100.1/24 dev far0");
        inside(
            &far,
            &[
                "address add 198.51.100.2/24 dev eth0",
                "route add default via 198.51.100.1",
            ],
        );
        for network in &model.networks {
            let (bridge, prefix) = (&network.bridge, network.subnet.prefix_len());
            ip(&format!("link add {bridge} type bridge"));
            ip(&format!("link set {bridge} up"));
            ip(&format!(
                "address add {}/{prefix} dev {bridge}",
                network.gateway
            ));
            if let Some(v6) = network.v6 {
                ip(&format!("address add {}/64 dev {bridge} nodad", v6.gateway));
                ip(&format!("address add fe80::a/64 dev {bridge} nodad"));
            }
        }
        let containers = model.endpoints.iter().enumerate().map(|(n, endpoint)| {
            let network = model.network(&endpoint.network_id).unwrap();
            let netns = machine(&format!("veth{n}"));
            ip(&format!("link set veth{n} master {}", network.bridge));
            let (address, prefix) = (endpoint.address, network.subnet.prefix_len());
            let own = format!("address add {address}/{prefix} dev eth0");
            let route = format!("route add default via {}", network.gateway);
            inside(&netns, &[&own, &route]);
            if let (Some(v6), Some(address)) = (network.v6, endpoint.address6) {
                let own = format!("address add {address}/64 dev eth0 nodad");
                let route = format!("route add default via {}", v6.gateway);
                inside(&netns, &[&own, &route]);
            }
            netns
        });
        let containers = containers.collect();
        World {
            lan,
            far,
            containers,
        }
    }
}

/// The host's link-local address as a neighbour by its `eth0` writes it.
fn link_local(netns: &Netns) -> String {
    let arguments = ["-o", "link", "show", "eth0"];
    let text = netns::run_in(netns, || command("ip", &arguments)).unwrap();
    let (index, _) = text.split_once(':').unwrap();
    format!("fe80::a%{index}")
}

/// Answers on a UDP port with its own name and the asker's address, as long as the test runs.
fn serve(netns: Option<&Netns>, address: &str, name: &'static str) {
    let bind = || UdpSocket::bind(address).unwrap();
    let socket = match netns {
        Some(netns) => netns::run_in(netns, bind).unwrap(),
        None => bind(),
    };
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let answer = format!("{name} {}", from.ip());
            let _ = socket.send_to(answer.as_bytes(), from);
        }
    });
}

/// What answers a datagram, and whom it saw; nothing where it was dropped or refused.
fn ask_from(netns: Option<&Netns>, source: &str, to: &str) -> Option<String> {
    let to: SocketAddr = to.parse().unwrap();
    let bind = || UdpSocket::bind((source.parse::<IpAddr>().unwrap(), 0)).unwrap();
    let socket = match netns {
        Some(netns) => netns::run_in(netns, bind).unwrap(),
        None => bind(),
    };
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 128];
    // A datagram may meet a neighbour that is not resolved yet, and an address that is not ready; a second one finds both.
    for _ in 0..2 {
        let answer = socket.send(b"?").and_then(|_| socket.recv(&mut buffer));
        if let Ok(length) = answer {
            return Some(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    }
    None
}

fn ask(netns: &Netns, to: &str) -> Option<String> {
    let any = if to.starts_with('[') { "::" } else { "0.0.0.0" };
    ask_from(Some(netns), any, to)
}

/// Brings the table to the model, whatever is there.
fn stand(model: &Model, guard: Guard) {
    let found = nft::list().unwrap().map(|json| parse(&json).unwrap());
    let mending = mend(found.as_ref(), model, guard, Goal::Stand);
    if !mending.is_empty() {
        nft::apply(&mending.forward).unwrap();
    }
}

fn answers(what: Option<&str>, got: Option<String>, case: &str) {
    assert_eq!(got.as_deref(), what, "{case}");
}

fn udp(ip: Option<&str>, host: u16, container: u16) -> PortMap {
    map(ip, host, container, 1, Protocol::Udp)
}

/// `web` with IPv6 and a container that publishes 8080, `bridge` with one that publishes nothing.
fn two_networks() -> Model {
    let mut m = situations::default_only();
    add_network(&mut m, "web", "10.201.0.0/24", "cr-776562000000").v6 = Some(V6 {
        subnet: "fd00:1::/64".parse().unwrap(),
        gateway: "fd00:1::1".parse().unwrap(),
        ip_range: None,
    });
    let run = map(None, 7000, 7000, 5, Protocol::Udp);
    let shifted = map(None, 6000, 7100, 5, Protocol::Udp);
    let at4 = Some("192.0.2.1");
    let at6 = Some("2001:db8::1");
    let ports = [
        udp(None, 8080, 80),
        run,
        shifted,
        udp(at4, 8082, 80),
        udp(at6, 8082, 80),
        map(at4, 7100, 7100, 5, Protocol::Udp),
        map(at6, 7100, 7100, 5, Protocol::Udp),
    ];
    add_endpoint(&mut m, "front", "web", &ports);
    m.endpoints[0].address6 = Some("fd00:1::2".parse().unwrap());
    add_endpoint(&mut m, "other", "bridge", &[]);
    add_endpoint(&mut m, "sibling", "web", &[]);
    m.endpoints[2].address6 = Some("fd00:1::3".parse().unwrap());
    m
}

fn serve_two_networks(world: &World) {
    let front = &world.containers[0];
    for (port, name) in [
        (80, "published"),
        (81, "unpublished"),
        (7003, "run"),
        (7104, "shifted"),
    ] {
        serve(Some(front), &format!("0.0.0.0:{port}"), name);
        serve(Some(front), &format!("[fd00:1::2]:{port}"), name);
    }
    serve(Some(&world.containers[1]), "0.0.0.0:81", "other");
    serve(Some(&world.far), "0.0.0.0:53", "far");
    // The proxy's place: what is not DNATed comes here. On each address, so that replies have the right source.
    for address in ["127.0.0.1", "192.0.2.1", "10.200.0.1", "10.201.0.1"] {
        serve(None, &format!("{address}:8080"), "proxy");
    }
    serve(None, "[::]:8080", "proxy");
}

#[test]
fn published_ports_are_reached_and_nothing_else_is() {
    in_own_netns(|| {
        let model = two_networks();
        let world = World::new(&model);
        serve_two_networks(&world);
        let (lan, other) = (&world.lan, &world.containers[1]);
        // Without the table the ways exist that it closes.
        let direct = [
            "10.201.0.2:80",
            "10.201.0.2:81",
            "[fd00:1::2]:80",
            "[fd00:1::2]:81",
        ];
        for to in direct {
            assert!(ask(lan, to).is_some(), "{to} without the table");
        }
        answers(
            Some("unpublished 10.200.0.2"),
            ask(other, "10.201.0.2:81"),
            "without the table",
        );
        answers(
            Some("other 192.0.2.2"),
            ask(lan, "10.200.0.2:81"),
            "without the table",
        );
        stand(&model, NO_GUARD);
        for to in direct.into_iter().chain(["10.200.0.2:81"]) {
            answers(None, ask(lan, to), to);
        }
        let published = [
            ("192.0.2.1:8080", Some("published 192.0.2.2")),
            ("[2001:db8::1]:8080", Some("published 2001:db8::2")),
            ("192.0.2.1:7003", Some("run 192.0.2.2")),
            ("192.0.2.1:6004", Some("shifted 192.0.2.2")),
            ("[2001:db8::1]:7003", Some("run 2001:db8::2")),
            ("[2001:db8::1]:6004", Some("shifted 2001:db8::2")),
            ("192.0.2.1:81", None),
            ("198.51.100.1:8080", Some("published 192.0.2.2")),
            ("192.0.2.1:8082", Some("published 192.0.2.2")),
            ("192.0.2.1:7104", Some("shifted 192.0.2.2")),
            ("198.51.100.1:8082", None),
            ("198.51.100.1:7104", None),
            ("[2001:db8::1]:8082", Some("published 2001:db8::2")),
            ("[2001:db8::1]:7104", Some("shifted 2001:db8::2")),
        ];
        for (to, what) in published {
            answers(what, ask(lan, to), to);
        }
        let to = format!("[{}]:8080", link_local(lan));
        let got = ask(lan, &to).unwrap();
        assert!(got.starts_with("proxy fe80::"), "link-local: {got}");
        let sibling = &world.containers[2];
        let siblings = [
            ("10.201.0.2:81", "unpublished 10.201.0.3"),
            ("[fd00:1::2]:81", "unpublished fd00:1::3"),
        ];
        for (to, what) in siblings {
            answers(Some(what), ask(sibling, to), "within a network");
        }
        answers(
            None,
            ask(other, "10.201.0.2:80"),
            "isolation, a published port",
        );
        answers(None, ask(other, "10.201.0.2:81"), "isolation");
        answers(
            None,
            ask(&world.containers[0], "10.200.0.2:81"),
            "isolation, the other way",
        );
        for to in ["10.200.0.1:8080", "10.201.0.1:8080", "192.0.2.1:8080"] {
            answers(
                Some("proxy 10.200.0.2"),
                ask(other, to),
                "across networks, by the proxy",
            );
        }
        answers(
            Some("proxy 10.201.0.2"),
            ask(&world.containers[0], "192.0.2.1:8080"),
            "its own published port",
        );
        answers(
            Some("far 198.51.100.1"),
            ask(other, "198.51.100.2:53"),
            "masqueraded",
        );
        let host = |to| ask_from(None, "0.0.0.0", to);
        answers(
            Some("published 192.0.2.1"),
            host("192.0.2.1:8080"),
            "this host",
        );
        answers(
            Some("proxy 127.0.0.1"),
            host("127.0.0.1:8080"),
            "this host, loopback",
        );
        answers(
            Some("unpublished 10.201.0.1"),
            host("10.201.0.2:81"),
            "this host, directly",
        );
        serve(None, "10.201.0.1:9999", "host");
        answers(
            Some("host 10.201.0.1"),
            host("10.201.0.1:9999"),
            "this host at its gateway address",
        );
        serve(None, "[fd00:1::1]:9999", "host");
        answers(
            Some("host 2001:db8::2"),
            ask(lan, "[fd00:1::1]:9999"),
            "a gateway address is the host's own",
        );
        serve(Some(lan), "[::]:53", "lan");
        answers(
            Some("lan 2001:db8::1"),
            ask(&world.containers[0], "[2001:db8::2]:53"),
            "masqueraded, IPv6",
        );
        // Gone means gone.
        let mut less = model.clone();
        less.endpoints[0].ports.clear();
        stand(&less, NO_GUARD);
        answers(
            Some("proxy 192.0.2.2"),
            ask(lan, "192.0.2.1:8080"),
            "not DNATed any more",
        );
        answers(None, ask(lan, "192.0.2.1:7003"), "a run that was removed");
    });
}

#[test]
fn a_foreign_drop_does_not_stop_us_and_the_guard_stops_others() {
    in_own_netns(|| {
        let model = two_networks();
        let world = World::new(&model);
        serve_two_networks(&world);
        stand(&model, NO_GUARD);
        answers(
            Some("far 192.0.2.2"),
            ask(&world.lan, "198.51.100.2:53"),
            "no guard",
        );
        stand(&model, Guard { v4: true, v6: true });
        answers(None, ask(&world.lan, "198.51.100.2:53"), "guarded");
        // Still nobody's business but ours.
        answers(
            Some("published 192.0.2.2"),
            ask(&world.lan, "192.0.2.1:8080"),
            "guarded",
        );
        answers(
            Some("far 198.51.100.1"),
            ask(&world.containers[1], "198.51.100.2:53"),
            "guarded",
        );
        command("iptables", &["-P", "FORWARD", "DROP"]);
        command("iptables", &["-A", "FORWARD", "-j", "DROP"]);
        answers(None, ask(&world.lan, "192.0.2.1:8080"), "FORWARD drops");
        let script = diff::delta(&Ruleset::default(), &passage(&model));
        commands::restore(&script.render()).unwrap();
        answers(
            Some("published 192.0.2.2"),
            ask(&world.lan, "192.0.2.1:8080"),
            "the passage",
        );
        answers(
            Some("far 198.51.100.1"),
            ask(&world.containers[1], "198.51.100.2:53"),
            "the passage",
        );
        answers(
            None,
            ask(&world.containers[1], "10.201.0.2:81"),
            "isolation beside the passage",
        );
        answers(
            None,
            ask(&world.lan, "10.201.0.2:81"),
            "unpublished beside the passage",
        );
    });
}

#[test]
fn the_administrators_chain_comes_first() {
    in_own_netns(|| {
        let model = two_networks();
        let world = World::new(&model);
        serve_two_networks(&world);
        stand(&model, NO_GUARD);
        nft::apply("add rule inet coracle CORACLE-USER ip saddr 192.0.2.2 drop").unwrap();
        answers(None, ask(&world.lan, "192.0.2.1:8080"), "blocked");
        stand(&model, NO_GUARD);
        answers(
            None,
            ask(&world.lan, "192.0.2.1:8080"),
            "blocked after a reload",
        );
    });
}

#[test]
fn forged_sources_are_dropped() {
    in_own_netns(|| {
        let model = two_networks();
        let world = World::new(&model);
        // Whoever forges a source gets no answer, so the host counts what arrives.
        let arrives = |netns: &Netns, source: &str, to: &str| {
            let any = if to.contains(':') { "::" } else { "0.0.0.0" };
            let any: IpAddr = any.parse().unwrap();
            let socket = UdpSocket::bind((any, 0)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let source: IpAddr = source.parse().unwrap();
            let bind = || UdpSocket::bind((source, 0)).unwrap();
            let sender = netns::run_in(netns, bind).unwrap();
            let port = socket.local_addr().unwrap().port();
            let to = match to.contains(':') {
                true => format!("[{to}]:{port}"),
                false => format!("{to}:{port}"),
            };
            let mut buffer = [0; 8];
            (0..2).any(|_| {
                let _ = sender.send_to(b"?", &to);
                socket.recv_from(&mut buffer).is_ok()
            })
        };
        inside(
            &world.lan,
            &[
                "address add 10.201.0.77/32 dev lo",
                "address add fd00:1::77/128 dev lo nodad",
            ],
        );
        inside(
            &world.containers[0],
            &[
                "address add 10.200.0.77/32 dev lo",
                "address add 203.0.113.5/32 dev lo",
                "address add 2001:db8:1::5/128 dev lo nodad",
            ],
        );
        let forged = [
            (&world.lan, "10.201.0.77", "192.0.2.1"),
            (&world.lan, "fd00:1::77", "2001:db8::1"),
            (&world.containers[0], "10.200.0.77", "10.201.0.1"),
            (&world.containers[0], "203.0.113.5", "10.201.0.1"),
            (&world.containers[0], "2001:db8:1::5", "fd00:1::1"),
        ];
        for (who, source, to) in forged {
            assert!(arrives(who, source, to), "{source} without the table");
        }
        stand(&model, NO_GUARD);
        for (who, source, to) in forged {
            assert!(!arrives(who, source, to), "{source} to {to}");
        }
        assert!(
            arrives(&world.containers[0], "10.201.0.2", "10.201.0.1"),
            "its own source"
        );
        assert!(
            arrives(&world.containers[0], "fd00:1::2", "fd00:1::1"),
            "its own source"
        );
        let front = &world.containers[0];
        inside(front, &["address add fe80::f/64 dev eth0 nodad"]);
        let to = link_local(front);
        assert!(arrives(front, "::", &to), "its link-local source");
        assert!(
            arrives(&world.lan, "192.0.2.2", "192.0.2.1"),
            "the neighbour's own source"
        );
    });
}

#[test]
fn a_port_on_a_loopback_address_is_for_this_host_only() {
    in_own_netns(|| {
        let mut model = situations::default_only();
        let ports = [
            udp(Some("127.0.0.2"), 8080, 80),
            map(Some("127.0.0.2"), 7000, 7000, 5, Protocol::Udp),
        ];
        add_endpoint(&mut model, "c1", "bridge", &ports);
        let world = World::new(&model);
        serve(None, "127.0.0.2:8080", "proxy");
        serve(None, "127.0.0.2:7003", "proxy");
        // A host that would take such packets, and a neighbour that sends them.
        sysctl("ipv4/conf/lan0/route_localnet", "1");
        netns::run_in(&world.lan, || sysctl("ipv4/conf/eth0/route_localnet", "1")).unwrap();
        inside(
            &world.lan,
            &[
                "route del local 127.0.0.0/8 dev lo table local",
                "route add 127.0.0.2/32 via 192.0.2.1 src 192.0.2.2",
            ],
        );
        for to in ["127.0.0.2:8080", "127.0.0.2:7003"] {
            answers(
                Some("proxy 192.0.2.2"),
                ask(&world.lan, to),
                "without the table",
            );
        }
        stand(&model, NO_GUARD);
        for to in ["127.0.0.2:8080", "127.0.0.2:7003"] {
            answers(None, ask(&world.lan, to), to);
            answers(
                Some("proxy 127.0.0.1"),
                ask_from(None, "127.0.0.1", to),
                "this host",
            );
        }
    });
}

#[test]
fn escape_hatches_open_what_they_say() {
    for (options, published, unpublished) in [
        (
            vec![
                (OPTION_GATEWAY_MODE_V4, "routed"),
                (OPTION_GATEWAY_MODE_V6, "routed"),
            ],
            true,
            false,
        ),
        (
            vec![
                (OPTION_GATEWAY_MODE_V4, "nat-unprotected"),
                (OPTION_GATEWAY_MODE_V6, "nat-unprotected"),
            ],
            true,
            true,
        ),
        (vec![(OPTION_TRUSTED_INTERFACES, "wg0:lan0")], true, false),
        (vec![(OPTION_TRUSTED_INTERFACES, "wg0")], false, false),
    ] {
        in_own_netns(move || {
            let mut model = two_networks();
            let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
            let case = format!("{options:?}");
            let routed = case.contains("\"routed\"");
            model.networks[1].options = options.into_iter().map(own).collect();
            let world = World::new(&model);
            serve_two_networks(&world);
            inside(&world.far, &["route replace default via 198.51.100.1"]);
            stand(&model, NO_GUARD);
            for (to, is_open) in [
                ("10.201.0.2:80", published),
                ("[fd00:1::2]:80", published),
                ("10.201.0.2:7003", published),
                ("10.201.0.2:81", unpublished),
                ("[fd00:1::2]:81", unpublished),
            ] {
                assert_eq!(ask(&world.lan, to).is_some(), is_open, "{case}: {to}");
            }
            answers(
                None,
                ask(&world.containers[1], "10.201.0.2:80"),
                "isolation stays",
            );
            let (at_host, outside) = match routed {
                true => ("proxy 192.0.2.2", "far 10.201.0.2"),
                false => ("published 192.0.2.2", "far 198.51.100.1"),
            };
            answers(Some(at_host), ask(&world.lan, "192.0.2.1:8080"), &case);
            answers(
                Some(outside),
                ask(&world.containers[0], "198.51.100.2:53"),
                &case,
            );
        });
    }
}

#[test]
fn an_internal_network_has_no_way_out_or_in() {
    in_own_netns(|| {
        let mut model = two_networks();
        add_network(&mut model, "vault", "10.202.0.0/24", "cr-7661756c7400").internal = true;
        add_endpoint(&mut model, "safe", "vault", &[udp(None, 9090, 90)]);
        add_endpoint(&mut model, "guest", "vault", &[]);
        let world = World::new(&model);
        serve_two_networks(&world);
        let (safe, guest) = (&world.containers[3], &world.containers[4]);
        serve(Some(safe), "0.0.0.0:90", "safe");
        inside(&world.far, &["route add 10.202.0.0/24 via 198.51.100.1"]);
        answers(
            Some("far 10.202.0.2"),
            ask(safe, "198.51.100.2:53"),
            "without the table",
        );
        // One way too: a datagram that leaves without an answer is a way out.
        let bind = |to: &'static str| move || UdpSocket::bind(to).unwrap();
        let outside = netns::run_in(&world.far, bind("198.51.100.2:54")).unwrap();
        outside.set_read_timeout(Some(PATIENCE)).unwrap();
        let sender = netns::run_in(safe, bind("0.0.0.0:0")).unwrap();
        let leaves = || {
            sender.send_to(b"?", "198.51.100.2:54").unwrap();
            outside.recv_from(&mut [0; 8]).is_ok()
        };
        assert!(leaves(), "without the table");
        stand(&model, NO_GUARD);
        assert!(!leaves(), "one way to the outside");
        answers(None, ask(safe, "198.51.100.2:53"), "the outside");
        answers(None, ask(safe, "10.201.0.2:80"), "another network");
        answers(
            None,
            ask(safe, "192.0.2.1:8080"),
            "another network's published port",
        );
        for from in [&world.lan, &world.far, &world.containers[0]] {
            answers(None, ask(from, "10.202.0.2:90"), "from outside");
        }
        answers(
            None,
            ask(&world.lan, "192.0.2.1:9090"),
            "a port that it cannot publish",
        );
        answers(
            Some("safe 10.202.0.3"),
            ask(guest, "10.202.0.2:90"),
            "within",
        );
        serve(None, "10.202.0.1:99", "gateway");
        answers(
            Some("gateway 10.202.0.2"),
            ask(safe, "10.202.0.1:99"),
            "this host",
        );
    });
}

/// A TCP listener that says its name to whoever connects.
fn listen(netns: Option<&Netns>, address: &str, name: &'static str) {
    let bind = || TcpListener::bind(address).unwrap();
    let listener = match netns {
        Some(netns) => netns::run_in(netns, bind).unwrap(),
        None => bind(),
    };
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(name.as_bytes());
        }
    });
}

fn connect(netns: Option<&Netns>, to: &str) -> Option<String> {
    let to: SocketAddr = to.parse().unwrap();
    let connect = || TcpStream::connect_timeout(&to, 2 * PATIENCE);
    let stream = match netns {
        Some(netns) => netns::run_in(netns, connect).unwrap(),
        None => connect(),
    };
    let mut text = String::new();
    let mut stream = stream.ok()?;
    stream.set_read_timeout(Some(2 * PATIENCE)).unwrap();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// A run with one listener: from the LAN to the container by DNAT, for local clients and where there is no DNAT to the
/// listener.
#[test]
fn local_clients_of_a_run_are_led_to_its_listener() {
    in_own_netns(|| {
        let mut model = two_networks();
        let run = |first, ip, listener| PortMap {
            listener: Some(listener),
            ..map(ip, first, first, 1_000, Protocol::Tcp)
        };
        model.endpoints[0].ports = vec![
            run(2_000, None, 40_001),
            run(4_000, Some("127.0.0.1"), 40_002),
            run(5_500, Some("::1"), 40_004),
        ];
        model.endpoints[1].ports = vec![run(3_000, None, 40_003)];
        let world = World::new(&model);
        listen(Some(&world.containers[0]), "0.0.0.0:2500", "container");
        listen(Some(&world.containers[0]), "[::]:2501", "container");
        listen(Some(&world.containers[1]), "0.0.0.0:3500", "container");
        for (port, name) in [
            (40_001, "first"),
            (40_002, "second"),
            (40_003, "third"),
            (40_004, "fourth"),
        ] {
            listen(None, &format!("0.0.0.0:{port}"), name);
            listen(None, &format!("[::]:{port}"), name);
        }
        stand(&model, NO_GUARD);
        let cases = [
            (None, "127.0.0.1:2500", Some("first")),
            (None, "[::1]:2501", Some("first")),
            (None, "127.0.0.1:4500", Some("second")),
            (None, "[::1]:5600", Some("fourth")),
            (None, "127.0.0.1:5600", None),
            (None, "127.0.0.2:4500", None),
            (None, "127.0.0.1:5001", None),
            (None, "192.0.2.1:2500", Some("container")),
            (Some(&world.containers[1]), "192.0.2.1:2500", Some("first")),
            (Some(&world.containers[1]), "10.200.0.1:2500", Some("first")),
            (Some(&world.containers[0]), "10.201.0.1:2500", Some("first")),
            (Some(&world.lan), "192.0.2.1:2500", Some("container")),
            (Some(&world.lan), "[2001:db8::1]:2501", Some("container")),
            (Some(&world.lan), "192.0.2.1:3500", Some("container")),
            // A container without IPv6 is reached by way of the listener.
            (Some(&world.lan), "[2001:db8::1]:3500", Some("third")),
            (Some(&world.lan), "192.0.2.1:4500", None),
        ];
        for (from, to, what) in cases {
            answers(what, connect(from, to), to);
        }
    });
}
