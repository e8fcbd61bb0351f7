//! `volume prune`: removes the volumes that no container has.

use clap::Args;
use time::OffsetDateTime;

use super::super::{Answer, Context};
use crate::args::filter::FilterError;
use crate::args::prune::{Filters, PruneArgs, bool_of, is_sure, reclaimed};
use crate::failure::Failure;
use crate::output;

/// Remove the volumes that no container has: those without a name, or all
#[derive(Debug, Args)]
#[command(override_usage = "coracle volume prune [OPTIONS]")]
pub struct Prune {
    /// Those with a name too; the same as --filter all=true
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    prune: PruneArgs,
}

pub fn run(context: &Context, options: &Prune) -> Answer {
    let (mut all, mut pairs) = (options.all, Vec::new());
    for (name, value) in &options.prune.filter {
        match name.as_str() {
            "all" => all |= bool_of(name, value)?,
            // Docker has it for everything but volumes.
            "until" => return Err(Failure::Own(FilterError::Unknown(name.clone()).into())),
            _ => pairs.push((name.clone(), value.clone())),
        }
    }
    let filters = Filters::new(&pairs, OffsetDateTime::now_utc()).map_err(Failure::Own)?;
    let which = if all { "local" } else { "anonymous local" };
    let warning =
        format!("WARNING! This will remove {which} volumes not used by at least one container.");
    if !options.prune.force && !is_sure(&warning)? {
        return Ok(0);
    }
    let (removed, bytes) = context.engine()?.prune_volumes(|volume| {
        (all || volume.anonymous) && filters.accept(Some(volume.created), &volume.labels)
    })?;
    output::print(&format!(
        "{}{}",
        output::section("Deleted Volumes:", &removed),
        reclaimed(bytes)
    ))?;
    Ok(0)
}
