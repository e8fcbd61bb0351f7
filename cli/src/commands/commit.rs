//! `commit`: a new image from a container's changes.

use clap::{ArgAction, Args};
use runtime::engine::files::CommitRequest;

use super::{Answer, Context};
use crate::args::values;
use crate::output;

/// Create a new image from a container's changes
#[derive(Debug, Args)]
#[command(override_usage = "coracle commit [OPTIONS] CONTAINER [REPOSITORY[:TAG]]")]
pub struct Commit {
    /// Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")
    #[arg(
        short,
        long,
        value_name = "AUTHOR",
        default_value = "",
        hide_default_value = true
    )]
    author: String,
    /// Apply Dockerfile instruction to the created image: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD,
    /// STOPSIGNAL, USER, VOLUME, WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Commit message
    #[arg(
        short,
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    message: String,
    /// Pause container during commit (default true)
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", hide_default_value = true, action = ArgAction::Set, value_parser = values::parse_bool)]
    pause: bool,
    #[arg(value_name = "CONTAINER")]
    container: String,
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

pub fn run(context: &Context, options: Commit) -> Answer {
    let name = options.name.filter(|name| !name.is_empty());
    let name = name.as_deref().map(image::Reference::parse).transpose()?;
    let image = context.engine()?.commit(&CommitRequest {
        container: options.container,
        name,
        author: options.author,
        message: options.message,
        changes: options.change,
        pause: options.pause,
    })?;
    output::print(&image.id)?;
    Ok(0)
}
