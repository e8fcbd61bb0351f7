//! What the container may use of the machine: memory, CPUs, processes.

use clap::Args;
use runtime::ContainerRequest;

use crate::failure::Failure;

#[derive(Debug, Args)]
pub struct ResourceArgs {}

impl ResourceArgs {
    /// Enters the options in the request.
    pub fn apply(&self, _request: &mut ContainerRequest) -> Result<(), Failure> {
        Ok(())
    }
}
