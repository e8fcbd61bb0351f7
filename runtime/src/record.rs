//! A container as it is remembered, and the legal transitions of its state. Pure.

use std::time::Duration;

use netmgr::{Endpoint, Network, PortRequest, Protocol};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::request::{Connection, ContainerRequest, MountOptions, Propagation};

/// A container, as the database knows it and the kernel confirms it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    pub name: String,
    #[serde(with = "time::serde::rfc3339")]
    pub created: OffsetDateTime,
    /// As asked for (`request`), and what the image made of it (`resolved`).
    pub request: ContainerRequest,
    pub resolved: Resolved,
    /// `sha256:` and 64 digits.
    pub image_id: String,
    pub state: State,
    /// Frozen by `pause`. Read from its cgroup, not stored.
    #[serde(default)]
    pub paused: bool,
    /// `None`: nothing checks it, or it does not run.
    #[serde(default)]
    pub health: Option<Health>,
    /// By its restart policy, since the user started it last.
    #[serde(default)]
    pub restarts: u32,
    /// The user has stopped it: `system up` leaves it so under `unless-stopped`.
    #[serde(default)]
    pub stopped_by_user: bool,
    /// Where it is attached now; empty while it does not run.
    pub attachments: Vec<(Network, Endpoint)>,
}

/// What the health checks of a running container have found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last five, the oldest first.
    pub log: Vec<Probe>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    #[default]
    Starting,
    Healthy,
    Unhealthy,
}

impl HealthStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            HealthStatus::Starting => "starting",
            HealthStatus::Healthy => "healthy",
            HealthStatus::Unhealthy => "unhealthy",
        }
    }
}

/// One run of a health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    #[serde(with = "time::serde::rfc3339")]
    pub start: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub end: OffsetDateTime,
    /// 0: healthy; -1: took too long.
    pub exit_code: i32,
    /// At most 4096 bytes.
    pub output: String,
}

/// A health check as it is run: the request's over the image's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// `CMD-SHELL` and a line, or `CMD` and words.
    pub test: Vec<String>,
    pub interval: Duration,
    pub timeout: Duration,
    pub start_period: Duration,
    pub start_interval: Duration,
    pub retries: u32,
}

impl Container {
    /// What `ps` and `inspect` call its state: `created`, `running`, `paused`, `restarting`, `exited`.
    pub fn status(&self) -> &'static str {
        match &self.state {
            State::Running { .. } if self.paused => "paused",
            state => state.as_str(),
        }
    }

    /// What is published: as asked for, and with `-P` each exposed port that is not yet, at any free port of the host.
    pub fn ports(&self) -> Vec<PortRequest> {
        let mut ports = self.request.ports.clone();
        if !self.request.publish_all {
            return ports;
        }
        let is_published = |port: u16, protocol| {
            self.request.ports.iter().any(|asked| {
                let range = u32::from(asked.container_port)
                    ..u32::from(asked.container_port) + u32::from(asked.count);
                asked.protocol == protocol && range.contains(&u32::from(port))
            })
        };
        let exposed = self.resolved.exposed_ports.iter();
        let mut rest: Vec<(Protocol, u16)> = exposed
            .filter_map(|text| parse_port(text))
            .filter(|(port, protocol)| !is_published(*port, *protocol))
            .map(|(port, protocol)| (protocol, port))
            .collect();
        rest.sort_unstable();
        ports.extend(
            rest.into_iter()
                .map(|(protocol, container_port)| PortRequest {
                    protocol,
                    host_ip: self.request.publish_at,
                    host_port: None,
                    host_port_last: None,
                    container_port,
                    count: 1,
                }),
        );
        ports
    }
}

/// `80/tcp` of an image's EXPOSE; `80` alone is TCP.
pub fn parse_port(text: &str) -> Option<(u16, Protocol)> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return None,
    };
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some((port, protocol))
}

