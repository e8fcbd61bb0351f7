//! What may be done to the model inside [`crate::change`]: create and remove networks, attach and detach containers.
//!
//! Writes to the tables and holds host ports; the kernel's links and rules follow afterwards, from the difference.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use rusqlite::Transaction;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::change::{
    AttachRequest, Attachment, Firewall, Netns, NetworkRequest, Settings, VethRemoval,
};
use crate::error::Error;
use crate::model::{
    self, Endpoint, Network, OPTION_BRIDGE, OPTION_ICC, OPTION_MASQUERADE, OPTION_MTU, PortMap,
    PortRequest,
};
use crate::ports::Holding;
use crate::proxy::{Forward, Targets};
use crate::{ipam, kernel, plan, ports, store};

/// Networks that Docker has from the start. We keep only the first in the tables; the others have no bridge.
const PREDEFINED: [&str; 3] = [Network::DEFAULT, "host", "none"];

/// `BR_MAX_PORTS` of the kernel is 1,024, and port number 0 is not used.
const MAX_ENDPOINTS: usize = 1023;

/// `IFNAMSIZ` less the closing NUL.
const MAX_INTERFACE: usize = 15;

/// An edit of the model under way: the lock is held and a transaction is open.
pub struct Edit<'a> {
    settings: &'a Settings,
    tx: &'a Transaction<'a>,
    pub(crate) effects: Effects,
}

/// What an edit leaves for the plan besides the tables.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// By container ID: of every container whose links change and whose namespace lives.
    pub(crate) netns: HashMap<String, Netns>,
    /// IDs of endpoints whose veth goes with its namespace.
    pub(crate) by_kernel: HashSet<String>,
    /// The edit is of no use unless bridges and rules are in place.
    pub(crate) needs_kernel: bool,
}

impl<'a> Edit<'a> {
    pub(crate) fn new(settings: &'a Settings, tx: &'a Transaction<'a>) -> Edit<'a> {
        Edit {
            settings,
            tx,
            effects: Effects::default(),
        }
    }

    /// The open transaction, for the caller's own tables: they commit together with ours.
    pub fn transaction(&self) -> &Transaction<'a> {
        self.tx
    }

    /// The default network, entered into the tables on first use. That alone makes no bridge: what needs it does.
    pub fn default_network(&mut self) -> Result<Network, Error> {
        if let Some(network) = store::network_named(self.tx, Network::DEFAULT)? {
            return Ok(network);
        }
        let taken = self.taken_subnets()?;
        let subnet =
            ipam::default_subnet(self.settings.profile, &taken).ok_or(Error::PoolExhausted)?;
        let network = Network {
            id: random_id(),
            name: Network::DEFAULT.to_owned(),
            bridge: self.settings.profile.default_bridge().to_owned(),
            subnet,
            gateway: ipam::gateway(subnet, None)?,
            ip_range: None,
            v6: None,
            aux_addresses: Vec::new(),
            internal: false,
            icc: true,
            created: now(),
            labels: Vec::new(),
            options: Vec::new(),
        };
        store::insert_network(self.tx, &network)?;
        Ok(network)
    }

    /// Enters a new network into the model.
    pub fn create_network(&mut self, request: &NetworkRequest) -> Result<Network, Error> {
        if PREDEFINED.contains(&request.name.as_str()) {
            return Err(Error::CreatePredefined(request.name.clone()));
        }
        if !is_name(&request.name) {
            return Err(Error::NetworkName(request.name.clone()));
        }
        if store::network_named(self.tx, &request.name)?.is_some() {
            return Err(Error::NetworkExists(request.name.clone()));
        }
        let icc = bool_option(request, OPTION_ICC)?.unwrap_or(true);
        bool_option(request, OPTION_MASQUERADE)?;
        check_mtu(request)?;
        // The default network comes first: its rules stand below all others.
        self.default_network()?;
        let subnet = self.subnet_for(request)?;
        let gateway = ipam::gateway(subnet, request.gateway)?;
        let id = random_id();
        let bridge = self.bridge_for(request, &id)?;
        let network = Network {
            id,
            name: request.name.clone(),
            bridge,
            subnet,
            gateway,
            ip_range: None,
            v6: None,
            aux_addresses: Vec::new(),
            internal: request.internal,
            icc,
            created: now(),
            labels: request.labels.clone(),
            options: request.options.clone(),
        };
        store::insert_network(self.tx, &network)?;
        self.effects.needs_kernel = true;
        Ok(network)
    }

