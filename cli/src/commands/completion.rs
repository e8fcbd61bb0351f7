//! `completion` and `man`: what a packager installs, made from the definition of the command line.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use clap_complete::{Shell, generate};

use super::{Answer, Context};
use crate::output;

/// Generate the autocompletion script for a shell: bash, zsh or fish
#[derive(Debug, Args)]
#[command(override_usage = "coracle completion SHELL")]
pub struct Completion {
    #[arg(value_name = "SHELL", value_enum, hide_possible_values = true)]
    shell: Supported,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Supported {
    Bash,
    Zsh,
    Fish,
}

/// Write the manual, a page for each command
#[derive(Debug, Args)]
#[command(override_usage = "coracle man DIR")]
pub struct Man {
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub fn run(_: &Context, options: Completion) -> Answer {
    let shell = match options.shell {
        Supported::Bash => Shell::Bash,
        Supported::Zsh => Shell::Zsh,
        Supported::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(
        shell,
        &mut crate::args::definition(),
        "coracle",
        &mut script,
    );
    output::print(String::from_utf8_lossy(&script).trim_end())?;
    Ok(0)
}

pub fn man(_: &Context, options: Man) -> Answer {
    let directory = options.directory;
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("make the directory {}", directory.display()))?;
    clap_mangen::generate_to(crate::args::definition(), &directory)
        .with_context(|| format!("write pages into {}", directory.display()))?;
    Ok(0)
}
