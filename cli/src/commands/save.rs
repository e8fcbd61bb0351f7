//! `save`: images to an archive.

use std::fs::File;
use std::io::{BufWriter, IsTerminal};
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use clap::{Args, ValueEnum};
use image::archive::save::{Format, SaveOptions};

use super::{Answer, Context, cp};
use crate::failure::Failure;

/// Save one or more images to a tar archive (streamed to STDOUT by default)
#[derive(Debug, Args)]
#[command(override_usage = "coracle save [OPTIONS] IMAGE [IMAGE...]")]
pub struct Save {
    /// What reads the archive: both (Docker and OCI tools), docker or oci
    #[arg(
        long,
        value_name = "FORMAT",
        value_enum,
        default_value = "both",
        hide_possible_values = true
    )]
    format: FormatName,
    /// Write to a file, instead of STDOUT
    #[arg(short, long, value_name = "FILE")]
    output: Option<String>,
    /// Platform that the images must have: OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatName {
    Both,
    #[value(alias = "docker-archive")]
    Docker,
    #[value(alias = "oci-archive")]
    Oci,
}

pub fn run(context: &Context, options: Save) -> Answer {
    let save = SaveOptions {
        format: match options.format {
            FormatName::Both => Format::Both,
            FormatName::Docker => Format::Docker,
            FormatName::Oci => Format::Oci,
        },
        platform: options.platform.filter(|text| !text.is_empty()),
    };
    let Some(path) = options.output.filter(|path| !path.is_empty()) else {
        if std::io::stdout().is_terminal() {
            return Err(Failure::Refused(anyhow!(
                "cowardly refusing to save to a terminal. Use the -o flag or redirect"
            )));
        }
        let mut engine = context.engine()?;
        // Not by lines, as the standard library's own would have it.
        let out = std::io::stdout().as_fd().try_clone_to_owned();
        let mut out =
            BufWriter::with_capacity(256 << 10, File::from(out.context("write to stdout")?));
        engine.save(&options.images, &save, &mut out)?;
        return Ok(0);
    };
    if Path::new(&path).is_dir() {
        return Err(Failure::Refused(anyhow!(
            "failed to save image: cannot write to a directory"
        )));
    }
    let mut engine = context.engine()?;
    cp::write_whole(&path, "failed to save image", |file| {
        let mut out = BufWriter::with_capacity(256 << 10, file);
        Ok(engine.save(&options.images, &save, &mut out)?)
    })?;
    Ok(0)
}
