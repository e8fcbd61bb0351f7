//! `network create|ls|inspect|rm`.

use anyhow::anyhow;
use clap::{Args, Subcommand};
use ipnet::Ipv4Net;
use netmgr::NetworkRequest;
use runtime::{Container, Engine, State};
use serde_json::Value;

use super::{Answer, Context, each, inspect, is_not_found, listing, print_rows, tell};
use crate::args::format::{FormatArg, ListingArgs};
use crate::args::network_filter::{self, Listed};
use crate::args::values;
use crate::failure::Failure;
use crate::output;
use crate::output::inspect_network::{self, BRIDGELESS, Bridgeless};

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
    #[command(flatten)]
    format: FormatArg,
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

/// List networks
#[derive(Debug, Args)]
#[command(override_usage = "coracle network ls [OPTIONS]")]
pub struct Ls {
    #[command(flatten)]
    listing: ListingArgs,
    /// Show only those that match: name=, id=, driver=, type=, label=, scope=, dangling=
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = values::parse_filter)]
    filter: Vec<(String, String)>,
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
            let format = inspect::Format::parse(&options.format.format)?;
            let mut engine = context.engine()?;
            inspect::show(&options.networks, &format, |name| find(&mut engine, name))
        }
        Network::Ls(options) => ls(context, &options),
        Network::Rm(options) => rm(context, &options),
    }
}

/// What `inspect` shows of the network that a name, an ID or a unique prefix of an ID stands for.
pub fn find(engine: &mut Engine, name: &str) -> Result<Value, Failure> {
    let Some(bridgeless) = Bridgeless::find(name) else {
        let (network, endpoints) = engine.find_network(name)?;
        return Ok(inspect_network::network(&network, &endpoints));
    };
    let containers = engine.list()?;
    let inside: Vec<&Container> = containers
        .iter()
        .filter(|container| matches!(container.state, State::Running { .. }))
        .filter(|container| output::inspect::network_names(container) == [bridgeless.name])
        .collect();
    Ok(bridgeless.inspect(&inside))
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
        ip_range6: None,
        ipv6: false,
        subnet6: None,
        aux_addresses: Vec::new(),
        gateway6: None,
        ip_range: None,
        name: options.name,
        subnet,
        gateway: options.gateway,
        internal: options.internal,
        labels: options.label,
        options: options.opt,
    })
}

fn ls(context: &Context, options: &Ls) -> Answer {
    let listing = listing(&inspect_network::COLUMNS, &options.listing)?;
    let filters = network_filter::Filters::new(&options.filter)
        .map_err(|error| Failure::Own(error.into()))?;
    let networks = context.engine()?.networks()?;
    let length = options.listing.length();
    let mut rows: Vec<_> = networks
        .iter()
        .filter(|(network, endpoints)| filters.accept(&Listed::of(network, endpoints)))
        .map(|(network, _)| inspect_network::row(network, length))
        .collect();
    let bridgeless = BRIDGELESS.iter();
    rows.extend(
        bridgeless
            .filter(|network| filters.accept(&Listed::of_bridgeless(network)))
            .map(|network| network.row(length)),
    );
    rows.sort_by(|a, b| a["Name"].as_str().cmp(&b["Name"].as_str()));
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
