//! A host with its networks and two neighbours, made from a model by `ip` and the restore commands alone: what is tried here
//! is the rules, not who writes them.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use netmgr::firewall::iptables::render_save;
use netmgr::firewall::policy::ruleset;
use netmgr::firewall::ruleset::Table;
use netmgr::kernel::netns;
use netmgr::{Endpoint, Family, Model, Netns, Network, Protocol};
use nix::sys::socket::{getsockopt, sockopt};

use crate::common::command;

/// The longest that an answer takes here; what is dropped costs a test this much.
const PATIENCE: Duration = Duration::from_millis(400);

pub struct World {
    pub host: Netns,
    /// On `lan0`: 192.0.2.2 and 2001:db8:1::2, the host being `1` there.
    pub lan: Netns,
    /// On `wg0`: 198.51.100.2 and 2001:db8:2::2.
    pub wg: Netns,
    pub containers: HashMap<String, Netns>,
}

fn ip(line: &str) {
    command("ip", &line.split_whitespace().collect::<Vec<_>>());
}

fn inside(netns: &Netns, lines: &[String]) {
    netns::run_in(netns, || lines.iter().for_each(|line| ip(line))).unwrap();
}

fn path(netns: &Netns) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), netns.0.as_raw_fd())
}

impl World {
    /// In the namespace of the calling thread.
    pub fn of(model: &Model, forward_policy: &str) -> World {
        for (file, value) in [
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/all/accept_dad", "0"),
        ] {
            fs::write(format!("/proc/sys/net/{file}"), value).unwrap();
        }
        for network in &model.networks {
            make_bridge(network);
        }
        let lan = neighbour(model, "lan0", "192.0.2", "2001:db8:1:");
        let wg = neighbour(model, "wg0", "198.51.100", "2001:db8:2:");
        let containers = model.endpoints.iter().map(|endpoint| {
            let network = model.network(&endpoint.network_id).unwrap();
            (endpoint.container_name.clone(), attach(network, endpoint))
        });
        let world = World {
            containers: containers.collect(),
            host: netns::current().unwrap(),
            lan,
            wg,
        };
        for (family, tool) in [
            (Family::V4, "iptables-restore"),
            (Family::V6, "ip6tables-restore"),
        ] {
            let rules = render_save(&ruleset(model, family), &Table::ALL, forward_policy);
            let mut child = Command::new(tool).stdin(Stdio::piped()).spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(rules.as_bytes()).unwrap();
            drop(stdin);
            assert!(child.wait().unwrap().success(), "{tool}\n{rules}");
        }
        world
    }
}

fn make_bridge(network: &Network) {
    let bridge = &network.bridge;
    ip(&format!("link add {bridge} type bridge"));
    let (gateway, length) = (network.gateway, network.subnet.prefix_len());
    ip(&format!("address add {gateway}/{length} dev {bridge}"));
    if let Some(v6) = network.v6 {
        let length = v6.subnet.prefix_len();
        ip(&format!(
            "address add {}/{length} dev {bridge} nodad",
            v6.gateway
        ));
    }
    ip(&format!("link set {bridge} up"));
}

/// A machine at the other end of a link, with crafted routes to everything behind this host.
fn neighbour(model: &Model, link: &str, v4: &str, v6: &str) -> Netns {
    let netns = netns::create().unwrap();
    ip(&format!(
        "link add {link} type veth peer name up0 netns {}",
        path(&netns)
    ));
    ip(&format!("address add {v4}.1/24 dev {link}"));
    ip(&format!("address add {v6}:1/64 dev {link} nodad"));
    ip(&format!("link set {link} up"));
    let mut lines = vec![
        format!("address add {v4}.2/24 dev up0"),
        format!("address add {v6}:2/64 dev up0 nodad"),
        "link set lo up".to_owned(),
        "link set up0 up".to_owned(),
    ];
    for network in &model.networks {
        lines.push(format!("route add {} via {v4}.1", network.subnet));
        if let Some(side) = network.v6 {
            lines.push(format!("route add {} via {v6}:1", side.subnet));
        }
    }
    inside(&netns, &lines);
    netns
}

/// On an internal network too there is a default route: who has the right to add one must not get out by it.
fn attach(network: &Network, endpoint: &Endpoint) -> Netns {
    let netns = netns::create().unwrap();
    let link = &endpoint.host_interface;
    ip(&format!(
        "link add {link} type veth peer name eth0 netns {}",
        path(&netns)
    ));
    ip(&format!("link set {link} master {} up", network.bridge));
    let length = network.subnet.prefix_len();
    let mut lines = vec![
        "link set lo up".to_owned(),
        format!("address add {}/{length} dev eth0", endpoint.address),
        "link set eth0 up".to_owned(),
        format!("route add default via {}", network.gateway),
    ];
    if let (Some(v6), Some(address)) = (network.v6, endpoint.address6) {
        lines.insert(
            1,
            format!(
                "address add {address}/{} dev eth0 nodad",
                v6.subnet.prefix_len()
            ),
        );
        lines.push(format!("route add default via {}", v6.gateway));
    }
    inside(&netns, &lines);
    netns
}

/// Serves TCP and UDP of both families on a port: each answer is `TAG PEER`.
pub fn serve(netns: &Netns, port: u16, tag: &str) {
    serve_at(netns, port, tag, &[Ipv6Addr::UNSPECIFIED.into()]);
}

