//! Holding host ports: what is refused, what is chosen, and what is let go.

mod kernel_support;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};

use kernel_support::{HOLDING, hold, on_a_host};
use netmgr::kernel;
use netmgr::ports::{self, Held, Holding};
use netmgr::{Error, ErrorKind, PortRequest, Protocol};

fn request(protocol: Protocol, host_port: Option<u16>) -> PortRequest {
    PortRequest {
        host_port_last: None,
        protocol,
        host_ip: None,
        host_port,
        container_port: 80,
        count: 1,
    }
}

fn on(address: &str, request: PortRequest) -> PortRequest {
    PortRequest {
        host_ip: Some(address.parse().unwrap()),
        ..request
    }
}

fn binds(held: &[Held]) -> Vec<(IpAddr, u16)> {
    held.iter()
        .map(|held| (held.bind, held.host_port))
        .collect()
}

#[test]
fn port_without_an_address_is_held_for_both_families() {
    on_a_host(|| {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let (map, held) = hold(&request(protocol, Some(8080))).unwrap();
            assert_eq!(
                (map.host_port, map.container_port, map.host_ip),
                (8080, 80, None)
            );
            let both = [
                ("0.0.0.0".parse().unwrap(), 8080),
                ("::".parse().unwrap(), 8080),
            ];
            assert_eq!(binds(&held), both);
        }
        let held = hold(&request(Protocol::Tcp, Some(8080))).unwrap();
        TcpStream::connect("127.0.0.1:8080").unwrap();
        TcpStream::connect("[::1]:8080").unwrap();
        drop(held);
        TcpStream::connect("127.0.0.1:8080").unwrap_err();
    });
}

#[test]
fn port_in_use_is_refused_in_dockers_words() {
    on_a_host(|| {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let first = hold(&request(protocol, Some(8080))).unwrap();
            let error = hold(&request(protocol, Some(8080))).unwrap_err();
            assert_eq!(
                error.to_string(),
                "Bind for 0.0.0.0:8080 failed: port is already allocated"
            );
            assert_eq!(error.kind(), ErrorKind::Conflict);
            // The wildcard covers every address.
            let error = hold(&on("127.0.0.1", request(protocol, Some(8080)))).unwrap_err();
            assert_eq!(
                error.to_string(),
                "Bind for 127.0.0.1:8080 failed: port is already allocated"
            );
            drop(first);
            hold(&request(protocol, Some(8080))).unwrap();
        }
    });
}

#[test]
fn port_of_another_program_is_refused_and_nothing_stays_held() {
    on_a_host(|| {
        let _other = TcpListener::bind("127.0.0.1:8081").unwrap();
        let range = PortRequest {
            count: 3,
            ..request(Protocol::Tcp, Some(8080))
        };
        let error = hold(&range).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Kernel(kernel::Error::PortTaken { port: 8081, .. })
            ),
            "{error}"
        );
        TcpListener::bind("0.0.0.0:8080").unwrap();

        let _other = UdpSocket::bind("[::1]:53").unwrap();
        let error = hold(&request(Protocol::Udp, Some(53))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Bind for :::53 failed: port is already allocated"
        );
        UdpSocket::bind("0.0.0.0:53").unwrap();
    });
}

#[test]
fn same_port_on_two_addresses_and_two_protocols_is_no_conflict() {
    on_a_host(|| {
        let _one = hold(&on("127.0.0.2", request(Protocol::Tcp, Some(80)))).unwrap();
        let _two = hold(&on("127.0.0.3", request(Protocol::Tcp, Some(80)))).unwrap();
        let _udp = hold(&request(Protocol::Udp, Some(80))).unwrap();
        let (_, v6) = hold(&on("::", request(Protocol::Tcp, Some(80)))).unwrap();
        assert_eq!(binds(&v6), [("::".parse().unwrap(), 80)]);
    });
}

#[test]
fn ephemeral_port_is_one_number_for_both_families_and_a_whole_run() {
    on_a_host(|| {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let (map, held) = hold(&request(protocol, None)).unwrap();
            assert!(map.host_port >= 1024);
            assert!(held.len() == 2 && held.iter().all(|held| held.host_port == map.host_port));
            let run = PortRequest {
                count: 5,
                ..request(protocol, None)
            };
            let (map, held) = hold(&run).unwrap();
            let v4: Vec<(u16, u16)> = held
                .iter()
                .filter(|held| held.bind == Ipv4Addr::UNSPECIFIED)
                .map(|held| (held.host_port - map.host_port, held.container_port))
                .collect();
            assert_eq!(v4, [(0, 80), (1, 81), (2, 82), (3, 83), (4, 84)]);
        }
    });
}

