//! `pull`: an image from a registry.

use clap::Args;
use image::Interrupt;
use image::pull::PullOptions;

use super::interrupt::Interruptible;
use super::{Answer, Context};
use crate::args::values;
use crate::output;
use crate::output::progress::{Progress, Screen, Style};

/// Download an image from a registry
#[derive(Debug, Args)]
#[command(override_usage = "coracle pull [OPTIONS] NAME[:TAG|@DIGEST]")]
pub struct Pull {
    /// Print only the full name
    #[arg(short, long)]
    quiet: bool,
    /// Platform, where the image has several: OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Accepted for Docker's sake: images are not signed
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", value_parser = values::parse_bool, action = clap::ArgAction::Set, hide = true)]
    disable_content_trust: bool,
    #[arg(value_name = "NAME")]
    name: String,
}

pub fn run(context: &Context, options: Pull) -> Answer {
    let reference = image::Reference::parse(&options.name)?;
    let mut engine = context.engine()?;
    let style = match options.quiet {
        true => Style::Quiet,
        false => Style::of(Screen::Stdout),
    };
    let mut out = std::io::stdout();
    let mut progress = Progress::new(&mut out, style);
    if image::Reference::leaves_tag_out(&options.name) {
        progress.default_tag();
    }
    let platform = options.platform.filter(|text| !text.is_empty());
    let signals = Interruptible::begin()?;
    let pull = PullOptions {
        interrupt: signals.interrupt(),
        ..self::options(context, platform)
    };
    let result = engine.pull(&reference, &pull, &mut |event| progress.event(event));
    progress.finish();
    result.map_err(|error| signals.failure(error))?;
    let summary = progress.summary();
    output::print(&reference.full())?;
    if let Some(summary) = summary {
        eprintln!("{summary}");
    }
    Ok(0)
}

pub fn options(context: &Context, platform: Option<String>) -> PullOptions {
    PullOptions {
        platform,
        registries: context.registries(),
        interrupt: Interrupt::default(),
    }
}
