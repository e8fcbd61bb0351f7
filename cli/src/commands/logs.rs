//! `logs`: what a container has written.

use clap::Args;
use runtime::engine::LogOptions;

use super::{Answer, Context};

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
    /// Begin so many lines before the end
    #[arg(short = 'n', long, value_name = "N", value_parser = parse_tail, default_value = "all", hide_default_value = true)]
    tail: Tail,
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// `None`: all lines.
#[derive(Clone, Copy, Debug)]
struct Tail(Option<usize>);

fn parse_tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail(None)),
        // Docker reads any negative number as all.
        number if number.starts_with('-') && number[1..].parse::<u64>().is_ok() => Ok(Tail(None)),
        number => number
            .parse()
            .map(|lines| Tail(Some(lines)))
            .map_err(|_| "must be a number of lines, or all".to_owned()),
    }
}

pub fn run(context: &Context, options: Logs) -> Answer {
    let wanted = LogOptions {
        follow: options.follow,
        timestamps: options.timestamps,
        tail: options.tail.0,
    };
    let mut engine = context.engine()?;
    engine.logs(
        &options.container,
        &wanted,
        &mut std::io::stdout(),
        &mut std::io::stderr(),
    )?;
    Ok(0)
}
