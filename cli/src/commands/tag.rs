//! `tag`: another name for an image.

use clap::Args;

use super::{Answer, Context};

/// Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE
#[derive(Debug, Args)]
#[command(override_usage = "coracle tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]")]
pub struct Tag {
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    source: String,
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    target: String,
}

pub fn run(context: &Context, options: Tag) -> Answer {
    context
        .engine()?
        .tag_image(&options.source, &options.target)?;
    Ok(0)
}
