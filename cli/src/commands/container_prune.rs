//! `container prune`: removes the containers that do not run.

use clap::Args;
use time::OffsetDateTime;

use super::{Answer, Context};
use crate::args::prune::{Filters, is_sure};
use crate::args::values;
use crate::failure::Failure;
use crate::output::{self, words};

const WARNING: &str = "WARNING! This will remove all stopped containers.\n\
     Are you sure you want to continue? [y/N] ";

/// Remove all stopped containers
#[derive(Debug, Args)]
#[command(override_usage = "coracle container prune [OPTIONS]")]
pub struct Prune {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only those that match: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::parse_filter)]
    filter: Vec<(String, String)>,
}

pub fn run(context: &Context, options: Prune) -> Answer {
    let filters = Filters::new(&options.filter, OffsetDateTime::now_utc()).map_err(Failure::Own)?;
    if !options.force && !is_sure(WARNING)? {
        return Ok(0);
    }
    let pruned = context.engine()?.prune_containers(|container| {
        filters.accept(Some(container.created), &container.resolved.labels)
    })?;
    let mut text = String::new();
    if !pruned.containers.is_empty() {
        let ids = pruned.containers.join("\n");
        text = format!("Deleted Containers:\n{ids}\n\n");
    }
    let size = words::size_with(pruned.reclaimed, 4);
    output::print(&format!("{text}Total reclaimed space: {size}"))?;
    Ok(0)
}
