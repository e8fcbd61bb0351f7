//! `history`: the steps by which an image was made.

use clap::{ArgAction, Args};
use time::OffsetDateTime;

use super::{Answer, Context, listing_failure, print_listing};
use crate::args::format::ListingArgs;
use crate::args::values;
use crate::failure::Failure;
use crate::output::image_history::{self, Shown};
use crate::output::listing::Listing;

/// Show the history of an image
#[derive(Debug, Args)]
#[command(override_usage = "coracle history [OPTIONS] IMAGE")]
pub struct History {
    /// Print sizes and dates in human readable format
    #[arg(short = 'H', long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", value_parser = values::parse_bool, action = ArgAction::Set)]
    human: bool,
    #[command(flatten)]
    listing: ListingArgs,
    /// Platform that the image must have: OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    #[arg(value_name = "IMAGE")]
    image: String,
}

pub fn run(context: &Context, options: History) -> Answer {
    let format = match options.listing.quiet {
        true => "{{.ID}}",
        false => &options.listing.format,
    };
    let columns = match options.human {
        true => &image_history::COLUMNS,
        false => &image_history::EXACT_COLUMNS,
    };
    let listing = Listing::parse(columns, format).map_err(|error| listing_failure(&error))?;
    let platform = options.platform.as_deref().filter(|text| !text.is_empty());
    let steps = context.engine()?.image_history(&options.image, platform)?;
    let shown = Shown {
        human: options.human,
        length: options.listing.length(),
        now: OffsetDateTime::now_utc(),
    };
    let rows: Vec<_> = steps
        .iter()
        .map(|step| image_history::row(step, &shown))
        .collect();
    let text = listing
        .render(&rows)
        .map_err(|error| -> Failure { listing_failure(&error) })?;
    print_listing(&text)
}
