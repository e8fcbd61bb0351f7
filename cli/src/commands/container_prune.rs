//! `container prune`: removes the containers that do not run.

use clap::Args;

use super::{Answer, Context};
use crate::args::prune::{PruneArgs, reclaimed};
use crate::output;

/// Remove all stopped containers
#[derive(Debug, Args)]
#[command(override_usage = "coracle container prune [OPTIONS]")]
pub struct Prune {
    #[command(flatten)]
    prune: PruneArgs,
}

pub fn run(context: &Context, options: Prune) -> Answer {
    let warning = "WARNING! This will remove all stopped containers.";
    let Some(filters) = options.prune.confirmed(warning)? else {
        return Ok(0);
    };
    let pruned = context.engine()?.prune_containers(|container| {
        filters.accept(Some(container.created), &container.resolved.labels)
    })?;
    output::print(&format!(
        "{}{}",
        output::section("Deleted Containers:", &pruned.containers),
        reclaimed(pruned.reclaimed)
    ))?;
    Ok(0)
}