    fn subnet_for(&self, request: &NetworkRequest) -> Result<ipnet::Ipv4Net, Error> {
        let Some(subnet) = request.subnet else {
            if request.gateway.is_some() {
                return Err(Error::GatewayWithoutSubnet);
            }
            let taken = self.taken_subnets()?;
            return ipam::next_subnet(self.settings.profile, &taken).ok_or(Error::PoolExhausted);
        };
        ipam::check_subnet(subnet)?;
        // What the host has besides is the user's own business here, as in Docker.
        let networks = store::networks(self.tx)?;
        match networks.iter().any(|n| ipam::overlaps(&n.subnet, &subnet)) {
            true => Err(Error::SubnetOverlaps),
            false => Ok(subnet),
        }
    }

    fn bridge_for(&self, request: &NetworkRequest, id: &str) -> Result<String, Error> {
        let Some(name) = model::option(&request.options, OPTION_BRIDGE) else {
            let prefix = self.settings.profile.bridge_prefix();
            return Ok(format!("{prefix}{}", &id[..12]));
        };
        let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if name.is_empty()
            || name.len() > MAX_INTERFACE
            || !name.bytes().all(valid)
            || name.starts_with(['.', '-'])
        {
            return Err(Error::BridgeName(name.to_owned()));
        }
        if store::networks(self.tx)?.iter().any(|n| n.bridge == name) {
            return Err(Error::BridgeTaken {
                network: request.name.clone(),
                bridge: name.to_owned(),
            });
        }
        if kernel::links::list()?.iter().any(|link| link.name == name) {
            return Err(Error::InterfaceExists {
                network: request.name.clone(),
                bridge: name.to_owned(),
            });
        }
        Ok(name.to_owned())
    }

    /// Subnets of our networks, and what the host has an address in or a route to.
    fn taken_subnets(&self) -> Result<Vec<ipnet::Ipv4Net>, Error> {
        let mut taken: Vec<_> = store::networks(self.tx)?.iter().map(|n| n.subnet).collect();
        taken.extend(kernel::links::routes()?);
        Ok(taken)
    }

    /// Takes a network, by name, ID or unique prefix, out of the model; returns it.
    pub fn remove_network(&mut self, name: &str) -> Result<Network, Error> {
        if PREDEFINED.contains(&name) {
            return Err(Error::RemovePredefined(name.to_owned()));
        }
        let network = store::find_network(self.tx, name)?;
        if network.name == Network::DEFAULT {
            return Err(Error::RemovePredefined(network.name));
        }
        if !store::endpoints_on(self.tx, &network.id)?.is_empty() {
            return Err(Error::ActiveEndpoints {
                name: network.name,
                id: network.id,
            });
        }
        store::delete_network(self.tx, &network.id)?;
        Ok(network)
    }

    /// Allocates an address, holds the host ports, and enters the endpoint into the model.
    pub fn attach(&mut self, request: &AttachRequest) -> Result<Attachment, Error> {
        self.default_network()?;
        let network = store::find_network(self.tx, &request.network)?;
        if network.internal && !request.ports.is_empty() {
            return Err(Error::PortsOnInternal(network.name));
        }
        let others = store::endpoints_on(self.tx, &network.id)?;
        if others
            .iter()
            .any(|e| e.container_id == request.container_id)
        {
            return Err(Error::AlreadyAttached {
                container: request.container_name.clone(),
                network: network.name,
            });
        }
        if others.len() >= MAX_ENDPOINTS {
            return Err(Error::NetworkFull(network.name));
        }
        let used: HashSet<Ipv4Addr> = others.iter().map(|e| e.address).collect();
        let address =
            ipam::lowest_free(network.subnet, network.gateway, &used).ok_or_else(|| {
                Error::AddressesExhausted {
                    name: network.name.clone(),
                    id: network.id.clone(),
                }
            })?;
        let (maps, forwards) = self.hold_ports(
            &request.ports,
            Targets {
                v4: address,
                v6: None,
            },
        )?;
        let id = random_id();
        let endpoint = Endpoint {
            host_interface: plan::host_interface(&id),
            id,
            network_id: network.id.clone(),
            container_id: request.container_id.clone(),
            container_name: request.container_name.clone(),
            address,
            address6: None,
            mac: ipam::mac(address),
            interface: self.free_interface(&request.container_id)?,
            aliases: request.aliases.clone(),
            ports: maps,
        };
        store::insert_endpoint(self.tx, &endpoint)?;
        self.effects
            .netns
            .insert(request.container_id.clone(), request.netns.clone());
        self.effects.needs_kernel = true;
        Ok(Attachment {
            network,
            endpoint,
            forwards,
        })
    }

