//! `import`: an image from a tar of a root filesystem.

use std::fs::File;
use std::io::Read;

use anyhow::Context as _;
use clap::Args;
use image::archive::{ImportOptions, remote};

use super::{Answer, Context};
use crate::failure::Failure;
use crate::output;

/// Import the contents from a tarball to create a filesystem image
#[derive(Debug, Args)]
#[command(override_usage = "coracle import [OPTIONS] FILE|URL|- [REPOSITORY[:TAG]]")]
pub struct Import {
    /// Apply a Dockerfile instruction to the image: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Comment of the image
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Platform of the image: OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    #[arg(value_name = "FILE")]
    file: String,
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

pub fn run(context: &Context, options: Import) -> Answer {
    let name = options
        .name
        .as_deref()
        .map(image::Reference::parse)
        .transpose()?;
    let is_url = ["http://", "https://"]
        .iter()
        .any(|scheme| options.file.starts_with(scheme));
    let mut tar: Box<dyn Read> = match options.file.as_str() {
        "-" => Box::new(std::io::stdin()),
        url if is_url => {
            let download = remote::Download::of(url)?;
            output::print(&format!("Downloading from {url}"))?;
            download.open()?
        }
        file => Box::new(File::open(file).with_context(|| format!("open {file}"))?),
    };
    let origin = match is_url {
        true => format!("Imported from {}", options.file),
        false => "Imported from -".to_owned(),
    };
    let import = ImportOptions {
        name: name.as_ref(),
        changes: &options.change,
        message: Some(options.message.as_deref().unwrap_or(&origin)),
        platform: options.platform.as_deref().filter(|text| !text.is_empty()),
    };
    let from = match options.file.as_str() {
        "-" => "stdin",
        file => file,
    };
    let image = context
        .engine()?
        .import(&mut tar, &import)
        .map_err(|error| Failure::of_input(from, error))?;
    output::print(&image.id)?;
    Ok(0)
}
