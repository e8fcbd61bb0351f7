//! `update`: other limits, or another restart policy, for containers that are there.

use clap::Args;
use runtime::request::{Resources, UpdateRequest};

use super::{Answer, Context, each};
use crate::args::life::parse_restart;
use crate::args::resources::LimitArgs;
use crate::failure::Failure;
use crate::output;

/// Update configuration of one or more containers
#[derive(Debug, Args)]
#[command(override_usage = "coracle update [OPTIONS] CONTAINER [CONTAINER...]")]
pub struct Update {
    #[command(flatten)]
    limits: LimitArgs,
    /// When to start the container again: no, on-failure[:MAX], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub fn run(context: &Context, options: Update) -> Answer {
    let request = UpdateRequest {
        resources: options.limits.resources(),
        restart: options.restart.as_deref().map(parse_restart).transpose()?,
    };
    if request.resources == Resources::default() && request.restart.is_none() {
        return Err(Failure::Plain {
            text: "you must provide one or more flags when using this command".to_owned(),
            code: 1,
        });
    }
    let mut engine = context.engine()?;
    let mut warnings = Vec::new();
    let code = each(&options.containers, |name| {
        warnings.extend(engine.update(name, &request)?);
        Ok(output::print(name)?)
    });
    // The same for every container that was changed.
    warnings.dedup();
    for warning in warnings {
        eprintln!("{warning}");
    }
    code
}
