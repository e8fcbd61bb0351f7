//! Packets that no kernel would make of its own accord, and what of them arrives.
#![allow(dead_code, reason = "each enemy uses its part")]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use harness::Netns;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto,
    socket,
};

pub const UDP: u8 = 17;
pub const HOP_BY_HOP: u8 = 0;
pub const ROUTING: u8 = 43;
pub const FRAGMENT: u8 = 44;
pub const DESTINATION_OPTIONS: u8 = 60;

/// "More fragments" in the third word of an IPv4 header.
pub const MORE: u16 = 0x2000;

/// An IPv4 packet. The kernel fills in lengths and checksums of the header (`raw(7)`, IP_HDRINCL).
#[derive(Clone)]
pub struct Packet4 {
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub options: Vec<u8>,
    /// Flags and offset.
    pub fragment: u16,
    pub payload: Vec<u8>,
}

impl Packet4 {
    /// A datagram without a checksum, which IPv4 allows.
    pub fn udp(source: Ipv4Addr, to: SocketAddrV4, word: &str) -> Packet4 {
        Packet4 {
            source,
            destination: *to.ip(),
            options: Vec::new(),
            fragment: 0,
            payload: udp(to.port(), word, |_| 0),
        }
    }

    /// In two pieces, of which the first holds the ports alone and, if `overlap`, part of the second one again.
    pub fn fragments(&self, overlap: bool) -> [Packet4; 2] {
        let end = if overlap { 16 } else { 8 };
        let piece = |fragment, payload: &[u8]| Packet4 {
            fragment,
            payload: payload.to_vec(),
            ..self.clone()
        };
        [
            piece(MORE, &self.payload[..end]),
            piece(1, &self.payload[8..]),
        ]
    }

    /// On its way by the route to `by`, whatever its own destination is.
    pub fn send_by(&self, from: &Netns, by: Ipv4Addr) {
        let words = 5 + self.options.len() / 4;
        let mut bytes = vec![0; 20];
        bytes[0] = 0x40 | u8::try_from(words).expect("at most ten words of options");
        // Fragments of one datagram belong together by it.
        bytes[4..6].copy_from_slice(&0xbeef_u16.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.fragment.to_be_bytes());
        bytes[8] = 64;
        bytes[9] = UDP;
        bytes[12..16].copy_from_slice(&self.source.octets());
        bytes[16..20].copy_from_slice(&self.destination.octets());
        bytes.extend(&self.options);
        bytes.extend(&self.payload);
        let by = SockaddrIn::from(SocketAddrV4::new(by, 0));
        send_raw(from, AddressFamily::Inet, |fd| {
            sendto(fd, &bytes, &by, MsgFlags::empty())
        });
    }

    pub fn send(&self, from: &Netns) {
        self.send_by(from, self.destination);
    }
}

/// An IPv6 packet with its chain of headers.
#[derive(Clone)]
pub struct Packet6 {
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    /// Each by its number, without its first byte, which names the next one.
    pub headers: Vec<(u8, Vec<u8>)>,
    pub payload: Vec<u8>,
}

impl Packet6 {
    pub fn udp(source: Ipv6Addr, to: SocketAddrV6, word: &str) -> Packet6 {
        let checksum = |datagram: &[u8]| checksum6(source, *to.ip(), datagram);
        Packet6 {
            source,
            destination: *to.ip(),
            headers: Vec::new(),
            payload: udp(to.port(), word, checksum),
        }
    }

    pub fn with(mut self, number: u8, header: &[u8]) -> Packet6 {
        self.headers.push((number, header.to_vec()));
        self
    }

    /// In two pieces, of which the first holds the ports alone.
    pub fn fragments(&self) -> [Packet6; 2] {
        let piece = |offset_and_more: u16, payload: &[u8]| {
            let [high, low] = offset_and_more.to_be_bytes();
            let header = [0, high, low, 0xde, 0xad, 0xbe, 0xef];
            Packet6 {
                payload: payload.to_vec(),
                ..self.clone().with(FRAGMENT, &header)
            }
        };
        [
            piece(1, &self.payload[..8]),
            piece(1 << 3, &self.payload[8..]),
        ]
    }

