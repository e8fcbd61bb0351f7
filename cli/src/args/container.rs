//! The options that `run` and `create` share, and the request that they make. Pure but for the environment, the env
//! files and the current directory, which are read where an option refers to them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::{ArgAction, Args};
use runtime::{ContainerRequest, Mount};

use super::life::LifeArgs;
use super::logging::LogArgs;
use super::mounts::MountArgs;
use super::namespaces::NamespaceArgs;
use super::networks::{self, NetworkArgs};
use super::resources::ResourceArgs;
use super::security::SecurityArgs;
use super::small::SmallArgs;
use super::{ports, values, volumes};
use crate::failure::Failure;

#[derive(Debug, Args)]
pub struct ContainerArgs {
    /// Keep stdin open
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Remove the container when it has ended
    #[arg(long)]
    pub rm: bool,
    /// Name of the container
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Set an environment variable; a bare NAME is passed on
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = values::parse_env)]
    pub env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Mount a host path or a volume: [SOURCE:]PATH[:MODES]
    #[arg(short, long, value_name = "SPEC")]
    pub volume: Vec<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User (and group) inside the container: NAME|UID[:GROUP|GID]
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,
    /// Replace the image's ENTRYPOINT
    #[arg(long, value_name = "COMMAND")]
    pub entrypoint: Option<String>,
    #[command(flatten)]
    pub networks: NetworkArgs,
    #[command(flatten)]
    pub mounts: MountArgs,
    #[command(flatten)]
    pub resources: ResourceArgs,
    #[command(flatten)]
    pub security: SecurityArgs,
    #[command(flatten)]
    pub namespaces: NamespaceArgs,
    #[command(flatten)]
    pub life: LifeArgs,
    #[command(flatten)]
    pub logging: LogArgs,
    #[command(flatten)]
    pub small: SmallArgs,
    /// Publish a port: [[IP:][HOST]:]CONTAINER[/tcp|udp|sctp]; HOST and CONTAINER may be ranges
    #[arg(short, long, value_name = "SPEC")]
    pub publish: Vec<String>,
    /// Publish every exposed port at a free port of the host
    #[arg(short = 'P', long)]
    pub publish_all: bool,
    /// Expose a port or a range of ports: PORT[-PORT][/udp]
    #[arg(long, value_name = "PORT")]
    pub expose: Vec<String>,
    /// Host name of the container
    #[arg(short = 'h', long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Set a label
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = values::parse_label)]
    pub label: Vec<(String, String)>,
    /// Add a line to /etc/hosts: NAME:ADDRESS, or NAME:host-gateway
    #[arg(long, value_name = "NAME:ADDRESS", value_parser = values::parse_add_host)]
    pub add_host: Vec<(String, String)>,
    /// DNS server of the container; on user networks its own resolver asks it, from the host
    #[arg(long, value_name = "ADDRESS", value_parser = values::parse_dns)]
    pub dns: Vec<String>,
    /// DNS search domain of the container
    #[arg(long, value_name = "DOMAIN", value_parser = values::parse_dns_search)]
    pub dns_search: Vec<String>,
    /// Option of the container's resolver, such as ndots:1
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    pub dns_option: Vec<String>,
    /// All capabilities and devices, no seccomp, nothing masked
    #[arg(long)]
    pub privileged: bool,
    /// Signal that `stop` sends
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Seconds that `stop` waits before it kills
    #[arg(long, value_name = "SECONDS", value_parser = values::parse_stop_timeout)]
    pub stop_timeout: Option<u32>,
    /// Run it by another OCI runtime, such as crun or runc: a path, or a name in $PATH
    #[arg(long, value_name = "PROGRAM")]
    pub runtime: Option<PathBuf>,
    /// When to pull the image: missing, always or never
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "missing",
        hide_default_value = true
    )]
    pub pull: String,
    /// Say nothing while pulling
    #[arg(short, long)]
    pub quiet: bool,
    /// Print this help
    #[arg(long, action = ArgAction::Help)]
    pub help: Option<bool>,
    /// Image, then command and its arguments
    #[arg(required = true, num_args = 1.., trailing_var_arg = true, value_name = "IMAGE [COMMAND] [ARG...]", hide = true)]
    pub words: Vec<String>,
}

/// `--pull`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    Missing,
    Always,
    Never,
}

impl ContainerArgs {
    /// What the engine is asked for. `publish_at` is the address of ports that are published without one.
    pub fn request(&self, publish_at: Option<IpAddr>) -> Result<ContainerRequest, Failure> {
        let image = &self.words[0];
        let mut requests = Vec::new();
        for spec in &self.publish {
            requests.extend(ports::parse(spec).map_err(refused)?);
        }
        for request in &mut requests {
            request.host_ip = request.host_ip.or(publish_at);
        }
        let mut expose = Vec::new();
        for spec in &self.expose {
            expose.extend(networks::parse_expose(spec).map_err(Failure::Refused)?);
        }
        let (network, connections) = self.networks.request().map_err(Failure::Refused)?;
        let mut request = ContainerRequest {
            name: self.name.clone().filter(|name| !name.is_empty()),
            image: image.clone(),
            command: self.words[1..].to_vec(),
            entrypoint: self.entrypoint.clone(),
            env: values::resolve_env(&self.env_file, &self.env, &own_env())
                .map_err(Failure::Refused)?,
            labels: self.label.clone(),
            mounts: self.volumes()?,
            workdir: self.workdir.clone().filter(|dir| !dir.is_empty()),
            user: self.user.clone().filter(|user| !user.is_empty()),
            hostname: self.hostname.clone().filter(|name| !name.is_empty()),
            tty: self.tty,
            open_stdin: self.interactive,
            stdin_once: self.interactive,
            auto_remove: self.rm,
            network,
            connections,
            ports: requests,
            publish_all: self.publish_all,
            publish_at,
            expose,
            stop_timeout: self.stop_timeout,
            stop_signal: self.stop_signal.clone().filter(|name| !name.is_empty()),
            tty_size: None,
            privileged: self.privileged,
            extra_hosts: self.add_host.clone(),
            dns: self.dns.clone(),
            dns_search: self.dns_search.clone(),
            dns_options: self.dns_option.clone(),
            runtime: self.runtime()?,
            ..ContainerRequest::default()
        };
        self.mounts.apply(&mut request)?;
        self.resources.apply(&mut request)?;
        self.security.apply(&mut request)?;
        self.namespaces.apply(&mut request)?;
        self.life.apply(&mut request)?;
        self.logging.apply(&mut request)?;
        self.small.apply(&mut request)?;
        Ok(request)
    }

