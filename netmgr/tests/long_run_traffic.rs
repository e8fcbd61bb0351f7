//! Runs of tens of thousands of ports at work: one listener, real redirects, real clients.

mod kernel_support;

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use kernel_support::{await_v6, hold, on_a_host, run, run_inside};
use netmgr::kernel::netns;
use netmgr::ports::is_long;
use netmgr::proxy::{Proxy, Targets};
use netmgr::{PortMap, PortRequest, Protocol};

const FIRST: u16 = 1024;
const COUNT: u16 = 60_000;

/// The container's address, one of lo here, and where its ports lie.
const CONTAINER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
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

/// Answers on one port of the container with that port's number.
fn answer_on(port: u16, address: IpAddr) {
    let listener = TcpListener::bind((address, port)).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(&port.to_be_bytes());
        }
    });
}

/// What answers there; an error if nothing does.
fn ask(address: impl Into<SocketAddr>) -> io::Result<u16> {
    let mut stream = TcpStream::connect(address.into())?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut port = [0; 2];
    stream.read_exact(&mut port)?;
    Ok(u16::from_be_bytes(port))
}

/// What the firewall backends write for local clients, by hand.
fn redirect(map: &PortMap) {
    let listener = map.listener.unwrap();
    let last = map.host_port + (map.count - 1);
    let ports = format!("--dport {}:{last}", map.host_port);
    run(&format!(
        "iptables -t nat -A OUTPUT -d 127.0.0.0/8 -p tcp {ports} -j REDIRECT --to-ports {listener}"
    ));
    run(&format!(
        "ip6tables -t nat -A OUTPUT -d ::1 -p tcp {ports} -j REDIRECT --to-ports {listener}"
    ));
}

#[test]
fn each_port_of_a_run_is_relayed_and_the_listener_itself_is_not() {
    on_a_host(|| {
        run("ip address add 10.77.0.2/32 dev lo");
        let request = long(Protocol::Tcp, None);
        let (map, held) = hold(&request).unwrap();
        assert!(is_long(&map) && held.len() == 2);
        let listener = map.listener.unwrap();
        assert!(!(FIRST..FIRST + COUNT).contains(&listener), "{listener}");
        redirect(&map);
        let targets = Targets {
            v4: CONTAINER,
            v6: None,
        };
        let forwards = held.into_iter().map(|held| held.forward(targets)).collect();
        let (proxy, control) = Proxy::new(forwards).unwrap();
        let probes = [FIRST, FIRST + 1, 8080, 40_000, FIRST + COUNT - 1];
        for port in probes {
            answer_on(port - FIRST + INSIDE, CONTAINER.into());
        }
        // Outside of the run, and on the host: not to be reached by a run's offset.
        answer_on(INSIDE - 1, CONTAINER.into());
        thread::scope(|scope| {
            scope.spawn(|| proxy.serve());
            for port in probes {
                let inside = port - FIRST + INSIDE;
                for host in ["127.0.0.1", "127.9.9.9", "::1"] {
                    let host: IpAddr = host.parse().unwrap();
                    assert_eq!(ask((host, port)).unwrap(), inside, "{host} {port}");
                }
            }
            ask((Ipv4Addr::LOCALHOST, FIRST - 1)).unwrap_err();
            ask((Ipv4Addr::LOCALHOST, FIRST + COUNT)).unwrap_err();
            // Nobody listens there in the container: told by a reset, not by silence.
            let error = ask((Ipv4Addr::LOCALHOST, 5000)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            for host in ["127.0.0.1", "10.77.0.2", "::1"] {
                let host: IpAddr = host.parse().unwrap();
                let start = Instant::now();
                let error = ask((host, listener)).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{host}");
                assert!(start.elapsed() < Duration::from_secs(10), "not at once");
            }
            control.stop();
        });
    });
}

#[test]
fn a_run_on_one_address_is_not_reached_by_another() {
    on_a_host(|| {
        run("ip address add 10.77.0.2/32 dev lo");
        let (map, held) = hold(&long(Protocol::Tcp, Some("127.0.0.2"))).unwrap();
        assert_eq!(held.len(), 1, "no IPv6");
        // A rule that redirects too much.
        redirect(&map);
        let targets = Targets {
            v4: CONTAINER,
            v6: None,
        };
        let forwards = held.into_iter().map(|held| held.forward(targets)).collect();
        let (proxy, control) = Proxy::new(forwards).unwrap();
        answer_on(INSIDE, CONTAINER.into());
        thread::scope(|scope| {
            scope.spawn(|| proxy.serve());
            assert_eq!(ask(([127, 0, 0, 2], FIRST)).unwrap(), INSIDE);
            ask(([127, 0, 0, 1], FIRST)).unwrap_err();
            control.stop();
        });
    });
}

#[test]
fn thousands_of_connections_through_a_run_leave_no_descriptor() {
    on_a_host(|| {
        run("ip address add 10.77.0.2/32 dev lo");
        let (map, held) = hold(&long(Protocol::Tcp, None)).unwrap();
        redirect(&map);
        let targets = Targets {
            v4: CONTAINER,
            v6: None,
        };
        let forwards = held.into_iter().map(|held| held.forward(targets)).collect();
        let (proxy, control) = Proxy::new(forwards).unwrap();
        answer_on(8080 - FIRST + INSIDE, CONTAINER.into());
        thread::scope(|scope| {
            scope.spawn(|| proxy.serve());
            let before = sockets();
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..1000 {
                            assert_eq!(
                                ask((Ipv4Addr::LOCALHOST, 8080)).unwrap(),
                                8080 - FIRST + INSIDE
                            );
                            ask((Ipv4Addr::LOCALHOST, 5000)).unwrap_err();
                        }
                    })
                })
                .collect();
            for client in clients {
                client.join().unwrap();
            }
            let deadline = Instant::now() + Duration::from_secs(10);
            while sockets() > before {
                let left = sockets();
                assert!(Instant::now() < deadline, "{left} sockets, {before} before");
                thread::yield_now();
            }
            control.stop();
        });
    });
}

