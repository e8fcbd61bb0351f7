//! `wait`: blocks until containers end.

use clap::Args;

use super::{Answer, Context, each};
use crate::output;

/// Block until one or more containers stop, then print their exit codes
#[derive(Debug, Args)]
#[command(override_usage = "coracle wait CONTAINER [CONTAINER...]")]
pub struct Wait {
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub fn run(context: &Context, options: Wait) -> Answer {
    let mut engine = context.engine()?;
    each(&options.containers, |name| {
        let code = engine.wait(name)?;
        Ok(output::print(&code.to_string())?)
    })
}
