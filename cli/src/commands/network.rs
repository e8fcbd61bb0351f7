//! `network ls|inspect|rm|reload`, and the way to the others.

pub mod care;
pub mod connect;
pub mod create;
pub mod prune;

use clap::{Args, Subcommand};
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
    Connect(connect::Connect),
    Create(create::Create),
    Disconnect(connect::Disconnect),
    Doctor(care::Doctor),
    Inspect(Inspect),
    #[command(visible_alias = "list")]
    Ls(Ls),
    Prune(prune::Prune),
    Reload(Reload),
    #[command(visible_alias = "remove")]
    Rm(Rm),
    Watch(care::Watch),
}

/// Compare the firewall and the bridges with what should be there, and mend the difference
#[derive(Debug, Args)]
#[command(override_usage = "coracle network reload [OPTIONS] [NETWORK]")]
pub struct Reload {
    /// A network that must exist; the rules of all are mended
    #[arg(value_name = "NETWORK")]
    network: Option<String>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Display detailed information on one or more networks
#[derive(Debug, Args)]
#[command(override_usage = "coracle network inspect [OPTIONS] NETWORK [NETWORK...]")]
pub struct Inspect {
    #[command(flatten)]
    format: FormatArg,
    /// Name, ID, or the start of an ID
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
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Name, ID, or the start of an ID
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

pub fn run(context: &Context, command: Network) -> Answer {
    match command {
        Network::Connect(options) => connect::connect(context, options),
        Network::Create(options) => create::run(context, options),
        Network::Disconnect(options) => connect::disconnect(context, options),
        Network::Doctor(options) => care::doctor(context, &options),
        Network::Watch(care::Watch {}) => care::watch(context),
        Network::Inspect(options) => {
            let format = inspect::Format::parse(&options.format.format)?;
            let mut engine = context.engine()?;
            inspect::show(&options.networks, &format, |name| find(&mut engine, name))
        }
        Network::Ls(options) => ls(context, &options),
        Network::Prune(options) => prune::run(context, options),
        Network::Reload(options) => reload(context, &options),
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

fn reload(context: &Context, options: &Reload) -> Answer {
    let mut engine = context.engine()?;
    // Those without a bridge are in no table, and have nothing to mend.
    let name = options.network.as_deref();
    let name = name.filter(|name| Bridgeless::find(name).is_none());
    if options.dry_run {
        if let Some(name) = name {
            engine.find_network(name)?;
        }
        return care::show(&engine.preview_reload()?);
    }
    for note in engine.reload_networks(name)? {
        eprintln!("{note}");
    }
    Ok(0)
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
    if options.dry_run {
        return each(&options.networks, |name| {
            care::show(&engine.preview_remove_network(name)?).map(drop)
        });
    }
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
