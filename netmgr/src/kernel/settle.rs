//! Brings links that stand in order: a bridge up and with its addresses, a veth up and a port of its bridge.
//!
//! Every step may run twice and needs no inverse: it sets what the model says, and a change that is cut short leaves
//! no more than a step that is still to be done. What must be made or removed is a matter of the plan.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use crate::kernel::links::{self, Link};
use crate::kernel::netlink::Channel;
use crate::kernel::{Error, bridge, reserved};
use crate::model::Model;
use crate::plan;

/// One thing to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Of a bridge, or of a veth's end on the host.
    Up(String),
    Address(String, IpNet),
    Mtu(String, u32),
    /// The value is always 0.
    Sysctl(PathBuf),
    Reserve(u16, u16),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Up(name) => write!(f, "set {name} up"),
            Step::Address(name, address) => write!(f, "give {name} the address {address}"),
            Step::Mtu(name, mtu) => write!(f, "give {name} the mtu {mtu}"),
            Step::Sysctl(path) => write!(f, "set {} to 0", path.display()),
            Step::Reserve(first, last) => {
                write!(f, "keep ports {first}-{last} from ephemeral use")
            }
        }
    }
}

/// What is to be set. A link that is missing or of another kind is passed over.
pub(crate) fn steps(model: &Model) -> Result<Vec<Step>, Error> {
    let found = links::list()?;
    let addresses = addresses(&mut Channel::open()?)?;
    let mut steps = Vec::new();
    for network in &model.networks {
        let Some(bridge) = find(&found, &network.bridge, "bridge") else {
            continue;
        };
        let has = |wanted: &IpNet| addresses.contains(&(bridge.index, *wanted));
        let missing = wanted_addresses(network).into_iter().filter(|a| !has(a));
        steps.extend(missing.map(|a| Step::Address(bridge.name.clone(), a)));
        if let Some(mtu) = network.mtu()
            && mtu != bridge.mtu
        {
            steps.push(Step::Mtu(bridge.name.clone(), mtu));
        }
        steps.extend(trusting(&bridge.name));
        // Last: a bridge that comes up without its link-local address makes it itself, and tests it for duplicates for
        // two seconds in which it asks for no container (see `bridge::create`).
        if !bridge.up {
            steps.push(Step::Up(bridge.name.clone()));
        }
    }
    for endpoint in &model.endpoints {
        let Some(veth) = find(&found, &endpoint.host_interface, "veth") else {
            continue;
        };
        if !veth.up {
            steps.push(Step::Up(veth.name.clone()));
        }
    }
    let kept = reserved_runs();
    steps.extend(
        plan::reserved(model)
            .into_iter()
            .filter(|run| !covers(&kept, *run))
            .map(|(first, last)| Step::Reserve(first, last)),
    );
    Ok(steps)
}

pub(crate) fn run(steps: &[Step]) -> Result<(), Error> {
    if steps.is_empty() {
        return Ok(());
    }
    let mut channel = Channel::open()?;
    for step in steps {
        tracing::debug!(%step, "settled");
        let failed = |source| Error::Settle {
            step: step.to_string(),
            source,
        };
        match step {
            // By `reserved::replace`, which knows what was the administrator's.
            Step::Reserve(..) => {}
            Step::Sysctl(path) => std::fs::write(path, "0").map_err(failed)?,
            step => match set(&mut channel, step) {
                // It went with its container's namespace since it was looked at.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                result => result.map_err(failed)?,
            },
        }
    }
    Ok(())
}

fn set(channel: &mut Channel, step: &Step) -> io::Result<()> {
    match step {
        Step::Up(name) => {
            change(channel, LinkUnspec::new_with_name(name).up())?;
            // Asking makes the kernel finish its deferred work, else nothing is sent for up to a second
            // (see `Channel::link`).
            channel.link(name).map(drop)
        }
        Step::Mtu(name, mtu) => change(channel, LinkUnspec::new_with_name(name).mtu(*mtu)),
        Step::Address(name, address) => {
            let index = channel.index(name)?;
            let added = match address {
                IpNet::V4(net) => bridge::add_address(channel, index, net.addr(), net.prefix_len()),
                IpNet::V6(net) => {
                    bridge::add_address6(channel, index, net.addr(), net.prefix_len())
                }
            };
            match added {
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
                result => result,
            }
        }
        Step::Sysctl(_) | Step::Reserve(..) => Ok(()),
    }
}

fn change(channel: &mut Channel, request: LinkMessageBuilder<LinkUnspec>) -> io::Result<()> {
    let message: LinkMessage = request.build();
    channel.change(RouteNetlinkMessage::SetLink(message))
}

fn find<'a>(links: &'a [Link], name: &str, kind: &str) -> Option<&'a Link> {
    links.iter().find(|l| l.name == name && l.kind == kind)
}

/// The gateways, with the length of their subnets' prefixes; with IPv6 the link-local address too, as
/// `bridge::create` gives it: the kernel takes all IPv6 addresses of an interface that is set down.
pub(crate) fn wanted_addresses(network: &crate::model::Network) -> Vec<IpNet> {
    let link_local = bridge::link_local_of(network.gateway);
    let pairs = [
        Some((IpAddr::from(network.gateway), network.subnet.prefix_len())),
        network
            .v6
            .map(|v6| (IpAddr::from(v6.gateway), v6.subnet.prefix_len())),
        network.v6.map(|_| (IpAddr::from(link_local), 64)),
    ];
    let nets = pairs.into_iter().flatten();
    nets.filter_map(|(address, prefix)| IpNet::new(address, prefix).ok())
        .collect()
}

/// Settings by which a container could rearrange the host's routes (see `bridge::distrust`). A kernel without IPv6 has
/// none of them.
fn trusting(bridge: &str) -> impl Iterator<Item = Step> {
    let path = |setting| PathBuf::from(format!("/proc/sys/net/ipv6/conf/{bridge}/{setting}"));
    let paths = ["accept_ra", "accept_redirects"].map(path);
    paths
        .into_iter()
        .filter(|path| std::fs::read_to_string(path).is_ok_and(|text| text.trim() != "0"))
        .map(Step::Sysctl)
}

/// What `ip_local_reserved_ports` holds; nothing where it cannot be read.
pub(crate) fn reserved_runs() -> Vec<(u16, u16)> {
    reserved::runs().unwrap_or_default()
}

/// The kernel merges runs that touch, so that one of its runs holds all of ours or not.
pub(crate) fn covers(runs: &[(u16, u16)], wanted: (u16, u16)) -> bool {
    runs.iter()
        .any(|run| run.0 <= wanted.0 && wanted.1 <= run.1)
}

/// Every address of both families, with the index of its interface.
pub(crate) fn addresses(channel: &mut Channel) -> Result<Vec<(u32, IpNet)>, Error> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let answers = channel.dump(request).map_err(|source| Error::List {
        what: "addresses",
        source,
    })?;
    let addresses = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewAddress(message) => {
            let net = IpNet::new(own(&message)?, message.header.prefix_len).ok()?;
            Some((message.header.index, net))
        }
        _ => None,
    });
    Ok(addresses.collect())
}

/// `IFA_LOCAL` where there is one: `IFA_ADDRESS` is then the peer's.
fn own(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}
