//! What an edit asks of the host: its interfaces, its routes, its ports. Tests put a host of their own here.

use ipnet::{IpNet, Ipv4Net};

use crate::error::Error;
use crate::model::{PortMap, PortRequest};
use crate::ports::{Held, Holding};
use crate::{ipam, kernel, ports};

/// A run of host ports, and the sockets that keep it ours.
pub(super) type Hold = (PortMap, Vec<Held>);

pub(super) struct Host {
    /// Names of all interfaces.
    pub(super) interfaces: fn() -> Result<Vec<String>, Error>,
    /// What the host has an address in or a route to; automatic subnets stay clear of it.
    pub(super) routes: fn() -> Result<Vec<Ipv4Net>, Error>,
    /// The interface whose address or route a subnet would cover, or that covers the subnet.
    pub(super) overlapping: fn(IpNet) -> Result<Option<String>, Error>,
    pub(super) hold: fn(&PortRequest, Holding<'_>) -> Result<Hold, Error>,
}

impl Host {
    /// The one that we run on.
    pub(super) const THIS: Host = Host {
        interfaces: || {
            let links = kernel::links::list()?;
            Ok(links.into_iter().map(|link| link.name).collect())
        },
        routes: || Ok(kernel::links::routes()?),
        overlapping,
        hold: |request, holding| ports::hold(request, holding),
    };
}

// MERGE: `kernel::links::overlapping(subnet)` takes the place of this body; it sees IPv6 and names a route's interface.
fn overlapping(subnet: IpNet) -> Result<Option<String>, Error> {
    let links = kernel::links::list()?;
    let holder = links.into_iter().find(|link| {
        let mut addresses = link.addresses.iter();
        addresses.any(|address| ipam::overlaps_route(subnet, address.trunc().into()))
    });
    if let Some(link) = holder {
        return Ok(Some(format!("interface {}", link.name)));
    }
    let route = kernel::links::routes()?
        .into_iter()
        .find(|route| ipam::overlaps_route(subnet, (*route).into()));
    Ok(route.map(|route| format!("the route to {route}")))
}
