//! `info`: this engine and this host, at a glance.

use netmgr::plan::Backend;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use netmgr::kernel::commands::path;
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

pub(super) fn refused(error: &output::template::TemplateError) -> Failure {
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
    let firewall = Firewall::of(engine.firewall()?);
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
        "FirewallFlavour": firewall.flavour,
        "FirewallVersion": firewall.version,
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

/// The firewall in force, what writes it, and which make that is: `iptables` comes in two, whose rules do not meet.
struct Firewall {
    kind: &'static str,
    command: Option<PathBuf>,
    /// `nf_tables` or `legacy`, of iptables.
    flavour: Option<String>,
    version: Option<String>,
}

impl Firewall {
    fn of(backend: Backend) -> Firewall {
        let (kind, command) = match backend {
            Backend::None => ("none", None),
            Backend::Nftables => ("nftables", path("nft")),
            Backend::Iptables => ("iptables", path("iptables-restore")),
        };
        let (version, flavour) = command.as_deref().map_or((None, None), make);
        Firewall {
            kind,
            command,
            flavour,
            version,
        }
    }
}

/// `iptables-restore v1.8.9 (nf_tables)`, `nftables v1.0.6 (Lester Gooch #5)`: the version, and of iptables the flavour.
/// Before 1.8 there was only one, and nothing in parentheses.
fn make(command: &Path) -> (Option<String>, Option<String>) {
    let output = Command::new(command).arg("--version").output();
    let text = output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    );
    parse_make(&text)
}

fn parse_make(text: &str) -> (Option<String>, Option<String>) {
    let version = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix('v'))
        .filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        .map(str::to_owned);
    let is_iptables = text.starts_with("iptables");
    let flavour = match text
        .split_once('(')
        .and_then(|(_, rest)| rest.split_once(')'))
    {
        Some((flavour, _)) if is_iptables => Some(flavour.to_owned()),
        None if is_iptables && version.is_some() => Some("legacy".to_owned()),
        _ => None,
    };
    (version, flavour)
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

/// `iptables (/usr/sbin/iptables-restore, 1.8.9 nf_tables)`
fn firewall_line(value: &Value) -> String {
    let kind = value["Firewall"].as_str().unwrap_or_default();
    let make = ["FirewallVersion", "FirewallFlavour"].iter();
    let make: Vec<&str> = make.filter_map(|name| value[name].as_str()).collect();
    match (kind, value["FirewallCommand"].as_str()) {
        ("none", _) => kind.to_owned(),
        (_, Some(path)) if make.is_empty() => format!("{kind} ({path})"),
        (_, Some(path)) => format!("{kind} ({path}, {})", make.join(" ")),
        ("nftables", None) => format!("{kind} (nft is not installed)"),
        _ => format!("{kind} (iptables-restore is not installed)"),
    }
}

fn text(value: &Value) -> String {
    let field = |name: &str| match &value[name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let memory = words::binary_size(value["MemTotal"].as_u64().unwrap_or(0));
    let firewall = firewall_line(value);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_firewalls_make_is_told_by_its_version() {
        let own = |text: &str| Some(text.to_owned());
        for (text, expected) in [
            (
                "iptables-restore v1.8.9 (nf_tables)\n",
                (own("1.8.9"), own("nf_tables")),
            ),
            (
                "iptables-restore v1.8.9 (legacy)\n",
                (own("1.8.9"), own("legacy")),
            ),
            ("iptables v1.6.1\n", (own("1.6.1"), own("legacy"))),
            ("nftables v1.0.6 (Lester Gooch #5)\n", (own("1.0.6"), None)),
            ("", (None, None)),
        ] {
            assert_eq!(parse_make(text), expected, "{text}");
        }
        let line = |value| firewall_line(&value);
        assert_eq!(line(json!({"Firewall": "none"})), "none");
        assert_eq!(
            line(
                json!({"Firewall": "iptables", "FirewallVersion": "1.8.9", "FirewallFlavour": "legacy", "FirewallCommand": "/x"})
            ),
            "iptables (/x, 1.8.9 legacy)"
        );
    }
}
