//! `top`: what runs in a container.

use clap::{ArgAction, Args};

use super::{Answer, Context};
use crate::output;
use crate::output::table;

/// Display the running processes of a container
#[derive(Debug, Args)]
#[command(
    override_usage = "coracle top CONTAINER [ps OPTIONS]",
    disable_help_flag = true
)]
pub struct Top {
    /// Print this help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Container, then options for ps
    #[arg(required = true, num_args = 1.., trailing_var_arg = true, value_name = "CONTAINER [ps OPTIONS]", hide = true)]
    words: Vec<String>,
}

pub fn run(context: &Context, options: Top) -> Answer {
    let processes = context
        .engine()?
        .top(&options.words[0], &options.words[1..])?;
    let rows: Vec<String> = std::iter::once(&processes.titles)
        .chain(&processes.rows)
        .map(|row| row.iter().map(|cell| cell.replace('\t', " ")).collect())
        .map(|row: Vec<String>| row.join("\t"))
        .collect();
    output::print(&table::format_wide(&rows))?;
    Ok(0)
}
