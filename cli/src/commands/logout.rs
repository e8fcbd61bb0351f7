//! `logout`: forgets what `login` has kept.

use clap::Args;
use image::registry::login::{self, Server};

use super::Answer;
use super::login::Stderr;
use crate::output;

/// Log out from a registry
#[derive(Debug, Args)]
#[command(override_usage = "coracle logout [SERVER]")]
pub struct Logout {
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

pub fn run(options: Logout) -> Answer {
    let server = Server::parse(options.server.as_deref())?;
    output::print(&format!("Removing login credentials for {}", server.key()))?;
    login::erase(&server, &Stderr)?;
    Ok(0)
}
