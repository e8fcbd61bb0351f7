//! `diff`: what a container has changed of its image's files.

use clap::Args;
use image::layer::changes::ChangeKind;

use super::{Answer, Context, print_listing};

/// Inspect changes to files or directories on a container's filesystem
#[derive(Debug, Args)]
#[command(override_usage = "coracle diff CONTAINER")]
pub struct Diff {
    #[arg(value_name = "CONTAINER")]
    container: String,
}

pub fn run(context: &Context, options: Diff) -> Answer {
    let changes = context.engine()?.changes(&options.container)?;
    let lines: Vec<String> = changes
        .iter()
        .map(|change| {
            let letter = match change.kind {
                ChangeKind::Changed => 'C',
                ChangeKind::Added => 'A',
                ChangeKind::Deleted => 'D',
            };
            format!("{letter} /{}", String::from_utf8_lossy(&change.path))
        })
        .collect();
    print_listing(&lines.join("\n"))
}
