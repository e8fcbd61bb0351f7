//! `image prune`: removes the images that no container has.

use clap::Args;
use image::Removal;
use image::store::{PrunedImages, Unused};
use time::OffsetDateTime;

use super::{Answer, Context};
use crate::args::prune::{Filters, PruneArgs, bool_of, is_sure, reclaimed};
use crate::failure::Failure;
use crate::output;

/// Remove the images that no container has: those without a tag, or all
#[derive(Debug, Args)]
#[command(override_usage = "coracle image prune [OPTIONS]")]
pub struct Prune {
    /// Those with a tag too; the same as --filter dangling=false
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    prune: PruneArgs,
}

pub fn run(context: &Context, options: &Prune) -> Answer {
    let (mut all, mut pairs) = (options.all, Vec::new());
    for (name, value) in &options.prune.filter {
        match name.as_str() {
            "dangling" => all |= !bool_of(name, value)?,
            _ => pairs.push((name.clone(), value.clone())),
        }
    }
    let filters = Filters::new(&pairs, OffsetDateTime::now_utc()).map_err(Failure::Own)?;
    let warning = match all {
        true => {
            "WARNING! This will remove all images without at least one container associated to them."
        }
        false => "WARNING! This will remove all dangling images.",
    };
    if !options.prune.force && !is_sure(warning)? {
        return Ok(0);
    }
    let pruned = context
        .engine()?
        .prune_images(unused(all), filters.wanted().as_deref())?;
    output::print(&format!(
        "{}{}",
        deleted(&pruned),
        reclaimed(pruned.reclaimed)
    ))?;
    Ok(0)
}

pub fn unused(all: bool) -> Unused {
    match all {
        true => Unused::All,
        false => Unused::Dangling,
    }
}

/// The list of what has gone. A layer that no image had is one of the deleted.
pub fn deleted(pruned: &PrunedImages) -> String {
    let of_images = pruned.images.iter().flat_map(|(_, removals)| removals);
    let mut lines: Vec<String> = of_images
        .map(|removal| match removal {
            Removal::Untagged(name) => format!("untagged: {name}"),
            Removal::Deleted(id) => format!("deleted: {id}"),
        })
        .collect();
    let layers = pruned.layers.iter();
    lines.extend(layers.map(|chain_id| format!("deleted: {chain_id}")));
    output::section("Deleted Images:", &lines)
}
