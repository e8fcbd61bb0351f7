//! Reads a host: interfaces, sysctls, rules of everyone, bound ports. Changes nothing and judges nothing.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};

use super::facts::{Bound, Facts, Interface, Save};
use crate::change::Netns;
use crate::error::Error;
use crate::kernel::netlink::Channel;
use crate::kernel::{self, commands, links, netns, settle};
use crate::model::{Family, Model, Protocol};
use crate::plan::Backend;

/// `/proc/net` is the main thread's namespace.
const NET: &str = "/proc/thread-self/net";

pub(super) fn facts(
    model: &Model,
    backend: Backend,
    netns_of: &dyn Fn(&str) -> Option<Netns>,
) -> Result<Facts, Error> {
    let mut facts = Facts {
        interfaces: interfaces()?,
        sysctls: sysctls(model),
        bound: bound(model),
        uplink: uplink(),
        reserved: settle::reserved_runs(),
        firewalld: runs("firewalld"),
        ufw: fs::read_to_string("/etc/ufw/ufw.conf").is_ok_and(|text| {
            text.lines()
                .any(|line| line.trim().eq_ignore_ascii_case("ENABLED=yes"))
        }),
        ..Facts::default()
    };
    for endpoint in &model.endpoints {
        let id = &endpoint.container_id;
        if !facts.inside.contains_key(id)
            && let Some(netns) = netns_of(id)
        {
            match netns::run_in(&netns, || (interfaces(), gateways())) {
                Ok((Ok(inside), gateways)) => {
                    facts.inside.insert(id.clone(), inside);
                    facts.gateways.insert(id.clone(), gateways);
                }
                Ok((Err(error), _)) | Err(error) => facts.unread.push(format!(
                    "cannot look into container {}: {error}",
                    endpoint.container_name
                )),
            }
        }
    }
    if backend != Backend::None {
        rules(&mut facts);
    }
    Ok(facts)
}

fn interfaces() -> Result<Vec<Interface>, kernel::Error> {
    let addresses = settle::addresses(&mut Channel::open()?)?;
    let links = links::list()?;
    let interface = |link: links::Link| Interface {
        addresses: addresses
            .iter()
            .filter(|(index, _)| *index == link.index)
            .map(|(_, address)| *address)
            .collect(),
        name: link.name,
        kind: link.kind,
        up: link.up,
        mtu: link.mtu,
        master: link.master,
    };
    Ok(links.into_iter().map(interface).collect())
}

fn sysctls(model: &Model) -> BTreeMap<String, String> {
    let mut names: Vec<String> = [
        "net/ipv4/ip_forward",
        "net/ipv6/conf/all/forwarding",
        "net/bridge/bridge-nf-call-iptables",
    ]
    .map(str::to_owned)
    .into();
    for network in &model.networks {
        let bridge = &network.bridge;
        names.push(format!("net/ipv6/conf/{bridge}/accept_ra"));
        names.push(format!("net/ipv6/conf/{bridge}/accept_redirects"));
    }
    let read = |name: String| {
        let value = fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
        Some((name, value))
    };
    names.into_iter().filter_map(read).collect()
}

/// A command that this host does not have is no news: then there are no rules of its kind either.
fn rules(facts: &mut Facts) {
    let legacy = crate::watch::is_legacy();
    let mut save = |command: &str, tool: &'static str, family: Family| match output(command, &[]) {
        Some(Ok(text)) => facts.saves.push(Save { tool, family, text }),
        Some(Err(why)) => facts.unread.push(format!("cannot read rules: {why}")),
        None => {}
    };
    save("iptables-save", "iptables", Family::V4);
    save("ip6tables-save", "ip6tables", Family::V6);
    if !legacy {
        // To ask where nobody uses them would load the modules and make the tables.
        if in_use("ip_tables_names") {
            save("iptables-legacy-save", "iptables-legacy", Family::V4);
        }
        if in_use("ip6_tables_names") {
            save("ip6tables-legacy-save", "ip6tables-legacy", Family::V6);
        }
    }
    match output("nft", &["-j", "list", "ruleset"]) {
        Some(Ok(text)) => facts.nft = text,
        Some(Err(why)) => facts.unread.push(format!("cannot read rules: {why}")),
        None => {}
    }
}

fn in_use(names: &str) -> bool {
    fs::read_to_string(format!("{NET}/{names}")).is_ok_and(|text| !text.trim().is_empty())
}

fn output(name: &str, arguments: &[&str]) -> Option<Result<String, String>> {
    let path = commands::path(name)?;
    let run = Command::new(&path)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output();
    Some(match run {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(output) => Err(format!(
            "{name} failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        )),
        Err(error) => Err(format!("cannot run {}: {error}", path.display())),
    })
}

/// The interface of the IPv4 default route.
fn uplink() -> Option<String> {
    let routes = fs::read_to_string(format!("{NET}/route")).ok()?;
    routes.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        (words.next()? == "00000000").then(|| name.to_owned())
    })
}

