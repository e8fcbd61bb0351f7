//! An enemy on the LAN, who makes packets by hand and has routes to whatever he likes.

#[path = "enemy/wire.rs"]
mod wire;
#[path = "enemy/world.rs"]
mod world;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::time::Duration;

use harness::host::{ATTACKER, HOST};
use harness::{eventually, net};

use wire::{DESTINATION_OPTIONS, HOP_BY_HOP, Inbox, Packet4, Packet6, say};
use world::{address6, each, idle, set};

const HOST6: &str = "2001:db8::1";
const ATTACKER6: &str = "2001:db8::3";

/// Loose source routing (RFC 791): the next stop is this address.
fn source_route(next: Ipv4Addr) -> Vec<u8> {
    let [a, b, c, d] = next.octets();
    vec![131, 7, 4, a, b, c, d, 0]
}

#[test]
fn crafted_packets_reach_no_container() {
    each(|host, case| {
        host.run("network create --subnet 10.98.0.0/24 one");
        host.run("network create --internal --subnet 10.97.0.0/24 vault");
        let web = idle(host, "web", "--network one -p 5300:5300/udp");
        let safe = idle(host, "safe", "--network vault");
        let attacker = &host.attacker;
        attacker.ip(&format!("route add 10.96.0.0/13 via {HOST}\n"));
        // An old router's settings, and a newer one's.
        host.netns.enter(|| {
            set("ipv4/conf/all/accept_source_route", "1");
            set("ipv4/conf/eth0/accept_source_route", "1");
        });
        let published = Inbox::open(&web, "0.0.0.0:5300");
        let secrets = [
            (Inbox::open(&web, "0.0.0.0:5301"), host.address_of("web")),
            (Inbox::open(&safe, "0.0.0.0:5301"), host.address_of("safe")),
        ];
        let own: Ipv4Addr = ATTACKER.parse().unwrap();
        let by: Ipv4Addr = HOST.parse().unwrap();
        let at_host = SocketAddrV4::new(by, 5300);
        for (_, address) in &secrets {
            let address: Ipv4Addr = address.parse().unwrap();
            let [a, b, c, _] = address.octets();
            for port in [5300, 5301] {
                let to = SocketAddrV4::new(address, port);
                Packet4::udp(own, to, "direct").send(attacker);
                for piece in Packet4::udp(own, to, "in fragments").fragments(false) {
                    piece.send(attacker);
                }
                for piece in Packet4::udp(own, to, "overlapping fragments").fragments(true) {
                    piece.send(attacker);
                }
                let broadcast = SocketAddrV4::new([a, b, c, 255].into(), port);
                Packet4::udp(own, broadcast, "broadcast").send_by(attacker, address);
                let mut hop = Packet4::udp(own, SocketAddrV4::new(by, port), "by source route");
                hop.options = source_route(address);
                hop.send(attacker);
                for liar in [[a, b, c, 77], [a, b, c, 1], [127, 0, 0, 1]] {
                    Packet4::udp(liar.into(), to, "under a false name").send(attacker);
                }
            }
            Packet4::udp([a, b, c, 77].into(), at_host, "as a sibling").send(attacker);
            Packet4::udp(address, at_host, "as itself").send(attacker);
        }
        // The published port is reached, by pieces too, and thereby all that was sent before has come or been lost.
        let whole = || Packet4::udp(own, at_host, "whole").send(attacker);
        assert_eq!(published.until("whole", whole), [""; 0], "{case}");
        let pieces = || {
            let datagram = Packet4::udp(own, at_host, "in honest pieces");
            for piece in datagram.fragments(false) {
                piece.send(attacker);
            }
        };
        let came = published.until("in honest pieces", pieces);
        assert!(came.iter().all(|word| word == "whole"), "{case}: {came:?}");
        for (secret, address) in &secrets {
            let last = || say(&host.netns, &format!("{address}:5301"), "from the host");
            assert_eq!(
                secret.until("from the host", last),
                [""; 0],
                "{case}: {address}"
            );
        }
    });
}

