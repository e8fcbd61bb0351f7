//! What becomes of the container by itself: restarts, health checks.

use clap::Args;
use runtime::ContainerRequest;

use crate::failure::Failure;

#[derive(Debug, Args)]
pub struct LifeArgs {}

impl LifeArgs {
    /// Enters the options in the request.
    pub fn apply(&self, _request: &mut ContainerRequest) -> Result<(), Failure> {
        Ok(())
    }
}
