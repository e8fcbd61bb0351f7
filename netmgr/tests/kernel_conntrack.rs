//! Connections that the kernel remembers after their published port has moved.

mod kernel_support;

use std::collections::HashMap;
use std::io::Write;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use kernel_support::*;
use netmgr::kernel::conntrack::{Leads, Stale, flush};
use netmgr::kernel::netns;
use netmgr::plan::Op;
use netmgr::{Netns, Protocol, apply};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn stale(protocol: Protocol, first: u16, last: u16, leads: Leads) -> Stale {
    Stale {
        protocol,
        host_ip: None,
        first,
        last,
        leads,
    }
}

/// An entry of a client's connection to `to`, answered by `by`.
fn enter(protocol: &str, port: u16, to: &str, by: &str) {
    let client = if to.contains(':') {
        "fd00:5::5"
    } else {
        "203.0.113.5"
    };
    let state = match protocol {
        "tcp" => "--state ESTABLISHED",
        "sctp" => "--state ESTABLISHED --orig-vtag 1 --reply-vtag 2",
        _ => "",
    };
    // No two of them may have the same reply.
    static CLIENT: AtomicU16 = AtomicU16::new(10_000);
    let from = CLIENT.fetch_add(1, Ordering::Relaxed);
    run(&format!(
        "conntrack -I -p {protocol} -t 600 -s {client} -d {to} --sport {from} --dport {port} -r {by} -q {client} \
         --reply-port-src 80 --reply-port-dst {from} {state}"
    ));
}

/// `PROTOCOL TO:PORT` of all entries, sorted.
fn entries() -> Vec<String> {
    let mut all = Vec::new();
    for family in ["ipv4", "ipv6"] {
        let text = run(&format!("conntrack -L -f {family}"));
        for line in text.lines().filter(|line| line.contains("dport=")) {
            let value = |key| {
                line.split_whitespace()
                    .find_map(|word| word.strip_prefix(key))
            };
            let protocol = line.split_whitespace().next().unwrap();
            let (to, port) = (value("dst=").unwrap(), value("dport=").unwrap());
            all.push(format!("{protocol} {to}:{port}"));
        }
    }
    all.sort();
    all
}

/// The host, with the address 192.0.2.1 and fd00:2::1.
fn on_an_addressed_host(test: impl FnOnce() + Send) {
    on_a_host(|| {
        run("ip address add 192.0.2.1/24 dev lo");
        run("ip address add fd00:2::1/64 dev lo nodad");
        test();
    });
}

#[test]
fn removed_port_takes_its_own_entries_only() {
    on_an_addressed_host(|| {
        for protocol in ["tcp", "udp", "sctp"] {
            enter(protocol, 8080, "192.0.2.1", "10.99.0.2");
        }
        enter("udp", 8081, "192.0.2.1", "10.99.0.2");
        enter("udp", 8080, "192.0.2.9", "10.99.0.3");
        // To the container itself, by no published port.
        enter("udp", 8080, "10.99.0.2", "10.99.0.2");
        enter("udp", 8080, "fd00:2::1", "fd00:99::2");
        let to = Leads::To(ip("10.99.0.2"));
        let all = entries();
        assert_eq!(all.len(), 7);

        assert_eq!(flush(&[]).unwrap(), 0);
        assert_eq!(
            flush(&[stale(Protocol::Udp, 80, 80, to)]).unwrap(),
            0,
            "the container's port"
        );
        assert_eq!(entries(), all);
        for protocol in [Protocol::Udp, Protocol::Tcp, Protocol::Sctp] {
            let gone = format!("{} 192.0.2.1:8080", protocol.as_str());
            assert!(entries().contains(&gone));
            assert_eq!(flush(&[stale(protocol, 8080, 8080, to)]).unwrap(), 1);
            assert!(!entries().contains(&gone));
        }
        let rest = [
            "udp 10.99.0.2:8080",
            "udp 192.0.2.1:8081",
            "udp 192.0.2.9:8080",
            "udp fd00:2::1:8080",
        ];
        assert_eq!(entries(), rest);
        let to6 = Leads::To(ip("fd00:99::2"));
        assert_eq!(flush(&[stale(Protocol::Udp, 8000, 8100, to6)]).unwrap(), 1);
        assert_eq!(flush(&[stale(Protocol::Udp, 8000, 8100, to)]).unwrap(), 1);
        assert_eq!(entries(), ["udp 10.99.0.2:8080", "udp 192.0.2.9:8080"]);
    });
}

#[test]
fn new_port_takes_what_goes_elsewhere() {
    on_an_addressed_host(|| {
        // To the host itself, to an old container, and to the new one.
        enter("udp", 5353, "192.0.2.1", "192.0.2.1");
        enter("udp", 5354, "192.0.2.1", "10.99.0.2");
        enter("udp", 5355, "192.0.2.1", "10.99.0.3");
        enter("udp", 5353, "127.0.0.1", "127.0.0.1");
        enter("udp", 5353, "fd00:2::1", "fd00:2::1");
        // Forwarded for somebody else, who asks a server of the same port.
        enter("udp", 5353, "198.51.100.53", "198.51.100.53");
        let not_to = Leads::NotTo(ip("10.99.0.3"));
        assert_eq!(
            flush(&[stale(Protocol::Udp, 5353, 5355, not_to)]).unwrap(),
            3
        );
        let rest = [
            "udp 192.0.2.1:5355",
            "udp 198.51.100.53:5353",
            "udp fd00:2::1:5353",
        ];
        assert_eq!(entries(), rest);
        let not_to6 = Leads::NotTo(ip("fd00:99::3"));
        assert_eq!(
            flush(&[stale(Protocol::Udp, 5353, 5353, not_to6)]).unwrap(),
            1
        );
        assert_eq!(entries().len(), 2);
    });
}