/// The gateways of the default routes of both families, in the calling thread's namespace.
fn gateways() -> Vec<IpAddr> {
    let read = |name| fs::read_to_string(format!("{NET}/{name}")).unwrap_or_default();
    let v4 = read("route");
    // Interface, destination, gateway; the addresses as words in the machine's own byte order.
    let v4 = v4.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_default = *words.get(1)? == "00000000" && *words.get(7)? == "00000000";
        parse_address(words.get(2)?).filter(|_| is_default)
    });
    let v6 = read("ipv6_route");
    // Destination, its prefix, source, its prefix, next hop, in network byte order.
    let v6 = v6.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let next = u128::from_str_radix(words.get(4)?, 16).ok()?;
        let is_default = *words.get(1)? == "00" && next != 0;
        is_default.then(|| Ipv6Addr::from_bits(next).into())
    });
    v4.chain(v6).collect()
}

/// Whether a process of this name lives.
fn runs(name: &str) -> bool {
    processes().any(|pid| comm(pid).as_deref() == Some(name))
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn comm(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(text.trim().to_owned())
}

/// Sockets bound to ports that we publish, each with its holder.
fn bound(model: &Model) -> Vec<Bound> {
    let maps: Vec<_> = model.endpoints.iter().flat_map(|e| &e.ports).collect();
    if maps.is_empty() {
        return Vec::new();
    }
    let mut found: Vec<(u64, Bound)> = Vec::new();
    for (protocol, file) in [
        (Protocol::Tcp, "tcp"),
        (Protocol::Tcp, "tcp6"),
        (Protocol::Udp, "udp"),
        (Protocol::Udp, "udp6"),
    ] {
        let text = fs::read_to_string(format!("{NET}/{file}")).unwrap_or_default();
        let sockets = text
            .lines()
            .skip(1)
            .filter_map(|line| socket(line, protocol));
        found.extend(sockets.filter(|(_, bound)| {
            maps.iter().any(|map| {
                map.protocol == protocol
                    && (map.host_port..=map.host_port + (map.count - 1)).contains(&bound.port)
            })
        }));
    }
    let holders = holders(&found.iter().map(|(inode, _)| *inode).collect::<Vec<_>>());
    let with_holder = |(inode, bound): (u64, Bound)| match holders.get(&inode) {
        None => bound,
        Some((pid, ours)) => Bound {
            program: comm(*pid).map(|name| (name, *pid)),
            ours: *ours,
            ..bound
        },
    };
    found.into_iter().map(with_holder).collect()
}

/// One line of `/proc/net/tcp` or its like, if it is of a socket that listens (or, with UDP, is bound): its inode, and
/// where it is bound.
fn socket(line: &str, protocol: Protocol) -> Option<(u64, Bound)> {
    const LISTEN: &str = "0A";
    const UNCONNECTED: &str = "07";
    let words: Vec<&str> = line.split_whitespace().collect();
    let (address, port) = words.get(1)?.split_once(':')?;
    let state = match protocol {
        Protocol::Tcp => LISTEN,
        _ => UNCONNECTED,
    };
    if *words.get(3)? != state {
        return None;
    }
    let bound = Bound {
        protocol,
        address: parse_address(address)?,
        port: u16::from_str_radix(port, 16).ok()?,
        program: None,
        ours: false,
    };
    Some((words.get(9)?.parse().ok()?, bound))
}

/// Words of 32 bits, each in the machine's own byte order.
fn parse_address(text: &str) -> Option<IpAddr> {
    let mut bytes = Vec::new();
    for at in (0..text.len()).step_by(8) {
        let word = u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

/// By inode: a process that has the socket open, and whether it runs this very program. One of ours wins.
fn holders(inodes: &[u64]) -> HashMap<u64, (u32, bool)> {
    let mut holders: HashMap<u64, (u32, bool)> = HashMap::new();
    if inodes.is_empty() {
        return holders;
    }
    // By name and not by file: a monitor from before an upgrade is another file.
    let name = |path: &str| fs::read_to_string(path).ok();
    let own = name("/proc/self/comm");
    for pid in processes() {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        let mut ours = None;
        for entry in entries.flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let inode = target
                .to_str()
                .and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            let Some(inode) = inode.filter(|inode| inodes.contains(inode)) else {
                continue;
            };
            let ours = *ours
                .get_or_insert_with(|| own.is_some() && name(&format!("/proc/{pid}/comm")) == own);
            let known = holders.entry(inode).or_insert((pid, ours));
            if ours {
                *known = (pid, true);
            }
        }
    }
    holders
}
