//! Networks, addresses, published ports, and the firewall rules that make them work.
//!
//! The core loop, for every change and every removal:
//! lock -> edit the tables -> `policy` -> `plan` -> `apply` -> commit. Knows nothing of images or of the runtime:
//! it is handed a container's network namespace and hands back an [`Attachment`].

pub mod apply;
pub mod change;
pub mod dns;
pub mod doctor;
pub mod explain;
pub mod firewall;
pub mod ipam;
pub mod kernel;
pub mod model;
pub mod plan;
pub mod ports;
pub mod preview;
pub mod proxy;
pub mod store;
pub mod watch;

mod edit;
mod journal;
mod session;
mod stale;

mod error;

pub use change::{
    AttachRequest, Attachment, Edit, Firewall, NamespaceOf, Netns, NetworkRequest, Pool, Settings,
    VethRemoval, change, down, reload, repair, up,
};
pub use error::{Error, ErrorKind};
pub use model::{
    Endpoint, Family, GatewayMode, Model, Network, PortMap, PortRequest, Profile, Protocol, V6,
};
