//! Hosts for the enemy: each firewall, on a host that routes by itself and on one that does so for our sake.
#![allow(dead_code, reason = "each enemy uses its part")]

use std::fs;
use std::net::Ipv6Addr;

use harness::{Host, Netns};

pub const FIREWALLS: [&str; 2] = ["iptables", "nftables"];

/// Where FORWARD lets pass what nobody forbids, and where it does not.
pub fn each(test: impl Fn(&Host, &str)) {
    for firewall in FIREWALLS {
        for router in [true, false] {
            let host = host(firewall, router);
            if host.is_docker() {
                return;
            }
            test(&host, &format!("{firewall}, router: {router}"));
        }
    }
}

/// On a kernel that has br_netfilter, bridged packets pass the rules too.
pub fn host(firewall: &str, router: bool) -> Host {
    let host = Host::builder()
        .ip_forward(router)
        .options(["--firewall", firewall])
        .build();
    host.netns.enter(|| {
        let forwarding = if router { "1" } else { "0" };
        set("ipv6/conf/all/forwarding", forwarding);
        // Not these, but our rules have to find the lie.
        set("ipv4/conf/all/rp_filter", "0");
        set("ipv4/conf/eth0/rp_filter", "0");
        for family in ["iptables", "ip6tables"] {
            let path = format!("bridge/bridge-nf-call-{family}");
            if fs::exists(format!("/proc/sys/net/{path}")).unwrap_or(false) {
                set(&path, if router { "1" } else { "0" });
            }
        }
    });
    host
}

/// In the namespace of the calling thread.
pub fn set(setting: &str, value: &str) {
    let path = format!("/proc/sys/net/{setting}");
    fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// A container that does nothing by itself, and its namespace.
pub fn idle(host: &Host, name: &str, options: &str) -> Netns {
    host.run(&format!(
        "run -d --name {name} {options} busybox sleep 100000"
    ));
    Netns::of_process(host.pid_of(name)).expect("its namespace")
}

#[track_caller]
pub fn address6(host: &Host, name: &str) -> Ipv6Addr {
    let inspect = host.inspect(name);
    let networks = inspect["NetworkSettings"]["Networks"].as_object();
    let mut all = networks.into_iter().flat_map(|all| all.values());
    let found = all.find_map(|network| network["GlobalIPv6Address"].as_str()?.parse().ok());
    found.unwrap_or_else(|| panic!("{name} has no IPv6 address: {inspect}"))
}
