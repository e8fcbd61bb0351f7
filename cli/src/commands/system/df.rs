//! `system df`: what is on disk, and what of it could go.

use clap::Args;
use time::OffsetDateTime;

use super::super::{
    Answer, Context, listing_failure, parse_listing, print_listing, print_rows, ps,
};
use crate::failure::Failure;
use crate::output::listing::Listing;
use crate::output::template::{Missing, Template};
use crate::output::{self, disk_usage, words};

/// Show what is on disk, and what of it could go
#[derive(Debug, Args)]
#[command(override_usage = "coracle system df [OPTIONS]")]
pub struct Df {
    /// Show each image, container and volume, and what else there is
    #[arg(short, long)]
    verbose: bool,
    /// table, json, 'table TEMPLATE' or a Go template
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "",
        hide_default_value = true
    )]
    format: String,
}

pub fn run(context: &Context, options: &Df) -> Answer {
    match options.verbose {
        false => short(context, &options.format),
        true => verbose(context, &options.format),
    }
}

fn short(context: &Context, format: &str) -> Answer {
    let listing = parse_listing(&disk_usage::COLUMNS, format)?;
    let usage = context.engine()?.disk_usage()?;
    print_rows(&listing, &disk_usage::rows(&usage))
}

fn verbose(context: &Context, format: &str) -> Answer {
    let template = match format {
        "" | "table" | "json" => None,
        text => Some(Template::parse(text).map_err(|e| template_failure(&e))?),
    };
    let mut engine = context.engine()?;
    let usage = engine.disk_usage()?;
    let images = engine.images()?;
    let current = ps::names_of_images(&mut engine)?;
    let now = OffsetDateTime::now_utc();
    let image_of = |container: &runtime::Container| ps::shown_image(container, &current);
    let sections = disk_usage::sections(&usage, &images, image_of, now);
    if format == "json" {
        output::print(&sections.json().to_string())?;
        return Ok(0);
    }
    if let Some(template) = template {
        let text = template.render(&sections.json(), Missing::Field);
        output::print(&text.map_err(|e| template_failure(&e))?)?;
        return Ok(0);
    }
    let mut text = String::new();
    for section in &sections.all {
        let listing = Listing::parse(section.columns, "").map_err(|e| listing_failure(&e))?;
        let table = listing
            .render(&section.rows)
            .map_err(|e| listing_failure(&e))?;
        text.push_str(&format!("{}\n\n{table}\n\n", section.title));
    }
    let total = words::size_with(usage.total(), 4);
    let root = context.global.root.display();
    print_listing(&format!("{text}All of {root}: {total}"))
}

fn template_failure(error: &output::template::TemplateError) -> Failure {
    Failure::Plain {
        text: format!("template parsing error: {error}"),
        code: 1,
    }
}
