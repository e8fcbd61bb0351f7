//! A running container's default routes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol, RouteScope};

use crate::change::Netns;
use crate::kernel::Error;
use crate::kernel::netlink::Channel;
use crate::plan::Hop;

/// Takes the default routes of `from` away and sets those of `to`, one request a family: the kernel puts the new route in
/// the old one's place, so that at no instant there is none. When one family fails, the other is as it was.
///
/// What is there already, or gone already, is no failure; routes over other gateways are the container's own and stay.
pub(crate) fn set_default(
    netns: &Netns,
    from: Option<&Hop>,
    to: Option<&Hop>,
) -> Result<(), Error> {
    let mut inside = Channel::open_in(netns)?;
    let moves = [Hop::v4, Hop::v6].map(|gateway| Move {
        from: from.and_then(gateway),
        to: to.and_then(gateway),
    });
    let mut done: Vec<&Move> = Vec::new();
    for step in &moves {
        if let Err(cause) = step.run(&mut inside) {
            let undo = done.iter().map(|step| step.inverted().run(&mut inside));
            let undo: Vec<Error> = undo.filter_map(Result::err).collect();
            return Err(match undo.is_empty() {
                true => cause,
                false => Error::RollBack {
                    cause: Box::new(cause),
                    undo,
                },
            });
        }
        done.push(step);
    }
    Ok(())
}

/// `ip route add default via GATEWAY dev INDEX`.
pub(crate) fn default_route(index: u32, gateway: IpAddr) -> RouteMessage {
    match gateway {
        IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(gateway)
            .output_interface(index)
            .build(),
        IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new()
            .gateway(gateway)
            .output_interface(index)
            .build(),
    }
}

/// An interface and the gateway behind it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Via<'a> {
    interface: &'a str,
    gateway: IpAddr,
}

impl Hop {
    fn v4(&self) -> Option<Via<'_>> {
        self.over(self.gateway?.into())
    }

    fn v6(&self) -> Option<Via<'_>> {
        self.over(self.gateway6?.into())
    }

    fn over(&self, gateway: IpAddr) -> Option<Via<'_>> {
        Some(Via {
            interface: &self.interface,
            gateway,
        })
    }
}

/// The default route of one family.
struct Move<'a> {
    from: Option<Via<'a>>,
    to: Option<Via<'a>>,
}

impl<'a> Move<'a> {
    fn inverted(&self) -> Move<'a> {
        Move {
            from: self.to,
            to: self.from,
        }
    }

    fn run(&self, inside: &mut Channel) -> Result<(), Error> {
        match (self.from, self.to) {
            (_, Some(to)) => set(inside, to).map_err(failed("set", to)),
            (Some(from), None) => remove(inside, from).map_err(failed("remove", from)),
            (None, None) => Ok(()),
        }
    }
}

fn set(inside: &mut Channel, via: Via<'_>) -> io::Result<()> {
    let index = inside.index(via.interface)?;
    let route = default_route(index, via.gateway);
    inside.replace(RouteNetlinkMessage::NewRoute(route))
}

fn remove(inside: &mut Channel, via: Via<'_>) -> io::Result<()> {
    let removed = inside.index(via.interface).and_then(|index| {
        let mut route = default_route(index, via.gateway);
        // Whoever made it.
        route.header.protocol = RouteProtocol::Unspec;
        route.header.scope = RouteScope::NoWhere;
        inside.change(RouteNetlinkMessage::DelRoute(route))
    });
    match removed {
        // ENODEV: the routes went with their interface.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENODEV)) => Ok(()),
        result => result,
    }
}

fn failed(action: &'static str, via: Via<'_>) -> impl FnOnce(io::Error) -> Error {
    let Via { interface, gateway } = via;
    let interface = interface.to_owned();
    move |source| Error::DefaultRoute {
        action,
        interface,
        gateway,
        source,
    }
}
