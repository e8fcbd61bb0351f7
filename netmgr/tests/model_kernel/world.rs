//! A random life: networks come and go, containers join and leave them. And what the kernel must hold for it, worked out
//! apart from the plan.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use netmgr::model::{OPTION_GATEWAY_MODE_V4, OPTION_GATEWAY_MODE_V6, OPTION_MASQUERADE};
use netmgr::{Endpoint, Model, Netns, PortMap, Profile, Protocol, V6};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Interface, Link, Namespace};
use crate::common::{add_endpoint, add_network, container_id, map, model};

pub struct World {
    pub random: StdRng,
    /// Endpoints without ports: those are their container's.
    model: Model,
    ports: HashMap<String, Vec<PortMap>>,
    /// By container ID.
    pub namespaces: HashMap<String, Netns>,
    /// Ever growing, so that nothing is given twice.
    next: u16,
}

/// What an edit leaves besides the model.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// What was done, for the reader of a failure.
    pub edits: Vec<String>,
    pub by_kernel: HashSet<String>,
    /// IDs of containers whose namespaces go.
    pub dying: Vec<String>,
    /// Names of containers that have left a network: in the same change they do not join one, whose interface would take the
    /// name of the one that goes.
    left: Vec<String>,
}

impl World {
    pub fn new(seed: u64, profile: Profile) -> World {
        World {
            random: StdRng::seed_from_u64(seed),
            model: model(profile),
            ports: HashMap::new(),
            namespaces: HashMap::new(),
            next: 1,
        }
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.random.random_range(0..end)
    }

    pub fn chance(&mut self, of_ten: usize) -> bool {
        self.below(10) < of_ten
    }

    fn serial(&mut self) -> u16 {
        self.next += 1;
        self.next
    }

    /// As the database would give it: a container's ports stand at its primary endpoint.
    pub fn model(&self) -> Model {
        let mut model = self.model.clone();
        for (container, ports) in &self.ports {
            let Some(primary) = model.primary(container).map(|e| e.id.clone()) else {
                continue;
            };
            let endpoint = model.endpoints.iter_mut().find(|e| e.id == primary);
            endpoint.unwrap().ports = ports.clone();
        }
        model
    }

    /// One to three edits of one change.
    pub fn edit(&mut self) -> Effects {
        let mut effects = Effects::default();
        for _ in 0..=self.below(3) {
            match self.below(9) {
                0 => self.create_network(&mut effects),
                1 | 2 => self.start_container(&mut effects),
                3 | 4 => self.connect(&mut effects),
                5 | 6 => self.disconnect(&mut effects),
                7 => self.stop_container(&mut effects),
                _ => self.remove_network(&mut effects),
            }
        }
        effects
    }

    fn create_network(&mut self, effects: &mut Effects) {
        let n = self.serial();
        let (v6, internal, icc) = (self.chance(5), self.chance(2), self.chance(7));
        let option = self.below(6);
        let own_name = self.chance(2);
        // Random order of names: which network is a container's primary goes by it.
        let name = format!("{}{n}", ["a", "m", "z"][self.below(3)]);
        let subnet = format!("10.{}.{}.0/24", 64 + n / 256, n % 256);
        let bridge = match own_name {
            true => format!("own{n}"),
            false => format!("{}{n:012x}", self.model.profile.bridge_prefix()),
        };
        let network = add_network(&mut self.model, &name, &subnet, &bridge);
        (network.internal, network.icc) = (internal, icc);
        if v6 {
            network.v6 = Some(V6 {
                subnet: format!("fd00:{n:x}::/64").parse().unwrap(),
                gateway: format!("fd00:{n:x}::1").parse().unwrap(),
                ip_range: None,
            });
        }
        let (key, value) = match option {
            0 => (OPTION_GATEWAY_MODE_V4, "routed"),
            1 => (OPTION_GATEWAY_MODE_V6, "routed"),
            2 => (OPTION_GATEWAY_MODE_V4, "nat-unprotected"),
            3 => (OPTION_MASQUERADE, "false"),
            _ => ("none", ""),
        };
        network.options = vec![(key.to_owned(), value.to_owned())];
        effects.edits.push(format!("create {name}"));
    }

