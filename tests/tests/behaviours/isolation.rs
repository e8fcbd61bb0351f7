//! Behaviours 14 to 19: networks among themselves, and their way out.

use std::net::SocketAddr;

use harness::{Cmd, eventually};

use super::talk::{Family, Protocol, Server, answers, silent};
use super::world::{NEIGHBOUR, World, host_at, route_through_host};

pub fn same_network(world: &World, family: Family, protocol: Protocol) {
    let one = world.container("--network one");
    let other = world.container("--network one");
    let _server = Server::start(&one.netns, protocol, 80, "one");
    let answer = answers(&other.netns, protocol, one.at(family, 80), "one");
    assert_eq!(answer.peer, other.address(family));
}

pub fn two_networks(world: &World, family: Family, protocol: Protocol) {
    let one = world.container("--network one");
    let two = world.container("--network two");
    let _one = Server::start(&one.netns, protocol, 80, "one");
    let _two = Server::start(&two.netns, protocol, 80, "two");
    silent(&two.netns, protocol, one.at(family, 80));
    silent(&one.netns, protocol, two.at(family, 80));
    // Both are well: the host itself reaches them.
    answers(&world.host.netns, protocol, one.at(family, 80), "one");
    answers(&world.host.netns, protocol, two.at(family, 80), "two");
    // Nor the default network, which has IPv4 only.
    if family == Family::V4 {
        let default = world.container("");
        silent(&default.netns, protocol, one.at(family, 80));
    }
}

pub fn published_across_networks(world: &World, family: Family, protocol: Protocol) {
    let port = world.port();
    let web = world.container(&format!("--network two -p {port}:80/{}", protocol.as_str()));
    let _server = Server::start(&web.netns, protocol, 80, "web");
    let client = world.container("--network one");
    answers(&client.netns, protocol, host_at(family, port), "web");
    silent(&client.netns, protocol, web.at(family, 80));
}

pub fn way_out(world: &World, family: Family, protocol: Protocol) {
    let client = world.container("--network one");
    let port = world.port();
    let at = SocketAddr::new(NEIGHBOUR[family as usize].parse().unwrap(), port);
    let _server = Server::start(&world.host.neighbour, protocol, port, "neighbour");
    let answer = answers(&client.netns, protocol, at, "neighbour");
    assert_eq!(
        answer.peer,
        host_at(family, 0).ip(),
        "under the host's address"
    );
}

pub fn internal_network(world: &World, family: Family, protocol: Protocol) {
    let inside = world.container("--network closed");
    let sibling = world.container("--network closed");
    let port = world.port();
    let gateway = SocketAddr::new(world.gateway("closed", family), port);
    let _host = Server::start(&world.host.netns, protocol, port, "host");
    let _neighbour = Server::start(&world.host.neighbour, protocol, port, "neighbour");
    let _inside = Server::start(&inside.netns, protocol, 80, "inside");
    answers(&inside.netns, protocol, gateway, "host");
    answers(&sibling.netns, protocol, inside.at(family, 80), "inside");
    answers(&world.host.netns, protocol, inside.at(family, 80), "inside");
    // Even with a default route that somebody gives it.
    let via = gateway.ip();
    inside
        .netns
        .ip(&format!("route replace default via {via}\n"));
    let outside = SocketAddr::new(NEIGHBOUR[family as usize].parse().unwrap(), port);
    answers(&world.host.netns, protocol, outside, "neighbour");
    silent(&inside.netns, protocol, outside);
    route_through_host(&world.host.attacker, inside.address(family));
    silent(&world.host.attacker, protocol, inside.at(family, 80));
    let other = world.container("--network one");
    silent(&other.netns, protocol, inside.at(family, 80));
}

/// Without icc containers of one network do not reach each other, and still reach the outside and the host.
pub fn without_icc(world: &World, family: Family, protocol: Protocol) {
    let network = world.unique("quiet");
    world.host.run(&format!(
        "network create --ipv6 -o com.docker.network.bridge.enable_icc=false {network}"
    ));
    {
        let one = world.container(&format!("--network {network}"));
        let other = world.container(&format!("--network {network}"));
        let _server = Server::start(&one.netns, protocol, 80, "one");
        silent(&other.netns, protocol, one.at(family, 80));
        answers(&world.host.netns, protocol, one.at(family, 80), "one");
        let port = world.port();
        let _neighbour = Server::start(&world.host.neighbour, protocol, port, "neighbour");
        let outside = SocketAddr::new(NEIGHBOUR[family as usize].parse().unwrap(), port);
        answers(&other.netns, protocol, outside, "neighbour");
    }
    world.host.run(&format!("network rm {network}"));
}

/// A sibling has the old owner of an address in its neighbour table: the new one makes itself known without being asked.
pub fn address_that_moves(world: &World, family: Family, _: Protocol) {
    let network = world.unique("moving");
    world.host.run(&format!("network create --ipv6 {network}"));
    {
        let sibling = world.container(&format!("--network {network}"));
        let (option, address, next_mac) = {
            let first = world.container(&format!("--network {network}"));
            let address = first.address(family);
            let option = match family {
                Family::V4 => format!("--ip {address}"),
                Family::V6 => format!("--ip6 {address}"),
            };
            let _server = Server::start(&first.netns, Protocol::Tcp, 80, "first");
            answers(&sibling.netns, Protocol::Tcp, first.at(family, 80), "first");
            (option, address, "02:42:0a:0b:0c:0d")
        };
        let flag = if family == Family::V4 { "-4" } else { "-6" };
        let entry = || {
            Cmd::new("ip")
                .args([flag, "neigh", "show", &address.to_string()])
                .run_in(&sibling.netns)
                .ok()
                .stdout
        };
        assert!(!entry().is_empty(), "the sibling knows the first one");
        let _second = world.container(&format!(
            "--network {network} {option} --mac-address {next_mac}"
        ));
        eventually("the sibling has heard of the new owner", || {
            match entry().contains(next_mac) {
                true => Ok(()),
                false => Err(entry()),
            }
        });
    }
    world.host.run(&format!("network rm {network}"));
}

/// The escape hatches: an interface that is trusted, and a network that is routed.
pub fn escape_hatches(world: &World, family: Family, protocol: Protocol) {
    let attacker = &world.host.attacker;
    let version = match family {
        Family::V4 => 4,
        Family::V6 => 6,
    };
    let options = [
        "com.docker.network.bridge.trusted_host_interfaces=eth0".to_owned(),
        format!("com.docker.network.bridge.gateway_mode_ipv{version}=routed"),
        format!("com.docker.network.bridge.gateway_mode_ipv{version}=nat-unprotected"),
    ];
    for option in options {
        let network = world.unique("open");
        world
            .host
            .run(&format!("network create --ipv6 -o {option} {network}"));
        let (key, value) = option.split_once('=').unwrap();
        let inspect = world.host.run(&format!("network inspect {network}")).json();
        assert_eq!(inspect[0]["Options"][key], value, "shown by inspect");
        {
            let port = world.port();
            let web = world.container(&format!(
                "--network {network} -p {port}:80/{}",
                protocol.as_str()
            ));
            let _server = Server::start(&web.netns, protocol, 80, "web");
            let _secret = Server::start(&web.netns, protocol, 81, "secret");
            route_through_host(attacker, web.address(family));
            answers(attacker, protocol, web.at(family, 80), "web");
            match value {
                "nat-unprotected" => {
                    answers(attacker, protocol, web.at(family, 81), "secret");
                }
                _ => silent(attacker, protocol, web.at(family, 81)),
            }
        }
        world.host.run(&format!("network rm {network}"));
    }
}
