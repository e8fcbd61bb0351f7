//! Where what the container writes goes.

use clap::Args;
use runtime::ContainerRequest;

use crate::failure::Failure;

#[derive(Debug, Args)]
pub struct LogArgs {}

impl LogArgs {
    /// Enters the options in the request.
    pub fn apply(&self, _request: &mut ContainerRequest) -> Result<(), Failure> {
        Ok(())
    }
}
