//! The one error of this crate, with a kind for exit codes and for a later HTTP API.

use serde::{Deserialize, Serialize};

/// What sort of failure it is: the caller maps it to an exit code or an HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The request itself is wrong.
    Invalid,
    NotFound,
    /// Something exists and is in the way: a name, a port, a running container.
    Conflict,
    Forbidden,
    /// The container's program exists but cannot be executed: exit code 126.
    NotExecutable,
    /// The container's program does not exist: exit code 127.
    CommandNotFound,
    /// Something outside this host could not be reached.
    Unavailable,
    /// This host failed.
    Internal,
}

/// What went wrong, with which object. `Display` leaves out the source: the caller prints the chain once.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("No such container: {0}")]
    NoSuchContainer(String),
    #[error(
        "more than one container has an ID that begins with {0}: give more digits, or the name"
    )]
    AmbiguousId(String),
    #[error("No such image: {0}")]
    NoSuchImage(String),
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameInUse { name: String, holder: String },
    #[error("No command specified")]
    NoCommand,
    #[error("Container {0} is not running")]
    NotRunning(String),
    #[error("container {0} is being started by another command: try again when that has ended")]
    BeingStarted(String),
    #[error(
        "You cannot remove a running container {0}. Stop the container before attempting removal or force remove"
    )]
    StillRunning(String),
    #[error(
        "You cannot remove a restarting container {0}. Stop the container before attempting removal or force remove"
    )]
    StillRestarting(String),
    #[error("Container {0} is restarting, wait until the container is running")]
    IsRestarting(String),
    #[error("You cannot attach to a restarting container, wait until it is running")]
    AttachRestarting,
    #[error("Renaming a container with the same name as its current name")]
    SameName,
    #[error("Error when allocating new name")]
    NewName(#[source] Box<Error>),
    #[error("Restart policy cannot be updated because AutoRemove is enabled for the container")]
    RestartOfAutoRemove,
    #[error("{0} in Healthcheck cannot be less than 1ms")]
    HealthTime(&'static str),
    #[error("Invalid signal: {0}")]
    InvalidSignal(String),
    #[error("invalid mount path: '{0}' mount path must be absolute")]
    RelativeMountTarget(String),
    #[error("Duplicate mount point: {0}")]
    DuplicateMount(String),
    #[error("conflicting options: port publishing and the {0} network mode")]
    PortsNeedNetwork(&'static str),
    #[error("conflicting options: {0} and the network mode")]
    ConflictsWithMode(&'static str),
    #[error("conflicting options: port exposing and the container type network mode")]
    ExposeNeedsNetwork,
    #[error("Invalid network mode: invalid container format container:<name|id>")]
    NamelessContainerMode,
    #[error("user specified IP address is supported on user defined networks only")]
    AddressNeedsUserNetwork,
    #[error("network-scoped alias is supported only for containers in user defined networks")]
    AliasNeedsUserNetwork,
    #[error("network {0} is given twice: each network can be joined once")]
    NetworkGivenTwice(String),
    #[error("invalid {option} {value:?}: it becomes part of a line, and must be one word")]
    NotOneWord { option: &'static str, value: String },
    #[error("invalid port to expose: {0}")]
    ExposedPort(String),
    #[error("cannot join network of a non running container: {0}")]
    JoinNotRunning(String),
    #[error("cannot join own network")]
    JoinSelf,
    #[error(
        "container sharing network namespace with another container or host cannot be connected to any other network"
    )]
    SharesNamespace,
    #[error("container cannot be disconnected from host network or connected to host network")]
    HostNetwork,
    #[error(
        "container cannot be connected to multiple networks with one of the networks in private (none) mode"
    )]
    NoneIsAlone,
    #[error("endpoint with name {container} already exists in network {network}")]
    AlreadyConnected { container: String, network: String },
    #[error("container {container} is not connected to the network {network}")]
    NotConnected { container: String, network: String },
    #[error("endpoint {container} not found")]
    NoSuchEndpoint { container: String },
    #[error("the working directory '{0}' is invalid, it needs to be an absolute path")]
    RelativeWorkdir(String),
    /// The container's program could not be run; the text is Docker's.
    #[error("{message}")]
    Program { kind: ErrorKind, message: String },
    #[error("container {0} did not end after SIGKILL: a process of it may hang in the kernel")]
    WillNotDie(String),
    #[error("monitor of container {container} broke off while it {step}; its messages: {messages}")]
    MonitorBroke {
        container: String,
        step: &'static str,
        messages: String,
    },
    #[error("cannot {step} for container {container}")]
    Io {
        step: &'static str,
        container: String,
        source: std::io::Error,
    },
    #[error("cannot {step}")]
    Host {
        step: &'static str,
        source: std::io::Error,
    },
    #[error("cannot open the database {path}")]
    OpenDatabase {
        path: std::path::PathBuf,
        source: rusqlite::Error,
    },
    #[error("the database {path} was written by a newer coracle: use that one")]
    NewerDatabase { path: std::path::PathBuf },
    #[error("the database failed")]
    Database(#[from] rusqlite::Error),
    #[error("a row of the database holds {what} that cannot be read")]
    CorruptRow {
        what: &'static str,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(transparent)]
    Image(#[from] image::Error),
    #[error(transparent)]
    Network(#[from] netmgr::Error),

    // What a container is made of: filter, user, root filesystem, volumes, names.
    #[error("cannot compile the seccomp profile")]
    CompileSeccomp(#[source] libseccomp::error::SeccompError),
    #[error("cannot export the compiled seccomp profile")]
    ExportSeccomp(#[source] std::io::Error),
    #[error("the seccomp filter has {0} instructions, more than the kernel takes")]
    SeccompTooLong(usize),
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoSuchUser(String),
    #[error("unable to find group {0}: no matching entries in group file")]
    NoSuchGroup(String),
    #[error("uids and gids must be in range 0-2147483647")]
    IdOutOfRange,
    #[error("Invalid container name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    InvalidContainerName(String),
    #[error(
        "create {0}: {0:?} includes invalid characters for a local volume name, \
         only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )]
    InvalidVolumeName(String),
    #[error(
        "create {0}: volume name is too short, names should be at least two alphanumeric characters"
    )]
    ShortVolumeName(String),
    #[error("cannot read the kernel's random source")]
    Random(#[source] rand::rand_core::OsError),
    #[error("get {0}: no such volume")]
    NoSuchVolume(String),
    #[error(
        "cannot mount on {target}: it is {found} in the container, and the source is {wanted}; \
         are you trying to mount a directory onto a file (or vice-versa)?"
    )]
    MountTargetKind {
        target: String,
        found: &'static str,
        wanted: &'static str,
    },
    #[error("the image has {found} at {path} where a container needs a directory")]
    UnusableRootfs {
        path: &'static str,
        found: &'static str,
    },
    #[error(
        "cannot use {path} for writable layers: it is on overlayfs, which cannot lie on top of itself; \
         put --root on another file system"
    )]
    OverlayOnOverlay { path: std::path::PathBuf },
    #[error("cannot mount the root filesystem on {target}")]
    MountRootfs {
        target: std::path::PathBuf,
        source: std::io::Error,
    },
    #[error("cannot {operation} {path}")]
    FileSystem {
        operation: &'static str,
        path: std::path::PathBuf,
        source: std::io::Error,
    },
    #[error("cannot {operation} in the table of volumes")]
    VolumeTable {
        operation: &'static str,
        source: rusqlite::Error,
    },
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        use Error::*;
        match self {
            NoSuchContainer(_) | NoSuchImage(_) => ErrorKind::NotFound,
            NameInUse { .. }
            | NotRunning(_)
            | BeingStarted(_)
            | StillRunning(_)
            | StillRestarting(_)
            | IsRestarting(_)
            | AttachRestarting
            | RestartOfAutoRemove
            | JoinNotRunning(_)
            | AlreadyConnected { .. }
            | NotConnected { .. } => ErrorKind::Conflict,
            NoSuchEndpoint { .. } => ErrorKind::NotFound,
            SharesNamespace | HostNetwork | NoneIsAlone => ErrorKind::Forbidden,
            ConflictsWithMode(_)
            | ExposeNeedsNetwork
            | NamelessContainerMode
            | AddressNeedsUserNetwork
            | AliasNeedsUserNetwork
            | NetworkGivenTwice(_)
            | NotOneWord { .. }
            | ExposedPort(_)
            | JoinSelf => ErrorKind::Invalid,
            NewName(source) => source.kind(),
            AmbiguousId(_)
            | SameName
            | HealthTime(_)
            | NoCommand
            | InvalidSignal(_)
            | RelativeMountTarget(_)
            | DuplicateMount(_)
            | PortsNeedNetwork(_)
            | RelativeWorkdir(_) => ErrorKind::Invalid,
            Program { kind, .. } => *kind,
            WillNotDie(_)
            | MonitorBroke { .. }
            | Io { .. }
            | Host { .. }
            | OpenDatabase { .. }
            | NewerDatabase { .. }
            | Database(_)
            | CorruptRow { .. } => ErrorKind::Internal,
            Image(e) => match e.kind() {
                image::ErrorKind::Invalid => ErrorKind::Invalid,
                image::ErrorKind::NotFound => ErrorKind::NotFound,
                image::ErrorKind::Conflict => ErrorKind::Conflict,
                image::ErrorKind::Unauthorized => ErrorKind::Forbidden,
                image::ErrorKind::Unavailable => ErrorKind::Unavailable,
                image::ErrorKind::Untrusted | image::ErrorKind::Internal => ErrorKind::Internal,
            },
            Network(e) => match e.kind() {
                netmgr::ErrorKind::Invalid => ErrorKind::Invalid,
                netmgr::ErrorKind::NotFound => ErrorKind::NotFound,
                netmgr::ErrorKind::Conflict => ErrorKind::Conflict,
                netmgr::ErrorKind::Forbidden => ErrorKind::Forbidden,
                netmgr::ErrorKind::Exhausted | netmgr::ErrorKind::Internal => ErrorKind::Internal,
            },

            Error::CompileSeccomp(_)
            | Error::ExportSeccomp(_)
            | Error::SeccompTooLong(_)
            | Error::OverlayOnOverlay { .. }
            | Error::MountRootfs { .. }
            | Error::FileSystem { .. }
            | Error::Random(_)
            | Error::VolumeTable { .. } => ErrorKind::Internal,
            Error::NoSuchVolume(_) => ErrorKind::NotFound,
            Error::NoSuchUser(_)
            | Error::NoSuchGroup(_)
            | Error::IdOutOfRange
            | Error::InvalidContainerName(_)
            | Error::InvalidVolumeName(_)
            | Error::ShortVolumeName(_)
            | Error::MountTargetKind { .. }
            | Error::UnusableRootfs { .. } => ErrorKind::Invalid,
        }
    }
}
