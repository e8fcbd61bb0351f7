//! An enemy on the wire: from a container to the host's own network, and between containers that pretend to be others.

use std::fs;

use harness::images::PAGE;
use harness::{Host, Netns, net};

/// CVE-2020-13401: with CAP_NET_RAW a container can send router advertisements; the host must not take them.
#[test]
fn a_bridge_takes_no_ipv6_route_from_a_container_and_routes_no_loopback() {
    let host = Host::new();
    if host.is_docker() {
        return;
    }
    host.run("network create --subnet 10.98.0.0/24 other");
    host.run("run -d --name web -p 8080:80 busybox sleep 1000");
    host.run("run -d --name two --network other busybox sleep 1000");
    let links = host.tool("ip", ["-br", "link", "show", "type", "bridge"]);
    let bridges: Vec<_> = links
        .stdout
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(bridges.len(), 2, "{links}");
    for bridge in bridges {
        for (setting, wanted) in [
            ("ipv6/conf/BRIDGE/accept_ra", "0"),
            ("ipv6/conf/BRIDGE/accept_redirects", "0"),
            ("ipv4/conf/BRIDGE/route_localnet", "0"),
            ("ipv4/conf/all/route_localnet", "0"),
            // With forwarding on, a redirect counts only if both this and the bridge's own say so.
            ("ipv4/conf/all/accept_redirects", "0"),
        ] {
            let path = format!("/proc/sys/net/{}", setting.replace("BRIDGE", bridge));
            let value = host.netns.enter(|| fs::read_to_string(&path));
            if let Ok(value) = value {
                assert_eq!(value.trim(), wanted, "{path}");
            }
        }
    }
    host.remove_everything();
    host.assert_clean();
}

/// What the host serves to itself is on 127.0.0.1; a container may route that address as it likes (here with more rights than
/// it has, which stands for what CAP_NET_RAW can send).
#[test]
fn the_hosts_loopback_is_not_reached_through_the_gateway() {
    let host = Host::new();
    host.start_web("web", "-p 127.0.0.1:8080:80");
    host.run("run -d --name enemy busybox sleep 1000");
    let _own = net::UdpServer::start(&host.netns, 5353);
    let enemy = Netns::of_process(host.pid_of("enemy")).unwrap();
    enemy
        .enter(|| fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1"))
        .unwrap();
    let gateway = host
        .tool("ip", ["-4", "-br", "addr", "show", host.bridge()])
        .stdout
        .split_whitespace()
        .nth(2)
        .and_then(|address| address.split('/').next())
        .expect("the bridge has an address")
        .to_owned();
    enemy.ip(&format!("addr del 127.0.0.1/8 dev lo\nrule del pref 0\nrule add pref 100 table local\nroute add 127.0.0.1/32 via {gateway} table 50\nrule add pref 50 table 50\n"));
    net::http_get(&enemy, "127.0.0.1:8080").expect_err("published for the host alone");
    net::udp_ask(&enemy, "127.0.0.1:5353", "q").expect_err("a service of the host alone");
    assert_eq!(net::http_get(&host.netns, "127.0.0.1:8080").unwrap(), PAGE);
}

/// A packet that bears the address of the other network's own container is as foreign there as any.
#[test]
fn a_false_source_address_does_not_cross_networks() {
    let host = Host::builder().ip_forward(true).build();
    host.run("network create --subnet 10.97.0.0/24 left");
    host.run("network create --subnet 10.98.0.0/24 right");
    host.run("run -d --name enemy --network left busybox sleep 1000");
    host.start_web("victim", "--network right");
    host.run("run -d --name friend --network right busybox sleep 1000");
    let (victim, friend) = (host.address_of("victim"), host.address_of("friend"));
    let inside = Netns::of_process(host.pid_of("victim")).unwrap();
    let seen = net::UdpServer::start(&inside, 5300);
    let enemy = Netns::of_process(host.pid_of("enemy")).unwrap();
    enemy.ip(&format!("addr add {friend}/32 dev lo\n"));
    let before = received(&inside);
    for source in [friend.as_str(), "0.0.0.0"] {
        enemy.enter(|| {
            let socket = std::net::UdpSocket::bind((source, 0)).expect("a socket");
            for _ in 0..5 {
                let _ = socket.send_to(b"forged", format!("{victim}:5300"));
            }
        });
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(received(&inside), before, "a datagram arrived");
    drop(seen);
    net::http_get(&enemy, &format!("{victim}:80")).expect_err("networks are isolated");
}

/// How many UDP datagrams have been received in a namespace.
fn received(netns: &Netns) -> u64 {
    let text = netns
        .enter(|| fs::read_to_string("/proc/thread-self/net/snmp"))
        .expect("the counters of a namespace");
    text.lines()
        .filter_map(|line| line.strip_prefix("Udp: "))
        .nth(1)
        .and_then(|line| line.split(' ').next())
        .and_then(|count| count.parse().ok())
        .expect("a counter of UDP datagrams")
}
