//! A container as it is remembered, and the legal transitions of its state. Pure.

use netmgr::{Endpoint, Network};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::request::ContainerRequest;

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
