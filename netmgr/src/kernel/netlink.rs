//! One blocking netlink conversation: send a request, read its answers, turn its code into an [`io::Error`].
//!
//! rtnetlink makes the messages and its socket carries them; its asynchronous connection is left out, because a change
//! is a short row of requests each of which needs the answer to the one before. [`Conversation`] is the same for any
//! sort of message; [`Channel`] is the one about links, addresses and routes.

use std::io;
use std::marker::PhantomData;
use std::net::Ipv6Addr;

use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkBuffer, NetlinkDeserializable, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use rtnetlink::packet_route::route::RouteType;
use rtnetlink::sys::{Socket, protocols::NETLINK_ROUTE};

use crate::change::Netns;
use crate::kernel::{Error, netns};

/// The kernel fills at most 32 KiB for one read of a dump (`netlink_dump` in `net/netlink/af_netlink.c`).
const READ_SIZE: usize = 32 << 10;

/// How often a dump is read again on a host whose links change all the time.
const DUMP_ATTEMPTS: usize = 4;

/// A netlink socket in one namespace, whichever thread uses it.
pub(crate) struct Conversation<M> {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
    messages: PhantomData<M>,
}

pub(crate) type Channel = Conversation<RouteNetlinkMessage>;

impl Channel {
    /// In the namespace of the calling thread.
    pub(crate) fn open() -> Result<Channel, Error> {
        Socket::new(NETLINK_ROUTE)
            .map(Conversation::new)
            .map_err(|source| Error::OpenNetlink { source })
    }

    /// In `netns`, where the calling thread need not be.
    pub(crate) fn open_in(netns: &Netns) -> Result<Channel, Error> {
        netns::run_in(netns, Channel::open)?
    }

    /// Makes a new object; `EEXIST` if it is there.
    pub(crate) fn create(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
            .map(drop)
    }

    /// Changes or removes what is there.
    pub(crate) fn change(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.request(message, NLM_F_ACK).map(drop)
    }

    /// Makes a new object, or puts it in the place of the one that is there.
    pub(crate) fn replace(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE)
            .map(drop)
    }

    /// Whether packets to `address` are this namespace's own: the kernel makes the local route of an IPv6 address a
    /// moment after the address (`addrconf_dad_work`), and what arrives before is lost.
    pub(crate) fn is_local(&mut self, address: Ipv6Addr) -> io::Result<bool> {
        let message = RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(address, 128)
            .build();
        match self.request(RouteNetlinkMessage::GetRoute(message), NLM_F_ACK) {
            Err(error) if error.raw_os_error() == Some(libc::ENETUNREACH) => Ok(false),
            Err(error) => Err(error),
            Ok((answers, _)) => Ok(answers.iter().any(|answer| {
                matches!(answer, RouteNetlinkMessage::NewRoute(route)
                    if route.header.kind == RouteType::Local)
            })),
        }
    }

    /// One interface by its name.
    ///
    /// Since Linux 6.9 this also finishes the kernel's deferred work on the link's carrier before it answers
    /// (`rtnl_getlink`, `linkwatch_sync_dev`): afterwards a bridge port whose peer is up forwards.
    pub(crate) fn link(&mut self, name: &str) -> io::Result<LinkMessage> {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]),
        ];
        let (answers, _) = self.request(RouteNetlinkMessage::GetLink(message), NLM_F_ACK)?;
        answers
            .into_iter()
            .find_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(link) => Some(link),
                _ => None,
            })
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    /// The index of an interface, without taking the kernel's big network lock.
    pub(crate) fn index(&self, name: &str) -> io::Result<u32> {
        Ok(rustix::net::netdevice::name_to_index(&self.socket, name)?)
    }
}

impl<M> Conversation<M>
where
    M: Clone + NetlinkSerializable + NetlinkDeserializable + Into<NetlinkPayload<M>>,
{
    pub(crate) fn new(socket: Socket) -> Conversation<M> {
        Conversation {
            socket,
            sequence: 0,
            buffer: Vec::with_capacity(READ_SIZE),
            messages: PhantomData,
        }
    }

    /// Reads all objects of a sort; starts again when they changed under way.
    pub(crate) fn dump(&mut self, message: M) -> io::Result<Vec<M>> {
        let mut answers = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            let interrupted;
            (answers, interrupted) = self.request(message.clone(), NLM_F_DUMP)?;
            if !interrupted {
                break;
            }
        }
        Ok(answers)
    }

    /// The answers, and whether the kernel marked them as inconsistent.
    pub(crate) fn request(&mut self, message: M, flags: u16) -> io::Result<(Vec<M>, bool)> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        self.answers()
    }

    /// Reads until the acknowledgement, the error or the end of the dump that belongs to the last request.
    fn answers(&mut self) -> io::Result<(Vec<M>, bool)> {
        let mut answers = Vec::new();
        let mut interrupted = false;
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                received => received?,
            };
            let mut rest = self.buffer.as_slice();
            while !rest.is_empty() {
                let header = NetlinkBuffer::new_checked(rest).map_err(malformed)?;
                let length = header.length() as usize;
                let ours = header.sequence_number() == self.sequence;
                interrupted |= ours && header.flags() & NLM_F_DUMP_INTR != 0;
                let message = NetlinkMessage::<M>::deserialize(&rest[..length]);
                rest = &rest[length.next_multiple_of(4).min(rest.len())..];
                if !ours {
                    continue;
                }
                match message.map(|message| message.payload) {
                    Ok(NetlinkPayload::InnerMessage(message)) => answers.push(message),
                    Ok(NetlinkPayload::Error(error)) => match error.code {
                        Some(_) => return Err(error.to_io()),
                        None => return Ok((answers, interrupted)),
                    },
                    Ok(NetlinkPayload::Done(done)) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(-done.code));
                    }
                    Ok(NetlinkPayload::Done(_)) => return Ok((answers, interrupted)),
                    Ok(_) => {}
                    // An attribute that the parser does not know makes it refuse a message. That message is left
                    // out and not fatal: none of ours has such a one.
                    Err(error) => tracing::trace!(%error, "netlink message left out"),
                }
            }
        }
    }
}

fn malformed(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}
