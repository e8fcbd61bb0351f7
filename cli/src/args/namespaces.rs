//! Whose namespaces the container lives in; its network is apart. Texts of refusal are Docker's.

use anyhow::anyhow;
use clap::Args;
use runtime::ContainerRequest;
use runtime::request::NamespaceMode;

use crate::failure::Failure;

#[derive(Debug, Args)]
pub struct NamespaceArgs {
    /// Whose processes it sees: host, or container:NAME
    #[arg(long, value_name = "MODE")]
    pub pid: Option<String>,
    /// Whose shared memory and queues it has: none, private, shareable, host, or container:NAME
    #[arg(long, value_name = "MODE")]
    pub ipc: Option<String>,
    /// Whose host name it has: host
    #[arg(long, value_name = "MODE")]
    pub uts: Option<String>,
    /// Which cgroups it sees: private or host
    #[arg(long, value_name = "MODE")]
    pub cgroupns: Option<String>,
    /// Whose user IDs it has: host, which is the default
    #[arg(long, value_name = "MODE")]
    pub userns: Option<String>,
}

impl NamespaceArgs {
    /// Enters the options in the request.
    pub fn apply(&self, request: &mut ContainerRequest) -> Result<(), Failure> {
        let namespaces = &mut request.namespaces;
        namespaces.pid = mode(&self.pid, pid_mode)?;
        namespaces.ipc = mode(&self.ipc, ipc_mode)?;
        namespaces.uts = mode(&self.uts, |word| match word {
            "host" => Ok(NamespaceMode::Host),
            _ => Err("--uts: invalid UTS mode".to_owned()),
        })?;
        namespaces.cgroup = mode(&self.cgroupns, |word| match word {
            "host" => Ok(NamespaceMode::Host),
            "private" => Ok(NamespaceMode::Private),
            _ => Err("--cgroupns: invalid CGROUP mode".to_owned()),
        })?;
        namespaces.user = mode(&self.userns, |word| match word {
            "host" => Ok(NamespaceMode::Host),
            _ => Err("--userns: invalid USER mode".to_owned()),
        })?;
        Ok(())
    }
}

/// An option without a value, or with an empty one, leaves the default.
fn mode(
    option: &Option<String>,
    parse: impl Fn(&str) -> Result<NamespaceMode, String>,
) -> Result<NamespaceMode, Failure> {
    match option.as_deref() {
        None | Some("") => Ok(NamespaceMode::Default),
        Some(word) => parse(word).map_err(|why| Failure::Refused(anyhow!(why))),
    }
}

fn pid_mode(word: &str) -> Result<NamespaceMode, String> {
    match (word, word.strip_prefix("container:")) {
        ("host", _) => Ok(NamespaceMode::Host),
        (_, Some(name)) if !name.is_empty() => Ok(NamespaceMode::Container(name.to_owned())),
        _ => Err("--pid: invalid PID mode".to_owned()),
    }
}

fn ipc_mode(word: &str) -> Result<NamespaceMode, String> {
    match (word, word.strip_prefix("container:")) {
        ("none", _) => Ok(NamespaceMode::None),
        ("private", _) => Ok(NamespaceMode::Private),
        ("shareable", _) => Ok(NamespaceMode::Shareable),
        ("host", _) => Ok(NamespaceMode::Host),
        (_, Some("")) => {
            Err("can't join IPC of container : invalid name or ID supplied: \"\"".to_owned())
        }
        (_, Some(name)) => Ok(NamespaceMode::Container(name.to_owned())),
        _ => Err(format!("Invalid IPC mode: {word}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_namespace_has_its_own_modes() {
        assert_eq!(pid_mode("host"), Ok(NamespaceMode::Host));
        assert_eq!(
            pid_mode("container:c1"),
            Ok(NamespaceMode::Container("c1".into()))
        );
        for bad in ["private", "container:", "bogus", "shareable"] {
            assert!(pid_mode(bad).is_err(), "{bad}");
        }
        assert_eq!(ipc_mode("none"), Ok(NamespaceMode::None));
        assert!(ipc_mode("bogus").is_err() && ipc_mode("container:").is_err());
    }
}
