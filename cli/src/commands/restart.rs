//! `restart`: stops containers, and starts them.

use clap::Args;

use super::stop::StopArgs;
use super::{Answer, Context, each};
use crate::output;

/// Restart one or more containers
#[derive(Debug, Args)]
#[command(override_usage = "coracle restart [OPTIONS] CONTAINER [CONTAINER...]")]
pub struct Restart {
    #[command(flatten)]
    how: StopArgs,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub fn run(context: &Context, options: Restart) -> Answer {
    let mut engine = context.engine()?;
    each(&options.containers, |name| {
        engine.restart(name, &options.how.options())?;
        Ok(output::print(name)?)
    })
}
