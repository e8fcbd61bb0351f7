//! `pause`: lets every process of a container stand still.

use clap::Args;

use super::{Answer, Context, each};
use crate::output;

/// Pause all processes within one or more containers
#[derive(Debug, Args)]
#[command(override_usage = "coracle pause CONTAINER [CONTAINER...]")]
pub struct Pause {
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub fn run(context: &Context, options: Pause) -> Answer {
    let mut engine = context.engine()?;
    each(&options.containers, |name| {
        engine.pause(name)?;
        Ok(output::print(name)?)
    })
}
