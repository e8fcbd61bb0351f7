//! `kill`: sends a signal.

use anyhow::anyhow;
use clap::Args;

use super::{Answer, Context, each};
use crate::failure::{Failure, chain};
use crate::output;

/// Kill one or more running containers
#[derive(Debug, Args)]
#[command(override_usage = "coracle kill [OPTIONS] CONTAINER [CONTAINER...]")]
pub struct Kill {
    /// Signal to send
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub fn run(context: &Context, options: Kill) -> Answer {
    let mut engine = context.engine()?;
    let signal = match options.signal.as_str() {
        "" => "KILL",
        name => name,
    };
    each(&options.containers, |name| {
        engine
            .kill(name, signal)
            .map_err(|error| match error.kind() {
                // The signal is wrong, not the container.
                runtime::ErrorKind::Invalid => Failure::Engine(error),
                _ => Failure::Own(anyhow!("Cannot kill container: {name}: {}", chain(&error))),
            })?;
        Ok(output::print(name)?)
    })
}
