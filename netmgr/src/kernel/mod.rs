//! The only kernel I/O of this crate: netlink, namespaces, sysctls, and the commands that write rules.
//!
//! Everything here is blocking, acts in the network namespace of the calling thread, and decides by errno,
//! never by a text of the kernel or of a command. What should be there is decided elsewhere.

pub mod commands;
pub mod conntrack;
pub mod error;
pub mod host;
pub mod links;
pub mod netns;
pub mod sockets;

pub(crate) mod bridge;
pub(crate) mod conntrack_message;
pub(crate) mod listeners;
pub(crate) mod netlink;
pub(crate) mod reserved;
pub(crate) mod routes;
pub(crate) mod settle;
pub(crate) mod veth;

pub use error::Error;
