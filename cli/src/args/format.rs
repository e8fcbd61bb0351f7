//! The options by which every listing and every `inspect` is formatted.

use clap::Args;

use crate::output::container::Length;

/// Of `ps`, `images` and `network ls`.
#[derive(Debug, Args)]
pub struct ListingArgs {
    /// Show only IDs
    #[arg(short, long)]
    pub quiet: bool,
    /// Do not cut the output
    #[arg(long)]
    pub no_trunc: bool,
    /// table, json, 'table TEMPLATE' or a Go template
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "",
        hide_default_value = true
    )]
    pub format: String,
}

impl ListingArgs {
    pub fn length(&self) -> Length {
        match self.no_trunc {
            true => Length::Full,
            false => Length::Cut,
        }
    }
}

/// Of `inspect`, `network inspect` and `info`.
#[derive(Debug, Args)]
pub struct FormatArg {
    /// json or a Go template
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        default_value = "",
        hide_default_value = true
    )]
    pub format: String,
}
