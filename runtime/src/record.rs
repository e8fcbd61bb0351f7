//! A container as it is remembered, and the legal transitions of its state. Pure.

use netmgr::{Endpoint, Network, PortRequest, Protocol};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::request::{Connection, ContainerRequest};

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
    /// Where it is attached now; empty while it does not run.
    pub attachments: Vec<(Network, Endpoint)>,
}

impl Container {
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
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedMount {
    pub source: String,
    pub target: String,
    /// The volume's name; `None` for a bind.
    pub volume: Option<String>,
    pub read_only: bool,
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
    /// `created`, `running`, `exited`: what `inspect` and `--filter status=` say.
    pub fn as_str(&self) -> &'static str {
        match self {
            State::Created => "created",
            State::Running { .. } => "running",
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