#[test]
fn crafted_ipv6_packets_reach_no_container() {
    each(|host, case| {
        host.run("network create --ipv6 --subnet 10.98.0.0/24 --subnet fd98::/64 one");
        host.run("network create --ipv6 --internal --subnet 10.97.0.0/24 --subnet fd97::/64 vault");
        let web = idle(host, "web", "--network one -p 5300:5300/udp");
        let safe = idle(host, "safe", "--network vault");
        let attacker = &host.attacker;
        attacker.ip(&format!("route add fd90::/12 via {HOST6}\n"));
        host.netns.enter(|| {
            set("ipv6/conf/all/accept_source_route", "1");
            set("ipv6/conf/eth0/accept_source_route", "1");
        });
        let published = Inbox::open(&web, "[::]:5300");
        let secrets = [
            (Inbox::open(&web, "[::]:5301"), address6(host, "web")),
            (Inbox::open(&safe, "[::]:5301"), address6(host, "safe")),
        ];
        let own: Ipv6Addr = ATTACKER6.parse().unwrap();
        let by: Ipv6Addr = HOST6.parse().unwrap();
        let at_host = SocketAddrV6::new(by, 5300, 0, 0);
        // PadN.
        let padding = [0, 1, 4, 0, 0, 0, 0];
        for (_, address) in &secrets {
            let mut sibling = address.segments();
            sibling[7] = 0x77;
            for port in [5300, 5301] {
                let to = SocketAddrV6::new(*address, port, 0, 0);
                let direct = Packet6::udp(own, to, "direct");
                direct.send(attacker);
                direct.clone().with(HOP_BY_HOP, &padding).send(attacker);
                let long = direct.clone().with(DESTINATION_OPTIONS, &padding);
                long.with(DESTINATION_OPTIONS, &padding).send(attacker);
                for piece in direct.fragments() {
                    piece.send(attacker);
                }
                for kind in [0, 2, 3, 4] {
                    direct.clone().routed_by(by, kind).send(attacker);
                }
                Packet6::udp(sibling.into(), to, "as a sibling").send(attacker);
                let link_local = "fe80::1".parse().unwrap();
                Packet6::udp(link_local, to, "link-local").send(attacker);
            }
            Packet6::udp(sibling.into(), at_host, "as a sibling").send(attacker);
            Packet6::udp(*address, at_host, "as itself").send(attacker);
        }
        let honest = Packet6::udp(own, at_host, "whole");
        let came = published.until("whole", || honest.send(attacker));
        assert_eq!(came, [""; 0], "{case}");
        let honest = Packet6::udp(own, at_host, "with options");
        let honest = honest.with(DESTINATION_OPTIONS, &padding);
        let came = published.until("with options", || honest.send(attacker));
        assert!(came.iter().all(|word| word == "whole"), "{case}: {came:?}");
        for (secret, address) in &secrets {
            let last = || say(&host.netns, &format!("[{address}]:5301"), "from the host");
            assert_eq!(
                secret.until("from the host", last),
                [""; 0],
                "{case}: {address}"
            );
        }
    });
}

/// The bridge of an internal network has an address of the host's, and services of the host listen on every address.
#[test]
fn an_internal_networks_gateway_is_for_its_containers_alone() {
    each(|host, case| {
        host.run("network create --ipv6 --subnet 10.98.0.0/24 --subnet fd98::/64 one");
        host.run("network create --ipv6 --internal --subnet 10.97.0.0/24 --subnet fd97::/64 vault");
        let other = idle(host, "other", "--network one");
        let safe = idle(host, "safe", "--network vault");
        host.attacker.ip(&format!(
            "route add 10.97.0.0/24 via {HOST}\nroute add fd97::/64 via {HOST6}\n"
        ));
        let service = Inbox::open(&host.netns, "[::]:7000");
        for gateway in ["10.97.0.1:7000", "[fd97::1]:7000"] {
            say(&host.attacker, gateway, "the attacker");
            say(&other, gateway, "another network");
            // By the same ways, to where they may.
            for (from, to) in [(&host.attacker, HOST), (&other, "10.98.0.1")] {
                let last = || say(from, &format!("{to}:7000"), to);
                assert_eq!(service.until(to, last), [""; 0], "{case}: {gateway}");
            }
            let last = || say(&safe, gateway, "its own container");
            let came = service.until("its own container", last);
            assert!(
                came.iter().all(|word| word == "10.98.0.1"),
                "{case}: {came:?}"
            );
        }
    });
}

