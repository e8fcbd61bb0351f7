//! Reads the host's interfaces, addresses and routes, and removes an interface.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::kernel::Error;
use crate::kernel::netlink::Channel;

/// What an Ethernet link carries, and what a host without a default route gets.
const ETHERNET_MTU: u32 = 1500;

/// An interface of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// `bridge`, `veth` and so on; empty for a physical interface and for `lo`.
    pub kind: String,
    pub mtu: u32,
    /// The name of the bridge or bond that it is a port of.
    pub master: Option<String>,
    /// Administratively up.
    pub up: bool,
    pub addresses: Vec<Ipv4Net>,
}

/// All interfaces of the caller's network namespace, in order of their index.
pub fn list() -> Result<Vec<Link>, Error> {
    let mut channel = Channel::open()?;
    let messages = dump_links(&mut channel)?;
    let name_of = |index: u32| {
        let found = messages
            .iter()
            .find(|message| message.header.index == index);
        found.and_then(name)
    };
    let mut links: Vec<Link> = messages
        .iter()
        .map(|message| Link {
            index: message.header.index,
            name: name(message).unwrap_or_default(),
            kind: kind(message),
            mtu: mtu(message).unwrap_or(ETHERNET_MTU),
            master: attribute(message, |attribute| match attribute {
                LinkAttribute::Controller(index) => Some(*index),
                _ => None,
            })
            .and_then(name_of),
            up: message.header.flags.contains(LinkFlags::Up),
            addresses: Vec::new(),
        })
        .collect();
    for (index, address) in dump_addresses(&mut channel)? {
        if let Some(link) = links.iter_mut().find(|link| link.index == index) {
            link.addresses.push(address);
        }
    }
    links.sort_by_key(|link| link.index);
    Ok(links)
}

/// The subnets that the host has an address in or a route to; without the default route, which covers all.
/// A new network must not overlap any of them.
pub fn routes() -> Result<Vec<Ipv4Net>, Error> {
    let mut channel = Channel::open()?;
    let mut subnets: Vec<Ipv4Net> = dump_addresses(&mut channel)?
        .into_iter()
        .map(|(_, address)| address.trunc())
        .collect();
    for route in dump_routes(&mut channel)? {
        // Local and broadcast addresses are routes too; their subnets are counted above.
        if matches!(route.header.kind, RouteType::Local | RouteType::Broadcast) {
            continue;
        }
        let prefix = route.header.destination_prefix_length;
        let destination = route
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
                _ => None,
            });
        if let Some(address) = destination
            && prefix > 0
            && let Ok(subnet) = Ipv4Net::new(address, prefix)
        {
            subnets.push(subnet);
        }
    }
    subnets.sort();
    subnets.dedup();
    Ok(subnets)
}

/// The MTU of the default route (its own, or its interface's), and 1500 without one: a bridge with more would lose
/// packets on the way out (moby#22028).
pub fn default_mtu() -> Result<u32, Error> {
    let mut channel = Channel::open()?;
    default_mtu_on(&mut channel)
}

pub(crate) fn default_mtu_on(channel: &mut Channel) -> Result<u32, Error> {
    let defaults = dump_routes(channel)?.into_iter().filter(|route| {
        route.header.destination_prefix_length == 0 && route.header.kind == RouteType::Unicast
    });
    let Some(route) = defaults.min_by_key(priority) else {
        return Ok(ETHERNET_MTU);
    };
    let (mut own, mut out) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Metrics(metrics) => {
                own = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            RouteAttribute::Oif(index) => out = Some(*index),
            _ => {}
        }
    }
    if let Some(mtu) = own {
        return Ok(mtu);
    }
    let links = dump_links(channel)?;
    let link = links.iter().find(|link| Some(link.header.index) == out);
    Ok(link.and_then(mtu).unwrap_or(ETHERNET_MTU))
}

/// Removes an interface. One that is not there is what was wanted.
///
/// Takes about 17 ms: the kernel waits for all readers of the link (`unregister_netdevice_many`, `synchronize_net`).
pub fn remove(name: &str) -> Result<(), Error> {
    remove_on(&mut Channel::open()?, name)
}

pub(crate) fn remove_on(channel: &mut Channel, name: &str) -> Result<(), Error> {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.into())];
    match channel.change(RouteNetlinkMessage::DelLink(message)) {
        Err(source) if source.raw_os_error() != Some(libc::ENODEV) => Err(Error::RemoveLink {
            name: name.into(),
            source,
        }),
        _ => Ok(()),
    }
}

pub(crate) fn mtu(link: &LinkMessage) -> Option<u32> {
    attribute(link, |attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

fn name(link: &LinkMessage) -> Option<String> {
    attribute(link, |attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

fn kind(link: &LinkMessage) -> String {
    let infos = attribute(link, |attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    let kind = infos.and_then(|infos| {
        infos.iter().find_map(|info| match info {
            LinkInfo::Kind(InfoKind::Other(kind)) => Some(kind.clone()),
            LinkInfo::Kind(kind) => Some(kind.to_string()),
            _ => None,
        })
    });
    kind.unwrap_or_default()
}

fn attribute<'a, T>(
    link: &'a LinkMessage,
    pick: impl Fn(&'a LinkAttribute) -> Option<T>,
) -> Option<T> {
    link.attributes.iter().find_map(pick)
}

fn priority(route: &RouteMessage) -> u32 {
    let metric = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Priority(priority) => Some(*priority),
            _ => None,
        });
    metric.unwrap_or(0)
}

fn dump_links(channel: &mut Channel) -> Result<Vec<LinkMessage>, Error> {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
    let answers = channel
        .dump(RouteNetlinkMessage::GetLink(message))
        .map_err(|source| failed_list("interfaces", source))?;
    let links = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(link) => Some(link),
        _ => None,
    });
    Ok(links.collect())
}

fn dump_addresses(channel: &mut Channel) -> Result<Vec<(u32, Ipv4Net)>, Error> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    let answers = channel
        .dump(RouteNetlinkMessage::GetAddress(message))
        .map_err(|source| failed_list("addresses", source))?;
    let addresses = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewAddress(message) => {
            let prefix = message.header.prefix_len;
            let net = Ipv4Net::new(local_address(&message)?, prefix).ok()?;
            Some((message.header.index, net))
        }
        _ => None,
    });
    Ok(addresses.collect())
}

/// `IFA_LOCAL` is the host's own address; `IFA_ADDRESS` is the peer's on a point-to-point link.
fn local_address(message: &AddressMessage) -> Option<Ipv4Addr> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
            _ => None,
        })
}

fn dump_routes(channel: &mut Channel) -> Result<Vec<RouteMessage>, Error> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    let answers = channel
        .dump(RouteNetlinkMessage::GetRoute(message))
        .map_err(|source| failed_list("routes", source))?;
    let routes = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewRoute(route) => Some(route),
        _ => None,
    });
    Ok(routes.collect())
}

fn failed_list(what: &'static str, source: io::Error) -> Error {
    Error::List { what, source }
}
