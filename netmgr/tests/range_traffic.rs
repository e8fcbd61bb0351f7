//! One rule for a range of ports does what one rule for each port does: shown by packets from another machine.

mod common;

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

use common::{Host, command, in_own_netns, publish};
use netmgr::kernel::netns;
use netmgr::{Netns, PortRequest, Profile, Protocol};

const FIRST: u16 = 8000;
const INSIDE: u16 = 9000;

/// A neighbour on 192.0.2.0/24, this host being 192.0.2.1.
fn neighbour() -> Netns {
    let lan = netns::create().unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), lan.0.as_raw_fd());
    let peer = ["peer", "name", "lan1", "netns", &path];
    command(
        "ip",
        &[&["link", "add", "lan0", "type", "veth"][..], &peer].concat(),
    );
    command("ip", &["address", "add", "192.0.2.1/24", "dev", "lan0"]);
    command("ip", &["link", "set", "lan0", "up"]);
    netns::run_in(&lan, || {
        command("ip", &["address", "add", "192.0.2.2/24", "dev", "lan1"]);
        command("ip", &["link", "set", "lan1", "up"]);
    })
    .unwrap();
    lan
}

/// What answers on each host port around the range: the port in the container that a datagram came to.
fn answers(ports: &[PortRequest]) -> BTreeMap<u16, Option<u16>> {
    let lan = neighbour();
    let mut host = Host::new(Profile::Coracle);
    let attached = host.attach("c1", "bridge", ports);
    let inside: Vec<UdpSocket> = netns::run_in(&attached.netns, || {
        let bind = |port| UdpSocket::bind(("0.0.0.0", port)).unwrap();
        (INSIDE - 1..INSIDE + 4).map(bind).collect()
    })
    .unwrap();
    for socket in inside {
        std::thread::spawn(move || {
            let mut buffer = [0; 16];
            let port = socket.local_addr().unwrap().port();
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                socket.send_to(&port.to_be_bytes(), from).unwrap();
            }
        });
    }
    let client = netns::run_in(&lan, || UdpSocket::bind("192.0.2.2:0").unwrap()).unwrap();
    client
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let ask = |port: u16| {
        client.send_to(b"?", ("192.0.2.1", port)).unwrap();
        let mut buffer = [0; 2];
        let (_, from) = client.recv_from(&mut buffer).ok()?;
        assert_eq!(
            from.to_string(),
            format!("192.0.2.1:{port}"),
            "the reply's source"
        );
        Some(u16::from_be_bytes(buffer))
    };
    (FIRST - 1..FIRST + 4)
        .map(|port| (port, ask(port)))
        .collect()
}

#[test]
fn a_range_in_one_rule_carries_what_single_rules_carry() {
    let expected = [
        (7999, None),
        (8000, Some(9000)),
        (8001, Some(9001)),
        (8002, Some(9002)),
        (8003, None),
    ];
    let range = PortRequest {
        count: 3,
        ..publish(None, FIRST, INSIDE, Protocol::Udp)
    };
    let singles: Vec<PortRequest> = (0..3)
        .map(|n| publish(None, FIRST + n, INSIDE + n, Protocol::Udp))
        .collect();
    for ports in [singles, vec![range]] {
        in_own_netns(move || assert_eq!(answers(&ports), BTreeMap::from(expected)));
    }
}

#[test]
fn containers_share_a_range_of_host_ports_and_a_lost_socket_frees_none() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        let shared = PortRequest {
            host_port_last: Some(FIRST + 2),
            ..publish(None, FIRST, INSIDE, Protocol::Udp)
        };
        let port = |attached: &common::Attached| attached.attachment.endpoint.ports[0].host_port;
        let first = host.attach("c1", "bridge", &[shared]);
        assert_eq!(port(&first), FIRST);
        // Its monitor was killed: only the tables know of it.
        drop(first);
        let second = host.attach("c2", "bridge", &[shared]);
        assert_eq!(port(&second), FIRST + 1);
        // In one request the ports before count as well.
        let error = host
            .try_attach("c3", "bridge", &[shared, shared])
            .map(|_| ())
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "Bind for 0.0.0.0:8000-8002 failed: all ports are allocated"
        );
        host.detach("c1");
        let third = host.attach("c3", "bridge", &[shared, shared]);
        let ports = &third.attachment.endpoint.ports;
        let ports: Vec<u16> = ports.iter().map(|map| map.host_port).collect();
        assert_eq!(ports, [FIRST, FIRST + 2]);
    });
}
