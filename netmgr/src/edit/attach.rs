//! Containers join networks and leave them.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Edit, random_id};
use crate::change::{AttachRequest, Attachment, VethRemoval};
use crate::error::Error;
use crate::ipam::{self, Subnet};
use crate::model::{Endpoint, Family, Network};
use crate::plan;
use crate::proxy::Targets;
use crate::store::{self, Occupant};

/// `BR_MAX_PORTS` of the kernel is 1,024, and port number 0 is not used.
const MAX_ENDPOINTS: usize = 1023;

impl Edit<'_> {
    /// Allocates addresses, holds the host ports, and enters the endpoint into the model.
    ///
    /// Published ports lead to the container's primary endpoint ([`crate::Model::primary`]), which need not be this one: they
    /// follow by themselves when a network is joined or left.
    pub fn attach(&mut self, request: &AttachRequest) -> Result<Attachment, Error> {
        self.default_network()?;
        let network = store::find_network(self.tx, &request.network)?;
        check_default(&network, request)?;
        let occupants = store::occupants(self.tx, &network.id)?;
        if occupants
            .iter()
            .any(|o| o.container_id == request.container_id)
        {
            return Err(Error::AlreadyAttached {
                container: request.container_name.clone(),
                network: network.name,
            });
        }
        if occupants.len() >= MAX_ENDPOINTS {
            return Err(Error::NetworkFull(network.name));
        }
        let chosen = Chosen::of(&network, &occupants, request)?;
        let (maps, forwards) = self.publish(
            request,
            &network,
            Targets {
                v4: chosen.address,
                v6: chosen.address6,
            },
        )?;
        let id = random_id();
        let endpoint = Endpoint {
            host_interface: plan::host_interface(&id),
            id,
            network_id: network.id.clone(),
            container_id: request.container_id.clone(),
            container_name: request.container_name.clone(),
            address: chosen.address,
            address6: chosen.address6,
            mac: chosen.mac,
            interface: self.free_interface(&request.container_id, &network)?,
            aliases: deduplicated(&request.aliases),
            ports: Vec::new(),
        };
        store::insert_endpoint(self.tx, &endpoint)?;
        store::insert_ports(self.tx, &request.container_id, &maps)?;
        self.known_netns(&request.container_id, request.netns.clone());
        self.effects.needs_kernel = true;
        let there = store::endpoints_of(self.tx, &request.container_id)?;
        Ok(Attachment {
            network,
            endpoint: there
                .into_iter()
                .find(|e| e.id == endpoint.id)
                .unwrap_or(endpoint),
            forwards,
        })
    }

    /// `eth0`, or the next that no other network of this container has.
    fn free_interface(&self, container_id: &str, network: &Network) -> Result<String, Error> {
        let there = store::endpoints_of(self.tx, container_id)?;
        let prefix = network.interface_prefix();
        let name = (0..)
            .map(|n| format!("{prefix}{n}"))
            .find(|name| there.iter().all(|e| e.interface != *name));
        Ok(name.unwrap_or_default())
    }

    /// Takes all endpoints of a container out of the model, and its published ports. A container without endpoints is no
    /// error.
    pub fn detach(&mut self, container_id: &str, veth: VethRemoval) -> Result<(), Error> {
        for endpoint in store::endpoints_of(self.tx, container_id)? {
            self.take_out(&endpoint, veth)?;
        }
        store::delete_ports(self.tx, container_id)
    }

    /// Takes a container out of one network, given by name, ID or unique prefix; returns the endpoint that it was.
    ///
    /// Its published ports stay its own: they lead to what is its primary endpoint then, and wait if it has none.
    pub fn detach_from(
        &mut self,
        container_id: &str,
        network: &str,
        veth: VethRemoval,
    ) -> Result<Endpoint, Error> {
        let network = store::find_network(self.tx, network)?;
        let there = store::endpoints_of(self.tx, container_id)?;
        let Some(endpoint) = there.into_iter().find(|e| e.network_id == network.id) else {
            return Err(Error::NotConnected {
                container: container_id.to_owned(),
                network: network.name,
            });
        };
        self.take_out(&endpoint, veth)?;
        Ok(endpoint)
    }

    fn take_out(&mut self, endpoint: &Endpoint, veth: VethRemoval) -> Result<(), Error> {
        store::delete_endpoint(self.tx, &endpoint.id)?;
        if veth == VethRemoval::ByKernel {
            self.effects.by_kernel.insert(endpoint.id.clone());
        }
        Ok(())
    }
}

