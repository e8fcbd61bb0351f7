//! `volume create|ls|inspect|rm`, and the way to `prune`.

mod prune;

use clap::{Args, Subcommand};
use runtime::Engine;
use runtime::engine::volumes::VolumeRequest;
use serde_json::Value;

use super::{Answer, Context, each, inspect, is_not_found, print_rows};
use crate::args::format::FormatArg;
use crate::args::{values, volume_filter};
use crate::failure::Failure;
use crate::output;
use crate::output::inspect_volume::{self, COLUMNS};

#[derive(Debug, Subcommand)]
pub enum Volume {
    Create(Create),
    Inspect(Inspect),
    #[command(visible_alias = "list")]
    Ls(Ls),
    Prune(prune::Prune),
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

/// Create a volume
#[derive(Debug, Args)]
#[command(override_usage = "coracle volume create [OPTIONS] [VOLUME]")]
pub struct Create {
    /// Driver: local is the one there is
    #[arg(
        short,
        long,
        value_name = "DRIVER",
        default_value = "local",
        hide_default_value = true
    )]
    driver: String,
    /// Set a label
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = values::parse_label)]
    label: Vec<(String, String)>,
    /// Name of the volume; the same as VOLUME
    #[arg(long, value_name = "NAME", hide = true)]
    name: Option<String>,
    /// Option of the driver: type=none, o=bind and device=PATH make it a directory of the host
    #[arg(short, long = "opt", value_name = "KEY=VALUE", value_parser = values::parse_option)]
    opt: Vec<(String, String)>,
    /// Name; a random one if not said
    #[arg(value_name = "VOLUME")]
    volume: Option<String>,
}

/// Display detailed information on one or more volumes
#[derive(Debug, Args)]
#[command(override_usage = "coracle volume inspect [OPTIONS] VOLUME [VOLUME...]")]
pub struct Inspect {
    #[command(flatten)]
    format: FormatArg,
    #[arg(required = true, value_name = "VOLUME")]
    volumes: Vec<String>,
}

/// List volumes
#[derive(Debug, Args)]
#[command(override_usage = "coracle volume ls [OPTIONS]")]
pub struct Ls {
    /// Show only names
    #[arg(short, long)]
    quiet: bool,
    /// table, json, 'table TEMPLATE' or a Go template
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "",
        hide_default_value = true
    )]
    format: String,
    /// Show only those that match: name=, label=, driver=, dangling=
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = values::parse_filter)]
    filter: Vec<(String, String)>,
}

/// Remove one or more volumes
#[derive(Debug, Args)]
#[command(override_usage = "coracle volume rm [OPTIONS] VOLUME [VOLUME...]")]
pub struct Rm {
    /// A volume that is not there is no failure
    #[arg(short, long)]
    force: bool,
    #[arg(required = true, value_name = "VOLUME")]
    volumes: Vec<String>,
}

pub fn run(context: &Context, command: Volume) -> Answer {
    match command {
        Volume::Create(options) => create(context, options),
        Volume::Inspect(options) => {
            let format = inspect::Format::parse(&options.format.format)?;
            let mut engine = context.engine()?;
            inspect::show(&options.volumes, &format, |name| find(&mut engine, name))
        }
        Volume::Ls(options) => ls(context, &options),
        Volume::Prune(options) => prune::run(context, &options),
        Volume::Rm(options) => rm(context, &options),
    }
}

/// What `inspect` shows of a volume.
pub fn find(engine: &mut Engine, name: &str) -> Result<Value, Failure> {
    Ok(inspect_volume::volume(&engine.find_volume(name)?))
}

fn create(context: &Context, options: Create) -> Answer {
    if options.name.is_some() && options.volume.is_some() {
        return Err(Failure::Plain {
            text: "conflicting options: cannot specify a volume-name through both --name and as a positional arg"
                .to_owned(),
            code: 1,
        });
    }
    let name = options.volume.or(options.name);
    let made = context.engine()?.create_volume(&VolumeRequest {
        name: name.filter(|name| !name.is_empty()),
        driver: options.driver,
        labels: options.label,
        options: options.opt,
    })?;
    output::print(&made.name)?;
    Ok(0)
}

fn ls(context: &Context, options: &Ls) -> Answer {
    let format = match options.quiet {
        true => "{{.Name}}",
        false => &options.format,
    };
    let listing = super::parse_listing(&COLUMNS, format)?;
    let filters =
        volume_filter::Filters::new(&options.filter).map_err(|error| Failure::Own(error.into()))?;
    let volumes = context.engine()?.volumes()?;
    let rows: Vec<_> = volumes
        .iter()
        .filter(|listed| filters.accept(listed))
        .map(|listed| inspect_volume::row(&listed.volume))
        .collect();
    print_rows(&listing, &rows)
}

fn rm(context: &Context, options: &Rm) -> Answer {
    let mut engine = context.engine()?;
    each(&options.volumes, |name| {
        match engine.remove_volume(name).map_err(Failure::from) {
            Err(failure) if !(options.force && is_not_found(&failure)) => Err(failure),
            _ => Ok(output::print(name)?),
        }
    })
}
