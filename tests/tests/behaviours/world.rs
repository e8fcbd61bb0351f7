//! A host on which many behaviours are tried side by side: by firewall, and by what FORWARD does by itself.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};

use harness::{Host, Netns};

use super::talk::Family;

pub const HOST: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
pub const NEIGHBOUR: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// FORWARD lets pass what nobody forbids.
    Accept,
    /// The administrator has set FORWARD's policy to DROP.
    Drop,
    /// The administrator has appended a rule to FORWARD that drops everything.
    AppendedDrop,
}

impl Forward {
    pub fn as_str(self) -> &'static str {
        match self {
            Forward::Accept => "forward-accept",
            Forward::Drop => "forward-drop",
            Forward::AppendedDrop => "forward-appended-drop",
        }
    }
}

pub struct World {
    pub firewall: &'static str,
    pub host: Host,
    /// A machine on the LAN that sends packets for loopback addresses over the wire.
    pub crafty: Netns,
    next: AtomicU16,
}

/// A container of one behaviour; removed with this value.
pub struct Container<'a> {
    world: &'a World,
    pub name: String,
    pub netns: Netns,
    addresses: [Option<IpAddr>; 2],
}

impl World {
    /// Networks `one`, `two` and (internal) `closed`, all with both families.
    pub fn new(firewall: &'static str, forward: Forward) -> World {
        let host = World::bare(firewall, forward);
        host.run("network create --ipv6 one");
        host.run("network create --ipv6 two");
        host.run("network create --ipv6 --internal closed");
        let crafty = host.another_machine(66);
        crafty.ip("addr del 127.0.0.1/8 dev lo\nrule del pref 0\nrule add pref 100 table local\nroute add 127.0.0.0/8 via 192.0.2.1 table 50\nrule add pref 50 table 50\n");
        crafty
            .enter(|| std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1"))
            .expect("a sysctl of a namespace of our own");
        World {
            firewall,
            host,
            crafty,
            next: AtomicU16::new(0),
        }
    }

    /// Such a host before the program is used for the first time.
    pub fn bare(firewall: &str, forward: Forward) -> Host {
        let builder = Host::builder()
            .ip_forward(true)
            .options(["--firewall", firewall.trim_end_matches("-legacy")]);
        let builder = match firewall {
            "iptables-legacy" => builder.legacy_iptables(),
            _ => builder,
        };
        match forward {
            Forward::Accept => builder,
            Forward::Drop => builder.rules("*filter\n:FORWARD DROP [0:0]\nCOMMIT\n"),
            Forward::AppendedDrop => builder.rules("*filter\n-A FORWARD -j DROP\nCOMMIT\n"),
        }
        .build()
    }

    /// A host port that no other behaviour of this world uses, nor the nine after it; outside of the ephemeral range.
    pub fn port(&self) -> u16 {
        10_000 + 10 * self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub fn unique(&self, prefix: &str) -> String {
        format!("{prefix}{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// A container that does nothing by itself.
    #[track_caller]
    pub fn container(&self, options: &str) -> Container<'_> {
        let name = self.unique("box");
        self.host.run(&format!(
            "run -d --name {name} {options} busybox sleep 100000"
        ));
        self.look(name)
    }

    #[track_caller]
    pub fn look(&self, name: String) -> Container<'_> {
        let inspect = self.host.inspect(&name);
        let networks = inspect["NetworkSettings"]["Networks"].as_object();
        let first = networks.into_iter().flat_map(|all| all.values()).next();
        let address = |key: &str| first?[key].as_str()?.parse().ok();
        let pid = inspect["State"]["Pid"].as_u64().expect("it runs");
        Container {
            world: self,
            netns: Netns::of_process(u32::try_from(pid).unwrap()).expect("its namespace"),
            addresses: [address("IPAddress"), address("GlobalIPv6Address")],
            name,
        }
    }

    /// The gateway of a network: the bridge's own address.
    #[track_caller]
    pub fn gateway(&self, network: &str, family: Family) -> IpAddr {
        let inspect = self.host.run(&format!("network inspect {network}")).json();
        let configs = inspect[0]["IPAM"]["Config"].as_array().cloned();
        let gateways = configs.into_iter().flatten();
        gateways
            .filter_map(|config| config["Gateway"].as_str()?.parse::<IpAddr>().ok())
            .find(|gateway| gateway.is_ipv4() == (family == Family::V4))
            .unwrap_or_else(|| panic!("{network} has no {family:?} gateway: {inspect}"))
    }
}

impl Container<'_> {
    #[track_caller]
    pub fn address(&self, family: Family) -> IpAddr {
        self.addresses[family as usize]
            .unwrap_or_else(|| panic!("{} has no {family:?} address", self.name))
    }

    #[track_caller]
    pub fn at(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(family), port)
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let remove = self.world.host.command(["rm", "-f", &self.name]);
        // The behaviour may have removed it itself; what stays is found when the world ends.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            remove.run_in(&self.world.host.netns);
        }));
    }
}

/// The host's address on the LAN.
pub fn host_at(family: Family, port: u16) -> SocketAddr {
    SocketAddr::new(HOST[family as usize].parse().unwrap(), port)
}

pub fn loopback(family: Family, port: u16) -> SocketAddr {
    let address: IpAddr = match family {
        Family::V4 => "127.0.0.1".parse().unwrap(),
        Family::V6 => "::1".parse().unwrap(),
    };
    SocketAddr::new(address, port)
}

/// Makes the attacker send packets for `address` to the host.
pub fn route_through_host(machine: &Netns, address: IpAddr) {
    let host = HOST[usize::from(address.is_ipv6())];
    let length = if address.is_ipv4() { 32 } else { 128 };
    machine.ip(&format!("route replace {address}/{length} via {host}\n"));
}
