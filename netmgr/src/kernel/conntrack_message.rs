//! The messages of `nf_conntrack_netlink`, as far as [`super::conntrack`] needs them: list with a filter, and delete
//! (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`).
//!
//! Of an entry the few fields that are looked at are decoded, in place: there may be a quarter of a million of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::packet_core::{
    DecodeError, DefaultNla, Emitable, NLA_F_NESTED, NetlinkDeserializable, NetlinkHeader,
    NetlinkPayload, NetlinkSerializable, NlaBuffer, NlasIterator,
};

use crate::model::{Family, Protocol};

/// `NFNL_SUBSYS_CTNETLINK`, in the upper byte of a message's type.
const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;

/// `struct nfgenmsg`: family, version, resource.
const HEADER: usize = 4;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_FILTER: u16 = 25;

/// Inside a tuple, and inside its two parts.
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;

/// Inside a filter: which fields of the two tuples that go with it have to match. The flags have no name outside of the
/// kernel (`net/netfilter/nf_internals.h`, CTA_FILTER_F_*) and are in the byte order of the machine.
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const FLAG_IP_SRC: u32 = 1 << 0;
const FLAG_IP_DST: u32 = 1 << 1;
const FLAG_PROTO_NUM: u32 = 1 << 3;
const FLAG_PROTO_DST_PORT: u32 = 1 << 5;

/// Which entries the kernel is to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) family: Family,
    pub(crate) protocol: Protocol,
    /// Of the original direction.
    pub(crate) destination: Option<IpAddr>,
    pub(crate) port: Option<u16>,
    pub(crate) reply_source: Option<IpAddr>,
}

/// Which packets of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Original,
    Reply,
}

/// A connection, as far as it can be stale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) protocol: Protocol,
    /// Who began it.
    pub(crate) source: IpAddr,
    /// Where the client addressed it to.
    pub(crate) destination: IpAddr,
    pub(crate) port: u16,
    /// Who answers.
    pub(crate) reply_source: IpAddr,
    /// What names it to the kernel: the attributes as they came, its number among them, so that no later connection of
    /// the same addresses is meant.
    identity: Vec<DefaultNla>,
}

impl Entry {
    /// DNAT: somebody else answers than was addressed.
    pub(crate) fn is_translated(&self) -> bool {
        self.destination != self.reply_source
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Request {
        kind: u16,
        family: Family,
        attributes: Vec<DefaultNla>,
    },
    /// `None`: of a protocol that publishes no ports.
    Entry(Option<Entry>),
}

impl Message {
    pub(crate) fn list(filter: &Filter) -> Message {
        let mut original = FLAG_PROTO_NUM;
        let mut addresses = Vec::new();
        if let Some(address) = filter.destination {
            original |= FLAG_IP_DST;
            addresses.push(ip(address, CTA_IP_V4_DST, CTA_IP_V6_DST));
        }
        let mut ports = vec![attribute(CTA_PROTO_NUM, &[number(filter.protocol)])];
        if let Some(port) = filter.port {
            original |= FLAG_PROTO_DST_PORT;
            ports.push(attribute(CTA_PROTO_DST_PORT, &port.to_be_bytes()));
        }
        let tuple = [
            nested(CTA_TUPLE_IP, &addresses),
            nested(CTA_TUPLE_PROTO, &ports),
        ];
        let mut attributes = vec![nested(CTA_TUPLE_ORIG, &tuple)];
        let mut flags = vec![attribute(CTA_FILTER_ORIG_FLAGS, &original.to_ne_bytes())];
        if let Some(address) = filter.reply_source {
            let source = ip(address, CTA_IP_V4_SRC, CTA_IP_V6_SRC);
            let tuple = nested(CTA_TUPLE_IP, &[source]);
            attributes.push(nested(CTA_TUPLE_REPLY, &[tuple]));
            flags.push(attribute(
                CTA_FILTER_REPLY_FLAGS,
                &FLAG_IP_SRC.to_ne_bytes(),
            ));
        }
        attributes.push(nested(CTA_FILTER, &flags));
        Message::Request {
            kind: GET,
            family: filter.family,
            attributes,
        }
    }

    /// Entries by who sent the first packet (`Direction::Original`) or answers it. IPv4 only: see `conntrack::filter`.
    pub(crate) fn list_from(source: Ipv4Addr, direction: Direction) -> Message {
        let (tuple, flags) = match direction {
            Direction::Original => (CTA_TUPLE_ORIG, CTA_FILTER_ORIG_FLAGS),
            Direction::Reply => (CTA_TUPLE_REPLY, CTA_FILTER_REPLY_FLAGS),
        };
        let source = ip(source.into(), CTA_IP_V4_SRC, CTA_IP_V6_SRC);
        let filter = attribute(flags, &FLAG_IP_SRC.to_ne_bytes());
        Message::Request {
            kind: GET,
            family: Family::V4,
            attributes: vec![
                nested(tuple, &[nested(CTA_TUPLE_IP, &[source])]),
                nested(CTA_FILTER, &[filter]),
            ],
        }
    }

    pub(crate) fn list_all(family: Family) -> Message {
        Message::Request {
            kind: GET,
            family,
            attributes: Vec::new(),
        }
    }

    pub(crate) fn delete(family: Family, entry: &Entry) -> Message {
        Message::Request {
            kind: DELETE,
            family,
            attributes: entry.identity.clone(),
        }
    }

