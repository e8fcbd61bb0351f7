//! `images`: lists images.

use clap::Args;
use time::OffsetDateTime;

use super::{Answer, Context, listing, print_rows};
use crate::args::format::ListingArgs;
use crate::output::inspect_image::{COLUMNS, row};

/// List images
#[derive(Debug, Args)]
#[command(override_usage = "coracle images [OPTIONS] [REPOSITORY[:TAG]]")]
pub struct Images {
    /// Accepted for Docker's sake: there are no intermediate images to hide
    #[arg(short, long, hide = true)]
    all: bool,
    #[command(flatten)]
    listing: ListingArgs,
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

pub fn run(context: &Context, options: Images) -> Answer {
    let listing = listing(&COLUMNS, &options.listing)?;
    let images = context.engine()?.images()?;
    let shown = images.iter().filter(|image| match &options.name {
        Some(name) => is_named(name, &image.repository, &image.tag),
        None => true,
    });
    let length = options.listing.length();
    let now = OffsetDateTime::now_utc();
    let rows: Vec<_> = shown.map(|image| row(image, now, length)).collect();
    print_rows(&listing, &rows)
}

/// `redis` means all its tags, `redis:7` one.
fn is_named(wanted: &str, repository: &str, tag: &str) -> bool {
    let short = wanted
        .strip_prefix("docker.io/")
        .map(|rest| rest.strip_prefix("library/").unwrap_or(rest))
        .unwrap_or(wanted);
    short == repository
        || short
            .rsplit_once(':')
            .is_some_and(|(name, wanted_tag)| name == repository && wanted_tag == tag)
}

#[cfg(test)]
mod tests {
    use super::is_named;

    #[test]
    fn a_repository_means_all_its_tags() {
        assert!(is_named("redis", "redis", "7"));
        assert!(is_named("redis:7", "redis", "7"));
        assert!(!is_named("redis:8", "redis", "7"));
        assert!(is_named("docker.io/library/redis", "redis", "7"));
        assert!(is_named("host:5000/x", "host:5000/x", "1"));
        assert!(!is_named("redi", "redis", "7"));
    }
}
