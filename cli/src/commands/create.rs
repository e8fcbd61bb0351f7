//! `create`: the first half of `run`.

use clap::Args;

use super::cid_file::CidFile;
use super::{Answer, Context, run};
use crate::args::container::ContainerArgs;
use crate::output;

const USAGE: &str = "coracle create [OPTIONS] IMAGE [COMMAND] [ARG...]";

/// Create a new container
#[derive(Debug, Args)]
#[command(override_usage = USAGE, disable_help_flag = true)]
pub struct Create {
    #[command(flatten)]
    container: ContainerArgs,
}

pub fn run(context: &Context, options: Create) -> Answer {
    let mut request = options.container.request(context.config.ip)?;
    let policy = options.container.pull_policy()?;
    request.tty_size = super::streams::terminal_size(request.tty);
    let cid_file = CidFile::make(request.cid_file.as_deref())?;
    let mut engine = context.engine()?;
    run::warn_of_ports_without_effect(&mut request);
    run::have_image(
        context,
        &mut engine,
        &request,
        policy,
        options.container.quiet,
    )?;
    super::warn(&engine, &request)?;
    let container = engine.create(&request)?;
    cid_file.write(&container.id)?;
    output::print(&container.id)?;
    Ok(0)
}
