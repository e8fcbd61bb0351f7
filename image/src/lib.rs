//! Images: references, pulling, safe application of layers, and the store.
//!
//! Knows nothing of networks or containers. Its tables live in the database that the caller opens; see `store` for what
//! is where.

#![forbid(unsafe_code)]

pub mod reference;

pub mod registry;

pub mod layer;
pub mod pull;
pub mod push;

pub mod archive;
pub mod check;
pub mod pipe;
pub mod plain;
pub mod space;
pub mod store;

#[cfg(fuzzing)]
pub mod fuzzing;

mod digest;
mod error;
mod interrupt;
mod lock;
mod staging;

pub use error::{Error, ErrorKind};
pub use interrupt::Interrupt;
pub use reference::Reference;
pub use staging::remove_at;
pub use store::{Healthcheck, Image, ImageSummary, Removal, sweep};
