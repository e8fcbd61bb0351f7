//! `export`: a container's root filesystem as a tar.

use std::io::IsTerminal;

use anyhow::anyhow;
use clap::Args;

use super::{Answer, Context, cp};
use crate::failure::Failure;

/// Export a container's filesystem as a tar archive
#[derive(Debug, Args)]
#[command(override_usage = "coracle export [OPTIONS] CONTAINER")]
pub struct Export {
    /// Write to a file, instead of STDOUT
    #[arg(short, long, value_name = "FILE")]
    output: Option<String>,
    #[arg(value_name = "CONTAINER")]
    container: String,
}

pub fn run(context: &Context, options: Export) -> Answer {
    let output = options.output.filter(|path| !path.is_empty());
    let Some(path) = output else {
        if std::io::stdout().is_terminal() {
            return Err(Failure::Refused(anyhow!(
                "cowardly refusing to save to a terminal. Use the -o flag or redirect"
            )));
        }
        let mut engine = context.engine()?;
        engine.export(&options.container, &mut std::io::stdout())?;
        return Ok(0);
    };
    let mut engine = context.engine()?;
    cp::write_whole(&path, "failed to export container", |file| {
        Ok(engine.export(&options.container, file)?)
    })?;
    Ok(0)
}