    /// A routing header that asks `destination` to send the packet on to where it was bound for.
    pub fn routed_by(self, destination: Ipv6Addr, kind: u8) -> Packet6 {
        let mut header = vec![2, kind, 1, 0, 0, 0, 0];
        header.extend(self.destination.octets());
        Packet6 {
            destination,
            ..self.with(ROUTING, &header)
        }
    }

    pub fn send_by(&self, from: &Netns, by: Ipv6Addr) {
        let numbers = self.headers.iter().map(|(number, _)| *number);
        let mut next: Vec<u8> = numbers.chain([UDP]).collect();
        let mut rest = Vec::new();
        for ((_, header), next) in self.headers.iter().zip(&next[1..]) {
            rest.push(*next);
            rest.extend(header);
        }
        rest.extend(&self.payload);
        let length = u16::try_from(rest.len()).expect("a small packet");
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend(length.to_be_bytes());
        bytes.extend([next.remove(0), 64]);
        bytes.extend(self.source.octets());
        bytes.extend(self.destination.octets());
        bytes.extend(rest);
        let by = SockaddrIn6::from(SocketAddrV6::new(by, 0, 0, 0));
        send_raw(from, AddressFamily::Inet6, |fd| {
            sendto(fd, &bytes, &by, MsgFlags::empty())
        });
    }

    pub fn send(&self, from: &Netns) {
        self.send_by(from, self.destination);
    }
}

fn udp(port: u16, word: &str, checksum: impl FnOnce(&[u8]) -> u16) -> Vec<u8> {
    let length = u16::try_from(8 + word.len()).expect("a short word");
    let mut bytes = Vec::new();
    for field in [40_000, port, length, 0] {
        bytes.extend(field.to_be_bytes());
    }
    bytes.extend(word.as_bytes());
    let checksum = checksum(&bytes);
    bytes[6..8].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// RFC 8200, 8.1.
fn checksum6(source: Ipv6Addr, destination: Ipv6Addr, datagram: &[u8]) -> u16 {
    let mut bytes = [source.octets(), destination.octets()].concat();
    bytes.extend(u32::try_from(datagram.len()).unwrap().to_be_bytes());
    bytes.extend([0, 0, 0, UDP]);
    bytes.extend(datagram);
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    let words = bytes
        .chunks(2)
        .map(|two| u32::from(two[0]) << 8 | u32::from(two[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    match !u16::try_from(sum).unwrap() {
        0 => 0xffff,
        sum => sum,
    }
}

/// What the sender's own kernel refuses is no attack: it is a mistake of the test's.
#[track_caller]
fn send_raw(
    from: &Netns,
    family: AddressFamily,
    send: impl FnOnce(i32) -> nix::Result<usize> + Send,
) {
    let sent = from.enter(|| {
        let socket = socket(
            family,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::Raw,
        )
        .expect("a raw socket");
        send(socket.as_raw_fd())
    });
    sent.expect("the attacker's kernel sends it");
}

/// A UDP socket that keeps every word that arrives.
pub struct Inbox(UdpSocket);

impl Inbox {
    #[track_caller]
    pub fn open(inside: &Netns, at: &str) -> Inbox {
        Inbox::of(inside.enter(|| UdpSocket::bind(at)).expect("bind an inbox"))
    }

    pub fn of(socket: UdpSocket) -> Inbox {
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a time limit");
        Inbox(socket)
    }

    /// All that came up to `last`, the word that must come: it is sent again and again. What was sent earlier by the same
    /// way has come before it, or does not come.
    #[track_caller]
    pub fn until(&self, last: &str, send: impl Fn()) -> Vec<String> {
        let end = Instant::now() + Duration::from_secs(10);
        let mut words: Vec<String> = Vec::new();
        while Instant::now() < end {
            send();
            let mut data = [0; 64];
            while let Ok((count, _)) = self.0.recv_from(&mut data) {
                let word = String::from_utf8_lossy(&data[..count]).into_owned();
                if word == last {
                    return words;
                }
                words.push(word);
            }
        }
        panic!("{last} has not come, only {words:?}");
    }
}

/// A word by an honest socket.
pub fn say(from: &Netns, to: &str, word: &str) {
    let to: SocketAddr = to.parse().expect("an address and a port");
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = from.enter(|| UdpSocket::bind(any)).expect("a UDP socket");
    let sent = from.enter(|| socket.send_to(word.as_bytes(), to));
    assert!(sent.is_ok(), "the sender's kernel sends to {to}: {sent:?}");
}
