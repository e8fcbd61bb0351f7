//! `network connect` and `network disconnect`.

use clap::Args;
use runtime::Connection;

use super::super::{Answer, Context};
use crate::args::networks;
use crate::failure::Failure;

/// Connect a container to a network
#[derive(Debug, Args)]
#[command(override_usage = "coracle network connect [OPTIONS] NETWORK CONTAINER")]
pub struct Connect {
    /// Further name of the container on this network
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// IPv4 address; without it the next free one
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// IPv6 address; without it the next free one
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<String>,
    /// Name, ID, or the start of an ID
    #[arg(value_name = "NETWORK")]
    network: String,
    /// Name, ID, or the start of an ID
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Disconnect a container from a network
#[derive(Debug, Args)]
#[command(override_usage = "coracle network disconnect [OPTIONS] NETWORK CONTAINER")]
pub struct Disconnect {
    /// Taken for the sake of scripts: nothing stands in the way of a disconnect
    #[arg(short, long)]
    force: bool,
    /// Name, ID, or the start of an ID
    #[arg(value_name = "NETWORK")]
    network: String,
    /// Name, ID, or the start of an ID
    #[arg(value_name = "CONTAINER")]
    container: String,
}

pub fn connect(context: &Context, options: Connect) -> Answer {
    let refused = |text: String| Failure::Refused(anyhow::anyhow!(text));
    let address = options.ip.as_deref().map(networks::parse_v4).transpose();
    let address6 = options.ip6.as_deref().map(networks::parse_v6).transpose();
    let connection = Connection {
        network: options.network,
        address: address.map_err(refused)?,
        address6: address6.map_err(refused)?,
        mac: None,
        aliases: options.alias,
    };
    context
        .engine()?
        .connect_network(&options.container, &connection)?;
    Ok(0)
}

pub fn disconnect(context: &Context, options: Disconnect) -> Answer {
    context
        .engine()?
        .disconnect_network(&options.container, &options.network, options.force)?;
    Ok(0)
}
