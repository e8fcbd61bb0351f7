//! `info`: this engine and this host, at a glance.

use clap::Args;
use runtime::State;
use serde_json::{Value, json};

use super::{Answer, Context};
use crate::args::format::FormatArg;
use crate::failure::Failure;
use crate::output;
use crate::output::template::{Missing, Template};
use crate::output::words;

/// Display system-wide information
#[derive(Debug, Args)]
#[command(override_usage = "coracle info [OPTIONS]")]
pub struct Info {
    #[command(flatten)]
    format: FormatArg,
}

pub fn run(context: &Context, options: Info) -> Answer {
    let template = match options.format.format.as_str() {
        "" | "json" => None,
        text => Some(Template::parse(text).map_err(|error| refused(&error))?),
    };
    let value = gather(context)?;
    let text = match (&template, options.format.format.as_str()) {
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
    // And the two that have no bridge.
    let networks = engine.networks()?.len() + output::inspect_network::BRIDGELESS.len();
    let firewall = Firewall::of(settings.network.firewall);
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
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": if runtime::cgroup::is_v2() { "2" } else { "1" },
        "SecurityOptions": ["name=seccomp,profile=default"],
        "Firewall": firewall.kind,
        "FirewallCommand": firewall.command,
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

/// The firewall in force: `iptables` or `none`, and what writes it.
struct Firewall {
    kind: &'static str,
    command: Option<std::path::PathBuf>,
}

impl Firewall {
    fn of(wanted: netmgr::Firewall) -> Firewall {
        match wanted {
            netmgr::Firewall::None => Firewall {
                kind: "none",
                command: None,
            },
            netmgr::Firewall::Nftables => Firewall {
                kind: "nftables",
                command: netmgr::kernel::commands::path("nft"),
            },
            netmgr::Firewall::Auto | netmgr::Firewall::Iptables => Firewall {
                kind: "iptables",
                command: netmgr::kernel::commands::path("iptables-restore"),
            },
        }
    }
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
    let memory = words::binary_size(value["MemTotal"].as_u64().unwrap_or(0));
    let firewall = match (
        value["Firewall"].as_str(),
        value["FirewallCommand"].as_str(),
    ) {
        (Some("none"), _) => "none".to_owned(),
        (_, Some(path)) => format!("iptables ({path})"),
        _ => "iptables (iptables-restore is not installed)".to_owned(),
    };
    [
        format!("Containers: {}", field("Containers")),
        format!(" Running: {}", field("ContainersRunning")),
        format!(" Stopped: {}", field("ContainersStopped")),
        format!("Images: {}", field("Images")),
        format!("Networks: {}", field("Networks")),
        format!("Server Version: {}", field("ServerVersion")),
        format!("Storage Driver: {}", field("Driver")),
        format!("Logging Driver: {}", field("LoggingDriver")),
        format!("Cgroup Driver: {}", field("CgroupDriver")),
        format!("Cgroup Version: {}", field("CgroupVersion")),
        "Security Options:\n seccomp\n  Profile: default".to_owned(),
        format!("Firewall: {firewall}"),
        format!("Profile: {}", field("Profile")),
        format!("Kernel Version: {}", field("KernelVersion")),
        format!("Operating System: {}", field("OperatingSystem")),
        format!("OSType: {}", field("OSType")),
        format!("Architecture: {}", field("Architecture")),
        format!("CPUs: {}", field("NCPU")),
        format!("Total Memory: {memory}"),
        format!("Name: {}", field("Name")),
        format!("Root Dir: {}", field("DockerRootDir")),
        format!("Run Dir: {}", field("RunRoot")),
    ]
    .join("\n")
}
