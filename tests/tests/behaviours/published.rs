//! Behaviours 1 to 11: published ports, and ports that are not.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::talk::{Family, Protocol, Server, answers, silent};
use super::world::{World, host_at, loopback, route_through_host};

const INSIDE: u16 = 80;

fn publish(world: &World, protocol: Protocol, more: &str) -> (u16, String) {
    let port = world.port();
    let option = format!(
        "--network one -p {port}:{INSIDE}/{} {more}",
        protocol.as_str()
    );
    (port, option)
}

pub fn from_every_address_of_the_host(world: &World, family: Family, protocol: Protocol) {
    let (port, option) = publish(world, protocol, "");
    let web = world.container(&option);
    let _server = Server::start(&web.netns, protocol, INSIDE, "web");
    let host = &world.host.netns;
    for at in [
        host_at(family, port),
        loopback(family, port),
        SocketAddr::new(world.gateway("one", family), port),
        SocketAddr::new(world.gateway("two", family), port),
    ] {
        answers(host, protocol, at, "web");
    }
}

pub fn from_another_machine(world: &World, family: Family, protocol: Protocol) {
    let (port, option) = publish(world, protocol, "");
    let web = world.container(&option);
    let _server = Server::start(&web.netns, protocol, INSIDE, "web");
    let answer = answers(
        &world.host.neighbour,
        protocol,
        host_at(family, port),
        "web",
    );
    // By address translation and not by a proxy: the container sees who asks.
    let neighbour: IpAddr = super::world::NEIGHBOUR[family as usize].parse().unwrap();
    assert_eq!(answer.peer, neighbour);
}

pub fn hairpin_to_another_network(world: &World, family: Family, protocol: Protocol) {
    let (port, option) = publish(world, protocol, "");
    let web = world.container(&option);
    let _server = Server::start(&web.netns, protocol, INSIDE, "web");
    let client = world.container("--network two");
    answers(&client.netns, protocol, host_at(family, port), "web");
}

pub fn own_published_port_and_a_siblings(world: &World, family: Family, protocol: Protocol) {
    let (port, option) = publish(world, protocol, "");
    let web = world.container(&option);
    let _server = Server::start(&web.netns, protocol, INSIDE, "web");
    answers(&web.netns, protocol, host_at(family, port), "web");
    let sibling = world.container("--network one");
    answers(&sibling.netns, protocol, host_at(family, port), "web");
}

pub fn from_another_network_by_gateways(world: &World, family: Family, protocol: Protocol) {
    let (port, option) = publish(world, protocol, "");
    let web = world.container(&option);
    let _server = Server::start(&web.netns, protocol, INSIDE, "web");
    let client = world.container("--network two");
    for network in ["one", "two"] {
        let at = SocketAddr::new(world.gateway(network, family), port);
        answers(&client.netns, protocol, at, "web");
    }
}

pub fn v6_host_address_to_a_v4_container(world: &World, _: Family, protocol: Protocol) {
    let port = world.port();
    let web = world.container(&format!("-p {port}:{INSIDE}/{}", protocol.as_str()));
    let only_v4 = SocketAddr::new("0.0.0.0".parse().unwrap(), INSIDE);
    let _server = Server::at(&web.netns, protocol, only_v4, "web");
    answers(
        &world.host.neighbour,
        protocol,
        host_at(Family::V6, port),
        "web",
    );
    answers(
        &world.host.netns,
        protocol,
        loopback(Family::V6, port),
        "web",
    );
}

/// Neither under the host's address nor by a route to the container: published or not is what counts, whatever FORWARD does.
pub fn unpublished_port(world: &World, family: Family, protocol: Protocol) {
    let (port, option) = publish(world, protocol, "");
    let web = world.container(&option);
    let _published = Server::start(&web.netns, protocol, INSIDE, "web");
    let _secret = Server::start(&web.netns, protocol, 81, "secret");
    let attacker = &world.host.attacker;
    answers(attacker, protocol, host_at(family, port), "web");
    route_through_host(attacker, web.address(family));
    silent(attacker, protocol, web.at(family, 81));
    silent(attacker, protocol, host_at(family, 81));
    let sibling = world.container("--network one");
    answers(&sibling.netns, protocol, web.at(family, 81), "secret");
}

