//! `rmi`: removes images.

use clap::Args;
use image::Removal;

use super::{Answer, Context, each, is_not_found, tell};
use crate::failure::Failure;
use crate::output;

/// Remove one or more images
#[derive(Debug, Args)]
#[command(override_usage = "coracle rmi [OPTIONS] IMAGE [IMAGE...]")]
pub struct Rmi {
    /// Remove it though stopped containers use it; an image that is not there is no failure
    #[arg(short, long)]
    force: bool,
    /// Accepted for Docker's sake: images have no untagged parents
    #[arg(long, hide = true)]
    no_prune: bool,
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

pub fn run(context: &Context, options: Rmi) -> Answer {
    let mut engine = context.engine()?;
    each(&options.images, |name| {
        match engine
            .remove_image(name, options.force)
            .map_err(Failure::from)
        {
            Ok(removals) => {
                for removal in &removals {
                    output::print(&line(removal))?;
                }
                Ok(())
            }
            // Docker 28 says so and succeeds.
            Err(failure) if options.force && is_not_found(&failure) => {
                tell(&failure);
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    })
}

fn line(removal: &Removal) -> String {
    match removal {
        Removal::Untagged(name) => format!("Untagged: {name}"),
        Removal::Deleted(id) => format!("Deleted: {id}"),
    }
}
