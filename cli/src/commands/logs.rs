//! `logs`: what a container has written.

use std::fs::File;
use std::io::BufWriter;
use std::os::fd::AsFd;

use anyhow::Context as _;
use clap::Args;
use runtime::engine::{LogOptions, Stamp};
use time::OffsetDateTime;

use super::{Answer, Context};
use crate::args::moment;
use crate::failure::Failure;

/// Fetch the logs of a container
#[derive(Debug, Args)]
#[command(override_usage = "coracle logs [OPTIONS] CONTAINER")]
pub struct Logs {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Put the time before each line
    #[arg(short, long)]
    timestamps: bool,
    /// Put before each line what `--log-opt` labels, env and tag note with it
    #[arg(long)]
    details: bool,
    /// Begin so many lines before the end
    #[arg(short = 'n', long, value_name = "N", value_parser = parse_tail, default_value = "all", hide_default_value = true)]
    tail: Tail,
    /// Only lines from this time on: 2026-01-02T13:23:37Z, 1767360217, or 42m ago
    #[arg(
        long,
        value_name = "TIME",
        default_value = "",
        hide_default_value = true
    )]
    since: String,
    /// Only lines up to this time
    #[arg(
        long,
        value_name = "TIME",
        default_value = "",
        hide_default_value = true
    )]
    until: String,
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// `None`: all lines.
#[derive(Clone, Copy, Debug)]
struct Tail(Option<usize>);

fn parse_tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" | "" => Ok(Tail(None)),
        // Docker reads any negative number as all.
        number if number.starts_with('-') && number[1..].parse::<u64>().is_ok() => Ok(Tail(None)),
        number => number
            .parse()
            .map(|lines| Tail(Some(lines)))
            .map_err(|_| "must be a number of lines, or all".to_owned()),
    }
}

pub fn run(context: &Context, options: Logs) -> Answer {
    let mut engine = context.engine()?;
    // Docker's order: a container that is not there comes first.
    engine.find(&options.container)?;
    let now = OffsetDateTime::now_utc();
    let moment = |option: &str, text: &str| {
        if text.is_empty() {
            return Ok(None);
        }
        let moment = moment::parse(text, now).map_err(|why| Failure::Plain {
            text: format!("invalid value for {option:?}: {why}"),
            code: 1,
        })?;
        Ok::<_, Failure>(Some(Stamp(moment)))
    };
    let wanted = LogOptions {
        follow: options.follow,
        timestamps: options.timestamps,
        details: options.details,
        tail: options.tail.0,
        since: moment("since", &options.since)?,
        until: moment("until", &options.until)?,
    };
    engine.logs(
        &options.container,
        &wanted,
        &mut buffered(std::io::stdout())?,
        &mut buffered(std::io::stderr())?,
    )?;
    Ok(0)
}

/// Written when much has come together, and before each wait: Rust's own streams would write line by line.
fn buffered(stream: impl AsFd) -> anyhow::Result<BufWriter<File>> {
    let stream = stream.as_fd().try_clone_to_owned();
    let file = File::from(stream.context("duplicate a standard stream")?);
    Ok(BufWriter::with_capacity(256 * 1024, file))
}