    fn remove_network(&mut self, effects: &mut Effects) {
        let used: HashSet<&str> = self
            .model
            .endpoints
            .iter()
            .map(|e| e.network_id.as_str())
            .collect();
        let free: Vec<usize> = (1..self.model.networks.len())
            .filter(|at| !used.contains(self.model.networks[*at].id.as_str()))
            .collect();
        // A veth that the kernel takes by and by is still a port of its bridge.
        if free.is_empty() || !effects.dying.is_empty() {
            return;
        }
        let at = free[self.below(free.len())];
        let gone = self.model.networks.remove(at);
        effects.edits.push(format!("remove {}", gone.name));
    }

    fn start_container(&mut self, effects: &mut Effects) {
        let name = format!("c{}", self.serial());
        let id = container_id(&name);
        let ports = (0..self.below(4)).map(|_| self.port()).collect();
        self.ports.insert(id.clone(), ports);
        let any = File::open("/dev/null").unwrap();
        self.namespaces.insert(id, Netns(Arc::new(any.into())));
        let at = self.below(self.model.networks.len());
        self.join(&name, at, effects);
    }

    fn connect(&mut self, effects: &mut Effects) {
        let Some(name) = self.some_container(effects) else {
            return;
        };
        let at = self.below(self.model.networks.len());
        let network = &self.model.networks[at].id;
        let mut endpoints = self.model.endpoints.iter();
        let is_new = endpoints.all(|e| e.container_name != name || e.network_id != *network);
        if is_new && !effects.left.contains(&name) {
            self.join(&name, at, effects);
        }
    }

    fn join(&mut self, container: &str, at: usize, effects: &mut Effects) {
        let network = self.model.networks[at].clone();
        let n = self.serial();
        let mine = self
            .model
            .endpoints
            .iter()
            .filter(|e| e.container_name == container);
        let taken: HashSet<String> = mine.map(|e| e.interface.clone()).collect();
        add_endpoint(&mut self.model, container, &network.name, &[]);
        let newest = self.model.endpoints.last_mut().unwrap();
        newest.id = format!("{n:010x}{:054}", 0);
        newest.host_interface = netmgr::plan::host_interface(&newest.id);
        newest.interface = (0..)
            .map(|n| format!("eth{n}"))
            .find(|name| !taken.contains(name))
            .unwrap();
        newest.aliases = vec![format!("alias{n}")];
        newest.address6 = network.v6.map(|v6| {
            let net: u128 = v6.subnet.network().into();
            (net + 16 + u128::from(n)).into()
        });
        effects
            .edits
            .push(format!("connect {container} to {}", network.name));
    }

    /// Its namespace lives on, even if this was its last network.
    fn disconnect(&mut self, effects: &mut Effects) {
        let dying = &effects.dying;
        let free: Vec<usize> = (0..self.model.endpoints.len())
            .filter(|at| !dying.contains(&self.model.endpoints[*at].container_id))
            .collect();
        if free.is_empty() {
            return;
        }
        let at = free[self.below(free.len())];
        let gone = self.model.endpoints.remove(at);
        effects.left.push(gone.container_name.clone());
        effects.edits.push(format!(
            "disconnect {} from {}",
            gone.container_name, gone.network_id
        ));
    }

    fn stop_container(&mut self, effects: &mut Effects) {
        let Some(name) = self.some_container(effects) else {
            return;
        };
        let id = container_id(&name);
        let by_kernel = self.chance(5);
        let (gone, stay) = std::mem::take(&mut self.model.endpoints)
            .into_iter()
            .partition::<Vec<Endpoint>, _>(|e| e.container_id == id);
        self.model.endpoints = stay;
        self.ports.remove(&id);
        if by_kernel {
            effects.by_kernel.extend(gone.into_iter().map(|e| e.id));
            effects.dying.push(id);
        }
        effects
            .edits
            .push(format!("stop {name}, by kernel: {by_kernel}"));
    }

