//! A host of its own for each test: a thread in a fresh network namespace, which ends with the test.
#![allow(dead_code)]

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use netmgr::kernel::netns;
use netmgr::plan::{Bridge, Veth};
use netmgr::ports::{self, Held, Holding};
use netmgr::{Endpoint, Error, Firewall, Netns, PortMap, PortRequest, Profile, Settings};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{self, AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

/// Runs `test` as the one thread of a new host: `lo` up, no forwarding, no rules.
pub fn on_a_host<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let host = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("tests need root: unshare(CLONE_NEWNET)");
            // A new namespace may take this over from the one that it was made in.
            fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
            fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "0").unwrap();
            // By netlink and not by `ip`: a child that has not reached its exec yet holds every socket of this process, and
            // a port that a test beside this one has just let go is still taken then.
            let own = netns::current().unwrap();
            netns::loopback_up(&own).unwrap();
            test()
        });
        match host.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// What holds ports of its own knows of no other's.
pub const HOLDING: Holding<'static> = Holding {
    redirects: true,
    allocated: &|_| Ok(None),
};

pub fn hold(request: &PortRequest) -> Result<(PortMap, Vec<Held>), Error> {
    ports::hold(request, HOLDING)
}

pub struct Output {
    pub ok: bool,
    pub text: String,
}

/// Runs a command in the namespace of the calling thread.
pub fn attempt(line: &str) -> Output {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{line}: {error}"));
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Output {
        ok: output.status.success(),
        text,
    }
}

pub fn run(line: &str) -> String {
    let output = attempt(line);
    assert!(output.ok, "{line}: {}", output.text);
    output.text
}

pub fn run_inside(netns: &Netns, line: &str) -> String {
    netns::run_in(netns, || run(line)).unwrap()
}

pub fn attempt_inside(netns: &Netns, line: &str) -> Output {
    netns::run_in(netns, || attempt(line)).unwrap()
}

pub fn settings(run_root: &tempfile::TempDir) -> Settings {
    Settings {
        pools: Vec::new(),
        namespace_of: None,
        root: run_root.path().into(),
        run_root: run_root.path().into(),
        firewall: Firewall::Iptables,
        profile: Profile::Coracle,
    }
}

/// Waits until the kernel has the route of an IPv6 address of its own, which it makes a while after the address
/// (`addrconf_dad_work`, `net/ipv6/addrconf.c`), `nodad` or not.
pub fn await_v6(address: &str) {
    let address: Ipv6Addr = address.parse().unwrap();
    let row = format!("{:032x} 80 ", u128::from(address));
    let deadline = Instant::now() + Duration::from_secs(10);
    // Of the two routes that an address gets the local one (RTF_LOCAL, the highest bit of the flags) comes last.
    let is_local = |line: &str| {
        let flags = line.split_whitespace().nth(8).unwrap_or_default();
        line.starts_with(&row) && flags.starts_with(['8', '9', 'a', 'b', 'c', 'd', 'e', 'f'])
    };
    while !fs::read_to_string("/proc/thread-self/net/ipv6_route")
        .unwrap()
        .lines()
        .any(is_local)
    {
        assert!(Instant::now() < deadline, "no route of {address}");
        thread::yield_now();
    }
}

pub const BRIDGE: &str = "cr-test";

pub fn bridge() -> Bridge {
    Bridge {
        gateway6: None,
        name: BRIDGE.into(),
        gateway: Ipv4Addr::new(10, 99, 0, 1),
        subnet: "10.99.0.0/24".parse::<Ipv4Net>().unwrap(),
        mtu: None,
    }
}

/// The container with the address 10.99.0.`last`.
pub fn veth(last: u8) -> Veth {
    let address = Ipv4Addr::new(10, 99, 0, last);
    Veth {
        gateway6: None,
        prefix6: 64,
        bridge: BRIDGE.into(),
        endpoint: Endpoint {
            address6: None,
            aliases: Vec::new(),
            id: format!("{last:064x}"),
            network_id: "0".repeat(64),
            container_id: format!("{last:064x}"),
            container_name: format!("c{last}"),
            address,
            mac: [0x02, 0x42, 10, 99, 0, last],
            host_interface: format!("veth{last}"),
            interface: "eth0".into(),
            ports: vec![],
        },
        prefix: 24,
        gateway: Some(Ipv4Addr::new(10, 99, 0, 1)),
        mtu: None,
        isolated: false,
    }
}

/// The IPv6 prefix of `bridge6`.
pub const GATEWAY6: &str = "fd00:99::1";

pub fn bridge6() -> Bridge {
    Bridge {
        gateway6: Some((GATEWAY6.parse().unwrap(), 64)),
        ..bridge()
    }
}

/// As [`veth`], and fd00:99::`last` (in decimal digits).
pub fn veth6(last: u8) -> Veth {
    let mut veth = veth(last);
    veth.endpoint.address6 = Some(format!("fd00:99::{last}").parse().unwrap());
    veth.gateway6 = Some(GATEWAY6.parse().unwrap());
    veth
}