    /// `eth0`, or the next that no other network of this container has.
    fn free_interface(&self, container_id: &str) -> Result<String, Error> {
        let there = store::endpoints_of(self.tx, container_id)?;
        let name = (0..)
            .map(|n| format!("eth{n}"))
            .find(|name| there.iter().all(|e| e.interface != *name));
        Ok(name.unwrap_or_default())
    }

    fn hold_ports(
        &self,
        requests: &[PortRequest],
        targets: Targets,
    ) -> Result<(Vec<PortMap>, Vec<Forward>), Error> {
        let mut maps: Vec<PortMap> = Vec::new();
        let mut forwards = Vec::new();
        for request in requests {
            check_range(request)?;
            let (map, held) = ports::hold(
                request,
                Holding {
                    redirects: self.settings.firewall != Firewall::None,
                    allocated: &|map| match store::clash(map, &maps) {
                        Some(port) => Ok(Some(port)),
                        None => store::allocated_port(self.tx, map),
                    },
                },
            )?;
            maps.push(map);
            forwards.extend(held.into_iter().map(|held| held.forward(targets)));
        }
        Ok((maps, forwards))
    }

    /// Takes all endpoints of a container out of the model. A container without endpoints is no error.
    pub fn detach(&mut self, container_id: &str, veth: VethRemoval) -> Result<(), Error> {
        for endpoint in store::endpoints_of(self.tx, container_id)? {
            store::delete_endpoint(self.tx, &endpoint.id)?;
            if veth == VethRemoval::ByKernel {
                self.effects.by_kernel.insert(endpoint.id);
            }
        }
        Ok(())
    }
}

fn check_range(request: &PortRequest) -> Result<(), Error> {
    let fits = |first: u16| {
        let end = u32::from(first) + u32::from(request.count);
        first > 0 && request.count > 0 && end <= 65536
    };
    let firsts = [
        Some(request.container_port),
        request.host_port,
        request.host_port_last,
    ];
    match firsts.into_iter().flatten().find(|first| !fits(*first)) {
        None => Ok(()),
        Some(first) => Err(Error::PortRange {
            first,
            count: request.count,
        }),
    }
}

fn bool_option(request: &NetworkRequest, key: &'static str) -> Result<Option<bool>, Error> {
    let Some(value) = model::option(&request.options, key) else {
        return Ok(None);
    };
    let parsed = model::parse_bool(value).ok_or_else(|| Error::OptionValue {
        key,
        value: value.to_owned(),
    })?;
    Ok(Some(parsed))
}

/// 68 is the least that IPv4 may be given (RFC 791); 65,535 is a veth's most.
fn check_mtu(request: &NetworkRequest) -> Result<(), Error> {
    match model::option(&request.options, OPTION_MTU) {
        Some(value)
            if !value
                .parse()
                .is_ok_and(|mtu: u32| (68..=65535).contains(&mtu)) =>
        {
            Err(Error::OptionValue {
                key: OPTION_MTU,
                value: value.to_owned(),
            })
        }
        _ => Ok(()),
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn random_id() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn now() -> String {
    let now = OffsetDateTime::now_utc();
    now.format(&Rfc3339)
        .expect("a year of four digits has an RFC 3339 form")
}
