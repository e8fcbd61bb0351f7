//! Published ports: chosen, checked against the tables and held on the host.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Edit;
use super::host::Hold;
use crate::change::AttachRequest;
use crate::error::{Error, ErrorKind};
use crate::model::{Endpoint, Network, PortMap, PortRequest};
use crate::proxy::Forward;
use crate::store;

/// How often an ephemeral port may turn out to be another container's, whose holder was killed or holds it without a
/// socket.
const ATTEMPTS: usize = 64;

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
        address: Ipv4Addr,
    ) -> Result<(Vec<PortMap>, Vec<Forward>), Error> {
        if request.ports.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let primary = self.primary(&request.container_id)?;
        let (network, target) = match &primary {
            Some((network, endpoint)) if comes_before(network, joined) => {
                (network, endpoint.address)
            }
            _ => (joined, address),
        };
        if network.internal {
            return Err(Error::PortsOnInternal(network.name.clone()));
        }
        self.hold_ports(&request.ports, network.host_binding(), target)
    }

    /// The tables are asked first: a socket alone does not know that a port is published when its holder was killed.
    fn hold_ports(
        &self,
        requests: &[PortRequest],
        binding: Option<IpAddr>,
        target: Ipv4Addr,
    ) -> Result<(Vec<PortMap>, Vec<Forward>), Error> {
        let mut maps: Vec<PortMap> = Vec::new();
        let mut forwards = Vec::new();
        for request in requests {
            check_range(request)?;
            let bound = PortRequest {
                host_ip: request.host_ip.or(binding),
                ..*request
            };
            let (map, held) = match (bound.host_port, bound.host_port_last) {
                (None, _) => self.hold_any(&bound, &maps)?,
                (Some(first), Some(last)) => self.hold_one_of(&bound, first, last, &maps)?,
                (Some(first), None) => self.hold_at(&bound, first, &maps)?,
            };
            maps.push(map);
            forwards.extend(held.into_iter().map(|held| Forward {
                protocol: held.protocol,
                listener: held.socket,
                target: SocketAddr::new(target.into(), held.container_port),
            }));
        }
        Ok((maps, forwards))
    }

    fn hold_at(
        &self,
        request: &PortRequest,
        first: u16,
        earlier: &[PortMap],
    ) -> Result<Hold, Error> {
        self.refuse_allocated(&port_map(request, first), earlier)?;
        let exact = PortRequest {
            host_port: Some(first),
            host_port_last: None,
            ..*request
        };
        (self.host.hold)(&exact)
    }

    /// The lowest free port of a choice, as Docker takes it.
    fn hold_one_of(
        &self,
        request: &PortRequest,
        first: u16,
        last: u16,
        earlier: &[PortMap],
    ) -> Result<Hold, Error> {
        for port in first..=last {
            match self.hold_at(request, port, earlier) {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                result => return result,
            }
        }
        Err(Error::PortsAllocated {
            ip: shown(request.host_ip),
            first,
            last,
        })
    }

    fn hold_any(&self, request: &PortRequest, earlier: &[PortMap]) -> Result<Hold, Error> {
        // Kept until the end, so that the kernel does not offer them again.
        let mut passed_over = Vec::new();
        loop {
            let (map, held) = (self.host.hold)(request)?;
            match self.refuse_allocated(&map, earlier) {
                Ok(()) => return Ok((map, held)),
                Err(error) if passed_over.len() >= ATTEMPTS => return Err(error),
                Err(_) => passed_over.push(held),
            }
        }
    }

    fn refuse_allocated(&self, map: &PortMap, earlier: &[PortMap]) -> Result<(), Error> {
        let taken = match store::clash(map, earlier) {
            Some(port) => Some(port),
            None => store::allocated_port(self.tx, map)?,
        };
        match taken {
            None => Ok(()),
            Some(port) => Err(Error::PortAllocated {
                ip: shown(map.host_ip),
                port,
            }),
        }
    }
}

/// The order of [`crate::Model::primary`].
fn comes_before(a: &Network, b: &Network) -> bool {
    (a.internal, &a.name) < (b.internal, &b.name)
}

fn shown(host_ip: Option<IpAddr>) -> IpAddr {
    host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
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

fn port_map(request: &PortRequest, host_port: u16) -> PortMap {
    PortMap {
        protocol: request.protocol,
        host_ip: request.host_ip,
        host_port,
        container_port: request.container_port,
        count: request.count,
        listener: None,
    }
}
