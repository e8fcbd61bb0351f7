//! What becomes of a container by itself: restarts, health checks, its log.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `--restart`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    #[default]
    No,
    /// After an exit code other than 0, at most so often; `None`: always.
    OnFailure(Option<u32>),
    Always,
    /// Likewise, but not at boot when the user had stopped it.
    UnlessStopped,
}

/// `--health-*`; what is `None` comes from the image's HEALTHCHECK, else Docker's defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthRequest {
    /// As in an image: `CMD-SHELL` and a line, `CMD` and words, or `NONE`.
    pub test: Option<Vec<String>>,
    pub interval: Option<Duration>,
    pub timeout: Option<Duration>,
    pub start_period: Option<Duration>,
    pub start_interval: Option<Duration>,
    pub retries: Option<u32>,
}

/// `--log-driver`, `--log-opt`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogRequest {
    pub driver: LogDriver,
    /// As written: `max-size` and `10m`. Checked at `create`.
    pub options: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    #[default]
    JsonFile,
    Local,
    None,
}

impl LogDriver {
    pub fn as_str(self) -> &'static str {
        match self {
            LogDriver::JsonFile => "json-file",
            LogDriver::Local => "local",
            LogDriver::None => "none",
        }
    }
}
