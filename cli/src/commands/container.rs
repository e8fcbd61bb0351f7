//! `container ...`: what is for containers alone and has no short form.

mod prune;

use clap::Subcommand;

use super::{Answer, Context};

#[derive(Debug, Subcommand)]
pub enum Container {
    Prune(prune::Prune),
}

pub fn run(context: &Context, command: Container) -> Answer {
    match command {
        Container::Prune(options) => prune::run(context, options),
    }
}
