//! `stop`: the stop signal, then SIGKILL.

use clap::Args;

use super::{Answer, Context, each};
use crate::args::values;
use crate::output;

/// Stop one or more running containers
#[derive(Debug, Args)]
#[command(override_usage = "coracle stop [OPTIONS] CONTAINER [CONTAINER...]")]
pub struct Stop {
    /// Seconds to wait before killing
    #[arg(short = 't', long = "timeout", alias = "time", value_name = "SECONDS", value_parser = values::parse_stop_timeout)]
    timeout: Option<u32>,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub fn run(context: &Context, options: Stop) -> Answer {
    let mut engine = context.engine()?;
    each(&options.containers, |name| {
        if let Some(unheard) = engine.stop(name, options.timeout)? {
            eprintln!(
                "container {} was killed: its first process does nothing about {}. With --init it would be passed on to the \
                 program and end it at once",
                unheard.container, unheard.signal
            );
        }
        Ok(output::print(name)?)
    })
}
