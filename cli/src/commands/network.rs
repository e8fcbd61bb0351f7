//! `network create|ls|inspect|rm`.

use anyhow::anyhow;
use clap::{Args, Subcommand};
use ipnet::Ipv4Net;
use netmgr::NetworkRequest;

use super::{
    Answer, Context, each, find_network, inspect, is_not_found, listing, print_rows, tell,
};
use crate::args::values;
use crate::failure::Failure;
use crate::output;
use crate::output::container::Length;
use crate::output::inspect_network;

#[derive(Debug, Subcommand)]
pub enum Network {
    Create(Create),
    Inspect(Inspect),
    #[command(visible_alias = "list")]
    Ls(Ls),
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

/// Create a network
#[derive(Debug, Args)]
#[command(override_usage = "coracle network create [OPTIONS] NETWORK")]
pub struct Create {
    /// Subnet in CIDR notation; without it the next free one is taken
    #[arg(long, value_name = "CIDR")]
    subnet: Option<String>,
    /// Address of the bridge; without it the first of the subnet
    #[arg(long, value_name = "ADDRESS")]
    gateway: Option<std::net::Ipv4Addr>,
    /// No way out of the network and none in
    #[arg(long)]
    internal: bool,
    /// Set a label
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = values::parse_label)]
    label: Vec<(String, String)>,
    /// Set a driver option, such as com.docker.network.bridge.name=NAME
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = values::parse_option)]
    opt: Vec<(String, String)>,
    /// Driver: bridge is the only one
    #[arg(
        short,
        long,
        value_name = "DRIVER",
        default_value = "bridge",
        hide_default_value = true
    )]
    driver: String,
    #[arg(value_name = "NETWORK")]
    name: String,
}

/// Display detailed information on one or more networks
#[derive(Debug, Args)]
#[command(override_usage = "coracle network inspect [OPTIONS] NETWORK [NETWORK...]")]
pub struct Inspect {
    /// json or a Go template
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        default_value = "",
        hide_default_value = true
    )]
    format: String,
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

/// List networks
#[derive(Debug, Args)]
#[command(override_usage = "coracle network ls [OPTIONS]")]
pub struct Ls {
    /// Show only IDs
    #[arg(short, long)]
    quiet: bool,
    /// Do not cut the output
    #[arg(long)]
    no_trunc: bool,
    /// table, json, 'table TEMPLATE' or a Go template
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "",
        hide_default_value = true
    )]
    format: String,
}

/// Remove one or more networks
#[derive(Debug, Args)]
#[command(override_usage = "coracle network rm [OPTIONS] NETWORK [NETWORK...]")]
pub struct Rm {
    /// A network that is not there is no failure
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

pub fn run(context: &Context, command: Network) -> Answer {
    match command {
        Network::Create(options) => create(context, options),
        Network::Inspect(options) => {
            let format = inspect::Format::parse(&options.format)?;
            let mut engine = context.engine()?;
            inspect::show(&options.networks, &format, |name| {
                let (network, endpoints) = find_network(&mut engine, name)?;
                Ok(inspect_network::network(&network, &endpoints))
            })
        }
        Network::Ls(options) => ls(context, &options),
        Network::Rm(options) => rm(context, &options),
    }
}

fn create(context: &Context, options: Create) -> Answer {
    let request = request(options)?;
    let network = context.engine()?.create_network(&request)?;
    output::print(&network.id)?;
    Ok(0)
}

fn request(options: Create) -> Result<NetworkRequest, Failure> {
    let refused = |text: String| Failure::Refused(anyhow!(text));
    if options.driver != "bridge" {
        return Err(refused(format!("plugin {:?} not found", options.driver)));
    }
    let subnet = match &options.subnet {
        Some(text) => Some(text.parse::<Ipv4Net>().map_err(|_| {
            refused(format!(
                "Invalid subnet {text} : invalid CIDR address: {text}"
            ))
        })?),
        None => None,
    };
    Ok(NetworkRequest {
        name: options.name,
        subnet,
        gateway: options.gateway,
        internal: options.internal,
        labels: options.label,
        options: options.opt,
    })
}

fn ls(context: &Context, options: &Ls) -> Answer {
    let listing = listing(&inspect_network::COLUMNS, options.quiet, &options.format)?;
    let mut networks = context.engine()?.networks()?;
    networks.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    let length = match options.no_trunc {
        true => Length::Full,
        false => Length::Cut,
    };
    let rows: Vec<_> = networks
        .iter()
        .map(|(network, _)| inspect_network::row(network, length))
        .collect();
    print_rows(&listing, &rows)
}

fn rm(context: &Context, options: &Rm) -> Answer {
    let mut engine = context.engine()?;
    each(&options.networks, |name| {
        match engine.remove_network(name).map_err(Failure::from) {
            Ok(_) => Ok(output::print(name)?),
            Err(failure) if options.force && is_not_found(&failure) => {
                tell(&failure);
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    })
}
