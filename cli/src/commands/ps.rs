//! `ps`: lists containers.

use std::collections::HashMap;

use clap::Args;
use runtime::{Container, Engine, State};
use time::OffsetDateTime;

use super::{Answer, Context, find_image, listing, listing_failure, print_rows};
use crate::args::filter::{Filters, Found};
use crate::args::format::ListingArgs;
use crate::args::values;
use crate::failure::Failure;
use crate::output::container::{COLUMNS, SIZED, row};
use crate::output::listing::Listing;
use crate::output::words;

/// List containers
#[derive(Debug, Args)]
#[command(override_usage = "coracle ps [OPTIONS]")]
pub struct Ps {
    /// Show all containers, not only those that run
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    listing: ListingArgs,
    /// Show the latest container, whatever its state
    #[arg(short, long)]
    latest: bool,
    /// Show the last so many containers, whatever their state
    #[arg(short = 'n', long, value_name = "N", value_parser = values::parse_integer)]
    last: Option<i64>,
    /// Display total file sizes
    #[arg(short, long)]
    size: bool,
    /// Show only those that match: name=, status=, id=, label=, ancestor=, network=, ...
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = values::parse_filter)]
    filter: Vec<(String, String)>,
}

pub fn run(context: &Context, options: Ps) -> Answer {
    let filters = Filters::new(&options.filter).map_err(|error| Failure::Own(error.into()))?;
    let format = &options.listing.format;
    let sized = options.size || format.contains(".Size");
    let listing = match (options.size, format.as_str(), options.listing.quiet) {
        (true, "" | "table", false) => {
            Listing::parse(&COLUMNS, SIZED).map_err(|e| listing_failure(&e))?
        }
        _ => listing(&COLUMNS, &options.listing)?,
    };
    let last = match options.latest {
        true => Some(1),
        // Docker's own default is -1: no limit.
        false => options.last.and_then(|count| usize::try_from(count).ok()),
    };
    let all = options.all || last.is_some() || filters.names_a_status();
    let mut engine = context.engine()?;
    let found = look_up(&mut engine, &filters)?;
    let containers = engine.list()?;
    let current = names_of_images(&mut engine)?;
    let shown = containers
        .iter()
        .filter(|container| {
            let runs = matches!(
                container.state,
                State::Running { .. } | State::Restarting { .. }
            );
            all || runs
        })
        .filter(|container| filters.accept(container, &found))
        .take(last.unwrap_or(usize::MAX));
    let length = options.listing.length();
    let now = OffsetDateTime::now_utc();
    let mut rows = Vec::new();
    for container in shown {
        let mut row = row(container, &shown_image(container, &current), now, length);
        // Looking at every file takes its time: only for who asks.
        if sized {
            let (own, whole) = engine.sizes(container)?;
            let (own, whole) = (words::size_with(own, 3), words::size_with(whole, 3));
            row.insert("Size".into(), format!("{own} (virtual {whole})").into());
        }
        rows.push(row);
    }
    print_rows(&listing, &rows)
}

/// An image that is not there has no containers; a container that is not there is an error.
fn look_up(engine: &mut Engine, filters: &Filters) -> Result<Found, Failure> {
    let mut ancestor_ids = Vec::new();
    for name in &filters.ancestors {
        ancestor_ids.extend(find_image(engine, name)?.map(|image| image.id));
    }
    let mut created = |name: &Option<String>| match name {
        Some(name) => engine.find(name).map(|container| Some(container.created)),
        None => Ok(None),
    };
    Ok(Found {
        ancestor_ids,
        before: created(&filters.before)?,
        since: created(&filters.since)?,
    })
}

/// Name and tag of each image, and its ID.
pub fn names_of_images(engine: &mut Engine) -> Result<HashMap<String, String>, Failure> {
    let images = engine.images()?.into_iter();
    Ok(images
        .map(|image| (format!("{}:{}", image.repository, image.tag), image.id))
        .collect())
}

/// As it was asked for, or its ID where that name means another image by now.
pub fn shown_image(container: &Container, current: &HashMap<String, String>) -> String {
    let asked = &container.request.image;
    let name = image::Reference::parse(asked).map(|name| name.to_string());
    match name.ok().and_then(|name| current.get(&name)) {
        Some(id) if *id == container.image_id => asked.clone(),
        // A name with a digest, or an ID.
        _ if asked.contains('@') => asked.clone(),
        _ => container.image_id.clone(),
    }
}
