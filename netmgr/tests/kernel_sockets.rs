//! Ports that other programs of the host have, in runs of any length.

mod kernel_support;

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use kernel_support::*;
use netmgr::Protocol::{self, Sctp, Tcp, Udp};
use netmgr::kernel::sockets;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

fn in_use(protocol: Protocol, host_ip: Option<&str>) -> Option<u16> {
    let host_ip = host_ip.map(|ip| ip.parse::<IpAddr>().unwrap());
    sockets::in_use(protocol, host_ip, 1024, 65000).unwrap()
}

/// What was let go is free once no child of a test beside this one holds it any more: one that has not reached its exec
/// yet has every descriptor of this process.
fn soon(is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < end, "still not so after ten seconds");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn listeners_of_tcp_are_found_where_a_bind_would_fail() {
    on_a_host(|| {
        run("ip address add 192.0.2.1/24 dev lo");
        run("ip address add 192.0.2.2/24 dev lo");
        assert_eq!(in_use(Tcp, None), None);
        let one = TcpListener::bind("192.0.2.1:40000").unwrap();
        assert_eq!(in_use(Tcp, None), Some(40000));
        assert_eq!(in_use(Tcp, Some("192.0.2.1")), Some(40000));
        assert_eq!(in_use(Tcp, Some("0.0.0.0")), Some(40000));
        assert_eq!(in_use(Tcp, Some("192.0.2.2")), None);
        assert_eq!(in_use(Tcp, Some("::1")), None);
        assert_eq!(in_use(Udp, None), None);
        assert_eq!(sockets::in_use(Tcp, None, 40001, 65535).unwrap(), None);
        assert_eq!(sockets::in_use(Tcp, None, 1, 39999).unwrap(), None);
        assert_eq!(
            sockets::in_use(Tcp, None, 40000, 40000).unwrap(),
            Some(40000)
        );

        // The first of the run, not of the listing.
        let lower = TcpListener::bind("[::1]:2000").unwrap();
        assert_eq!(in_use(Tcp, None), Some(2000));
        assert_eq!(in_use(Tcp, Some("192.0.2.1")), Some(40000));
        drop((one, lower));
    });
}

#[test]
fn wildcard_of_ipv6_counts_for_ipv4_unless_it_says_otherwise() {
    on_a_host(|| {
        let listener = |v6only| {
            let flags = SocketFlags::CLOEXEC;
            let socket =
                socket_with(AddressFamily::INET6, SocketType::STREAM, flags, None).unwrap();
            sockopt::set_ipv6_v6only(&socket, v6only).unwrap();
            let any = "[::]:3000".parse::<SocketAddr>().unwrap();
            soon(|| bind(&socket, &any).is_ok());
            listen(&socket, 1).unwrap();
            socket
        };
        let only = listener(true);
        assert_eq!(in_use(Tcp, Some("127.0.0.1")), None);
        assert_eq!(in_use(Tcp, Some("::1")), Some(3000));
        drop(only);
        let both = listener(false);
        assert_eq!(in_use(Tcp, Some("127.0.0.1")), Some(3000));
        drop(both);
        let mapped = UdpSocket::bind("[::ffff:127.0.0.1]:3001").unwrap();
        assert_eq!(in_use(Udp, Some("127.0.0.1")), Some(3001));
        assert_eq!(in_use(Udp, Some("::1")), None);
        drop(mapped);
        soon(|| (in_use(Tcp, None), in_use(Udp, None)) == (None, None));
    });
}

#[test]
fn connections_alone_do_not_take_a_tcp_port_but_any_udp_socket_does() {
    on_a_host(|| {
        let listener = TcpListener::bind("127.0.0.1:900").unwrap();
        let client = TcpStream::connect("127.0.0.1:900").unwrap();
        let accepted = listener.accept().unwrap();
        drop(listener);
        soon(|| sockets::in_use(Tcp, None, 900, 900).unwrap().is_none());
        assert_eq!(in_use(Tcp, None), None);
        drop((client, accepted));

        let connected = UdpSocket::bind("127.0.0.1:5000").unwrap();
        connected.connect("127.0.0.1:9").unwrap();
        assert_eq!(in_use(Udp, None), Some(5000));
        assert_eq!(in_use(Udp, Some("127.0.0.2")), None);
        // This kernel may have no SCTP at all, and then nobody has a port of it.
        assert_eq!(in_use(Sctp, None), None);
    });
}

#[test]
fn long_run_costs_one_pass_over_the_sockets() {
    on_a_host(|| {
        // On an address apart, so that each of them is nominated and none is in the way.
        let many: Vec<UdpSocket> = (20000..22000)
            .map(|port| UdpSocket::bind(("127.0.0.1", port)).unwrap())
            .collect();
        let start = Instant::now();
        assert_eq!(in_use(Udp, Some("127.0.0.2")), None);
        println!("2,000 sockets looked through in {:?}", start.elapsed());
        assert_eq!(in_use(Udp, None), Some(20000));
        drop(many);
    });
}
