//! What an edit asks of the host: its interfaces, its routes, its ports. Tests put a host of their own here.

use ipnet::{IpNet, Ipv4Net};

use crate::error::Error;
use crate::model::{PortMap, PortRequest};
use crate::ports::{Held, Holding};
use crate::{kernel, ports};

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
        overlapping: |subnet| Ok(kernel::links::overlapping(subnet)?),
        hold: ports::hold,
    };
}
