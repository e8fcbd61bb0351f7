//! `images`: lists images.

use clap::Args;
use image::ImageSummary;
use runtime::Engine;
use time::OffsetDateTime;

use super::{Answer, Context, find_image, parse_listing, print_rows};
use crate::args::format::ListingArgs;
use crate::args::image_filter::{Filters, Found};
use crate::args::values;
use crate::failure::Failure;
use crate::output::inspect_image::{COLUMNS, WITH_DIGESTS, row};
use crate::output::words;

/// List images
#[derive(Debug, Args)]
#[command(override_usage = "coracle images [OPTIONS] [REPOSITORY[:TAG]]")]
pub struct Images {
    /// Accepted for Docker's sake: there are no intermediate images to hide
    #[arg(short, long, hide = true)]
    all: bool,
    /// Show the digests of the manifests
    #[arg(long)]
    digests: bool,
    /// Show only those that match: dangling=, label=, before=, since=, reference=
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = values::parse_filter)]
    filter: Vec<(String, String)>,
    #[command(flatten)]
    listing: ListingArgs,
    /// A name, which may have `*` and `?` in it
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

pub fn run(context: &Context, options: Images) -> Answer {
    let filters = Filters::new(&options.filter, options.name.as_deref())
        .map_err(|error| Failure::Own(error.into()))?;
    let format = match options.listing.format.as_str() {
        "" | "table" if options.listing.quiet => "{{.ID}}",
        "" | "table" if options.digests => WITH_DIGESTS,
        format => format,
    };
    let listing = parse_listing(&COLUMNS, format)?;
    let with_digests = options.digests || format.contains(".Digest");
    let mut engine = context.engine()?;
    let picked = pick(&mut engine, &filters)?;
    let length = options.listing.length();
    let now = OffsetDateTime::now_utc();
    let mut rows = Vec::new();
    for image in &picked {
        match with_digests && !image.digests.is_empty() {
            // One that is known by several has a row for each.
            true => rows.extend(
                image
                    .digests
                    .iter()
                    .map(|digest| row(image, Some(digest), now, length)),
            ),
            false => rows.push(row(image, None, now, length)),
        }
    }
    print_rows(&listing, &rows)
}

/// The names that the filters accept, newest image first.
pub fn pick(engine: &mut Engine, filters: &Filters) -> Result<Vec<ImageSummary>, Failure> {
    let images = engine.images()?;
    let mut created = |name: &Option<String>| -> Result<Option<OffsetDateTime>, Failure> {
        let Some(name) = name else { return Ok(None) };
        let found = find_image(engine, name)?
            .ok_or_else(|| Failure::Engine(runtime::Error::NoSuchImage(full_name(name))))?;
        let summary = images.iter().find(|image| image.id == found.id);
        Ok(summary.and_then(|image| words::parse_rfc3339(&image.created)))
    };
    let found = Found {
        before: created(&filters.before)?,
        since: created(&filters.since)?,
    };
    let mut picked: Vec<ImageSummary> = Vec::new();
    for image in &images {
        let Some(image) = filters.pick(image, &found, || engine.labels_of_image(&image.id)) else {
            continue;
        };
        // Several tags may have come down to the same digest.
        let is_new = picked.iter().all(|other| {
            (&other.id, &other.repository, &other.tag) != (&image.id, &image.repository, &image.tag)
        });
        if is_new {
            picked.push(image);
        }
    }
    Ok(picked)
}

/// With the tag that was meant.
fn full_name(name: &str) -> String {
    image::Reference::parse(name).map_or_else(|_| name.to_owned(), |name| name.to_string())
}
