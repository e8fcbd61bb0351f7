//! Images: references, pulling, safe application of layers, and the store.
//!
//! Knows nothing of networks or containers. Its tables live in the database that the caller opens.

#![forbid(unsafe_code)]

pub mod archive;
pub mod layer;
pub mod pull;
pub mod reference;
pub mod registry;
pub mod store;

mod error;

pub use error::{Error, ErrorKind};
pub use reference::Reference;
pub use store::{Image, ImageSummary, Removal};
