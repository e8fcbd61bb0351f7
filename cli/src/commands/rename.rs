//! `rename`: gives a container another name.

use clap::Args;

use super::{Answer, Context, tell};
use crate::failure::Failure;

/// Rename a container
#[derive(Debug, Args)]
#[command(override_usage = "coracle rename CONTAINER NEW_NAME")]
pub struct Rename {
    #[arg(value_name = "CONTAINER")]
    container: String,
    #[arg(value_name = "NEW_NAME")]
    name: String,
}

pub fn run(context: &Context, options: Rename) -> Answer {
    let plain = |text: String| Failure::Plain { text, code: 1 };
    if options.container.trim().is_empty() || options.name.trim().is_empty() {
        let text = "Error: Neither old nor new names may be empty";
        return Err(plain(text.to_owned()));
    }
    match context.engine()?.rename(&options.container, &options.name) {
        Ok(()) => Ok(0),
        Err(error) => {
            tell(&error.into());
            Err(plain(format!(
                "Error: failed to rename container named {}",
                options.container
            )))
        }
    }
}
