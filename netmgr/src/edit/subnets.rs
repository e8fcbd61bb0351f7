//! The subnets of a new network: asked for and checked, or chosen.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Edit;
use crate::change::NetworkRequest;
use crate::error::Error;
use crate::ipam::{self, Subnet};
use crate::model::V6;
use crate::store::{self, Taken};

/// How many subnets of our own IPv6 prefix may be in use on the host before we give up: each is asked for by itself.
const ATTEMPTS: usize = 16;

/// Where a network's addresses lie.
pub(super) struct Addressing {
    pub(super) subnet: Ipv4Net,
    pub(super) gateway: Ipv4Addr,
    pub(super) v6: Option<V6>,
}

impl Edit<'_> {
    pub(super) fn default_subnet(&self) -> Result<(Ipv4Net, Ipv4Addr), Error> {
        let pools = self.pools()?;
        let taken = self.in_use(&store::taken(self.tx)?)?;
        let subnet = ipam::default_subnet(self.settings.profile, pools, &taken)
            .ok_or(Error::PoolExhausted)?;
        Ok((subnet, ipam::gateway(subnet, None, &HashSet::new())?))
    }

    pub(super) fn addressing_for(&self, request: &NetworkRequest) -> Result<Addressing, Error> {
        let asked = Asked::of(request);
        if asked.without_subnet {
            return Err(Error::GatewayWithoutSubnet);
        }
        if asked.v6 && !request.ipv6 {
            return Err(Error::Ipv6Off);
        }
        let aux = Aux::of(request)?;
        let taken = &store::taken(self.tx)?;
        let subnet = match request.subnet {
            Some(subnet) => self.check_asked(subnet, taken.iter().map(|t| (t, t.subnet)))?,
            None => self.next_subnet(taken)?,
        };
        let gateway = ipam::gateway(subnet, request.gateway, &aux.v4)?;
        if let Some(range) = request.ip_range {
            ipam::check_range(subnet, range)?;
        }
        let v6 = match request.ipv6 {
            false => None,
            true => Some(self.v6_for(request, taken, &aux)?),
        };
        aux.check(subnet, v6)?;
        Ok(Addressing {
            subnet,
            gateway,
            v6,
        })
    }

    fn v6_for(&self, request: &NetworkRequest, taken: &[Taken], aux: &Aux) -> Result<V6, Error> {
        let others = taken.iter().filter_map(|t| Some((t, t.subnet6?)));
        let subnet = match request.subnet6 {
            Some(subnet) => self.check_asked(subnet, others)?,
            None => self.next_unique_local(others.map(|(_, subnet)| subnet).collect())?,
        };
        if let Some(range) = request.ip_range6 {
            ipam::check_range(subnet, range)?;
        }
        Ok(V6 {
            subnet,
            gateway: ipam::gateway(subnet, request.gateway6, &aux.v6)?,
            ip_range: request.ip_range6,
        })
    }

    /// Ours first: their bridges are among the host's interfaces too, and a network's name says more.
    fn check_asked<'t, S: Subnet>(
        &self,
        subnet: S,
        mut others: impl Iterator<Item = (&'t Taken, S)>,
    ) -> Result<S, Error> {
        ipam::check_subnet(subnet)?;
        if let Some((other, theirs)) = others.find(|(_, theirs)| ipam::overlap(*theirs, subnet)) {
            return Err(Error::SubnetOverlaps {
                network: other.name.clone(),
                subnet: theirs.into(),
            });
        }
        match (self.host.overlapping)(subnet.into())? {
            Some(interface) => Err(Error::SubnetOnHost {
                subnet: subnet.into(),
                interface,
            }),
            None => Ok(subnet),
        }
    }

    fn next_subnet(&self, taken: &[Taken]) -> Result<Ipv4Net, Error> {
        let pools = self.pools()?;
        let in_use = self.in_use(taken)?;
        ipam::next_subnet(self.settings.profile, pools, &in_use).ok_or(Error::PoolExhausted)
    }

    fn pools(&self) -> Result<&[crate::Pool], Error> {
        let pools = &self.settings.pools;
        pools.iter().try_for_each(ipam::check_pool)?;
        Ok(pools)
    }

    /// Subnets of our networks, and what the host has an address in or a route to.
    fn in_use(&self, taken: &[Taken]) -> Result<Vec<Ipv4Net>, Error> {
        let mut all = (self.host.routes)()?;
        all.retain(|route| ipam::is_in_use((*route).into()));
        all.extend(taken.iter().map(|other| other.subnet));
        Ok(all)
    }

    /// The lowest free /64 of the prefix that is this host's alone; the first network to need one makes the prefix.
    fn next_unique_local(&self, mut taken: Vec<Ipv6Net>) -> Result<Ipv6Net, Error> {
        let prefix = match store::unique_local(self.tx)? {
            Some(prefix) => prefix,
            None => {
                let prefix = ipam::unique_local(rand::random());
                store::enter_unique_local(self.tx, prefix)?;
                prefix
            }
        };
        let mut on_host = Error::UniqueLocalExhausted(prefix);
        for _ in 0..ATTEMPTS {
            let Some(subnet) = ipam::next_unique_local(prefix, &taken) else {
                return Err(Error::UniqueLocalExhausted(prefix));
            };
            let Some(interface) = (self.host.overlapping)(IpNet::V6(subnet))? else {
                return Ok(subnet);
            };
            taken.push(subnet);
            on_host = Error::SubnetOnHost {
                subnet: subnet.into(),
                interface,
            };
        }
        Err(on_host)
    }
}

/// What a request says of addresses without saying enough.
struct Asked {
    /// A gateway or a range, and no subnet for it to lie in.
    without_subnet: bool,
    /// Anything of IPv6.
    v6: bool,
}

impl Asked {
    fn of(request: &NetworkRequest) -> Asked {
        let inside = request.gateway.is_some() || request.ip_range.is_some();
        let inside6 = request.gateway6.is_some() || request.ip_range6.is_some();
        Asked {
            without_subnet: (inside && request.subnet.is_none())
                || (inside6 && request.subnet6.is_none()),
            v6: inside6 || request.subnet6.is_some(),
        }
    }
}

/// Auxiliary addresses, which somebody else on the network has.
struct Aux {
    v4: HashSet<Ipv4Addr>,
    v6: HashSet<Ipv6Addr>,
}

impl Aux {
    fn of(request: &NetworkRequest) -> Result<Aux, Error> {
        let gateways = [
            request.gateway.map(IpAddr::V4),
            request.gateway6.map(IpAddr::V6),
        ];
        let mut aux = Aux {
            v4: HashSet::new(),
            v6: HashSet::new(),
        };
        for (name, address) in &request.aux_addresses {
            let is_new = match address {
                IpAddr::V4(address) => aux.v4.insert(*address),
                IpAddr::V6(address) => aux.v6.insert(*address),
            };
            if !is_new || gateways.contains(&Some(*address)) {
                return Err(Error::AuxInUse {
                    name: name.clone(),
                    address: *address,
                });
            }
        }
        Ok(aux)
    }

    fn check(&self, subnet: Ipv4Net, v6: Option<V6>) -> Result<(), Error> {
        let outside = self.v4.iter().find(|address| !subnet.contains(*address));
        if let Some(address) = outside {
            return Err(Error::AuxOutsideSubnet((*address).into()));
        }
        let outside = self
            .v6
            .iter()
            .find(|address| v6.is_none_or(|v6| !v6.subnet.contains(*address)));
        match outside {
            Some(address) => Err(Error::AuxOutsideSubnet((*address).into())),
            None => Ok(()),
        }
    }
}