pub fn route_to_the_container(world: &World, family: Family, protocol: Protocol) {
    let (port, option) = publish(world, protocol, "");
    let web = world.container(&option);
    let _server = Server::start(&web.netns, protocol, INSIDE, "web");
    let attacker = &world.host.attacker;
    route_through_host(attacker, web.address(family));
    silent(attacker, protocol, web.at(family, INSIDE));
    answers(attacker, protocol, host_at(family, port), "web");
}

/// The attacker makes its own kernel send packets for a loopback address over the wire.
pub fn published_on_loopback(world: &World, family: Family, protocol: Protocol) {
    let address = match family {
        Family::V4 => "127.0.0.2",
        Family::V6 => "[::1]",
    };
    let port = world.port();
    let option = format!(
        "--network one -p {address}:{port}:{INSIDE}/{}",
        protocol.as_str()
    );
    let web = world.container(&option);
    let _server = Server::start(&web.netns, protocol, INSIDE, "web");
    let at: SocketAddr = format!("{address}:{port}").parse().unwrap();
    answers(&world.host.netns, protocol, at, "web");
    silent(&world.host.neighbour, protocol, host_at(family, port));
    // With IPv6 every kernel refuses to: RFC 4291, 2.5.3.
    silent(&world.crafty, protocol, at);
}

pub fn two_loopback_addresses(world: &World, _: Family, protocol: Protocol) {
    let port = world.port();
    let mut held = Vec::new();
    for (address, name) in [("127.0.0.2", "first"), ("127.0.0.3", "second")] {
        let option = format!(
            "--network one -p {address}:{port}:{INSIDE}/{}",
            protocol.as_str()
        );
        let container = world.container(&option);
        let server = Server::start(&container.netns, protocol, INSIDE, name);
        held.push((server, container));
    }
    for (address, name) in [("127.0.0.2", "first"), ("127.0.0.3", "second")] {
        let at = SocketAddr::new(address.parse().unwrap(), port);
        answers(&world.host.netns, protocol, at, name);
    }
}

/// One number for both families, and never one that somebody has asked for by number.
pub fn ephemeral_ports(world: &World, _: Family, protocol: Protocol) {
    let option = format!("--network one -p {INSIDE}/{}", protocol.as_str());
    let web = world.container(&option);
    let _server = Server::start(&web.netns, protocol, INSIDE, "web");
    let shown = world.host.run(&format!("port {}", web.name));
    let ports: Vec<u16> = shown
        .stdout
        .lines()
        .filter_map(|line| line.rsplit(':').next()?.parse().ok())
        .collect();
    assert_eq!(ports.len(), 2, "both families: {shown}");
    assert_eq!(ports[0], ports[1], "one number: {shown}");
    for family in Family::ALL {
        answers(
            &world.host.neighbour,
            protocol,
            host_at(family, ports[0]),
            "web",
        );
    }
    let again = format!(
        "run --rm -p {}:80/{} busybox true",
        ports[0],
        protocol.as_str()
    );
    world
        .host
        .try_run(&again)
        .exits(125)
        .complains("port is already allocated");
}

/// Packets that claim to come from a container, from outside, and packets of a container that claim to come from elsewhere.
pub fn spoofed_sources(world: &World, family: Family, protocol: Protocol) {
    if protocol != Protocol::Udp {
        return;
    }
    let victim = world.container("--network one");
    let port = world.port();
    let seen = super::spoof::Listener::start(&victim.netns, port);
    let friend = world.container("--network one");
    let attacker = &world.host.attacker;
    route_through_host(attacker, victim.address(family));
    // From outside, under the friend's address.
    super::spoof::send(
        attacker,
        friend.address(family),
        victim.at(family, port),
        "outside",
    );
    // From inside, under an address that is not of the container's network: towards the neighbour.
    let outside = super::spoof::Listener::start(&world.host.neighbour, port);
    let neighbour = SocketAddr::new(
        super::world::NEIGHBOUR[family as usize].parse().unwrap(),
        port,
    );
    let stranger: IpAddr = match family {
        Family::V4 => "203.0.113.7".parse().unwrap(),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 7)),
    };
    super::spoof::send(&friend.netns, stranger, neighbour, "inside");
    // The honest ones arrive, and they come last.
    super::spoof::send(
        &friend.netns,
        friend.address(family),
        victim.at(family, port),
        "friend",
    );
    super::spoof::send(&friend.netns, friend.address(family), neighbour, "honest");
    assert_eq!(seen.until("friend"), ["friend"]);
    assert_eq!(outside.until("honest"), ["honest"]);
}