/// The request after the image's config has been taken into account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Resolved {
    /// ENTRYPOINT and CMD together: what is executed.
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    pub env: Vec<String>,
    pub workdir: String,
    /// As written (`redis`, `1000:1000`); empty: root.
    pub user: String,
    pub hostname: String,
    pub labels: Vec<(String, String)>,
    /// EXPOSE of the image and the published ports: `6379/tcp`.
    pub exposed_ports: Vec<String>,
    pub stop_signal: String,
    /// The networks that it is on, or will be on when it is started: `network connect` and `disconnect` change them.
    #[serde(default)]
    pub connections: Vec<Connection>,
    /// The mounts as they are made, image VOLUMEs included: (source on the host, target, volume name, read only).
    pub mounts: Vec<ResolvedMount>,
    /// `None`: the container is not checked.
    #[serde(default)]
    pub health: Option<HealthCheck>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedMount {
    /// Empty for a tmpfs.
    pub source: String,
    pub target: String,
    /// The volume's name; `None` for a bind or a tmpfs.
    pub volume: Option<String>,
    pub read_only: bool,
    /// Its mount options; `None`: no tmpfs.
    #[serde(default)]
    pub tmpfs: Option<String>,
    /// As asked for.
    #[serde(default)]
    pub options: MountOptions,
}

impl ResolvedMount {
    /// How it is tied to the host's mounts, if it is put in place last of all (`bundle::Late`): a bind that receives what is
    /// mounted later, and any bind on /dev itself. What libcontainer makes in the /dev that it finds (it removes `ptmx`) is
    /// then made in one of the container's own, and not in a directory of the host.
    pub fn late(&self) -> Option<Propagation> {
        let asked = self.options.propagation.filter(|p| p.receives());
        let is_dev = self.target == "/dev" && self.tmpfs.is_none();
        asked.or(is_dev.then_some(Propagation::Rslave))
    }

    /// `bind`, `volume` or `tmpfs`.
    pub fn kind(&self) -> &'static str {
        match (&self.volume, &self.tmpfs) {
            (Some(_), _) => "volume",
            (None, Some(_)) => "tmpfs",
            (None, None) => "bind",
        }
    }
}

/// Derived at each reading from the database, the boot id and the process itself: nothing transitional is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    Created,
    Running {
        pid: i32,
        #[serde(with = "time::serde::rfc3339")]
        started: OffsetDateTime,
    },
    /// It has ended, and its monitor starts it again after a pause.
    Restarting {
        code: i32,
        #[serde(with = "time::serde::rfc3339::option")]
        started: Option<OffsetDateTime>,
        #[serde(with = "time::serde::rfc3339")]
        finished: OffsetDateTime,
    },
    Exited {
        code: i32,
        #[serde(with = "time::serde::rfc3339::option")]
        started: Option<OffsetDateTime>,
        #[serde(with = "time::serde::rfc3339")]
        finished: OffsetDateTime,
        oom_killed: bool,
        error: String,
    },
}

impl State {
    /// Without regard to `pause`: see [`Container::status`].
    pub fn as_str(&self) -> &'static str {
        match self {
            State::Created => "created",
            State::Running { .. } => "running",
            State::Restarting { .. } => "restarting",
            State::Exited { .. } => "exited",
        }
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    #[test]
    fn publish_all_adds_what_is_exposed_and_not_published_yet() {
        let asked = PortRequest {
            protocol: Protocol::Tcp,
            host_ip: None,
            host_port: Some(8080),
            host_port_last: None,
            container_port: 80,
            count: 2,
        };
        let mut container = Container {
            id: "c".repeat(64),
            name: "c1".into(),
            created: OffsetDateTime::UNIX_EPOCH,
            request: ContainerRequest {
                ports: vec![asked],
                ..ContainerRequest::default()
            },
            resolved: Resolved {
                exposed_ports: ["80/tcp", "81/tcp", "81/udp", "9"]
                    .map(str::to_owned)
                    .into(),
                ..Resolved::default()
            },
            image_id: String::new(),
            state: State::Created,
            paused: false,
            health: None,
            restarts: 0,
            stopped_by_user: false,
            attachments: Vec::new(),
        };
        assert_eq!(container.ports(), [asked]);
        container.request.publish_all = true;
        let ports = container.ports();
        let added: Vec<_> = ports[1..]
            .iter()
            .map(|p| (p.protocol, p.host_port, p.container_port, p.count))
            .collect();
        assert_eq!(
            added,
            [(Protocol::Tcp, None, 9, 1), (Protocol::Udp, None, 81, 1)]
        );
    }
}
