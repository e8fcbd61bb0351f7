//! Reads the host's interfaces, addresses and routes, and removes an interface.

use std::io;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
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
    /// The kernel's own link-local address among them.
    pub addresses6: Vec<Ipv6Net>,
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
            addresses6: Vec::new(),
        })
        .collect();
    for (index, address) in dump_addresses(&mut channel)? {
        if let Some(link) = links.iter_mut().find(|link| link.index == index) {
            match address {
                IpNet::V4(address) => link.addresses.push(address),
                IpNet::V6(address) => link.addresses6.push(address),
            }
        }
    }
    links.sort_by_key(|link| link.index);
    Ok(links)
}

/// All addresses of the caller's network namespace, of both families.
pub(crate) fn addresses() -> Result<Vec<IpAddr>, Error> {
    let addresses = dump_addresses(&mut Channel::open()?)?;
    Ok(addresses.into_iter().map(|(_, net)| net.addr()).collect())
}

/// The subnets that the host has an address in or a route to; without the default route, which covers all.
/// A new network must not overlap any of them.
pub fn routes() -> Result<Vec<Ipv4Net>, Error> {
    let v4 = |subnet| match subnet {
        IpNet::V4(subnet) => Some(subnet),
        IpNet::V6(_) => None,
    };
    Ok(sorted(
        used()?.into_iter().filter_map(|used| v4(used.subnet)),
    ))
}

/// As [`routes`], of IPv6; without link-local and multicast subnets, which every interface has.
pub fn routes6() -> Result<Vec<Ipv6Net>, Error> {
    let v6 = |subnet| match subnet {
        IpNet::V6(subnet) => Some(subnet),
        IpNet::V4(_) => None,
    };
    Ok(sorted(
        used()?.into_iter().filter_map(|used| v6(used.subnet)),
    ))
}

/// What of the host a subnet overlaps with, in words: `the address 192.0.2.7/24 of interface eth0`, or
/// `the route 10.0.0.0/8 of interface tun0`.
pub fn overlapping(subnet: IpNet) -> Result<Option<String>, Error> {
    let mut used = used()?.into_iter();
    let Some(found) = used.find(|used| overlap(&used.subnet, &subnet)) else {
        return Ok(None);
    };
    let what = match found.address {
        Some(address) => format!("the address {address}"),
        None => format!("the route {}", found.subnet),
    };
    let links = dump_links(&mut Channel::open()?)?;
    let link = links
        .iter()
        .find(|link| Some(link.header.index) == found.link);
    Ok(Some(match link.and_then(name) {
        Some(name) => format!("{what} of interface {name}"),
        None => what,
    }))
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

fn sorted<T: Ord>(subnets: impl Iterator<Item = T>) -> Vec<T> {
    let mut subnets: Vec<T> = subnets.collect();
    subnets.sort();
    subnets.dedup();
    subnets
}

/// A subnet that the host uses.
struct Used {
    subnet: IpNet,
    /// Where it is an address's; else it is a route's.
    address: Option<IpNet>,
    link: Option<u32>,
}

/// Addresses first: a route to their subnet comes with them.
fn used() -> Result<Vec<Used>, Error> {
    let mut channel = Channel::open()?;
    let addresses = dump_addresses(&mut channel)?.into_iter();
    let mut used: Vec<Used> = addresses
        .map(|(index, address)| Used {
            subnet: address.trunc(),
            address: Some(address),
            link: Some(index),
        })
        .collect();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        used.extend(
            dump_routes(&mut channel, family)?
                .iter()
                .filter_map(|route| {
                    Some(Used {
                        subnet: destination(route)?,
                        address: None,
                        link: route
                            .attributes
                            .iter()
                            .find_map(|attribute| match attribute {
                                RouteAttribute::Oif(index) => Some(*index),
                                _ => None,
                            }),
                    })
                }),
        );
    }
    used.retain(|used| !is_everywhere(&used.subnet));
    Ok(used)
}

/// Where a route leads, unless it is the default route.
fn destination(route: &RouteMessage) -> Option<IpNet> {
    // Local, broadcast and the like are routes too; their subnets are counted with their addresses.
    if matches!(
        route.header.kind,
        RouteType::Local | RouteType::Broadcast | RouteType::Anycast | RouteType::Multicast
    ) {
        return None;
    }
    let prefix = route.header.destination_prefix_length;
    let address = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
            _ => None,
        })?;
    let subnet = IpNet::new(address, prefix).ok()?;
    (prefix > 0).then_some(subnet)
}

/// Subnets that each interface has for itself: fe80::/10 and ff00::/8.
fn is_everywhere(subnet: &IpNet) -> bool {
    match subnet.addr() {
        IpAddr::V4(_) => false,
        IpAddr::V6(address) => address.is_unicast_link_local() || address.is_multicast(),
    }
}

/// The MTU of the default route (its own, or its interface's), and 1500 without one: a bridge with more would lose
/// packets on the way out (moby#22028).
pub fn default_mtu() -> Result<u32, Error> {
    let mut channel = Channel::open()?;
    default_mtu_on(&mut channel)
}

pub(crate) fn default_mtu_on(channel: &mut Channel) -> Result<u32, Error> {
    let defaults = dump_routes(channel, AddressFamily::Inet)?
        .into_iter()
        .filter(|route| {
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

/// Of both families, with the index of the interface.
fn dump_addresses(channel: &mut Channel) -> Result<Vec<(u32, IpNet)>, Error> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Unspec;
    let answers = channel
        .dump(RouteNetlinkMessage::GetAddress(message))
        .map_err(|source| failed_list("addresses", source))?;
    let addresses = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewAddress(message) => {
            let prefix = message.header.prefix_len;
            let net = IpNet::new(own_address(&message)?, prefix).ok()?;
            Some((message.header.index, net))
        }
        _ => None,
    });
    Ok(addresses.collect())
}

/// `IFA_LOCAL` is the host's own address; `IFA_ADDRESS` is the peer's on a point-to-point link, and the own one where
/// there is no other, as with IPv6.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut own = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => return Some(*address),
            AddressAttribute::Address(address) => own = Some(*address),
            _ => {}
        }
    }
    own
}

fn dump_routes(channel: &mut Channel, family: AddressFamily) -> Result<Vec<RouteMessage>, Error> {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
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
