//! Asks the kernel which TCP ports are listened on (`sock_diag(7)`, `include/uapi/linux/inet_diag.h`).
//!
//! `/proc/net/tcp` says the same, but the kernel walks the table of all connections for it, however few there are: a
//! quarter of a million buckets take 2 ms a family. Here it walks that of the listeners alone, in less than a tenth of one.

use std::io;

use rtnetlink::packet_core::{
    DecodeError, NetlinkDeserializable, NetlinkHeader, NetlinkPayload, NetlinkSerializable,
};
use rtnetlink::sys::Socket;
use rtnetlink::sys::protocols::NETLINK_SOCK_DIAG;

use crate::kernel::netlink::Conversation;
use crate::model::Family;

/// `SOCK_DIAG_BY_FAMILY`
const BY_FAMILY: u16 = 20;

/// `struct inet_diag_req_v2`: family, protocol, extensions, padding, states, and the ID of a socket (48 bytes).
const REQUEST: usize = 56;

/// `TCP_LISTEN`, as a bit of the states (`include/net/tcp_states.h`).
const LISTENING: u32 = 1 << 10;

/// The start of `struct inet_diag_msg`: family, state, timer, retransmissions, and the ID, which starts with the own port
/// in the byte order of the network.
const PORT: std::ops::Range<usize> = 4..6;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Message {
    List(Family),
    Listener(u16),
}

/// The ports of one family that are listened on, in the network namespace of the calling thread.
///
/// Fails where the kernel has no `tcp_diag`, and no module of it to load.
pub(crate) fn of_tcp(family: Family) -> io::Result<Vec<u16>> {
    let mut kernel = Conversation::new(Socket::new(NETLINK_SOCK_DIAG)?);
    let answers = kernel.dump(Message::List(family))?;
    let ports = answers.into_iter().filter_map(|answer| match answer {
        Message::Listener(port) => Some(port),
        Message::List(_) => None,
    });
    Ok(ports.collect())
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        BY_FAMILY
    }

    fn buffer_len(&self) -> usize {
        REQUEST
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..REQUEST].fill(0);
        if let Message::List(family) = self {
            let family = match family {
                Family::V4 => libc::AF_INET,
                Family::V6 => libc::AF_INET6,
            };
            buffer[0] = family as u8;
            buffer[1] = libc::IPPROTO_TCP as u8;
            buffer[4..8].copy_from_slice(&LISTENING.to_ne_bytes());
        }
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(_header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let port = payload.get(PORT).and_then(|bytes| bytes.try_into().ok());
        let port = port.ok_or_else(|| DecodeError::from("a socket without a port"))?;
        Ok(Message::Listener(u16::from_be_bytes(port)))
    }
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        NetlinkPayload::InnerMessage(message)
    }
}
