//! `push`: an image to a registry.

use clap::Args;
use image::push::{Packing, PushOptions};

use super::{Answer, Context};
use crate::args::values;
use crate::failure::Failure;
use crate::output::progress::{Progress, Screen, Style};
use crate::output::{self, push_progress};

/// Upload an image to a registry
#[derive(Debug, Args)]
#[command(override_usage = "coracle push [OPTIONS] NAME[:TAG]")]
pub struct Push {
    /// Push all tags of an image to the repository
    #[arg(short, long)]
    all_tags: bool,
    /// How layers are compressed that the registry does not have: gzip[:LEVEL] or zstd[:LEVEL] (default gzip)
    #[arg(long, value_name = "FORMAT[:LEVEL]")]
    compression: Option<String>,
    /// Accepted for Docker's sake: images are not signed
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", value_parser = values::parse_bool, action = clap::ArgAction::Set, hide = true)]
    disable_content_trust: bool,
    /// Send each layer in one request, for registries that take no pieces
    #[arg(long)]
    monolithic: bool,
    /// Platform that the image must be of: OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Print only the full name
    #[arg(short, long)]
    quiet: bool,
    #[arg(value_name = "NAME")]
    name: String,
}

pub fn run(context: &Context, options: Push) -> Answer {
    let reference = image::Reference::parse(&options.name)?;
    let tag_left_out = image::Reference::leaves_tag_out(&options.name);
    if options.all_tags && !tag_left_out {
        return Err(Failure::Own(anyhow::anyhow!(
            "tag can't be used with --all-tags/-a"
        )));
    }
    let packing = options.compression.as_deref().map(str::parse::<Packing>);
    let push_options = PushOptions {
        registries: context.registries(),
        all_tags: options.all_tags,
        packing: packing.transpose()?,
        platform: options.platform.filter(|text| !text.is_empty()),
        whole: options.monolithic,
    };
    let mut engine = context.engine()?;
    let style = match options.quiet {
        true => Style::Quiet,
        false => Style::of(Screen::Stdout),
    };
    let mut out = std::io::stdout();
    let mut progress = Progress::new(&mut out, style);
    if tag_left_out && !options.all_tags {
        progress.default_tag();
    }
    let result = engine.push(&reference, &push_options, &mut |event| {
        push_progress::show(&mut progress, event);
    });
    progress.finish();
    result?;
    if options.quiet {
        output::print(&match options.all_tags {
            true => reference.full_name(),
            false => reference.full(),
        })?;
    }
    Ok(0)
}