/// Docker's limits of the default network, kept so that what works here works there.
fn check_default(network: &Network, request: &AttachRequest) -> Result<(), Error> {
    if network.name != Network::DEFAULT {
        return Ok(());
    }
    if request.address.is_some() || request.address6.is_some() {
        return Err(Error::AddressOnDefault);
    }
    match request.aliases.is_empty() {
        true => Ok(()),
        false => Err(Error::AliasOnDefault),
    }
}

/// The addresses of a new endpoint.
struct Chosen {
    address: Ipv4Addr,
    address6: Option<Ipv6Addr>,
    mac: [u8; 6],
}

impl Chosen {
    fn of(
        network: &Network,
        occupants: &[Occupant],
        request: &AttachRequest,
    ) -> Result<Chosen, Error> {
        let mut taken: HashSet<Ipv4Addr> = occupants.iter().map(|o| o.address).collect();
        let mut taken6: HashSet<Ipv6Addr> = occupants.iter().filter_map(|o| o.address6).collect();
        taken.insert(network.gateway);
        taken6.extend(network.v6.map(|v6| v6.gateway));
        for (_, address) in &network.aux_addresses {
            match address {
                IpAddr::V4(address) => taken.insert(*address),
                IpAddr::V6(address) => taken6.insert(*address),
            };
        }
        let exhausted = |family| Error::AddressesExhausted {
            family,
            name: network.name.clone(),
            id: network.id.clone(),
        };
        let address = match request.address {
            Some(asked) => check_asked(Some(network.subnet), asked, &taken)?,
            None => ipam::lowest_free(network.subnet, network.ip_range, &taken)
                .ok_or_else(|| exhausted(Family::V4))?,
        };
        let address6 = match (request.address6, network.v6) {
            (Some(asked), v6) => Some(check_asked(v6.map(|v6| v6.subnet), asked, &taken6)?),
            (None, Some(v6)) => Some(
                ipam::lowest_free(v6.subnet, v6.ip_range, &taken6)
                    .ok_or_else(|| exhausted(Family::V6))?,
            ),
            (None, None) => None,
        };
        Ok(Chosen {
            address,
            address6,
            mac: choose_mac(network, occupants, request.mac, address)?,
        })
    }
}

fn check_asked<S: Subnet>(
    subnet: Option<S>,
    asked: S::Address,
    taken: &HashSet<S::Address>,
) -> Result<S::Address, Error> {
    let Some(subnet) = subnet.filter(|subnet| subnet.holds(asked)) else {
        return Err(Error::AddressOutsideSubnets(asked.into()));
    };
    if !subnet.is_host(asked) {
        return Err(Error::AddressNotHost {
            address: asked.into(),
            subnet: subnet.into(),
        });
    }
    match taken.contains(&asked) {
        true => Err(Error::AddressInUse(asked.into())),
        false => Ok(asked),
    }
}

/// The bridge's own is made of the gateway's address in the same way.
fn choose_mac(
    network: &Network,
    occupants: &[Occupant],
    asked: Option<[u8; 6]>,
    address: Ipv4Addr,
) -> Result<[u8; 6], Error> {
    let bridge = ipam::mac(network.gateway);
    let in_use = |mac: [u8; 6]| mac == bridge || occupants.iter().any(|o| o.mac == mac);
    let Some(mac) = asked else {
        let usual = ipam::mac(address);
        // Somebody has asked for the one that would be ours: any other that is locally administered.
        let others =
            (0..=u8::MAX).map(|second| [usual[0], second, usual[2], usual[3], usual[4], usual[5]]);
        let free = [usual].into_iter().chain(others).find(|mac| !in_use(*mac));
        return free.ok_or(Error::MacInUse {
            mac: usual,
            network: network.name.clone(),
        });
    };
    // The lowest bit of the first byte marks a group (IEEE 802).
    if mac == [0; 6] || mac[0] & 1 == 1 {
        return Err(Error::Mac(mac));
    }
    match in_use(mac) {
        true => Err(Error::MacInUse {
            mac,
            network: network.name.clone(),
        }),
        false => Ok(mac),
    }
}

/// In the order given.
fn deduplicated(aliases: &[String]) -> Vec<String> {
    let mut seen = HashSet::new();
    let mut kept = aliases.to_vec();
    kept.retain(|alias| seen.insert(alias.clone()));
    kept
}
