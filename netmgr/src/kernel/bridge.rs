//! Makes and removes a network's bridge, and brings a port back to it.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::BridgeStpState;
use rtnetlink::{AddressMessageBuilder, LinkBridge, LinkBridgePort, LinkUnspec};

use crate::kernel::Error;
use crate::kernel::links;
use crate::kernel::netlink::Channel;
use crate::plan::{Bridge, Veth};

/// A new bridge's MTU follows the smallest of its ports' until somebody sets it.
const FOLLOWS_PORTS: u32 = 1500;

/// Creates the bridge with its address, up; leaves nothing behind when a step fails.
pub(crate) fn create(channel: &mut Channel, bridge: &Bridge) -> Result<(), Error> {
    let mtu = match bridge.mtu {
        Some(mtu) => mtu,
        None => links::default_mtu_on(channel)?,
    };
    let name = &bridge.name;
    // Spanning tree off: with it a new port would be mute for half a minute. The hardware address is fixed, because
    // a bridge otherwise takes its ports' lowest and changes it as they come and go: neighbours would lose it.
    let message = LinkBridge::new(name)
        .stp_state(BridgeStpState::Disabled)
        .address(hardware_address(bridge.gateway).to_vec())
        .up()
        .build();
    let failed = |source| Error::CreateBridge {
        name: name.clone(),
        source,
    };
    channel
        .create(RouteNetlinkMessage::NewLink(message))
        .map_err(failed)?;
    finish(channel, bridge, mtu).inspect_err(|_| {
        if let Err(error) = links::remove_on(channel, name) {
            tracing::warn!(%error, bridge = name, "half made bridge left behind");
        }
    })
}

fn finish(channel: &mut Channel, bridge: &Bridge, mtu: u32) -> Result<(), Error> {
    let failed = |source| Error::CreateBridge {
        name: bridge.name.clone(),
        source,
    };
    let index = channel.index(&bridge.name).map_err(failed)?;
    // With CAP_NET_RAW a container can send router advertisements, and the kernel takes them on every interface unless told
    // otherwise (CVE-2020-13401). For IPv4, forwarding that is on has turned redirects off.
    for setting in ["accept_ra", "accept_redirects"] {
        set_ipv6(&bridge.name, setting, "0")?;
    }
    if bridge.gateway6.is_none() {
        // Or the host would answer there under a link-local address, and forward what comes from it if it is a router:
        // for IPv6 such a network has no rules.
        set_ipv6(&bridge.name, "disable_ipv6", "1")?;
    }
    if mtu != FOLLOWS_PORTS {
        // Not at creation, where it does not count as set (`br_change_mtu`, BROPT_MTU_SET_BY_USER): the bridge would
        // forget it with its last port.
        let message = LinkUnspec::new_with_index(index).mtu(mtu).build();
        channel
            .change(RouteNetlinkMessage::SetLink(message))
            .map_err(failed)?;
    }
    let refused = |address| {
        let name = bridge.name.clone();
        move |source| Error::AddressBridge {
            name,
            address,
            source,
        }
    };
    add_address(channel, index, bridge.gateway, bridge.subnet.prefix_len())
        .map_err(refused(bridge.gateway.into()))?;
    if let Some((gateway, prefix)) = bridge.gateway6 {
        // The link-local address too, which the kernel would make and then test for duplicates, for two seconds after
        // the first port. With it the host asks for containers on behalf of others (`ndisc_solicit`): a published port
        // would be mute that long.
        let link_local = link_local_of(bridge.gateway);
        for (address, prefix) in [(gateway, prefix), (link_local, 64)] {
            add_address6(channel, index, address, prefix).map_err(|source| {
                match is_off(&source) {
                    true => Error::Ipv6Off {
                        name: bridge.name.clone(),
                        address,
                        source,
                    },
                    false => refused(address.into())(source),
                }
            })?;
        }
    }
    Ok(())
}

/// One of the settings by which the host trusts a bridge (`ip-sysctl`).
fn set_ipv6(bridge: &str, setting: &str, value: &'static str) -> Result<(), Error> {
    let path = Path::new("/proc/sys/net/ipv6/conf")
        .join(bridge)
        .join(setting);
    match fs::write(&path, value) {
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|source| Error::WriteSysctl {
            path,
            value,
            source,
        }),
    }
}