    fn some_container(&mut self, effects: &Effects) -> Option<String> {
        let running: BTreeSet<&str> = self
            .model
            .endpoints
            .iter()
            .filter(|e| !effects.dying.contains(&e.container_id))
            .map(|e| e.container_name.as_str())
            .collect();
        let names: Vec<String> = running.into_iter().map(str::to_owned).collect();
        match names.len() {
            0 => None,
            count => Some(names[self.below(count)].clone()),
        }
    }

    fn port(&mut self) -> PortMap {
        // Far enough from the next one's for the longest.
        let first = 200 * self.serial();
        let (count, listener) = [(1, false), (1, false), (3, false), (150, true)][self.below(4)];
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp][self.below(3)];
        let ips = [
            None,
            Some("0.0.0.0"),
            Some("::"),
            Some("192.0.2.1"),
            Some("127.0.0.1"),
            Some("::1"),
        ];
        let ip = ips[self.below(ips.len())];
        let container = [80, 85, first][self.below(3)];
        PortMap {
            listener: listener.then_some(first),
            ..map(ip, 1000 + first, container, count, protocol)
        }
    }
}

/// The interfaces of a kernel that is as the model says.
pub fn links(model: &Model, namespaces: &HashMap<String, Netns>) -> BTreeMap<String, Link> {
    let mut links = BTreeMap::new();
    for network in &model.networks {
        let gateway6 = network.v6.map(|v6| IpAddr::V6(v6.gateway));
        let addresses = gateway6.into_iter().chain([IpAddr::V4(network.gateway)]);
        links.insert(network.bridge.clone(), Link::Bridge(addresses.collect()));
    }
    for endpoint in &model.endpoints {
        let network = model.network(&endpoint.network_id).unwrap();
        let fd = namespaces[&endpoint.container_id].0.as_raw_fd();
        let veth = Link::Veth {
            bridge: Some(network.bridge.clone()),
            isolated: !network.icc,
            peer: (fd, endpoint.interface.clone()),
        };
        links.insert(endpoint.host_interface.clone(), veth);
    }
    links
}

/// What a running container must see.
pub fn namespace(model: &Model, container_id: &str) -> Namespace {
    let mut namespace = Namespace::default();
    for endpoint in model
        .endpoints
        .iter()
        .filter(|e| e.container_id == container_id)
    {
        let network = model.network(&endpoint.network_id).unwrap();
        let v4 = (IpAddr::V4(endpoint.address), network.subnet.prefix_len());
        let v6 = endpoint.address6.zip(network.v6);
        let v6 = v6.map(|(address, v6)| (IpAddr::V6(address), v6.subnet.prefix_len()));
        let interface = Interface {
            mac: endpoint.mac,
            addresses: [v4].into_iter().chain(v6).collect(),
        };
        namespace
            .interfaces
            .insert(endpoint.interface.clone(), interface);
    }
    let primary = model
        .primary(container_id)
        .map(|e| (e, model.network(&e.network_id).unwrap()));
    if let Some((endpoint, network)) = primary.filter(|(_, network)| !network.internal) {
        let by = |gateway: Ipv4Addr| (endpoint.interface.clone(), gateway);
        let by6 = |gateway: Ipv6Addr| (endpoint.interface.clone(), gateway);
        namespace.default4 = Some(by(network.gateway));
        namespace.default6 = network.v6.map(|v6| by6(v6.gateway));
    }
    namespace
}

/// The runs of host ports that are kept from ephemeral use.
pub fn reserved(model: &Model) -> Vec<(u16, u16)> {
    let maps = model.endpoints.iter().flat_map(|e| &e.ports);
    let long = maps.filter(|map| map.count > netmgr::ports::LONGEST_BOUND);
    let runs: BTreeSet<(u16, u16)> = long
        .map(|map| (map.host_port, map.host_port + map.count - 1))
        .collect();
    runs.into_iter().collect()
}
