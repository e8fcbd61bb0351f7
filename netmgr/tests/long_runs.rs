//! Holding runs of tens of thousands of ports. No commands here: what is let go must be free at once.

mod kernel_support;

use std::net::{TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use kernel_support::{HOLDING, hold, on_a_host};
use netmgr::kernel;
use netmgr::ports::{self, Holding};
use netmgr::{Error, ErrorKind, PortRequest, Protocol};
use rustix::process::{Resource, getrlimit};

const FIRST: u16 = 1024;
const COUNT: u16 = 60_000;

const INSIDE: u16 = 2024;

fn long(protocol: Protocol, host_ip: Option<&str>) -> PortRequest {
    PortRequest {
        protocol,
        host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        host_port: Some(FIRST),
        host_port_last: None,
        container_port: INSIDE,
        count: COUNT,
    }
}

#[test]
fn other_programs_ports_refuse_a_run() {
    on_a_host(|| {
        let other = TcpListener::bind("127.0.0.1:30000").unwrap();
        let error = hold(&long(Protocol::Tcp, None)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Bind for 0.0.0.0:30000 failed: port is already allocated"
        );
        assert_eq!(error.kind(), ErrorKind::Conflict);
        hold(&long(Protocol::Udp, None)).unwrap();
        hold(&long(Protocol::Tcp, Some("127.0.0.2"))).unwrap();
        drop(other);
        hold(&long(Protocol::Tcp, None)).unwrap();
        let _udp = UdpSocket::bind("[::1]:30001").unwrap();
        let error = hold(&long(Protocol::Udp, None)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "Bind for 0.0.0.0:30001 failed: port is already allocated"
        );
        let error = hold(&long(Protocol::Tcp, Some("192.0.2.77"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    });
}

#[test]
fn a_listener_avoids_taken_reserved_and_published_ports() {
    on_a_host(|| {
        std::fs::write(
            "/proc/sys/net/ipv4/ip_local_reserved_ports",
            "65534-65535,65532",
        )
        .unwrap();
        let _v6 = TcpListener::bind("[::1]:65533").unwrap();
        let holding = Holding {
            allocated: &|map| Ok((map.host_port == 65531).then_some(65531)),
            ..HOLDING
        };
        let (map, held) = ports::hold(&long(Protocol::Tcp, None), holding).unwrap();
        assert_eq!(map.listener, Some(65530));
        // After its holder was killed it must be the same: the rules lead there.
        let error = ports::hold_again(&map, true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        drop(held);
        let held = ports::hold_again(&map, true).unwrap();
        assert!(held.len() == 2 && held.iter().all(|held| held.host_port == 65530));
        let (udp, held) = hold(&long(Protocol::Udp, None)).unwrap();
        assert!(udp.listener.is_none() && held.is_empty());
        assert!(ports::hold_again(&udp, true).unwrap().is_empty());
    });
}

#[test]
fn without_a_redirect_a_run_is_bound_port_by_port_or_refused() {
    on_a_host(|| {
        let alone = Holding {
            redirects: false,
            ..HOLDING
        };
        let request = |count| PortRequest {
            count,
            ..long(Protocol::Tcp, Some("127.0.0.1"))
        };
        let (map, held) = ports::hold(&request(200), alone).unwrap();
        assert_eq!((held.len(), map.listener), (200, None));
        drop(held);
        assert_eq!(ports::hold_again(&map, false).unwrap().len(), 200);
        let limit = getrlimit(Resource::Nofile).current.unwrap();
        let many = u16::try_from(limit).unwrap_or(u16::MAX).min(60_000);
        if limit < 60_000 {
            let error = ports::hold(&request(many), alone).unwrap_err();
            let expected = format!(
                "cannot publish {many} ports without a firewall: each needs a socket, and the limit of open files leaves room for {}. Publish fewer ports, or use a firewall, which needs one socket for all",
                limit - 1024
            );
            assert_eq!(error.to_string(), expected);
            assert!(matches!(
                error,
                Error::Kernel(kernel::Error::RunTooLong { .. })
            ));
        }
    });
}

/// The least time of holding: what it takes by itself, whatever else this machine does meanwhile.
fn time(request: &PortRequest) -> Duration {
    let times = (0..40).map(|_| {
        let start = Instant::now();
        let held = hold(request).unwrap();
        let time = start.elapsed();
        drop(held);
        time
    });
    times.min().unwrap()
}

/// A whole `run` takes some 65 ms (docs/benchmarks.md), and may take a fifth more for a long run.
#[test]
fn holding_tens_of_thousands_of_ports_takes_hardly_longer_than_one() {
    on_a_host(|| {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let of = |count| {
                time(&PortRequest {
                    count,
                    ..long(protocol, None)
                })
            };
            let (one, bound, long) = (of(1), of(ports::LONGEST_BOUND), of(COUNT));
            println!(
                "{}: 1 port {one:?}, {} ports {bound:?}, {COUNT} ports {long:?}",
                protocol.as_str(),
                ports::LONGEST_BOUND
            );
            assert!(
                long < one + Duration::from_millis(5),
                "{long:?} for {one:?}"
            );
        }
    });
}
