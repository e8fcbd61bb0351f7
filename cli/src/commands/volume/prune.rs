//! `volume prune`: removes the volumes that no container has.

use clap::Args;

use super::super::{Answer, Context};
use crate::args::filter::{FilterError, has_label};
use crate::args::prune::is_sure;
use crate::args::values;
use crate::failure::Failure;
use crate::output::{self, words};

/// Remove the volumes that no container has: those without a name, or all
#[derive(Debug, Args)]
#[command(override_usage = "coracle volume prune [OPTIONS]")]
pub struct Prune {
    /// Those with a name too
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only those that match: label=KEY[=VALUE], label!=KEY[=VALUE], all=true
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::parse_filter)]
    filter: Vec<(String, String)>,
}

pub fn run(context: &Context, options: &Prune) -> Answer {
    let mut all = options.all;
    for (name, value) in &options.filter {
        match name.as_str() {
            "label" | "label!" => {}
            "all" => {
                all |= values::parse_bool(value).map_err(|_| {
                    Failure::Own(
                        FilterError::Value {
                            name: name.clone(),
                            value: value.clone(),
                        }
                        .into(),
                    )
                })?;
            }
            _ => return Err(Failure::Own(FilterError::Unknown(name.clone()).into())),
        }
    }
    let which = if all { "local" } else { "anonymous local" };
    let warning = format!(
        "WARNING! This will remove {which} volumes not used by at least one container.\n\
         Are you sure you want to continue? [y/N] "
    );
    if !options.force && !is_sure(&warning)? {
        return Ok(0);
    }
    let (removed, bytes) = context.engine()?.prune_volumes(|volume| {
        (all || volume.anonymous)
            && options
                .filter
                .iter()
                .all(|(name, wanted)| match name.as_str() {
                    "label" => has_label(&volume.labels, wanted),
                    "label!" => !has_label(&volume.labels, wanted),
                    _ => true,
                })
    })?;
    if !removed.is_empty() {
        output::print(&format!("Deleted Volumes:\n{}\n", removed.join("\n")))?;
    }
    output::print(&format!("Total reclaimed space: {}", words::size(bytes)))?;
    Ok(0)
}
