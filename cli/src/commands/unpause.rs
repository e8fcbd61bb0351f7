//! `unpause`: lets the processes of a paused container go on.

use clap::Args;

use super::{Answer, Context, each};
use crate::output;

/// Unpause all processes within one or more containers
#[derive(Debug, Args)]
#[command(override_usage = "coracle unpause CONTAINER [CONTAINER...]")]
pub struct Unpause {
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub fn run(context: &Context, options: Unpause) -> Answer {
    let mut engine = context.engine()?;
    each(&options.containers, |name| {
        engine.unpause(name)?;
        Ok(output::print(name)?)
    })
}
