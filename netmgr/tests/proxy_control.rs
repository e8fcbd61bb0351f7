//! A proxy that is steered while it serves: targets change, ports come and go.

mod kernel_support;

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kernel_support::{await_v6, hold, on_a_host, run};
use netmgr::proxy::{Control, Forward, Proxy, Targets};
use netmgr::{PortRequest, Protocol};

const PORT: u16 = 8080;
const INSIDE: u16 = 80;

/// Addresses of lo stand for a container's endpoints.
const OLD: Targets = v4(1);
const NEW: Targets = v4(2);
const BOTH: Targets = Targets {
    v6: Some(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3)),
    ..v4(3)
};

const fn v4(last: u8) -> Targets {
    Targets {
        v4: Ipv4Addr::new(10, 77, 0, last),
        v6: None,
    }
}

fn on_a_host_with_endpoints(test: impl FnOnce() + Send) {
    on_a_host(|| {
        for last in 1..=3 {
            run(&format!("ip address add 10.77.0.{last}/32 dev lo"));
        }
        run("ip address add fd00::3/128 dev lo nodad");
        await_v6("fd00::3");
        test();
    });
}

fn forwards(protocol: Protocol, host_port: u16, targets: Targets) -> Vec<Forward> {
    let request = PortRequest {
        protocol,
        host_ip: None,
        host_port: Some(host_port),
        host_port_last: None,
        container_port: INSIDE,
        count: 1,
    };
    // Children of tests beside this one hold what this one has let go, until their exec.
    let deadline = Instant::now() + Duration::from_secs(10);
    let held = loop {
        match hold(&request) {
            Ok((_, held)) => break held,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    };
    held.into_iter().map(|held| held.forward(targets)).collect()
}

fn steered(forwards: Vec<Forward>, test: impl FnOnce(&Control)) {
    let (proxy, control) = Proxy::new(forwards).unwrap();
    thread::scope(|scope| {
        let serving = scope.spawn(|| proxy.serve());
        test(&control);
        assert!(!serving.is_finished(), "the proxy gave up");
        control.stop();
    });
}

/// A TCP server that says where it is, then echoes.
fn serve_tcp(address: impl Into<IpAddr>) {
    let address = address.into();
    let listener = TcpListener::bind((address, INSIDE)).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || -> io::Result<()> {
                stream.write_all(&name(address))?;
                let mut back = stream.try_clone()?;
                io::copy(&mut stream, &mut back)?;
                Ok(())
            });
        }
    });
}

