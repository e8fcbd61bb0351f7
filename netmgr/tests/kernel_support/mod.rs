//! A host of its own for each test: a thread in a fresh network namespace, which ends with the test.
#![allow(dead_code)]

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use netmgr::kernel::netns;
use netmgr::plan::{Bridge, Veth};
use netmgr::ports::{self, Held, Holding};
use netmgr::{Endpoint, Error, Firewall, Netns, PortMap, PortRequest, Profile, Settings};
use nix::sched::{CloneFlags, unshare};

/// Runs `test` as the one thread of a new host: `lo` up, no forwarding, no rules.
pub fn on_a_host<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let host = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("tests need root: unshare(CLONE_NEWNET)");
            // A new namespace may take this over from the one that it was made in.
            fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
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
    while !fs::read_to_string("/proc/thread-self/net/ipv6_route")
        .unwrap()
        .lines()
        .any(|line| line.starts_with(&row))
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

/// What a change must leave as it found it.
pub fn state() -> String {
    let links = run("ip -o -d link show");
    // Neither a link's index nor the running state of a bridge (timers, its own name in a root id) is configuration.
    let links: Vec<&str> = links
        .lines()
        .map(|line| line.split(':').nth(1).unwrap_or_default().trim())
        .collect();
    let addresses = run("ip -br address show");
    let forwarding = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    let rules: Vec<String> = run("iptables-save")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(" [").next().unwrap_or_default().to_owned())
        .collect();
    format!("{links:?}\n{addresses}\nip_forward {forwarding}\n{rules:#?}")
}