/// A packet out opens a way back: for whom it was sent to, and as long as its sender lives.
#[test]
fn an_answer_is_for_who_asked() {
    each(|host, case| {
        host.run("network create --subnet 10.98.0.0/24 one");
        let first = idle(host, "first", "--network one");
        let address = host.address_of("first");
        let asks = first.enter(|| UdpSocket::bind("0.0.0.0:5400")).unwrap();
        let bind = |machine: &harness::Netns, port| {
            let socket = machine.enter(|| UdpSocket::bind(("0.0.0.0", port)));
            socket.expect("a port of a machine of our own")
        };
        let asked = bind(&host.neighbour, 6000);
        let other_port = bind(&host.neighbour, 6001);
        let other_machine = bind(&host.attacker, 6000);
        asked
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let hole = eventually("the question arrives", || {
            first.enter(|| asks.send_to(b"question", "192.0.2.2:6000"))?;
            asked.recv_from(&mut [0; 16]).map(|(_, peer)| peer)
        });
        assert_eq!(hole.ip().to_string(), HOST, "{case}: masqueraded");
        let answers = |inbox: &Inbox, word: &'static str| {
            inbox.until(word, || drop(asked.send_to(word.as_bytes(), hole)))
        };
        let inbox = Inbox::of(asks);
        for (liar, word) in [
            (&other_port, "another port"),
            (&other_machine, "another machine"),
        ] {
            liar.send_to(word.as_bytes(), hole).unwrap();
        }
        assert_eq!(answers(&inbox, "answer"), [""; 0], "{case}");
        // The next one with that address has asked nobody anything.
        drop(inbox);
        host.run("rm -f first");
        let second = idle(host, "second", &format!("--network one --ip {address}"));
        let inbox = Inbox::open(&second, "0.0.0.0:5400");
        for _ in 0..3 {
            asked.send_to(b"late answer", hole).unwrap();
        }
        // The way from that machine to this container is open, as soon as the container asks.
        let own = second.enter(|| UdpSocket::bind("0.0.0.0:5401")).unwrap();
        let hole = eventually("the second one's question arrives", || {
            second.enter(|| own.send_to(b"question", "192.0.2.2:6000"))?;
            asked.recv_from(&mut [0; 16]).map(|(_, peer)| peer)
        });
        let own = Inbox::of(own);
        own.until("answer", || drop(asked.send_to(b"answer", hole)));
        let last = || say(&host.netns, &format!("{address}:5400"), "from the host");
        assert_eq!(inbox.until("from the host", last), [""; 0], "{case}");
    });
}

/// A port that is published for this host alone stays so where the containers' own addresses are open to neighbours: on
/// a network that does not masquerade, and from an interface that is trusted.
#[test]
fn a_loopback_port_is_not_reached_by_an_open_route() {
    each(|host, case| {
        for option in ["enable_ip_masquerade=false", "trusted_host_interfaces=eth0"] {
            host.run(&format!(
                "network create --subnet 10.98.0.0/24 -o com.docker.network.bridge.{option} open"
            ));
            host.run("run -d --name web --network open -p 8080:80 -p 127.0.0.1:8081:81 busybox sh -c -- httpd${IFS}-p${IFS}81${IFS}-h${IFS}/www;httpd${IFS}-f${IFS}-p${IFS}80${IFS}-h${IFS}/www");
            let web = host.address_of("web");
            host.attacker
                .ip(&format!("route replace 10.98.0.0/24 via {HOST}\n"));
            eventually("the published port is open by a route", || {
                net::http_get(&host.attacker, &format!("{web}:80"))
            });
            eventually("this host reaches its own port", || {
                net::http_get(&host.netns, "127.0.0.1:8081")
            });
            let reached = net::http_get(&host.attacker, &format!("{web}:81"));
            assert!(reached.is_err(), "{case}, {option}: {reached:?}");
            host.run("rm -f web");
            host.run("network rm open");
        }
    });
}
