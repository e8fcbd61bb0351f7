//! Joins a container's namespace to a bridge by a veth pair, and removes the pair.

use std::io;

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InetDevConf, InfoData, InfoVeth,
    LinkAttribute, LinkMessage,
};
use rtnetlink::{LinkBridgePort, LinkUnspec, LinkVeth, RouteMessageBuilder};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use crate::change::Netns;
use crate::kernel::Error;
use crate::kernel::bridge::add_address;
use crate::kernel::links;
use crate::kernel::netlink::Channel;
use crate::plan::Veth;

/// `lo` is the first interface of every namespace (`net/core/net_namespace.c`, LOOPBACK_IFINDEX).
const LOOPBACK: u32 = 1;

/// Creates the pair and makes the container's end ready to use; leaves nothing behind when a step fails.
///
/// `channel` is in the host's namespace. The order matters: the host's end is a port of the bridge and up before the
/// container's end comes up, so that the container's first packet finds a way.
pub(crate) fn create(channel: &mut Channel, veth: &Veth, netns: &Netns) -> Result<(), Error> {
    let host = &veth.endpoint.host_interface;
    create_pair(channel, veth, netns)?;
    configure(channel, veth, netns).inspect_err(|_| {
        if let Err(error) = links::remove_on(channel, host) {
            tracing::warn!(%error, veth = host, "half made veth left behind");
        }
    })
}

/// Removes the pair by its host's end. One that the kernel has removed already, with its namespace, is no error.
pub(crate) fn remove(channel: &mut Channel, veth: &Veth) -> Result<(), Error> {
    links::remove_on(channel, &veth.endpoint.host_interface)
}

/// One request: both ends, one of them on the bridge and up, the other named in the container's namespace. Nothing is
/// moved or renamed afterwards; a moved link costs the grace periods of a removed one.
fn create_pair(channel: &mut Channel, veth: &Veth, netns: &Netns) -> Result<(), Error> {
    let endpoint = &veth.endpoint;
    let no_bridge = |source| Error::FindBridge {
        bridge: veth.bridge.clone(),
        container: endpoint.container_name.clone(),
        source,
    };
    let (bridge, mtu) = match veth.mtu {
        Some(mtu) => (channel.index(&veth.bridge).map_err(no_bridge)?, mtu),
        None => {
            let bridge = channel.link(&veth.bridge).map_err(no_bridge)?;
            (bridge.header.index, links::mtu(&bridge).unwrap_or(1500))
        }
    };
    let peer = LinkUnspec::new_with_name(&endpoint.interface)
        .address(endpoint.mac.to_vec())
        .mtu(mtu)
        .setns_by_fd(netns.0.as_raw_fd())
        .build();
    let message = LinkVeth::new(&endpoint.host_interface, &endpoint.interface)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .mtu(mtu)
        .controller(bridge)
        .up()
        .build();
    channel
        .create(RouteNetlinkMessage::NewLink(message))
        .map_err(|source| Error::CreateVeth {
            name: endpoint.host_interface.clone(),
            container: endpoint.container_name.clone(),
            source,
        })
}

/// `lo` alone.
pub(crate) fn loopback_up(netns: &Netns) -> Result<(), Error> {
    let mut inside = Channel::open_in(netns)?;
    set(&mut inside, LinkUnspec::new_with_index(LOOPBACK).up())
        .map_err(|source| Error::LoopbackUp { source })
}

fn configure(channel: &mut Channel, veth: &Veth, netns: &Netns) -> Result<(), Error> {
    let endpoint = &veth.endpoint;
    let failed = |step: &'static str| {
        move |source: io::Error| Error::ConfigureVeth {
            name: endpoint.host_interface.clone(),
            container: endpoint.container_name.clone(),
            step,
            source,
        }
    };
    quieten_host_end(channel, &endpoint.host_interface);
    if veth.isolated {
        isolate(channel, &endpoint.host_interface).map_err(failed("isolate the bridge port"))?;
    }

    let mut inside = Channel::open_in(netns)?;
    let index = inside
        .index(&endpoint.interface)
        .map_err(failed("find the interface"))?;
    set(&mut inside, LinkUnspec::new_with_index(LOOPBACK).up()).map_err(failed("set lo up"))?;
    add_address(&mut inside, index, endpoint.address, veth.prefix)
        .map_err(failed("set the address"))?;
    set(
        &mut inside,
        LinkUnspec::new_with_index(index)
            .up()
            .append_extra_attribute(arp_notify()),
    )
    .map_err(failed("set the interface up"))?;
    if let Some(gateway) = veth.gateway {
        default_route(&mut inside, index, gateway).map_err(failed("set the default route"))?;
    }

    // Asking makes the kernel finish its deferred work (see `Channel::link`): the port forwards, and the bridge, for
    // which it may be the first one, sends. Without it the container's first packet is lost now and then.
    for name in [&endpoint.host_interface, &veth.bridge] {
        channel
            .link(name)
            .map_err(failed("wait for the bridge port"))?;
    }
    announce(&mut inside, index, endpoint.mac).map_err(failed("announce the address"))
}

/// Without this the host's end makes itself an IPv6 address that nobody uses, with multicast reports and duplicate
/// detection. Best effort: a kernel without IPv6 refuses, and has nothing to be quietened.
fn quieten_host_end(channel: &mut Channel, host: &str) {
    let quiet = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    let request = LinkUnspec::new_with_name(host)
        .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![quiet]));
    if let Err(error) = set(channel, request) {
        tracing::trace!(%error, host, "host end keeps its IPv6 autoconfiguration");
    }
}

/// The bridge does not forward between isolated ports, and needs no br_netfilter for it (`bridge(8)`, isolated).
fn isolate(channel: &mut Channel, host: &str) -> io::Result<()> {
    let index = channel.index(host)?;
    // NEWLINK on an existing link: SETLINK leaves a port's own settings aside.
    let message = LinkBridgePort::new(index).isolated(true).build();
    channel.change(RouteNetlinkMessage::NewLink(message))
}

/// Makes the kernel send a gratuitous ARP whenever the interface comes up or gets its hardware address
/// (`ip-sysctl: arp_notify`). By netlink, so that no /proc of that namespace is needed.
fn arp_notify() -> LinkAttribute {
    let mut conf = InetDevConf::default();
    conf.arp_notify = 1;
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(
        conf,
    )])])
}

/// Sets the hardware address that the interface has already: the kernel then sends the gratuitous ARP. The one that
/// it would send when the interface comes up is lost, because the bridge port is not forwarding yet.
fn announce(inside: &mut Channel, index: u32, mac: [u8; 6]) -> io::Result<()> {
    set(
        inside,
        LinkUnspec::new_with_index(index).address(mac.to_vec()),
    )
}

/// The first network's gateway is the default one: with more networks, the others' are left out.
fn default_route(inside: &mut Channel, index: u32, gateway: Ipv4Addr) -> io::Result<()> {
    let message = RouteMessageBuilder::<Ipv4Addr>::new()
        .gateway(gateway)
        .output_interface(index)
        .build();
    match inside.create(RouteNetlinkMessage::NewRoute(message)) {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        result => result,
    }
}

fn set(
    channel: &mut Channel,
    request: rtnetlink::LinkMessageBuilder<LinkUnspec>,
) -> io::Result<()> {
    let message: LinkMessage = request.build();
    channel.change(RouteNetlinkMessage::SetLink(message))
}