    /// The program of `--runtime` by an absolute path: the monitor has no current directory, and may live longer than PATH.
    fn runtime(&self) -> Result<Option<PathBuf>, Failure> {
        let Some(given) = self
            .runtime
            .as_ref()
            .filter(|path| !path.as_os_str().is_empty())
        else {
            return Ok(None);
        };
        let by_path = given.to_string_lossy().contains('/');
        let search = std::env::var_os("PATH").unwrap_or_default();
        let candidates: Vec<PathBuf> = match by_path {
            true => vec![given.clone()],
            false => std::env::split_paths(&search)
                .map(|folder| folder.join(given))
                .collect(),
        };
        let found = candidates.into_iter().find(|path| {
            rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file()
        });
        let absolute = found.map(std::path::absolute).transpose();
        match absolute
            .context("find the current directory")
            .map_err(Failure::Refused)?
        {
            Some(path) => Ok(Some(path)),
            None => Err(Failure::Refused(anyhow::anyhow!(
                "Unknown runtime specified {}: {}",
                given.display(),
                match by_path {
                    true => "it is no program that can be executed",
                    false => "there is no such program in $PATH",
                }
            ))),
        }
    }

    pub fn pull_policy(&self) -> Result<PullPolicy, Failure> {
        match self.pull.as_str() {
            "missing" | "" => Ok(PullPolicy::Missing),
            "always" => Ok(PullPolicy::Always),
            "never" => Ok(PullPolicy::Never),
            other => Err(Failure::Refused(anyhow::anyhow!(
                "invalid pull option: '{other}': must be one of \"always\", \"missing\" or \"never\""
            ))),
        }
    }

    fn volumes(&self) -> Result<Vec<Mount>, Failure> {
        if self.volume.is_empty() {
            return Ok(Vec::new());
        }
        let cwd = std::env::current_dir()
            .context("find the current directory")
            .map_err(Failure::Refused)?;
        self.volume
            .iter()
            .map(|spec| volumes::parse(spec, &cwd).map_err(refused))
            .collect()
    }
}

fn refused(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::Refused(error.into())
}

/// Variables that are not UTF-8 cannot be asked for by name, so they are left out.
pub fn own_env() -> HashMap<String, String> {
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use runtime::NetworkMode;

    use super::*;

    #[derive(Parser)]
    #[command(disable_help_flag = true)]
    struct Only {
        #[command(flatten)]
        container: ContainerArgs,
    }

    fn request(words: &[&str]) -> Result<ContainerRequest, Failure> {
        let words = std::iter::once("x").chain(words.iter().copied());
        let only = Only::try_parse_from(words).unwrap();
        only.container.request(None)
    }

    #[test]
    fn options_become_the_request() {
        let made = request(&[
            "-i",
            "--name",
            "c1",
            "-p",
            "8080:80",
            "-v",
            "/a:/b:ro",
            "-e",
            "A=B",
            "-l",
            "k=v",
            "-u",
            "1:2",
            "-w",
            "/w",
            "--entrypoint",
            "sh",
            "--net",
            "n1",
            "-h",
            "host",
            "--stop-timeout",
            "3",
            "--",
            "bb",
            "-c",
            "true",
        ])
        .unwrap();
        assert_eq!(made.name.as_deref(), Some("c1"));
        assert_eq!(made.image, "bb");
        assert_eq!(made.command, ["-c", "true"]);
        assert_eq!(made.ports.len(), 1);
        assert!(made.mounts[0].read_only);
        assert_eq!(made.env, ["A=B"]);
        assert_eq!(made.labels, [("k".to_owned(), "v".to_owned())]);
        assert_eq!(made.network, NetworkMode::Named("n1".into()));
        assert_eq!(made.hostname.as_deref(), Some("host"));
        assert_eq!(made.stop_timeout, Some(3));
        assert!(made.open_stdin && !made.tty);
    }

    #[test]
    fn ports_without_an_address_get_the_configured_one() {
        let only = Only::try_parse_from(["x", "-p", "80:80", "-p", "10.0.0.1:81:81", "bb"]);
        let at = "127.0.0.1".parse().unwrap();
        let made = only.unwrap().container.request(Some(at)).unwrap();
        assert_eq!(made.ports[0].host_ip, Some(at));
        assert_eq!(made.ports[1].host_ip, Some("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn the_pull_policy_is_one_of_three() {
        let only = Only::try_parse_from(["x", "--pull", "bogus", "bb"]).unwrap();
        let failure = only.container.pull_policy().unwrap_err();
        assert!(
            matches!(&failure, Failure::Refused(why) if why.to_string() == "invalid pull option: 'bogus': must be one of \"always\", \"missing\" or \"never\""),
            "{failure:?}"
        );
    }
}
