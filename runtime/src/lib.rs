//! Containers: the engine that creates, starts, stops and removes them, and the monitor that watches each.
//!
//! The one crate that knows both images and networks. A front end (the command line now, an HTTP API later) makes one
//! call of [`Engine`] for each command, with a typed request and a typed answer.

pub mod attach;
pub mod bundle;
pub mod cgroup;
pub mod engine;
pub mod events;
pub mod health;
pub mod limits;
pub mod logs;
pub mod monitor;
pub mod names;
pub mod oci;
pub mod process;
pub mod record;
pub mod request;
pub mod restart;
pub mod seccomp;
pub mod spec;
pub mod standalone;
pub mod store;
pub mod user;
pub mod volume;

mod descriptors;
mod error;
mod keyring;
mod pidfd;
mod reserve;
mod wire;

pub use engine::{Engine, Settings};
pub use error::{Error, ErrorKind};
pub use record::{Container, State};
pub use request::{Connection, ContainerRequest, ExecRequest, Mount, MountKind, NetworkMode};
