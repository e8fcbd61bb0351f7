//! Behaviours 14 and 28 to 31: names.

use std::net::SocketAddr;

use harness::eventually;
use serde_json::Value;

use super::talk::{Family, Protocol};
use super::world::{Container, World};

/// What a container's own resolver finds for a name, by busybox's nslookup.
fn look_up(world: &World, from: &str, name: &str) -> String {
    let output = world
        .host
        .try_run(&format!("exec {from} nslookup {name} 127.0.0.11"));
    output.stdout + &output.stderr
}

#[track_caller]
fn finds(world: &World, from: &Container<'_>, name: &str, address: &str) {
    eventually(&format!("{name} is found to be {address}"), || {
        let text = look_up(world, &from.name, name);
        let found = text.lines().any(|line| {
            line.starts_with("Address") && line.split_whitespace().any(|word| word == address)
        });
        if found { Ok(()) } else { Err(text) }
    });
}

pub fn names_and_aliases(world: &World, family: Family, _: Protocol) {
    let alias = world.unique("alias");
    let server = world.container(&format!("--network one --network-alias {alias}"));
    let client = world.container("--network one");
    let address = server.address(family).to_string();
    let inspect = world.host.inspect(&server.name);
    let id = inspect["Id"].as_str().unwrap()[..12].to_owned();
    for name in [&server.name, &alias, &id] {
        finds(world, &client, name, &address);
    }
    // By its address, the other way round.
    let text = look_up(world, &client.name, &address);
    assert!(text.contains(&server.name), "{text}");
    // Not from another network, and not on the default one.
    let stranger = world.container("--network two");
    let text = look_up(world, &stranger.name, &server.name);
    assert!(!text.contains(&address), "{text}");
}

pub fn same_network_by_name(world: &World, _: Family, _: Protocol) {
    let server = world.container("--network one");
    let client = world.container("--network one");
    let line = format!("exec {} ping -c 1 -w 5 {}", client.name, server.name);
    eventually("a ping by name", || {
        let output = world.host.try_run(&line);
        if output.code() == 0 {
            Ok(())
        } else {
            Err(output)
        }
    });
}

/// A resolver on the host's loopback is asked for a user network, and never for an internal one.
pub fn internal_networks_do_not_forward(world: &World, _: Family, _: Protocol) {
    use std::net::UdpSocket;
    let socket = world
        .host
        .netns
        .enter(|| UdpSocket::bind("127.0.0.1:0"))
        .expect("a resolver's socket");
    // The responder asks port 53: redirected here, so that several worlds and a real resolver do not meet.
    let port = socket.local_addr().unwrap().port();
    socket
        .set_read_timeout(Some(std::time::Duration::from_secs(10)))
        .unwrap();
    let redirect = |verb: &str, address: &str| {
        world.host.tool(
            "iptables",
            [
                "-t",
                "nat",
                verb,
                "OUTPUT",
                "-d",
                address,
                "-p",
                "udp",
                "--dport",
                "53",
                "-j",
                "DNAT",
                "--to-destination",
                &format!("127.0.0.1:{port}"),
            ],
        )
    };
    let server = "127.44.0.53";
    redirect("-I", server).ok();
    let name = world.unique("name") + ".example";
    let open = world.container(&format!("--network one --dns {server}"));
    let closed = world.container(&format!("--network closed --dns {server}"));
    // The internal one first: what it would ask had come by the time the other one's question is here.
    look_up(world, &closed.name, &format!("closed-{name}"));
    let asking = world
        .host
        .command([
            "exec",
            &open.name,
            "nslookup",
            &format!("open-{name}"),
            "127.0.0.11",
        ])
        .spawn_in(&world.host.netns);
    let mut data = [0; 512];
    let mut seen = String::new();
    while !seen.contains("open-name") {
        let (count, _) = socket
            .recv_from(&mut data)
            .expect("the open network's question");
        seen += &String::from_utf8_lossy(&data[..count]);
    }
    assert!(!seen.contains("closed-name"), "{seen:?}");
    drop(asking);
    redirect("-D", server).ok();
}

/// The host's INPUT chain drops whatever comes from a bridge: names are found all the same.
pub fn input_chain_drops(world: &World, family: Family, _: Protocol) {
    let network = world.unique("walled");
    world.host.run(&format!("network create --ipv6 {network}"));
    let inspect: Value = world.host.run(&format!("network inspect {network}")).json();
    let bridge = format!("cr-{}", &inspect[0]["Id"].as_str().unwrap()[..12]);
    let wall = |verb: &str| {
        for tool in ["iptables", "ip6tables"] {
            world
                .host
                .tool(tool, [verb, "INPUT", "-i", &bridge, "-j", "DROP"])
                .ok();
        }
    };
    wall("-I");
    {
        let server = world.container(&format!("--network {network}"));
        let client = world.container(&format!("--network {network}"));
        finds(
            world,
            &client,
            &server.name,
            &server.address(family).to_string(),
        );
    }
    wall("-D");
    world.host.run(&format!("network rm {network}"));
}

pub fn hosts_file_follows(world: &World, _: Family, _: Protocol) {
    let container = world.container("--network one");
    let hosts = || {
        let line = format!("exec {} cat /etc/hosts", container.name);
        world.host.run(&line).stdout
    };
    let first = container.address(Family::V4).to_string();
    assert!(hosts().contains(&first), "{}", hosts());
    world
        .host
        .run(&format!("network connect two {}", container.name));
    let inspect = world.host.inspect(&container.name);
    let second = inspect["NetworkSettings"]["Networks"]["two"]["IPAddress"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        hosts().contains(&second) && hosts().contains(&first),
        "{}",
        hosts()
    );
    world
        .host
        .run(&format!("network disconnect one {}", container.name));
    assert!(
        hosts().contains(&second) && !hosts().contains(&first),
        "{}",
        hosts()
    );
}

/// A container's own server on port 53 of every address, beside the responder.
pub fn own_server_on_port_53(world: &World, family: Family, protocol: Protocol) {
    use super::talk::{Server, answers};
    let server = world.container("--network one");
    let client = world.container("--network one");
    let _own = Server::start(&server.netns, protocol, 53, "own");
    let at: SocketAddr = server.at(family, 53);
    answers(&client.netns, protocol, at, "own");
    finds(
        world,
        &server,
        &client.name,
        &client.address(family).to_string(),
    );
}
