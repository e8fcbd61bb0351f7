//! Deletes what the kernel remembers of connections whose published port has moved (`nf_conntrack_netlink`), in the
//! network namespace of the calling thread.
//!
//! A connection that is known keeps its old translation whatever the rules say, and a busy UDP client keeps it known for
//! good (moby#8795). Which entries are stale is told by [`Stale`]; this file finds and deletes them.

use std::collections::HashMap;
use std::net::IpAddr;

use rtnetlink::packet_core::NLM_F_ACK;
use rtnetlink::sys::{Socket, protocols::NETLINK_NETFILTER};

use crate::kernel::Error;
use crate::kernel::conntrack_message::{Direction, Entry, Filter, Message};
use crate::kernel::links;
use crate::kernel::netlink::Conversation;
use crate::model::{Family, Protocol};

/// Entries to delete: those whose original destination, as the client addressed it, is a host port of the run, and which
/// lead to the wrong place. The port is the host's and not the container's (moby#53384).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    pub protocol: Protocol,
    /// `None`: any address of this host.
    pub host_ip: Option<IpAddr>,
    pub first: u16,
    pub last: u16,
    pub leads: Leads,
}

/// Where a stale entry leads, which is where its replies come from. Only entries of that address's family count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leads {
    /// The port was removed, or has moved away: entries translated to the container that had it.
    To(IpAddr),
    /// The port is newly published: entries that go anywhere but to its container, be it to the host itself (a client
    /// was there before the container) or to a container that had the port at some time.
    NotTo(IpAddr),
}

impl Leads {
    fn family(self) -> Family {
        let (Leads::To(address) | Leads::NotTo(address)) = self;
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }
}

/// Deletes all entries that are stale by one of the descriptions, and returns how many there were. A kernel without
/// connection tracking has none.
pub fn flush(stale: &[Stale]) -> Result<usize, Error> {
    if stale.is_empty() {
        return Ok(0);
    }
    let Some(mut kernel) = open()? else {
        return Ok(0);
    };
    // One reading for each family and protocol, however many ports there are.
    let mut groups: HashMap<(Family, Protocol), Vec<&Stale>> = HashMap::new();
    for one in stale {
        let group = (one.leads.family(), one.protocol);
        groups.entry(group).or_default().push(one);
    }
    let mut host: Option<Vec<IpAddr>> = None;
    let mut deleted = 0;
    for ((family, protocol), group) in groups {
        let filter = filter(family, protocol, &group);
        let entries = read(&mut kernel, Message::list(&filter), family)?;
        for entry in entries {
            let suspect = group.iter().filter(|stale| leads_astray(stale, &entry));
            let mut is_stale = false;
            for stale in suspect {
                is_stale |= match (stale.host_ip, stale.leads) {
                    (Some(ip), _) if !ip.is_unspecified() => ip == entry.destination,
                    // Any address of this host, which it was if it led to our container.
                    (_, Leads::To(_)) => true,
                    // Connections that the host only forwards have the same port by chance, and stay.
                    (_, Leads::NotTo(_)) => is_of_host(&mut host, entry.destination)?,
                };
            }
            if is_stale {
                deleted += usize::from(delete(&mut kernel, family, &entry)?);
            }
        }
    }
    Ok(deleted)
}

/// Deletes all entries of containers that have gone: what one of them began, or answered. The next container of that
/// address would be sent the packets of peers that it has never spoken to, past every rule: they count as replies.
pub fn forget(addresses: &[IpAddr]) -> Result<usize, Error> {
    if addresses.is_empty() {
        return Ok(0);
    }
    let Some(mut kernel) = open()? else {
        return Ok(0);
    };
    let mut deleted = 0;
    let mut remove = |family, request| -> Result<(), Error> {
        for entry in read(&mut kernel, request, family)? {
            let is_of = |address| [entry.source, entry.reply_source].contains(address);
            if addresses.iter().any(is_of) {
                deleted += usize::from(delete(&mut kernel, family, &entry)?);
            }
        }
        Ok(())
    };
    for address in addresses {
        if let IpAddr::V4(address) = *address {
            for direction in [Direction::Original, Direction::Reply] {
                remove(Family::V4, Message::list_from(address, direction))?;
            }
        }
    }
    if addresses.iter().any(IpAddr::is_ipv6) {
        remove(Family::V6, Message::list_all(Family::V6))?;
    }
    Ok(deleted)
}

