//! A container's own DNS responder: 127.0.0.11 in its network namespace, as Docker has it.
//!
//! It knows the containers of the networks that its container is on ([`zone`]) and forwards everything else from the
//! host's side, so no port of the host is open for it and no packet passes the host's firewall. It runs on one thread of
//! the container's monitor: epoll, no queue but the kernel's, buffers only while something is under way.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;

mod clients;
mod forward;
mod link;
mod memory;
mod message;
mod poller;
mod redirect;
mod server;
mod source;
mod upstream;
mod zone;

pub use redirect::{Listening, Reach, listen};
pub use source::Database;
pub use upstream::{Upstreams, parse_server};
pub use zone::{Addresses, Name, NetworkNames, Zone};

/// Where a container finds its responder, on port 53.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// Where the names come from.
///
/// The responder asks before each answer, so that a container attached a moment ago is found: an implementation keeps
/// what it knows to be current.
pub trait Source {
    /// The zone as it is now. While this fails nothing is answered and nothing is forwarded: a container's name must
    /// not go to the outside only because the database could not be read.
    fn zone(&mut self) -> Result<Arc<Zone>, Error>;

    /// Nobody has asked for [`REST_AFTER`]: lets go of what is only kept to be quick.
    fn rest(&mut self) {}
}

impl<F: FnMut() -> Result<Arc<Zone>, Error>> Source for F {
    fn zone(&mut self) -> Result<Arc<Zone>, Error> {
        self()
    }
}

/// See [`Source::rest`].
pub const REST_AFTER: Duration = Duration::from_secs(10);

/// What is not in the zone.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who is asked for names that are not in the zone; nobody, as long as [`Zone::forwards`] says no.
    pub upstreams: Upstreams,
}

/// Answers until `stop` becomes readable or its other end is closed. The calling thread stays in the network namespace
/// that it is in, which must be the host's. Never returns early: a question that fails does so alone.
pub fn serve(listening: Listening, config: Config, source: impl Source, stop: OwnedFd) {
    server::run(listening, config, source, &stop);
}