    pub(crate) fn into_entry(self) -> Option<Entry> {
        match self {
            Message::Entry(entry) => entry,
            Message::Request { .. } => None,
        }
    }
}

fn number(protocol: Protocol) -> u8 {
    let number = match protocol {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
        Protocol::Sctp => libc::IPPROTO_SCTP,
    };
    number as u8
}

fn protocol(number: u8) -> Option<Protocol> {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    all.into_iter()
        .find(|protocol| self::number(*protocol) == number)
}

fn attribute(kind: u16, value: &[u8]) -> DefaultNla {
    DefaultNla::new(kind, value.to_vec())
}

fn nested(kind: u16, inner: &[DefaultNla]) -> DefaultNla {
    let mut value = vec![0; inner.buffer_len()];
    inner.emit(&mut value);
    DefaultNla::new(kind | NLA_F_NESTED, value)
}

fn ip(address: IpAddr, v4: u16, v6: u16) -> DefaultNla {
    match address {
        IpAddr::V4(address) => attribute(v4, &address.octets()),
        IpAddr::V6(address) => attribute(v6, &address.octets()),
    }
}

/// One direction of a connection.
#[derive(Default)]
struct Tuple {
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    protocol: Option<u8>,
    port: Option<u16>,
}

impl Tuple {
    fn parse(value: &[u8]) -> Result<Tuple, DecodeError> {
        let mut tuple = Tuple::default();
        for part in NlasIterator::new(value) {
            let part = part?;
            for field in NlasIterator::new(part.value()) {
                let field = field?;
                tuple.take(part.kind(), &field);
            }
        }
        Ok(tuple)
    }

    fn take(&mut self, part: u16, field: &NlaBuffer<&[u8]>) {
        let value = field.value();
        match (part, field.kind()) {
            (CTA_TUPLE_IP, CTA_IP_V4_SRC | CTA_IP_V6_SRC) => self.source = address(value),
            (CTA_TUPLE_IP, CTA_IP_V4_DST | CTA_IP_V6_DST) => self.destination = address(value),
            (CTA_TUPLE_PROTO, CTA_PROTO_NUM) => self.protocol = value.first().copied(),
            (CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT) => {
                self.port = value.try_into().ok().map(u16::from_be_bytes);
            }
            _ => {}
        }
    }
}

fn address(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(Ipv4Addr::from);
    let v6 = <[u8; 16]>::try_from(value).map(Ipv6Addr::from);
    v4.map(IpAddr::V4).or(v6.map(IpAddr::V6)).ok()
}

fn entry(attributes: &[u8]) -> Result<Option<Entry>, DecodeError> {
    let (mut original, mut reply) = (Tuple::default(), Tuple::default());
    let mut identity = Vec::new();
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let value = attribute.value();
        match attribute.kind() {
            CTA_TUPLE_ORIG => {
                original = Tuple::parse(value)?;
                identity.push(DefaultNla::new(CTA_TUPLE_ORIG | NLA_F_NESTED, value.into()));
            }
            CTA_TUPLE_REPLY => reply = Tuple::parse(value)?,
            kind @ (CTA_ID | CTA_ZONE) => identity.push(DefaultNla::new(kind, value.into())),
            _ => {}
        }
    }
    let found = || {
        Some(Entry {
            protocol: protocol(original.protocol?)?,
            source: original.source?,
            destination: original.destination?,
            port: original.port?,
            reply_source: reply.source?,
            identity,
        })
    };
    Ok(found())
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        match self {
            Message::Request { kind, .. } => *kind,
            Message::Entry(_) => NEW,
        }
    }

    fn buffer_len(&self) -> usize {
        match self {
            Message::Request { attributes, .. } => HEADER + attributes.as_slice().buffer_len(),
            Message::Entry(_) => HEADER,
        }
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..HEADER].fill(0);
        if let Message::Request {
            family, attributes, ..
        } = self
        {
            let family = match family {
                Family::V4 => libc::AF_INET,
                Family::V6 => libc::AF_INET6,
            };
            buffer[0] = family as u8;
            attributes.as_slice().emit(&mut buffer[HEADER..]);
        }
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(_header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let attributes = payload.get(HEADER..).unwrap_or_default();
        entry(attributes).map(Message::Entry)
    }
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        NetlinkPayload::InnerMessage(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_that_are_cut_short_are_no_entry() {
        let tuple = |kind, source: [u8; 4], destination: [u8; 4]| {
            let addresses = [
                attribute(CTA_IP_V4_SRC, &source),
                attribute(CTA_IP_V4_DST, &destination),
            ];
            let ports = [
                attribute(CTA_PROTO_NUM, &[17]),
                attribute(CTA_PROTO_DST_PORT, &[0, 53]),
            ];
            nested(
                kind,
                &[
                    nested(CTA_TUPLE_IP, &addresses),
                    nested(CTA_TUPLE_PROTO, &ports),
                ],
            )
        };
        let all = [
            tuple(CTA_TUPLE_ORIG, [10, 0, 0, 1], [10, 0, 0, 2]),
            tuple(CTA_TUPLE_REPLY, [10, 0, 0, 3], [10, 0, 0, 1]),
        ];
        let mut bytes = vec![0; all.as_slice().buffer_len()];
        all.as_slice().emit(&mut bytes);
        let found = entry(&bytes).unwrap().unwrap();
        assert_eq!((found.port, found.protocol), (53, Protocol::Udp));
        assert_eq!(found.destination.to_string(), "10.0.0.2");
        assert!(found.is_translated());
        for length in 0..bytes.len() {
            assert!(!matches!(entry(&bytes[..length]), Ok(Some(_))), "{length}");
        }
    }
}
