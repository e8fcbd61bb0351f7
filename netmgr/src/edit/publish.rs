//! Published ports: chosen, checked against the tables and held on the host.

use std::net::IpAddr;

use super::Edit;
use crate::change::{AttachRequest, Firewall};
use crate::error::Error;
use crate::model::{Endpoint, Network, PortMap, PortRequest};
use crate::ports::Holding;
use crate::proxy::{Forward, Targets};
use crate::store;

impl Edit<'_> {
    /// The endpoint that carries a container's default routes, and its published ports unless its network is internal: as
    /// [`crate::Model::primary`], with its network.
    pub fn primary(&self, container_id: &str) -> Result<Option<(Network, Endpoint)>, Error> {
        let mut primary: Option<(Network, Endpoint)> = None;
        for endpoint in store::endpoints_of(self.tx, container_id)? {
            let network = store::find_network(self.tx, &endpoint.network_id)?;
            if primary
                .as_ref()
                .is_none_or(|(other, _)| comes_before(&network, other))
            {
                primary = Some((network, endpoint));
            }
        }
        Ok(primary)
    }

    /// Holds the ports of a container that is about to join a network under an address.
    pub(super) fn publish(
        &self,
        request: &AttachRequest,
        joined: &Network,
        joining: Targets,
    ) -> Result<(Vec<PortMap>, Vec<Forward>), Error> {
        if request.ports.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let primary = self.primary(&request.container_id)?;
        let (network, targets) = match &primary {
            Some((network, endpoint)) if comes_before(network, joined) => {
                (network, Targets::of(endpoint))
            }
            _ => (joined, joining),
        };
        if network.internal {
            return Err(Error::PortsOnInternal(network.name.clone()));
        }
        self.hold_ports(&request.ports, network.host_binding(), targets)
    }

    fn hold_ports(
        &self,
        requests: &[PortRequest],
        binding: Option<IpAddr>,
        targets: Targets,
    ) -> Result<(Vec<PortMap>, Vec<Forward>), Error> {
        let mut maps: Vec<PortMap> = Vec::new();
        let mut forwards = Vec::new();
        for request in requests {
            check_range(request)?;
            let bound = PortRequest {
                host_ip: request.host_ip.or(binding),
                ..*request
            };
            let holding = Holding {
                redirects: self.settings.firewall != Firewall::None,
                allocated: &|map| match store::clash(map, &maps) {
                    Some(port) => Ok(Some(port)),
                    None => store::allocated_port(self.tx, map),
                },
            };
            let (map, held) = (self.host.hold)(&bound, holding)?;
            maps.push(map);
            forwards.extend(held.into_iter().map(|held| held.forward(targets)));
        }
        Ok((maps, forwards))
    }
}

/// The order of [`crate::Model::primary`].
fn comes_before(a: &Network, b: &Network) -> bool {
    a.rank() < b.rank()
}

fn check_range(request: &PortRequest) -> Result<(), Error> {
    let fits = |first: u16| {
        let end = u32::from(first) + u32::from(request.count);
        first > 0 && request.count > 0 && end <= 65536
    };
    let is_choice = |last| request.count == 1 && request.host_port.is_some_and(|p| p <= last);
    let firsts = [Some(request.container_port), request.host_port];
    let wrong = firsts.into_iter().flatten().find(|first| !fits(*first));
    match (wrong, request.host_port_last) {
        (None, last) if last.is_none_or(is_choice) => Ok(()),
        (wrong, _) => Err(Error::PortRange {
            first: wrong.or(request.host_port).unwrap_or_default(),
            count: request.count,
        }),
    }
}
