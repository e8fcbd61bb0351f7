//! What only shows with other limits than the real ones; the rest is tested from the outside, in `tests/proxy_*.rs`.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use super::*;

/// Serves one UDP port of loopback under `limits` while `test` runs with its address and the target's socket.
fn with_udp(limits: Limits, test: impl FnOnce(SocketAddr, &UdpSocket)) {
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    target
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let forward = Forward {
        protocol: Protocol::Udp,
        listener: listener.into(),
        target: target.local_addr().unwrap(),
        run: None,
    };
    let (proxy, control) = Proxy::within(vec![forward], limits).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| proxy.serve());
        test(address, &target);
        control.stop();
    });
}

fn client(proxy: SocketAddr) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    client.connect(proxy).unwrap();
    client
}

/// Sends one datagram through the proxy; returns by which address it reached the target.
fn arrives_from(client: &UdpSocket, target: &UdpSocket) -> SocketAddr {
    client.send(b"x").unwrap();
    target.recv_from(&mut [0; 8]).unwrap().1
}

#[test]
fn idle_udp_flow_ends_and_a_used_one_lives() {
    let limits = Limits {
        udp_idle: Duration::from_millis(200),
        ..Limits::default()
    };
    with_udp(limits, |proxy, target| {
        let client = client(proxy);
        let first = arrives_from(&client, target);
        for _ in 0..4 {
            thread::sleep(Duration::from_millis(100));
            assert_eq!(arrives_from(&client, target), first, "ended while in use");
        }
        thread::sleep(Duration::from_millis(500));
        // Its socket is closed: nobody is there to get an answer.
        let probe = UdpSocket::bind(first);
        assert!(probe.is_ok(), "the flow's port is still in use: {probe:?}");
        arrives_from(&client, target);
    });
}

#[test]
fn flows_are_bounded_and_the_least_used_makes_room() {
    let limits = Limits {
        udp_flows: 2,
        ..Limits::default()
    };
    with_udp(limits, |proxy, target| {
        let clients = [client(proxy), client(proxy), client(proxy)];
        let first = arrives_from(&clients[0], target);
        let second = arrives_from(&clients[1], target);
        assert_eq!(arrives_from(&clients[0], target), first);
        arrives_from(&clients[2], target);
        assert_eq!(
            arrives_from(&clients[0], target),
            first,
            "used since, so kept"
        );
        assert!(
            UdpSocket::bind(second).is_ok(),
            "the least used is still open"
        );
    });
}
