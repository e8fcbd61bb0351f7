//! `stats`: what containers use, once or again and again.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use runtime::Engine;
use runtime::engine::Sample;

use super::{Answer, Context, listing_failure, print_listing};
use crate::failure::Failure;
use crate::output::listing::Listing;
use crate::output::stats::{COLUMNS, row};

/// Between two looks, from which the share of the CPU is reckoned.
const INTERVAL: Duration = Duration::from_secs(1);

/// Display a live stream of container(s) resource usage statistics
#[derive(Debug, Args)]
#[command(override_usage = "coracle stats [OPTIONS] [CONTAINER...]")]
pub struct Stats {
    /// Show all containers, not only those that run
    #[arg(short, long)]
    all: bool,
    /// table, json, 'table TEMPLATE' or a Go template
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "",
        hide_default_value = true
    )]
    format: String,
    /// Print once and end
    #[arg(long)]
    no_stream: bool,
    /// Do not cut the output
    #[arg(long)]
    no_trunc: bool,
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub fn run(context: &Context, options: Stats) -> Answer {
    let listing =
        Listing::parse(&COLUMNS, &options.format).map_err(|error| listing_failure(&error))?;
    let mut engine = context.engine()?;
    let mut before = engine.sample(&options.containers, options.all)?;
    let mut first = true;
    loop {
        std::thread::sleep(INTERVAL);
        let now = sample(&mut engine, &options)?;
        let rows: Vec<_> = now
            .iter()
            .map(|sample| row(sample, earlier(&before, sample), options.no_trunc))
            .collect();
        let text = listing
            .render(&rows)
            .map_err(|error| listing_failure(&error))?;
        if options.no_stream {
            return print_listing(&text);
        }
        draw(&text, first)?;
        first = false;
        before = now;
    }
}

/// A container that was named and has been removed since leaves the table, as with Docker.
fn sample(engine: &mut Engine, options: &Stats) -> Result<Vec<Sample>, Failure> {
    if options.containers.is_empty() {
        return Ok(engine.sample(&[], options.all)?);
    }
    let mut samples = Vec::new();
    for name in &options.containers {
        match engine.sample(std::slice::from_ref(name), options.all) {
            Ok(found) => samples.extend(found),
            Err(error) if error.kind() == runtime::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(samples)
}

fn earlier<'a>(before: &'a [Sample], sample: &Sample) -> Option<&'a Sample> {
    before.iter().find(|earlier| earlier.id == sample.id)
}

/// Over what was drawn before: home, each line cleared to its end, then all below (ECMA-48: CUP, EL, ED). The screen is cleared once.
fn draw(text: &str, first: bool) -> Result<(), Failure> {
    let clear = if first { "\x1b[2J" } else { "" };
    let body = text.replace('\n', "\x1b[K\n");
    let mut out = io::stdout().lock();
    write!(out, "{clear}\x1b[H{body}\x1b[K\n\x1b[J")
        .and_then(|()| out.flush())
        .map_err(|error| Failure::Own(anyhow::Error::new(error).context("write to stdout")))
}