/// Removes the bridge; its ports, if any are left, stay without one.
pub(crate) fn remove(channel: &mut Channel, bridge: &Bridge) -> Result<(), Error> {
    links::remove_on(channel, &bridge.name)
}

/// Makes the host's end of a veth a port of its bridge again, with its settings, up and forwarding. One that is a port
/// of it already stays so.
pub(crate) fn join(channel: &mut Channel, veth: &Veth) -> Result<(), Error> {
    let endpoint = &veth.endpoint;
    let host = &endpoint.host_interface;
    let container = &endpoint.container_name;
    let index = channel.index(host).map_err(|source| Error::FindVeth {
        name: host.clone(),
        container: container.clone(),
        source,
    })?;
    let bridge = channel
        .index(&veth.bridge)
        .map_err(|source| Error::FindBridge {
            bridge: veth.bridge.clone(),
            container: container.clone(),
            source,
        })?;
    let failed = |step| {
        move |source| Error::ConfigureVeth {
            name: host.clone(),
            container: container.clone(),
            step,
            source,
        }
    };
    let port = LinkUnspec::new_with_index(index).controller(bridge).up();
    channel
        .change(RouteNetlinkMessage::SetLink(port.build()))
        .map_err(failed("join the bridge"))?;
    isolate(channel, index, veth.isolated)
        .map_err(failed("set the isolation of the bridge port"))?;
    for name in [host, &veth.bridge] {
        // What asking is good for: `Channel::link`.
        channel
            .link(name)
            .map_err(failed("wait for the bridge port"))?;
    }
    Ok(())
}

/// The bridge does not forward between isolated ports, and needs no br_netfilter for it (`bridge(8)`, isolated).
pub(crate) fn isolate(channel: &mut Channel, index: u32, isolated: bool) -> io::Result<()> {
    // NEWLINK on an existing link: SETLINK leaves a port's own settings aside.
    let message = LinkBridgePort::new(index).isolated(isolated).build();
    channel.change(RouteNetlinkMessage::NewLink(message))
}

/// `ip address add ADDRESS/PREFIX broadcast + dev INDEX`.
pub(crate) fn add_address(
    channel: &mut Channel,
    index: u32,
    address: Ipv4Addr,
    prefix: u8,
) -> io::Result<()> {
    let message = AddressMessageBuilder::<Ipv4Addr>::new()
        .index(index)
        .address(address, prefix)
        .build();
    channel.create(RouteNetlinkMessage::NewAddress(message))
}

/// `ip address add ADDRESS/PREFIX dev INDEX nodad`: we give out the addresses, and detection of duplicates would keep
/// this one from being used for a second.
pub(crate) fn add_address6(
    channel: &mut Channel,
    index: u32,
    address: Ipv6Addr,
    prefix: u8,
) -> io::Result<()> {
    let mut message = AddressMessageBuilder::<Ipv6Addr>::new()
        .index(index)
        .address(address, prefix)
        .build();
    let flags = AddressFlags::Nodad;
    message.attributes.push(AddressAttribute::Flags(flags));
    channel.create(RouteNetlinkMessage::NewAddress(message))
}

/// Whether an IPv6 address was refused because IPv6 is off: on that interface (`inet6_addr_add`: EACCES, with
/// `disable_ipv6`), or in this kernel (`ipv6.disable=1`).
pub(crate) fn is_off(source: &io::Error) -> bool {
    matches!(
        source.raw_os_error(),
        Some(libc::EACCES | libc::EAFNOSUPPORT | libc::EOPNOTSUPP)
    )
}

/// `02:42` and the four bytes of the address, as Docker makes a container's: locally administered and never twice on
/// one bridge, because the address is not.
fn hardware_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

/// The link-local address of the bridge with this gateway.
pub(crate) fn link_local_of(gateway: Ipv4Addr) -> Ipv6Addr {
    link_local(hardware_address(gateway))
}

/// The address that the kernel makes of a hardware address (RFC 4291, appendix A: modified EUI-64), so that there is only
/// this one.
fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    let [ab, cd, ef] = [[a ^ 0x02, b], [0xfe, d], [e, f]].map(u16::from_be_bytes);
    Ipv6Addr::new(0xfe80, 0, 0, 0, ab, u16::from_be_bytes([c, 0xff]), cd, ef)
}