/// Likewise, with a socket of UDP for each address of a host that has several: answers come from where the question went.
pub fn serve_at(netns: &Netns, port: u16, tag: &str, udp: &[IpAddr]) {
    let tcp = netns::run_in(netns, || {
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap()
    })
    .unwrap();
    let of_tcp = tag.to_owned();
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = tcp.accept() {
            // A client that has left is none of ours.
            let _ = write!(stream, "{of_tcp} {}", peer.ip().to_canonical());
        }
    });
    for address in udp {
        let udp = netns::run_in(netns, || UdpSocket::bind((*address, port)).unwrap()).unwrap();
        let of_udp = tag.to_owned();
        std::thread::spawn(move || {
            let mut buffer = [0; 16];
            while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                let answer = format!("{of_udp} {}", peer.ip().to_canonical());
                let _ = udp.send_to(answer.as_bytes(), peer);
            }
        });
    }
}

/// Every address of the host.
pub fn host_addresses(model: &Model) -> Vec<IpAddr> {
    let gateways = model.networks.iter();
    let gateways = gateways.flat_map(|n| Family::ALL.map(|family| n.gateway_of(family)));
    let links = [
        "192.0.2.1",
        "198.51.100.1",
        "2001:db8:1::1",
        "2001:db8:2::1",
    ];
    let links = links.into_iter().map(|text| text.parse().unwrap());
    gateways.flatten().chain(links).collect()
}

/// The one listener of a run: each answer is the address that was dialled, by `SO_ORIGINAL_DST`.
pub fn serve_run(netns: &Netns, port: u16) {
    let bind = |address: IpAddr| TcpListener::bind((address, port)).unwrap();
    let v4 = netns::run_in(netns, || bind(Ipv4Addr::UNSPECIFIED.into())).unwrap();
    let v6 = netns::run_in(netns, || {
        let socket = nix::sys::socket::socket(
            nix::sys::socket::AddressFamily::Inet6,
            nix::sys::socket::SockType::Stream,
            nix::sys::socket::SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        nix::sys::socket::setsockopt(&socket, sockopt::Ipv6V6Only, &true).unwrap();
        let any = nix::sys::socket::SockaddrIn6::from(std::net::SocketAddrV6::new(
            Ipv6Addr::UNSPECIFIED,
            port,
            0,
            0,
        ));
        nix::sys::socket::bind(socket.as_raw_fd(), &any).unwrap();
        nix::sys::socket::listen(&socket, nix::sys::socket::Backlog::new(8).unwrap()).unwrap();
        TcpListener::from(socket)
    })
    .unwrap();
    for listener in [v4, v6] {
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = write!(stream, "{}", original_destination(&stream));
            }
        });
    }
}

fn original_destination(stream: &TcpStream) -> SocketAddr {
    match stream.local_addr().unwrap() {
        SocketAddr::V4(_) => {
            let found = getsockopt(stream, sockopt::OriginalDst).unwrap();
            let ip = Ipv4Addr::from(u32::from_be(found.sin_addr.s_addr));
            (ip, u16::from_be(found.sin_port)).into()
        }
        SocketAddr::V6(_) => {
            let found = getsockopt(stream, sockopt::Ip6tOriginalDst).unwrap();
            let ip = Ipv6Addr::from(found.sin6_addr.s6_addr);
            (ip, u16::from_be(found.sin6_port)).into()
        }
    }
}

/// What is answered there, if anything is.
pub fn ask(netns: &Netns, protocol: Protocol, ip: IpAddr, port: u16) -> Option<String> {
    netns::run_in(netns, || match protocol {
        Protocol::Udp => ask_udp(ip, port),
        _ => ask_tcp(ip, port),
    })
    .unwrap()
}

fn ask_tcp(ip: IpAddr, port: u16) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&(ip, port).into(), PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn ask_udp(ip: IpAddr, port: u16) -> Option<String> {
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // Connected: an answer from another address than the one asked does not count.
    socket.connect((ip, port)).ok()?;
    socket.send(b"?").ok()?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Sends a datagram from an address that the sender only claims to have, then one from its own: what arrives?
pub fn claims(
    from: &Netns,
    source: IpAddr,
    own: IpAddr,
    to: &Netns,
    target: IpAddr,
) -> Vec<IpAddr> {
    let receiver = netns::run_in(to, || UdpSocket::bind((target, 0)).unwrap()).unwrap();
    receiver.set_read_timeout(Some(PATIENCE * 5)).unwrap();
    let target = receiver.local_addr().unwrap();
    let length = if source.is_ipv4() { 32 } else { 128 };
    let nodad = if source.is_ipv4() { "" } else { " nodad" };
    inside(
        from,
        &[format!("address add {source}/{length} dev lo{nodad}")],
    );
    netns::run_in(from, || {
        for address in [source, own] {
            let socket = UdpSocket::bind((address, 0)).unwrap();
            socket.send_to(b"!", target).unwrap();
        }
    })
    .unwrap();
    inside(from, &[format!("address del {source}/{length} dev lo")]);
    let mut arrived = Vec::new();
    let mut buffer = [0; 4];
    while arrived.last() != Some(&own) {
        match receiver.recv_from(&mut buffer) {
            Ok((_, peer)) => arrived.push(peer.ip()),
            Err(_) => break,
        }
    }
    arrived
}