#[test]
fn port_of_one_address_leaves_the_same_port_of_others() {
    on_an_addressed_host(|| {
        run("ip address add 192.0.2.2/24 dev lo");
        for address in ["192.0.2.1", "192.0.2.2"] {
            enter("tcp", 443, address, "10.99.0.2");
        }
        let mut one = stale(Protocol::Tcp, 443, 443, Leads::To(ip("10.99.0.2")));
        one.host_ip = Some(ip("192.0.2.2"));
        assert_eq!(flush(&[one]).unwrap(), 1);
        assert_eq!(entries(), ["tcp 192.0.2.1:443"]);
        // Of several descriptions in one go none hides another, and one entry counts once.
        let all = [
            one,
            stale(Protocol::Tcp, 400, 500, Leads::To(ip("10.99.0.2"))),
            stale(Protocol::Tcp, 443, 443, Leads::NotTo(ip("10.99.0.9"))),
            stale(Protocol::Udp, 443, 443, Leads::NotTo(ip("10.99.0.9"))),
        ];
        assert_eq!(flush(&all).unwrap(), 1);
        assert_eq!(entries(), [""; 0]);
    });
}

/// A client that goes on sending is heard by the next owner of the port only when the kernel has forgotten it.
#[test]
fn client_of_udp_follows_a_port_to_its_next_container() {
    for v6 in [false, true] {
        on_an_addressed_host(|| {
            let (iptables, host, last) = match v6 {
                false => ("iptables", "192.0.2.1", ["10.99.0.2", "10.99.0.3"]),
                true => ("ip6tables", "fd00:2::1", ["fd00:99::2", "fd00:99::3"]),
            };
            let inside: HashMap<String, Netns> = [2, 3]
                .map(|last| (veth(last).endpoint.container_id, netns::create().unwrap()))
                .into();
            let root = tempfile::tempdir().unwrap();
            let ops = [
                Op::CreateBridge(bridge6()),
                Op::CreateVeth(veth6(2)),
                Op::CreateVeth(veth6(3)),
            ];
            apply::run(&settings(&root), &ops, &inside).unwrap();
            let servers = [2u8, 3].map(|number| {
                let address = SocketAddr::new(ip(last[usize::from(number) - 2]), 53);
                let own = &inside[&veth(number).endpoint.container_id];
                let socket = netns::run_in(own, || UdpSocket::bind(address).unwrap()).unwrap();
                socket
                    .set_read_timeout(Some(Duration::from_secs(2)))
                    .unwrap();
                socket
            });
            let rule = |action: &str, to: &str| {
                let to = if v6 { format!("[{to}]") } else { to.to_owned() };
                run(&format!(
                    "{iptables} -t nat -{action} OUTPUT -p udp -d {host} --dport 5353 -j DNAT --to-destination {to}:53"
                ));
            };
            let client = UdpSocket::bind(SocketAddr::new(ip(host), 0)).unwrap();
            let send = |text: &str| {
                client
                    .send_to(text.as_bytes(), SocketAddr::new(ip(host), 5353))
                    .unwrap();
            };
            let heard = |server: &UdpSocket| {
                let mut text = [0; 16];
                let length = server.recv(&mut text).unwrap();
                String::from_utf8_lossy(&text[..length]).into_owned()
            };
            rule("A", last[0]);
            send("one");
            assert_eq!(heard(&servers[0]), "one");
            rule("D", last[0]);
            rule("A", last[1]);
            send("two");
            assert_eq!(heard(&servers[0]), "two", "an entry that is known stays");
            let old = [stale(Protocol::Udp, 5353, 5353, Leads::To(ip(last[0])))];
            assert_eq!(flush(&old).unwrap(), 1);
            send("three");
            assert_eq!(heard(&servers[1]), "three");
        });
    }
}

/// 10,000 entries beside the one that is looked for.
#[test]
fn table_of_ten_thousand_entries_is_no_hurdle() {
    on_an_addressed_host(|| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for number in 0..10_000 {
            let (high, low) = (number / 250, number % 250);
            writeln!(
                file,
                "-I -t 600 -s 203.0.{high}.{low} -d 192.0.2.1 -p udp --sport 7777 --dport 53 \
                 -r 10.99.0.9 -q 203.0.{high}.{low} --reply-port-src 53 --reply-port-dst 7777"
            )
            .unwrap();
        }
        run(&format!("conntrack -R {}", file.path().display()));
        enter("udp", 8080, "192.0.2.1", "10.99.0.2");
        assert_eq!(entries().len(), 10_001);
        let time = |what: &str, expected: usize, stale: &[Stale]| {
            let start = Instant::now();
            assert_eq!(flush(stale).unwrap(), expected, "{what}");
            let took = start.elapsed();
            println!("{what}: {took:?}");
            assert!(took < Duration::from_secs(60), "{what} took {took:?}");
        };
        let to = Leads::To(ip("10.99.0.2"));
        let not_to = Leads::NotTo(ip("10.99.0.2"));
        time(
            "none, by the port",
            0,
            &[stale(Protocol::Udp, 9, 9, not_to)],
        );
        time("one, by a run", 1, &[stale(Protocol::Udp, 8000, 9000, to)]);
        time(
            "none, and all are listed",
            0,
            &[stale(Protocol::Udp, 8000, 9000, not_to)],
        );
        time("all", 10_000, &[stale(Protocol::Udp, 53, 53, not_to)]);
        assert_eq!(entries(), [""; 0]);
    });
}
