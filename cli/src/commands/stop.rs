//! `stop`: the stop signal, then SIGKILL.

use clap::Args;
use runtime::engine::StopOptions;

use super::{Answer, Context, each};
use crate::args::values;
use crate::output;

/// How a container is stopped: `stop` and `restart`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Signal to send, in place of the container's own
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Seconds to wait before killing
    #[arg(short = 't', long = "timeout", alias = "time", value_name = "SECONDS", value_parser = values::parse_stop_timeout)]
    timeout: Option<u32>,
}

impl StopArgs {
    pub fn options(&self) -> StopOptions {
        StopOptions {
            timeout: self.timeout,
            signal: self.signal.clone().filter(|name| !name.is_empty()),
        }
    }
}

/// Stop one or more running containers
#[derive(Debug, Args)]
#[command(override_usage = "coracle stop [OPTIONS] CONTAINER [CONTAINER...]")]
pub struct Stop {
    #[command(flatten)]
    how: StopArgs,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub fn run(context: &Context, options: Stop) -> Answer {
    let mut engine = context.engine()?;
    each(&options.containers, |name| {
        if let Some(unheard) = engine.stop(name, &options.how.options())? {
            eprintln!(
                "container {} was killed: its first process does nothing about {}. With --init it would be passed on to the \
                 program and end it at once",
                unheard.container, unheard.signal
            );
        }
        Ok(output::print(name)?)
    })
}