/// A second bridge: 10.98.0.0/24 and fd00:98::/64.
pub fn second_bridge() -> Bridge {
    Bridge {
        name: "cr-second".into(),
        gateway: Ipv4Addr::new(10, 98, 0, 1),
        subnet: "10.98.0.0/24".parse().unwrap(),
        gateway6: Some(("fd00:98::1".parse().unwrap(), 64)),
        mtu: None,
    }
}

/// The same container on the second bridge, as eth1 and without default routes.
pub fn second_veth(last: u8) -> Veth {
    let mut veth = veth6(last);
    veth.bridge = second_bridge().name;
    veth.endpoint.address = Ipv4Addr::new(10, 98, 0, last);
    veth.endpoint.address6 = Some(format!("fd00:98::{last}").parse().unwrap());
    veth.endpoint.mac[3] = 98;
    veth.endpoint.host_interface = format!("second{last}");
    veth.endpoint.interface = "eth1".into();
    (veth.gateway, veth.gateway6) = (None, None);
    veth
}

/// Hears every frame of the calling thread's namespace (`packet(7)`), from its creation on.
pub struct Wire(OwnedFd);

impl Wire {
    pub fn tap() -> Wire {
        let socket = socket::socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        )
        .unwrap();
        let patience = TimeVal::seconds(3);
        socket::setsockopt(&socket, sockopt::ReceiveTimeout, &patience).unwrap();
        Wire(socket)
    }

    /// Whether a frame with these properties is heard on an interface within a few seconds.
    pub fn hears(&self, interface: &str, wanted: impl Fn(&[u8]) -> bool) -> bool {
        let index = nix::net::if_::if_nametoindex(interface).unwrap() as usize;
        let deadline = Instant::now() + Duration::from_secs(3);
        let mut frame = [0; 2048];
        while Instant::now() < deadline {
            match socket::recvfrom::<LinkAddr>(self.0.as_raw_fd(), &mut frame) {
                Ok((length, Some(from))) if from.ifindex() == index => {
                    if wanted(&frame[..length]) {
                        return true;
                    }
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return false,
                Err(error) => panic!("{error}"),
            }
        }
        false
    }
}

/// An ARP request of an address for itself, to all (RFC 5227, ARP announcement).
pub fn is_gratuitous_arp(frame: &[u8], address: Ipv4Addr, mac: [u8; 6]) -> bool {
    let own = address.octets();
    frame.len() >= 42
        && frame[..6] == [0xff; 6]
        && frame[12..14] == [0x08, 0x06]
        && frame[22..28] == mac
        && frame[28..32] == own
        && frame[38..42] == own
}

/// An unsolicited neighbour advertisement to all nodes, with the override flag and the hardware address (RFC 4861, 7.2.6).
pub fn is_unsolicited_na(frame: &[u8], address: Ipv6Addr, mac: [u8; 6]) -> bool {
    let to: Ipv6Addr = "ff02::1".parse().unwrap();
    frame.len() >= 86
        && frame[12..14] == [0x86, 0xdd]
        && frame[20] == 58
        && frame[21] == 255
        && frame[38..54] == to.octets()
        && frame[54] == 136
        && frame[58] & 0x60 == 0x20
        && frame[62..78] == address.octets()
        && frame[78..80] == [2, 1]
        && frame[80..86] == mac
}

/// What of the host's network a container sees: its addresses, routes and hardware addresses.
pub fn state_inside(netns: &Netns) -> String {
    let links = run_inside(netns, "ip -br link show");
    // Not the kernel's own link-local addresses, which come when they come.
    let addresses: Vec<String> = run_inside(netns, "ip -o address show scope global")
        .lines()
        .map(|line| {
            line.split_whitespace()
                .skip(1)
                .take(3)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    let routes =
        run_inside(netns, "ip route show") + &run_inside(netns, "ip -6 route show default");
    // Another veth of the same name has another index.
    let links: Vec<String> = links
        .lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next().unwrap_or_default();
            let name = name.split('@').next().unwrap_or_default();
            format!("{name} {}", words.nth(1).unwrap_or_default())
        })
        .collect();
    format!("{links:?}\n{addresses:#?}\n{routes}")
}

/// What a change must leave as it found it.
pub fn state() -> String {
    let links = run("ip -o -d link show");
    // Neither a link's index nor the running state of a bridge (timers, its own name in a root id) is configuration.
    let links: Vec<&str> = links
        .lines()
        .map(|line| line.split(':').nth(1).unwrap_or_default().trim())
        .collect();
    let addresses = run("ip -br address show");
    let sysctls: Vec<String> = [
        "ipv4/ip_forward",
        "ipv4/ip_local_reserved_ports",
        "ipv6/conf/all/forwarding",
        "ipv6/conf/lo/accept_ra",
    ]
    .iter()
    .map(|name| fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap())
    .collect();
    let rules: Vec<String> = (run("iptables-save") + &run("ip6tables-save"))
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(" [").next().unwrap_or_default().to_owned())
        .collect();
    let tables = run("nft list tables");
    let mut text = format!("{links:?}\n{addresses}\n{sysctls:?}\n{rules:#?}\n{tables}");
    if tables.contains("inet coracle_test") {
        text += &run("nft -s list table inet coracle_test");
    }
    text
}
