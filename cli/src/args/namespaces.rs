//! Whose namespaces the container lives in; its network is apart.

use clap::Args;
use runtime::ContainerRequest;

use crate::failure::Failure;

#[derive(Debug, Args)]
pub struct NamespaceArgs {}

impl NamespaceArgs {
    /// Enters the options in the request.
    pub fn apply(&self, _request: &mut ContainerRequest) -> Result<(), Failure> {
        Ok(())
    }
}
