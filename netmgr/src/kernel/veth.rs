//! Joins a container's namespace to a bridge by a veth pair, and removes the pair.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InetDevConf, InfoData, InfoVeth,
    LinkAttribute, LinkMessage,
};
use rtnetlink::{LinkUnspec, LinkVeth};

use crate::change::Netns;
use crate::kernel::Error;
use crate::kernel::bridge::{add_address, add_address6, is_off, isolate};
use crate::kernel::netlink::Channel;
use crate::kernel::{links, netns, routes};
use crate::plan::Veth;

/// `lo` is the first interface of every namespace (`net/core/net_namespace.c`, LOOPBACK_IFINDEX).
const LOOPBACK: u32 = 1;

/// The kernel makes the route in a work queue, behind whoever holds its big network lock.
const LOCAL_ROUTE_WITHIN: Duration = Duration::from_secs(5);
const LOCAL_ROUTE_POLL: Duration = Duration::from_micros(50);

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
        channel
            .index(&endpoint.host_interface)
            .and_then(|index| isolate(channel, index, true))
            .map_err(failed("isolate the bridge port"))?;
    }

    let (inside, notify) = netns::run_in(netns, || {
        // Before the interface is up: what is announced when it comes up or changes is what counts.
        let notify = endpoint.address6.map(|_| ndisc_notify(&endpoint.interface));
        (Channel::open(), notify.unwrap_or(Ok(())))
    })?;
    let mut inside = inside?;
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
    if let Some(address) = endpoint.address6 {
        add_address6(&mut inside, index, address, veth.prefix6).map_err(|source| {
            match is_off(&source) {
                true => Error::Ipv6Off {
                    name: endpoint.interface.clone(),
                    address,
                    source,
                },
                false => failed("set the IPv6 address")(source),
            }
        })?;
        notify?;
    }
    let gateway6 = veth.gateway6.filter(|_| endpoint.address6.is_some());
    let gateways = [veth.gateway.map(IpAddr::V4), gateway6.map(IpAddr::V6)];
    for gateway in gateways.into_iter().flatten() {
        default_route(&mut inside, index, gateway).map_err(failed("set the default route"))?;
    }
    if let Some(address) = endpoint.address6 {
        await_local(&mut inside, address).map_err(failed("wait for the IPv6 address"))?;
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

/// Makes the kernel send a gratuitous ARP whenever the interface comes up or gets its hardware address
/// (`ip-sysctl: arp_notify`). By netlink, so that no /proc of that namespace is needed.
fn arp_notify() -> LinkAttribute {
    let mut conf = InetDevConf::default();
    conf.arp_notify = 1;
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(
        conf,
    )])])
}

/// The same for IPv6: unsolicited neighbour advertisements (`ip-sysctl: ndisc_notify`), which netlink cannot ask for. The
/// caller is in the container's namespace. A kernel without IPv6 refuses the address, not this.
fn ndisc_notify(interface: &str) -> Result<(), Error> {
    let path = format!("/proc/sys/net/ipv6/conf/{interface}/ndisc_notify");
    match fs::write(&path, "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        written => written.map_err(|source| Error::WriteSysctl {
            path: path.into(),
            value: "1",
            source,
        }),
    }
}

/// Sets the hardware address that the interface has already: the kernel then sends the gratuitous ARP, and the
/// neighbour advertisement of every IPv6 address that is not being tested for duplicates. Those that it would send when
/// the interface comes up are lost, because the bridge port is not forwarding yet.
fn announce(inside: &mut Channel, index: u32, mac: [u8; 6]) -> io::Result<()> {
    set(
        inside,
        LinkUnspec::new_with_index(index).address(mac.to_vec()),
    )
}

/// Waits for the local route of a new IPv6 address (see [`Channel::is_local`]), as a rule for less than a tenth of a
/// millisecond.
fn await_local(inside: &mut Channel, address: Ipv6Addr) -> io::Result<()> {
    let deadline = Instant::now() + LOCAL_ROUTE_WITHIN;
    while !inside.is_local(address)? {
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(LOCAL_ROUTE_POLL);
    }
    Ok(())
}

/// A default route that is there already stays: a container has one for each family, over its primary network.
fn default_route(inside: &mut Channel, index: u32, gateway: IpAddr) -> io::Result<()> {
    let message = routes::default_route(index, gateway);
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
