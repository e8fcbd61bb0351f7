//! A machine on the LAN with routes of its own making, and what it must not reach. Docker 20.10 fails each of these (moby#14041, moby#45610,
//! moby#41872); the rules that prevent them are in the raw table, so that nat and filter stay as the article has them.

use harness::images::PAGE;
use harness::{Host, Netns, eventually, net};

/// A host whose forwarding was on before, and whose FORWARD policy therefore stays ACCEPT: nothing but our own rules protects a container.
fn open_host() -> Host {
    Host::builder().ip_forward(true).build()
}

#[test]
fn an_unpublished_port_is_not_reached_by_a_crafted_route() {
    let host = open_host();
    if host.is_docker() {
        return;
    }
    host.start_web("web", "-p 8080:80");
    host.run("network create other");
    host.start_web("bare", "--network other");
    for name in ["web", "bare"] {
        let address = host.address_of(name);
        host.attacker
            .ip(&format!("route add {address}/32 via 192.0.2.1\n"));
        net::http_get(&host.attacker, &format!("{address}:80"))
            .expect_err("routed straight to the container");
        let inside = Netns::of_process(host.pid_of(name)).unwrap();
        let _server = net::UdpServer::start(&inside, 53);
        net::udp_ask(&host.attacker, &format!("{address}:53"), "q").expect_err("UDP too");
    }
    assert_eq!(
        net::http_get(&host.attacker, "192.0.2.1:8080").unwrap(),
        PAGE,
        "the published path still works"
    );
}

#[test]
fn a_port_published_on_loopback_is_not_reached_by_a_crafted_route() {
    let host = open_host();
    if host.is_docker() {
        return;
    }
    host.start_web("web", "-p 127.0.0.1:8080:80");
    host.run("run -d --name dns -p 127.0.0.1:5300:53/udp busybox sleep 1000");
    let inside = Netns::of_process(host.pid_of("dns")).unwrap();
    let _server = net::UdpServer::start(&inside, 53);
    assert_eq!(
        net::http_get(&host.netns, "127.0.0.1:8080").unwrap(),
        PAGE,
        "the host itself may"
    );
    // What the attacker's own kernel does with 127/8 is the attacker's to set.
    host.attacker
        .enter(|| std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1"))
        .unwrap();
    host.attacker.ip("addr del 127.0.0.1/8 dev lo\nrule del pref 0\nrule add pref 100 table local\nroute add 127.0.0.1/32 via 192.0.2.1 table 50\nrule add pref 50 table 50\n");
    net::http_get(&host.attacker, "127.0.0.1:8080").expect_err("published on loopback only");
    net::udp_ask(&host.attacker, "127.0.0.1:5300", "q").expect_err("published on loopback only");
    net::http_get(&host.attacker, "192.0.2.1:8080").expect_err("not published there");
}

#[test]
fn forwarding_that_was_on_before_leaves_the_hosts_policy_alone() {
    let host = open_host();
    host.start_web("web", "-p 8080:80");
    let policy = host.tool("iptables", ["-S", "FORWARD"]).ok();
    assert!(policy.stdout.starts_with("-P FORWARD ACCEPT\n"), "{policy}");
    host.remove_everything();
    host.assert_clean();
}

#[test]
fn forwarding_that_was_off_is_turned_on_with_a_policy_that_drops() {
    let host = Host::new();
    host.start_web("web", "-p 8080:80");
    let policy = host.tool("iptables", ["-S", "FORWARD"]).ok();
    assert!(policy.stdout.starts_with("-P FORWARD DROP\n"), "{policy}");
    let page = eventually("published", || {
        net::http_get(&host.attacker, "192.0.2.1:8080")
    });
    assert_eq!(page, PAGE);
    host.remove_everything();
    host.assert_clean();
}
