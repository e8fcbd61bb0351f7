//! What a container has mounted beside its root filesystem.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `-v`, `--mount`, `--tmpfs`: what is mounted where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub kind: MountKind,
    /// Absolute, inside the container.
    pub target: PathBuf,
    pub read_only: bool,
    #[serde(default)]
    pub options: MountOptions,
}

impl Mount {
    /// Without further wishes, as `-v` makes it.
    pub fn new(kind: MountKind, target: impl Into<PathBuf>) -> Mount {
        Mount {
            kind,
            target: target.into(),
            read_only: false,
            options: MountOptions::default(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A host path, absolute; made as a directory if missing, as `-v` of Docker does, unless the options say otherwise.
    Bind(PathBuf),
    /// A named volume, created on first use and filled from the image.
    Volume(String),
    /// A volume without a name (image VOLUMEs, `-v /path`): lives as long as the container.
    Anonymous,
    /// Memory; options as mount(8) has them (`size=64m,mode=1770`), empty: Docker's defaults.
    Tmpfs(String),
}

impl MountKind {
    /// `bind`, `volume` or `tmpfs`.
    pub fn as_str(&self) -> &'static str {
        match self {
            MountKind::Bind(_) => "bind",
            MountKind::Volume(_) | MountKind::Anonymous => "volume",
            MountKind::Tmpfs(_) => "tmpfs",
        }
    }
}

/// Each is the default when not said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountOptions {
    /// Of a bind; `None`: rprivate.
    pub propagation: Option<Propagation>,
    /// Of a bind: what is mounted below the source stays out (`bind-nonrecursive`).
    pub non_recursive: bool,
    /// Of a bind: a source that is missing is an error (`--mount`), not made.
    pub must_exist: bool,
    /// Of a volume: not filled from the image (`nocopy`).
    pub no_copy: bool,
    /// Of a volume that is made here.
    pub labels: Vec<(String, String)>,
    /// Likewise (`volume-opt`): options of the driver `local`.
    pub driver_options: Vec<(String, String)>,
    /// The driver as named with `--mount` (only `local` is known), for `inspect`.
    pub driver: Option<String>,
    /// Without effect; for `inspect`.
    pub consistency: Option<String>,
    /// Came with `--volumes-from`.
    pub inherited: bool,
    /// Came with `--mount`: `inspect` shows it under `HostConfig.Mounts`, not `Binds`.
    pub by_mount_flag: bool,
    /// As written with `-v` or `--tmpfs`, for `inspect`.
    pub written: String,
}

impl MountOptions {
    /// What stood behind the last colon of `-v`: `ro,z`.
    pub fn written_mode(&self) -> &str {
        let mut parts = self.written.splitn(3, ':');
        parts.nth(2).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    Private,
    Rprivate,
    Shared,
    Rshared,
    Slave,
    Rslave,
}

impl Propagation {
    pub const ALL: [Propagation; 6] = [
        Propagation::Private,
        Propagation::Rprivate,
        Propagation::Shared,
        Propagation::Rshared,
        Propagation::Slave,
        Propagation::Rslave,
    ];

    pub fn parse(text: &str) -> Option<Propagation> {
        let mut all = Propagation::ALL.into_iter();
        all.find(|propagation| propagation.as_str() == text)
    }

    /// What is mounted on the host below the source shows in the container; with `shared` the other way round too.
    pub fn receives(self) -> bool {
        !matches!(self, Propagation::Private | Propagation::Rprivate)
    }

    pub fn is_shared(self) -> bool {
        matches!(self, Propagation::Shared | Propagation::Rshared)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Propagation::Private => "private",
            Propagation::Rprivate => "rprivate",
            Propagation::Shared => "shared",
            Propagation::Rshared => "rshared",
            Propagation::Slave => "slave",
            Propagation::Rslave => "rslave",
        }
    }
}
