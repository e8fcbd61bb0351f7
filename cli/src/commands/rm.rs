//! `rm`: removes containers.

use clap::Args;

use super::{Answer, Context, each, is_not_found, tell};
use crate::failure::Failure;
use crate::output;

/// Remove one or more containers
#[derive(Debug, Args)]
#[command(override_usage = "coracle rm [OPTIONS] CONTAINER [CONTAINER...]")]
pub struct Rm {
    /// Kill those that run; a container that is not there is no failure
    #[arg(short, long)]
    force: bool,
    /// Remove the anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
    /// Not built, as `run --link`
    #[arg(short, long, hide = true)]
    link: bool,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub fn run(context: &Context, options: Rm) -> Answer {
    let mut engine = context.engine()?;
    if options.link {
        return each(&options.containers, |name| {
            let container = engine.find(name)?;
            Err(Failure::Own(anyhow::anyhow!(
                "Conflict, cannot remove the default link name of the container: {} has no links",
                container.name
            )))
        });
    }
    each(&options.containers, |name| {
        match engine
            .remove(name, options.force, options.volumes)
            .map_err(Failure::from)
        {
            Ok(()) => Ok(output::print(name)?),
            // Docker 28 says so and succeeds.
            Err(failure) if options.force && is_not_found(&failure) => {
                tell(&failure);
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    })
}
