//! `system prune`: removes all that is unused.

use clap::Args;
use runtime::engine::SystemPrune;

use super::super::{Answer, Context, image_prune};
use crate::args::prune::{PruneArgs, reclaimed};
use crate::failure::Failure;
use crate::output;

/// Remove all that is unused: stopped containers, networks, images, and what was left half done
#[derive(Debug, Args)]
#[command(override_usage = "coracle system prune [OPTIONS]")]
pub struct Prune {
    /// All images that no container has, not only those without a tag
    #[arg(short, long)]
    all: bool,
    /// Volumes without a name too
    #[arg(long)]
    volumes: bool,
    #[command(flatten)]
    prune: PruneArgs,
}

pub fn run(context: &Context, options: &Prune) -> Answer {
    let filter = &options.prune.filter;
    if options.volumes && filter.iter().any(|(name, _)| name == "until") {
        return Err(Failure::Plain {
            text: "ERROR: The \"until\" filter is not supported with \"--volumes\"".to_owned(),
            code: 1,
        });
    }
    let Some(filters) = options.prune.confirmed(&warning(options))? else {
        return Ok(0);
    };
    let pruned = context.engine()?.prune_system(&SystemPrune {
        images: image_prune::unused(options.all),
        volumes: options.volumes,
        wanted: filters.wanted().as_deref(),
    })?;
    output::print(&format!(
        "{}{}{}{}{}",
        output::section("Deleted Containers:", &pruned.containers),
        output::section("Deleted Networks:", &pruned.networks),
        output::section("Deleted Volumes:", &pruned.volumes),
        image_prune::deleted(&pruned.images),
        reclaimed(pruned.reclaimed)
    ))?;
    Ok(0)
}

/// Docker's; in place of its build cache, which we have none of, stands what else goes.
fn warning(options: &Prune) -> String {
    let mut what = vec![
        "all stopped containers",
        "all networks not used by at least one container",
    ];
    if options.volumes {
        what.push("all anonymous volumes not used by at least one container");
    }
    what.push(match options.all {
        true => "all images without at least one container associated to them",
        false => "all dangling images",
    });
    what.push("what failed pulls and killed commands have left");
    let mut text = "WARNING! This will remove:\n".to_owned();
    for line in what {
        text.push_str(&format!("  - {line}\n"));
    }
    let filters = options.prune.filter.iter();
    let mut filters: Vec<String> = filters
        .map(|(name, value)| format!("  - {name}={value}\n"))
        .collect();
    filters.sort();
    if !filters.is_empty() {
        text.push_str("\n  Items to be pruned will be filtered with:\n");
        text.push_str(&filters.concat());
    }
    text
}
