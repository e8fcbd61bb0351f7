//! One engine's host: the requests made of it, its servers, and how its answers are made comparable.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, RwLock};

use harness::{Cmd, Host, Netns, Output, eventually};
use serde_json::Value;

use crate::dns::Resolver;
use crate::talk::Servers;
use crate::words::Words;

/// Ports on which every container of the scenario answers, over TCP and UDP.
const PORTS: &[u16] = &[80, 82, 83, 84, 85, 93, 99, 8085, 8086, 8087];
/// The same on the host and on the other machines.
pub const OUTER_PORT: u16 = 7000;

pub struct World {
    pub name: &'static str,
    // Before the host: they hold its namespaces.
    servers: Mutex<BTreeMap<String, Servers>>,
    _resolver: Resolver,
    containers: RwLock<BTreeMap<String, (u32, Netns)>>,
    words: RwLock<Words>,
    /// By container and network, for the default network's, which nobody chooses.
    addresses: RwLock<BTreeMap<String, IpAddr>>,
    pub host: Host,
}

impl World {
    #[track_caller]
    pub fn new(name: &'static str, host: Host) -> World {
        // The attacker sends packets for containers to the host; the way back of what is not masqueraded is the same.
        for subnet in 61..=68 {
            host.attacker.ip(&format!(
                "route add 10.{subnet}.0.0/24 via {}\n",
                harness::host::HOST
            ));
        }
        host.attacker.ip("route add fd00:63::/64 via 2001:db8::1\n");
        let mut servers = BTreeMap::new();
        for (name, netns) in [
            ("host", &host.netns),
            ("neighbour", &host.neighbour),
            ("attacker", &host.attacker),
        ] {
            servers.insert(name.to_owned(), Servers::start(netns, name, &[OUTER_PORT]));
        }
        World {
            name,
            servers: Mutex::new(servers),
            _resolver: Resolver::start(&host.neighbour),
            containers: RwLock::default(),
            words: RwLock::default(),
            addresses: RwLock::default(),
            host,
        }
    }

    /// Makes a request: exit code and what is printed, as it is.
    pub fn request(&self, line: &str) -> String {
        let answer = told(&self.host.try_run(line));
        // In the order of a map.
        let mut lines: Vec<_> = answer.lines().collect();
        if line.contains("prune") {
            lines.sort_unstable();
        }
        lines.join("\n")
    }

    /// Looks at all that there is, and lets a server answer in each container that has none yet.
    #[track_caller]
    pub fn look(&self) {
        let containers = self.inspect_all();
        let networks = self.inspect("network ls -q --no-trunc", "network inspect");
        let mut words = Words::default();
        networks
            .iter()
            .for_each(|network| words.learn_network(network));
        let (mut found, mut addresses) = (BTreeMap::new(), BTreeMap::new());
        let mut servers = self.servers.lock().unwrap();
        for container in &containers {
            words.learn_container(container);
            let name = container["Name"].as_str().unwrap_or_default();
            let name = name.trim_start_matches('/').to_owned();
            let default = &container["NetworkSettings"]["Networks"]["bridge"]["IPAddress"];
            if let Some(Ok(address)) = default.as_str().map(str::parse) {
                addresses.insert(format!("{name}@bridge"), address);
            }
            let pid = container["State"]["Pid"].as_u64().unwrap_or_default();
            if pid == 0 {
                servers.remove(&name);
                continue;
            }
            let pid = u32::try_from(pid).expect("a process ID");
            let netns = eventually("a container's namespace", || Netns::of_process(pid));
            let known = servers.get(&name).map(Servers::netns);
            // Those that share a namespace would be in each other's way.
            if known != Some(netns.id()) && !["joined", "hosted"].contains(&name.as_str()) {
                servers.remove(&name);
                servers.insert(name.clone(), Servers::start(&netns, &name, PORTS));
            }
            found.insert(name, (pid, netns));
        }
        if let Some(gateway) = words.default_gateway() {
            addresses.insert("gateway@bridge".to_owned(), gateway);
        }
        *self.containers.write().unwrap() = found;
        *self.words.write().unwrap() = words;
        *self.addresses.write().unwrap() = addresses;
    }

    #[track_caller]
    pub fn inspect_all(&self) -> Vec<Value> {
        self.inspect("ps -aq --no-trunc", "inspect")
    }