#[test]
fn ephemeral_port_avoids_what_is_taken_and_ends_with_an_error() {
    on_a_host(|| {
        // Four ports to choose from; of two of them IPv6 or IPv4 is taken.
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "50000 50003").unwrap();
        let _v6 = UdpSocket::bind("[::1]:50000").unwrap();
        let _v4 = UdpSocket::bind("127.0.0.1:50001").unwrap();
        let (one, _held) = hold(&request(Protocol::Udp, None)).unwrap();
        let (two, _held_too) = hold(&request(Protocol::Udp, None)).unwrap();
        let mut chosen = [one.host_port, two.host_port];
        chosen.sort();
        assert_eq!(chosen, [50002, 50003]);
        let error = hold(&request(Protocol::Udp, None)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    });
}

#[test]
fn port_is_free_again_while_old_connections_are_in_time_wait() {
    on_a_host(|| {
        let (_, held) = hold(&request(Protocol::Tcp, Some(8080))).unwrap();
        let mut client = TcpStream::connect("127.0.0.1:8080").unwrap();
        let server = rustix::net::accept(&held[0].socket).unwrap();
        client.write_all(b"x").unwrap();
        rustix::io::read(&server, &mut [0; 1]).unwrap();
        // Who closes first waits: that is the server.
        drop(server);
        drop(client);
        drop(held);
        assert!(has_time_wait());
        hold(&request(Protocol::Tcp, Some(8080))).unwrap();
    });
}

/// State 06 of the kernel's own list; without a command, whose start would hold this process's sockets for a moment.
fn has_time_wait() -> bool {
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    table
        .lines()
        .skip(1)
        .any(|line| line.split_whitespace().nth(3) == Some("06"))
}

#[test]
fn foreign_address_and_impossible_range_are_invalid() {
    on_a_host(|| {
        let error = hold(&on("192.0.2.77", request(Protocol::Tcp, Some(80)))).unwrap_err();
        assert!(
            matches!(error, Error::Kernel(kernel::Error::AddressNotOnHost { .. })),
            "{error}"
        );
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let beyond = PortRequest {
            count: 10,
            ..request(Protocol::Tcp, Some(65530))
        };
        assert_eq!(hold(&beyond).unwrap_err().kind(), ErrorKind::Invalid);
    });
}

#[test]
fn sctp_ports_conflict_where_the_kernel_knows_sctp() {
    on_a_host(|| {
        let (map, held) = hold(&request(Protocol::Sctp, Some(8080))).unwrap();
        assert_eq!(map.host_port, 8080);
        if !held.is_empty() {
            let error = hold(&request(Protocol::Sctp, Some(8080))).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict);
        }
    });
}

fn one_of(first: u16, last: u16) -> PortRequest {
    PortRequest {
        host_port_last: Some(last),
        ..request(Protocol::Tcp, Some(first))
    }
}

#[test]
fn several_share_a_range_one_after_the_other() {
    on_a_host(|| {
        // Of other programs: the first port for IPv4, the third for IPv6 only.
        let _v4 = TcpListener::bind("127.0.0.1:8000").unwrap();
        let _v6 = TcpListener::bind("[::1]:8002").unwrap();
        let range = one_of(8000, 8004);
        let holders: Vec<_> = (0..3).map(|_| hold(&range).unwrap()).collect();
        let chosen: Vec<u16> = holders.iter().map(|(map, _)| map.host_port).collect();
        assert_eq!(chosen, [8001, 8003, 8004]);
        let error = hold(&range).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Bind for 0.0.0.0:8000-8004 failed: all ports are allocated"
        );
        assert_eq!(error.kind(), ErrorKind::Conflict);
        // What is taken for IPv6 only is free for an address of IPv4.
        let (map, _held) = hold(&on("127.0.0.1", range)).unwrap();
        assert_eq!(map.host_port, 8002);
        let error = hold(&on("127.0.0.1", range)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Bind for 127.0.0.1:8000-8004 failed: all ports are allocated"
        );
        drop(holders);
        assert_eq!(hold(&range).unwrap().0.host_port, 8001);
    });
}

#[test]
fn ports_that_only_the_tables_know_are_not_taken() {
    on_a_host(|| {
        let holding = Holding {
            allocated: &|map| {
                Ok((8000..8003)
                    .contains(&map.host_port)
                    .then_some(map.host_port))
            },
            ..HOLDING
        };
        let (map, _held) = ports::hold(&one_of(8000, 8004), holding).unwrap();
        assert_eq!(map.host_port, 8003);
        let error = ports::hold(&request(Protocol::Tcp, Some(8001)), holding).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Bind for 0.0.0.0:8001 failed: port is already allocated"
        );
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "8000 8003").unwrap();
        let error = ports::hold(&request(Protocol::Tcp, None), holding).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
        let broken = Holding {
            allocated: &|_| Err(Error::PoolExhausted),
            ..HOLDING
        };
        let error = ports::hold(&one_of(8000, 8004), broken).unwrap_err();
        assert!(matches!(error, Error::PoolExhausted), "{error}");
    });
}
