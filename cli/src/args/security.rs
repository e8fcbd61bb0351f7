//! What the container may do: capabilities, seccomp, devices, sysctls.

use clap::Args;
use runtime::ContainerRequest;

use crate::failure::Failure;

#[derive(Debug, Args)]
pub struct SecurityArgs {}

impl SecurityArgs {
    /// Enters the options in the request.
    pub fn apply(&self, _request: &mut ContainerRequest) -> Result<(), Failure> {
        Ok(())
    }
}
