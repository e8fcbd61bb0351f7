//! `ps`: lists containers.

use clap::Args;
use runtime::State;
use time::OffsetDateTime;

use super::{Answer, Context, listing, print_rows};
use crate::args::filter::Filters;
use crate::args::values;
use crate::failure::Failure;
use crate::output::container::{COLUMNS, Length, row};

/// List containers
#[derive(Debug, Args)]
#[command(override_usage = "coracle ps [OPTIONS]")]
pub struct Ps {
    /// Show all containers, not only those that run
    #[arg(short, long)]
    all: bool,
    /// Show only IDs
    #[arg(short, long)]
    quiet: bool,
    /// Show the latest container, whatever its state
    #[arg(short, long)]
    latest: bool,
    /// Show the last so many containers, whatever their state
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,
    /// Do not cut the output
    #[arg(long)]
    no_trunc: bool,
    /// table, json, 'table TEMPLATE' or a Go template
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "",
        hide_default_value = true
    )]
    format: String,
    /// Show only those that match: name=, status=, id=, label=
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = values::parse_filter)]
    filter: Vec<(String, String)>,
}

pub fn run(context: &Context, options: Ps) -> Answer {
    let filters = Filters::new(&options.filter).map_err(|error| Failure::Own(error.into()))?;
    let listing = listing(&COLUMNS, options.quiet, &options.format)?;
    let last = match options.latest {
        true => Some(1),
        false => options.last,
    };
    let all = options.all || last.is_some() || filters.names_a_status();
    let containers = context.engine()?.list()?;
    let shown = containers
        .iter()
        .filter(|container| all || matches!(container.state, State::Running { .. }))
        .filter(|container| filters.accept(container))
        .take(last.unwrap_or(usize::MAX));
    let length = match options.no_trunc {
        true => Length::Full,
        false => Length::Cut,
    };
    let now = OffsetDateTime::now_utc();
    let rows: Vec<_> = shown.map(|container| row(container, now, length)).collect();
    print_rows(&listing, &rows)
}
