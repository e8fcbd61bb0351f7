//! `info`: this engine and this host, at a glance.

use clap::Args;
use runtime::State;
use serde_json::{Value, json};

use super::{Answer, Context};
use crate::failure::Failure;
use crate::output;
use crate::output::template::{Missing, Template};
use crate::output::words;

/// Display system-wide information
#[derive(Debug, Args)]
#[command(override_usage = "coracle info [OPTIONS]")]
pub struct Info {
    /// json or a Go template
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        default_value = "",
        hide_default_value = true
    )]
    format: String,
}

pub fn run(context: &Context, options: Info) -> Answer {
    let template = match options.format.as_str() {
        "" | "json" => None,
        text => Some(Template::parse(text).map_err(|error| refused(&error))?),
    };
    let value = gather(context)?;
    let text = match (&template, options.format.as_str()) {
        (Some(template), _) => template
            .render(&value, Missing::Field)
            .map_err(|error| refused(&error))?,
        (None, "json") => value.to_string(),
        (None, _) => text(&value),
    };
    output::print(&text)?;
    Ok(0)
}

fn refused(error: &output::template::TemplateError) -> Failure {
    Failure::Plain {
        text: format!("template parsing error: {error}"),
        code: 1,
    }
}

/// Docker's keys for what both have.
fn gather(context: &Context) -> Result<Value, Failure> {
    let mut engine = context.engine()?;
    let containers = engine.list()?;
    let is_running = |state: &State| matches!(state, State::Running { .. });
    let running = containers.iter().filter(|c| is_running(&c.state)).count();
    let mut images: Vec<String> = engine.images()?.into_iter().map(|row| row.id).collect();
    images.sort_unstable();
    images.dedup();
    let settings = engine.settings().clone();
    let networks = engine.networks()?.len();
    let host = rustix::system::uname();
    let of_host = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    Ok(json!({
        "Name": of_host(host.nodename()),
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "Containers": containers.len(),
        "ContainersRunning": running,
        "ContainersPaused": 0,
        "ContainersStopped": containers.len() - running,
        "Images": images.len(),
        "Networks": networks,
        "Driver": "overlay2",
        "Firewall": format!("{:?}", settings.network.firewall).to_lowercase(),
        "Profile": format!("{:?}", settings.network.profile).to_lowercase(),
        "KernelVersion": of_host(host.release()),
        "OperatingSystem": operating_system(),
        "OSType": "linux",
        "Architecture": of_host(host.machine()),
        "NCPU": std::thread::available_parallelism().map_or(1, |count| count.get()),
        "MemTotal": memory(),
        "DockerRootDir": settings.root,
        "RunRoot": settings.run_root,
    }))
}

fn operating_system() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_owned()
}

fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    #[allow(clippy::useless_conversion)] // c_ulong is 32 bits wide on some hosts.
    let units = u64::from(info.totalram);
    units.saturating_mul(u64::from(info.mem_unit))
}

fn text(value: &Value) -> String {
    let field = |name: &str| match &value[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let memory = words::size(value["MemTotal"].as_u64().unwrap_or(0));
    [
        format!("Containers: {}", field("Containers")),
        format!(" Running: {}", field("ContainersRunning")),
        format!(" Stopped: {}", field("ContainersStopped")),
        format!("Images: {}", field("Images")),
        format!("Networks: {}", field("Networks")),
        format!("Server Version: {}", field("ServerVersion")),
        format!("Storage Driver: {}", field("Driver")),
        format!("Firewall: {}", field("Firewall")),
        format!("Profile: {}", field("Profile")),
        format!("Kernel Version: {}", field("KernelVersion")),
        format!("Operating System: {}", field("OperatingSystem")),
        format!("Architecture: {}", field("Architecture")),
        format!("CPUs: {}", field("NCPU")),
        format!("Total Memory: {memory}"),
        format!("Name: {}", field("Name")),
        format!("Root Dir: {}", field("DockerRootDir")),
        format!("Run Dir: {}", field("RunRoot")),
    ]
    .join("\n")
}
