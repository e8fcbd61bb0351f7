//! `import`: an image from a tar of a root filesystem.

use std::fs::File;
use std::io::Read;

use anyhow::{Context as _, anyhow};
use clap::Args;

use super::{Answer, Context};
use crate::failure::Failure;
use crate::output;

/// Import the contents from a tarball to create a filesystem image
#[derive(Debug, Args)]
#[command(override_usage = "coracle import [OPTIONS] FILE|- [REPOSITORY[:TAG]]")]
pub struct Import {
    /// Apply a Dockerfile instruction to the image: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Comment of the image
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    #[arg(value_name = "FILE")]
    file: String,
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

pub fn run(context: &Context, options: Import) -> Answer {
    if options.file.starts_with("http://") || options.file.starts_with("https://") {
        return Err(Failure::Refused(anyhow!(
            "importing from a URL is not built yet: fetch {} first and import the file",
            options.file
        )));
    }
    let name = options
        .name
        .as_deref()
        .map(image::Reference::parse)
        .transpose()?;
    let mut tar: Box<dyn Read> = match options.file.as_str() {
        "-" => Box::new(std::io::stdin()),
        file => Box::new(File::open(file).with_context(|| format!("open {file}"))?),
    };
    let mut engine = context.engine()?;
    let image = engine.import(
        &mut tar,
        name.as_ref(),
        &options.change,
        options.message.as_deref(),
    )?;
    output::print(&image.id)?;
    Ok(0)
}