/// TCP sockets of this namespace that a process has open.
fn sockets() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/sockstat").unwrap();
    let line = text.lines().find(|line| line.starts_with("TCP:")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "inuse").unwrap();
    words[at + 1].parse().unwrap()
}

#[test]
fn a_container_that_calls_the_gateway_is_relayed_too() {
    on_a_host(|| {
        let container = netns::create().unwrap();
        let path = format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            container.0.as_raw_fd()
        );
        run(&format!(
            "ip link add name veth1 type veth peer name eth0 netns {path}"
        ));
        run("ip address add 10.77.0.1/24 dev veth1");
        run("ip address add fd77::1/64 dev veth1 nodad");
        run("ip link set veth1 up");
        run_inside(&container, "ip address add 10.77.0.2/24 dev eth0");
        run_inside(&container, "ip address add fd77::2/64 dev eth0 nodad");
        run_inside(&container, "ip link set eth0 up");
        await_v6("fd77::1");
        netns::run_in(&container, || await_v6("fd77::2")).unwrap();
        let (map, held) = hold(&long(Protocol::Tcp, None)).unwrap();
        let rule = format!(
            "-t nat -A PREROUTING -i veth1 -p tcp --dport {FIRST}:{} -j REDIRECT --to-ports {}",
            FIRST + (COUNT - 1),
            map.listener.unwrap()
        );
        run(&format!("iptables {rule}"));
        run(&format!("ip6tables {rule}"));
        let targets = Targets {
            v4: CONTAINER,
            v6: Some("fd77::2".parse().unwrap()),
        };
        let forwards = held.into_iter().map(|held| held.forward(targets)).collect();
        let (proxy, control) = Proxy::new(forwards).unwrap();
        // One port for each family alone: it tells which way was taken.
        netns::run_in(&container, || {
            answer_on(8080 - FIRST + INSIDE, "10.77.0.2".parse().unwrap());
            answer_on(9090 - FIRST + INSIDE, "fd77::2".parse().unwrap());
        })
        .unwrap();
        thread::scope(|scope| {
            scope.spawn(|| proxy.serve());
            let ask_inside = |host: &str, port: u16| {
                let host: IpAddr = host.parse().unwrap();
                netns::run_in(&container, || ask((host, port))).unwrap()
            };
            assert_eq!(
                ask_inside("10.77.0.1", 8080).unwrap(),
                8080 - FIRST + INSIDE
            );
            assert_eq!(ask_inside("fd77::1", 9090).unwrap(), 9090 - FIRST + INSIDE);
            ask_inside("fd77::1", 8080).unwrap_err();
            control.stop();
        });
    });
}
