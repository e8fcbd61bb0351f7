//! Which of the host's addresses a datagram was sent to, and answers that come from there (`ip(7)`, IP_PKTINFO).

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage,
    recvmsg, sendmsg, setsockopt, sockopt,
};
use rustix::io::Errno;
use rustix::net::AddressFamily;

/// A host address, with the interface that an IPv6 link-local one means nothing without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Local {
    address: IpAddr,
    interface: u32,
}

impl Local {
    /// On whatever interface.
    fn any(address: IpAddr) -> Local {
        Local {
            address,
            interface: 0,
        }
    }
}

/// Asks for the destination address of each datagram.
pub(super) fn prepare(listener: &OwnedFd) -> Result<(), Errno> {
    let asked = match rustix::net::sockopt::socket_domain(listener)? {
        AddressFamily::INET6 => setsockopt(listener, sockopt::Ipv6RecvPacketInfo, &true),
        _ => setsockopt(listener, sockopt::Ipv4PacketInfo, &true),
    };
    asked.map_err(|errno| Errno::from_raw_os_error(errno as i32))
}

/// A datagram's length, who sent it and which address it was sent to; `None` for one that no answer could find.
/// `control` is room for the kernel's message about it, kept from one to the next.
pub(super) fn receive(
    listener: &OwnedFd,
    scratch: &mut [u8],
    control: &mut Vec<u8>,
) -> nix::Result<Option<(usize, SocketAddr, Local)>> {
    if control.is_empty() {
        *control = nix::cmsg_space!(libc::in6_pktinfo);
    }
    let mut parts = [IoSliceMut::new(scratch)];
    let message = recvmsg::<SockaddrStorage>(
        listener.as_raw_fd(),
        &mut parts,
        Some(control),
        MsgFlags::empty(),
    )?;
    let Some(client) = message.address.as_ref().and_then(client_address) else {
        return Ok(None);
    };
    let told = message.cmsgs().ok().and_then(|mut told| {
        told.find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(local_v4(&info)),
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(local_v6(&info)),
            _ => None,
        })
    });
    // Not told, the kernel chooses the address to answer from, by its routes.
    let called = told.unwrap_or(match client {
        SocketAddr::V4(_) => Local::any(Ipv4Addr::UNSPECIFIED.into()),
        SocketAddr::V6(_) => Local::any(Ipv6Addr::UNSPECIFIED.into()),
    });
    Ok(Some((message.bytes, client, called)))
}

/// Sends to the client from the address that it had called: on a wildcard socket the kernel would choose by route.
pub(super) fn answer(
    listener: &OwnedFd,
    client: SocketAddr,
    called: Local,
    data: &[u8],
) -> nix::Result<usize> {
    let parts = [IoSlice::new(data)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    let fd = listener.as_raw_fd();
    match (client, called.address) {
        (SocketAddr::V4(client), IpAddr::V4(address)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(address.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            let control = [ControlMessage::Ipv4PacketInfo(&info)];
            sendmsg(fd, &parts, &control, flags, Some(&SockaddrIn::from(client)))
        }
        (SocketAddr::V6(client), IpAddr::V6(address)) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: address.octets(),
                },
                ipi6_ifindex: called.interface,
            };
            let control = [ControlMessage::Ipv6PacketInfo(&info)];
            sendmsg(
                fd,
                &parts,
                &control,
                flags,
                Some(&SockaddrIn6::from(client)),
            )
        }
        // A socket receives from its own family only.
        _ => Err(nix::Error::EAFNOSUPPORT),
    }
}

/// The local address that an answer comes from (`ip(7)`, ipi_spec_dst); the datagram's own destination where it was
/// queued before anybody asked.
fn local_v4(info: &libc::in_pktinfo) -> Local {
    let address = match info.ipi_spec_dst.s_addr {
        0 => info.ipi_addr.s_addr,
        local => local,
    };
    Local::any(Ipv4Addr::from(address.to_ne_bytes()).into())
}

fn local_v6(info: &libc::in6_pktinfo) -> Local {
    let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
    Local {
        address: address.into(),
        interface: match address.is_unicast_link_local() {
            true => info.ipi6_ifindex,
            false => 0,
        },
    }
}

fn client_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::V4((*v4).into()));
    }
    address
        .as_sockaddr_in6()
        .map(|v6| SocketAddr::V6((*v6).into()))
}
