//! `load`: images from an archive.

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsFd;

use anyhow::{Context as _, anyhow};
use clap::Args;
use image::archive::load::LoadOptions;

use super::{Answer, Context};
use crate::failure::Failure;
use crate::output::loading::Loading;
use crate::output::progress::{Screen, Style};

/// Load images from a tar archive or STDIN
#[derive(Debug, Args)]
#[command(override_usage = "coracle load [OPTIONS]")]
pub struct Load {
    /// Read from a tar archive file, instead of STDIN
    #[arg(short, long, value_name = "FILE")]
    input: Option<String>,
    /// Platform, where an image has several: OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Print no progress
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(context: &Context, options: Load) -> Answer {
    let path = options.input.as_deref().filter(|path| !path.is_empty());
    let input = match path {
        Some(path) => {
            let file = File::open(path).with_context(|| format!("open {path}"))?;
            let is_directory = file.metadata().is_ok_and(|data| data.is_dir());
            if is_directory {
                return Err(Failure::Own(anyhow!("read {path}: is a directory")));
            }
            file
        }
        None if std::io::stdin().is_terminal() => {
            return Err(Failure::Refused(anyhow!(
                "requested load from stdin, but stdin is empty"
            )));
        }
        None => {
            let stdin = std::io::stdin().as_fd().try_clone_to_owned();
            File::from(stdin.context("read stdin")?)
        }
    };
    let mut engine = context.engine()?;
    // As with Docker, only a terminal sees the layers.
    let style = match Style::of(Screen::Stdout) {
        style @ Style::Redraw(_) if !options.quiet => style,
        _ => Style::Quiet,
    };
    let load = LoadOptions {
        platform: options.platform.filter(|text| !text.is_empty()),
    };
    let mut out = std::io::stdout();
    let mut loading = Loading::new(&mut out, style);
    let result = engine.load(input, &load, &mut |event| loading.event(event));
    loading.finish();
    result.map_err(|error| Failure::of_input(path.unwrap_or("stdin"), error))?;
    Ok(0)
}