/// 16 bytes for each address.
fn name(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn call(host: &str) -> io::Result<(TcpStream, IpAddr)> {
    let address: SocketAddr = (host.parse::<IpAddr>().unwrap(), PORT).into();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut said = [0; 16];
    stream.read_exact(&mut said)?;
    Ok((stream, Ipv6Addr::from(said).to_canonical()))
}

fn answered_by(host: &str) -> IpAddr {
    call(host).unwrap().1
}

fn echoes(stream: &mut TcpStream) -> bool {
    let mut back = [0; 5];
    stream.write_all(b"still").is_ok() && stream.read_exact(&mut back).is_ok() && &back == b"still"
}

#[test]
fn new_connections_go_to_the_new_target_and_old_ones_go_on() {
    on_a_host_with_endpoints(|| {
        serve_tcp(OLD.v4);
        serve_tcp(NEW.v4);
        steered(forwards(Protocol::Tcp, PORT, OLD), |control| {
            let (mut early, by) = call("127.0.0.1").unwrap();
            assert_eq!(by, OLD.v4);
            control.replace_targets(NEW);
            assert_eq!(answered_by("127.0.0.1"), NEW.v4);
            assert_eq!(answered_by("::1"), NEW.v4);
            assert!(echoes(&mut early), "an established connection was cut");
            control.replace_targets(OLD);
            assert_eq!(answered_by("127.0.0.1"), OLD.v4);
            assert!(echoes(&mut early));
        });
    });
}

#[test]
fn clients_of_ipv6_reach_the_containers_own_ipv6_if_it_has_one() {
    on_a_host_with_endpoints(|| {
        serve_tcp(OLD.v4);
        serve_tcp(BOTH.v4);
        serve_tcp(BOTH.v6.unwrap());
        steered(forwards(Protocol::Tcp, PORT, BOTH), |control| {
            assert_eq!(answered_by("127.0.0.1"), BOTH.v4);
            assert_eq!(answered_by("::1"), BOTH.v6.unwrap());
            control.replace_targets(OLD);
            assert_eq!(answered_by("::1"), OLD.v4);
            control.replace_targets(BOTH);
            assert_eq!(answered_by("::1"), BOTH.v6.unwrap());
        });
    });
}

#[test]
fn targets_are_swapped_under_load_and_no_connection_fails() {
    on_a_host_with_endpoints(|| {
        serve_tcp(OLD.v4);
        serve_tcp(NEW.v4);
        let (over, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
        steered(forwards(Protocol::Tcp, PORT, OLD), |control| {
            thread::scope(|scope| {
                for host in ["127.0.0.1", "127.0.0.1", "::1"] {
                    let (over, calls) = (&over, &calls);
                    scope.spawn(move || {
                        while !over.load(Ordering::Relaxed) {
                            let (mut stream, _) = call(host).unwrap();
                            assert!(echoes(&mut stream));
                            calls.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
                let mut wanted = 0;
                for targets in [NEW, OLD].repeat(100) {
                    control.replace_targets(targets);
                    assert_eq!(answered_by("127.0.0.1"), targets.v4);
                    wanted += 10;
                    while calls.load(Ordering::Relaxed) < wanted {
                        thread::yield_now();
                    }
                }
                over.store(true, Ordering::Relaxed);
            });
        });
    });
}

#[test]
fn a_connection_that_waits_for_the_old_endpoint_goes_to_the_new_one() {
    on_a_host_with_endpoints(|| {
        serve_tcp(NEW.v4);
        // An endpoint that answers nothing, as one that is gone.
        run("ip link add gone type veth peer name nobody");
        run("ip link set nobody up");
        run("ip address add 10.78.0.1/24 dev gone");
        run("ip link set gone up");
        let gone = Targets {
            v4: Ipv4Addr::new(10, 78, 0, 9),
            v6: None,
        };
        steered(forwards(Protocol::Tcp, PORT, gone), |control| {
            let mut waiting = TcpStream::connect(("127.0.0.1", PORT)).unwrap();
            waiting
                .set_read_timeout(Some(Duration::from_millis(100)))
                .unwrap();
            let error = waiting.read(&mut [0; 1]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            control.replace_targets(NEW);
            waiting
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            let mut said = [0; 16];
            waiting.read_exact(&mut said).unwrap();
            assert_eq!(said, name(NEW.v4.into()));
        });
    });
}

#[test]
fn datagrams_of_a_client_move_on_with_the_target() {
    on_a_host_with_endpoints(|| {
        for targets in [OLD, NEW] {
            let server = UdpSocket::bind((targets.v4, INSIDE)).unwrap();
            thread::spawn(move || {
                while let Ok((_, from)) = server.recv_from(&mut [0; 16]) {
                    let _ = server.send_to(&name(targets.v4.into()), from);
                }
            });
        }
        steered(forwards(Protocol::Udp, PORT, OLD), |control| {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            client.connect(("127.0.0.1", PORT)).unwrap();
            for targets in [OLD, NEW, OLD, NEW].repeat(25) {
                control.replace_targets(targets);
                client.send(b"?").unwrap();
                let mut said = [0; 16];
                client.recv(&mut said).unwrap();
                assert_eq!(said, name(targets.v4.into()));
            }
        });
    });
}

#[test]
fn ports_come_and_go_while_it_serves() {
    on_a_host_with_endpoints(|| {
        serve_tcp(OLD.v4);
        steered(Vec::new(), |control| {
            call("127.0.0.1").unwrap_err();
            for _ in 0..50 {
                control.add(forwards(Protocol::Tcp, PORT, OLD));
                control.add(forwards(Protocol::Udp, PORT, OLD));
                let (mut stream, by) = call("127.0.0.1").unwrap();
                assert_eq!(by, OLD.v4);
                assert!(echoes(&mut stream));
                control.remove_all();
                assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0, "goes on");
                // Closed: it can be held again at once.
                call("127.0.0.1").unwrap_err();
            }
        });
    });
}

#[test]
fn orders_to_a_proxy_that_has_ended_return() {
    on_a_host(|| {
        let (proxy, control) = Proxy::new(Vec::new()).unwrap();
        drop(proxy);
        control.add(Vec::new());
        control.replace_targets(OLD);
        control.remove_all();
        control.stop();
    });
}
