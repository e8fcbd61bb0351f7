//! `pull`: an image from a registry.

use clap::Args;
use image::Interrupt;
use image::pull::{PullEvent, PullOptions};
use runtime::Engine;

use super::interrupt::Interruptible;
use super::{Answer, Context};
use crate::args::values;
use crate::failure::Failure;
use crate::output;
use crate::output::progress::{Progress, Screen, Style};

/// Download an image from a registry
#[derive(Debug, Args)]
#[command(override_usage = "coracle pull [OPTIONS] NAME[:TAG|@DIGEST]")]
pub struct Pull {
    /// Download all tagged images in the repository
    #[arg(short, long)]
    all_tags: bool,
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
    let tag_left_out = image::Reference::leaves_tag_out(&options.name);
    if options.all_tags && !tag_left_out {
        return Err(Failure::Own(anyhow::anyhow!(
            "tag can't be used with --all-tags/-a"
        )));
    }
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
    let platform = options.platform.filter(|text| !text.is_empty());
    let signals = Interruptible::begin()?;
    let pull = PullOptions {
        interrupt: signals.interrupt(),
        ..self::options(context, platform)
    };
    let result = match options.all_tags {
        true => pull_all(&mut engine, &reference, &pull, &mut progress),
        false => engine
            .pull(&reference, &pull, &mut |event| progress.event(event))
            .map(|_| ()),
    };
    progress.finish();
    result.map_err(|error| signals.failure(error))?;
    let summary = progress.summary();
    output::print(&match options.all_tags {
        true => reference.full_name(),
        false => reference.full(),
    })?;
    if let Some(summary) = summary {
        eprintln!("{summary}");
    }
    Ok(0)
}

/// One tag after the other; what came of them all is said once, at the end.
fn pull_all(
    engine: &mut Engine,
    repository: &image::Reference,
    pull: &PullOptions,
    progress: &mut Progress<'_>,
) -> Result<(), runtime::Error> {
    let tagged = engine.tags_of_repository(repository, pull, &mut |event| progress.event(event))?;
    let mut any_newer = false;
    for reference in &tagged {
        engine.pull(reference, pull, &mut |event| match event {
            PullEvent::Status { newer, .. } => any_newer |= newer,
            event => progress.event(event),
        })?;
    }
    progress.event(PullEvent::Status {
        newer: any_newer,
        reference: repository.familiar_name(),
    });
    Ok(())
}

pub fn options(context: &Context, platform: Option<String>) -> PullOptions {
    PullOptions {
        platform,
        registries: context.registries(),
        interrupt: Interrupt::default(),
    }
}