    #[track_caller]
    fn inspect(&self, list: &str, inspect: &str) -> Vec<Value> {
        let ids = self.host.run(list).stdout;
        if ids.trim().is_empty() {
            return Vec::new();
        }
        let words = inspect.split(' ').chain(ids.split_whitespace());
        let json = self.host.coracle(words).ok().json();
        json.as_array().cloned().unwrap_or_default()
    }

    /// A place by its name: a machine or a container.
    pub fn at<T: Send>(&self, place: &str, ask: impl FnOnce(&Netns) -> T + Send) -> Option<T> {
        match place {
            "host" => Some(ask(&self.host.netns)),
            "neighbour" => Some(ask(&self.host.neighbour)),
            "attacker" => Some(ask(&self.host.attacker)),
            container => {
                let containers = self.containers.read().unwrap();
                containers.get(container).map(|(_, netns)| ask(netns))
            }
        }
    }

    /// A program inside a place.
    pub fn tool(&self, place: &str, line: &str) -> String {
        let mut words = line.split(' ');
        let program = words.next().unwrap_or_default();
        let cmd = Cmd::new(program).args(words);
        self.at(place, |netns| cmd.run_in(netns))
            .map_or_else(|| "it is not there".to_owned(), |output| told(&output))
            // Who has made a route is no matter to those who use it; `ip` pads its lines.
            .replace(" proto static", "")
            .replace(" \n", "\n")
            .trim_end()
            .to_owned()
    }

    /// A file as the container sees it.
    pub fn file(&self, container: &str, path: &str) -> String {
        let pid = match self.containers.read().unwrap().get(container) {
            Some((pid, _)) => *pid,
            None => return "it is not there".to_owned(),
        };
        std::fs::read_to_string(format!("/proc/{pid}/root/{path}"))
            .unwrap_or_else(|error| error.to_string())
    }

    /// Names, MAC and MTU of its links, with their addresses; settings that programs notice.
    pub fn links(&self, container: &str) -> String {
        let told = self.tool(container, "ip -j addr");
        let links: Value = serde_json::from_str(&told).unwrap_or_default();
        let mut lines = Vec::new();
        for link in links.as_array().into_iter().flatten() {
            let mut addresses: Vec<_> = link["addr_info"]
                .as_array()
                .into_iter()
                .flatten()
                // Whether IPv6 is there where no network has it is asked by packets.
                .filter(|one| one["local"] != "::1" && one["scope"] != "link")
                .map(|one| {
                    let peer = one["broadcast"].as_str().unwrap_or("no broadcast");
                    format!(
                        "{}/{} {} {peer}",
                        one["local"], one["prefixlen"], one["scope"]
                    )
                })
                .collect();
            addresses.sort();
            lines.push(format!(
                "{} mac {} mtu {} {}: {}",
                link["ifname"],
                link["address"],
                link["mtu"],
                link["operstate"],
                addresses.join(", ")
            ));
        }
        for key in [
            "ip_unprivileged_port_start",
            "ping_group_range",
            "ip_forward",
            "conf/all/rp_filter",
            "conf/all/route_localnet",
        ] {
            let path = format!("/proc/sys/net/ipv4/{key}");
            let value = self.at(container, |_| std::fs::read_to_string(&path));
            let value = value.and_then(Result::ok).unwrap_or_default();
            lines.push(format!("{key} {}", value.trim()));
        }
        lines.join("\n")
    }

    /// An address, or `NAME@bridge` for one that the engine chose.
    pub fn address(&self, text: &str) -> Option<IpAddr> {
        let chosen = || self.addresses.read().unwrap().get(text).copied();
        text.parse().ok().or_else(chosen)
    }

    pub fn comparable(&self, text: &str) -> String {
        self.words.read().unwrap().apply(text)
    }

    /// Ends the servers and everything that the engine has; what is left of a Docker Engine.
    pub fn end(self) -> Vec<String> {
        self.servers.lock().unwrap().clear();
        self.containers.write().unwrap().clear();
        self.host.remove_everything();
        self.host.assert_clean();
        self.host.end_docker()
    }
}

/// Exit code, standard output and standard error.
pub fn told(output: &Output) -> String {
    let mut text = match output.code() {
        0 => String::new(),
        code => format!("exit {code}\n"),
    };
    text += output.stdout.trim_end();
    let complaint = output.stderr.trim_end();
    if !complaint.is_empty() {
        text = format!("{}\nstderr: {complaint}", text.trim_end());
    }
    text
}