/// `None`: a kernel without connection tracking, or nothing that is tracked.
fn open() -> Result<Option<Conversation<Message>>, Error> {
    // A listing walks all of the kernel's hash table, however little is in it; how much that is costs nothing to ask.
    let count = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count");
    if count.is_ok_and(|count| count.trim() == "0") {
        return Ok(None);
    }
    match Socket::new(NETLINK_NETFILTER) {
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => Ok(None),
        Err(source) => Err(Error::OpenNetlink { source }),
        Ok(socket) => Ok(Some(Conversation::new(socket))),
    }
}

/// Everything but the host's address.
fn leads_astray(stale: &Stale, entry: &Entry) -> bool {
    entry.protocol == stale.protocol
        && (stale.first..=stale.last).contains(&entry.port)
        && match stale.leads {
            // Who addresses the container itself depends on no published port.
            Leads::To(container) => entry.is_translated() && entry.reply_source == container,
            Leads::NotTo(container) => entry.reply_source != container,
        }
}

/// What all of a group have in common, for the kernel to leave out the rest. No address of IPv6: kernels leave out those
/// that match and list the others (`ctnetlink_filter_match_tuple` takes the comparison's 0 for a difference).
fn filter(family: Family, protocol: Protocol, group: &[&Stale]) -> Filter {
    let common = |of: &dyn Fn(&Stale) -> Option<IpAddr>| {
        let first = group.first().and_then(|stale| of(stale))?;
        let all = group.iter().all(|stale| of(stale) == Some(first));
        (all && first.is_ipv4()).then_some(first)
    };
    let port = group.first().map(|stale| stale.first);
    let one_port = |stale: &&Stale| Some(stale.first) == port && stale.first == stale.last;
    Filter {
        family,
        protocol,
        destination: common(&|stale| stale.host_ip.filter(|ip| !ip.is_unspecified())),
        port: port.filter(|_| group.iter().all(one_port)),
        reply_source: common(&|stale| match stale.leads {
            Leads::To(container) => Some(container),
            Leads::NotTo(_) => None,
        }),
    }
}

/// The entries that were asked for, or more: a kernel before 5.8 knows no filter and answers with all there are.
fn read(
    kernel: &mut Conversation<Message>,
    request: Message,
    family: Family,
) -> Result<Vec<Entry>, Error> {
    let answers = match kernel.dump(request) {
        // Whatever it does not like about the filter, we look for ourselves.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            kernel.dump(Message::list_all(family))
        }
        answers => answers,
    };
    match answers {
        // And it is the answer of a kernel to which connection tracking cannot be loaded (`nfnetlink_rcv_msg`).
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Vec::new()),
        Err(source) => Err(Error::List {
            what: "connections",
            source,
        }),
        Ok(answers) => Ok(answers
            .into_iter()
            .filter_map(Message::into_entry)
            .collect()),
    }
}

/// `false` for an entry that has gone by itself.
fn delete(
    kernel: &mut Conversation<Message>,
    family: Family,
    entry: &Entry,
) -> Result<bool, Error> {
    match kernel.request(Message::delete(family, entry), NLM_F_ACK) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(source) => Err(Error::ForgetConnection {
            protocol: entry.protocol.as_str(),
            destination: entry.destination,
            port: entry.port,
            source,
        }),
    }
}

/// Reads the host's addresses when it is first asked.
fn is_of_host(known: &mut Option<Vec<IpAddr>>, address: IpAddr) -> Result<bool, Error> {
    if address.is_loopback() {
        return Ok(true);
    }
    let addresses = match known {
        Some(addresses) => addresses,
        None => known.insert(links::addresses()?),
    };
    Ok(addresses.contains(&address))
}
