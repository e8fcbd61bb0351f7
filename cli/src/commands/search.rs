//! `search`: finds images that are here by how their names begin. It asks no registry.

use clap::Args;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::{Answer, Context, images, parse_listing, print_rows};
use crate::args::image_filter::Filters;
use crate::args::values;
use crate::failure::Failure;
use crate::output::listing::Columns;
use crate::output::words;

/// Find images that are here by how their names begin; no registry is asked
#[derive(Debug, Args)]
#[command(override_usage = "coracle search [OPTIONS] TERM")]
pub struct Search {
    /// Show only those that match: dangling=, label=, before=, since=, reference=
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = values::parse_filter)]
    filter: Vec<(String, String)>,
    /// table, json, 'table TEMPLATE' or a Go template
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "",
        hide_default_value = true
    )]
    format: String,
    /// Show at most so many names, from 1 to 100
    #[arg(long, value_name = "N", value_parser = values::parse_integer, default_value = "0", hide_default_value = true)]
    limit: i64,
    /// Show all tags of a name
    #[arg(long)]
    no_trunc: bool,
    #[arg(value_name = "TERM")]
    term: String,
}

const COLUMNS: Columns = Columns {
    table: "{{.Name}}\t{{.Tags}}\t{{.CreatedSince}}",
    headings: &[
        ("Name", "NAME"),
        ("Tags", "TAGS"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
    ],
};

/// Where tags are cut.
const WIDTH: usize = 45;

/// Images of one name.
struct Named {
    name: String,
    /// Newest first.
    tags: Vec<String>,
    /// The newest's.
    created: String,
}

pub fn run(context: &Context, options: &Search) -> Answer {
    let filters =
        Filters::new(&options.filter, None).map_err(|error| Failure::Own(error.into()))?;
    let listing = parse_listing(&COLUMNS, &options.format)?;
    let limit = match usize::try_from(options.limit) {
        // Docker's own way to say that there is none.
        Ok(0) => usize::MAX,
        Ok(limit @ 1..=100) => limit,
        _ => {
            let text = format!("Limit {} is outside the range of [1, 100]", options.limit);
            return Err(Failure::Own(anyhow::Error::msg(text)));
        }
    };
    let picked = images::pick(&mut context.engine()?, &filters)?;
    let mut found: Vec<Named> = Vec::new();
    for image in picked {
        if !begins(&image.repository, &image.tag, &options.term) {
            continue;
        }
        match found
            .iter_mut()
            .find(|named| named.name == image.repository)
        {
            Some(named) => named.tags.push(image.tag),
            None => found.push(Named {
                name: image.repository,
                tags: vec![image.tag],
                created: image.created,
            }),
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    let now = OffsetDateTime::now_utc();
    let rows: Vec<_> = found
        .iter()
        .take(limit)
        .map(|named| row(named, now, options.no_trunc))
        .collect();
    print_rows(&listing, &rows)
}

/// `re`, `redis:`, `docker.io/library/re`. What has no name at all is not found.
fn begins(repository: &str, tag: &str, term: &str) -> bool {
    let name = format!("{repository}:{tag}");
    let full = image::Reference::parse(&name).map(|name| name.full());
    repository != "<none>"
        && (name.starts_with(term) || full.is_ok_and(|full| full.starts_with(term)))
}

fn row(named: &Named, now: OffsetDateTime, no_trunc: bool) -> Map<String, Value> {
    let created = words::parse_rfc3339(&named.created);
    let tags = named.tags.join(", ");
    let value = json!({
        "Name": named.name,
        "Tags": if no_trunc { tags } else { words::ellipsis(&tags, WIDTH) },
        "CreatedSince": created.map_or_else(|| "N/A".to_owned(), |then| words::ago(then, now)),
        "CreatedAt": created.map_or_else(|| "N/A".to_owned(), words::timestamp),
    });
    match value {
        Value::Object(row) => row,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::begins;

    #[test]
    fn a_term_is_how_a_name_begins() {
        for (term, expected) in [
            ("", true),
            ("re", true),
            ("redis", true),
            ("redis:", true),
            ("redis:7", true),
            ("redis:8", false),
            ("edis", false),
            ("docker.io/library/re", true),
            ("docker.io/other", false),
        ] {
            assert_eq!(begins("redis", "7", term), expected, "{term}");
        }
        assert!(!begins("<none>", "<none>", ""));
        assert!(begins("redis", "<none>", "re"));
    }
}
