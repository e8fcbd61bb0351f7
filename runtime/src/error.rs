//! The one error of this crate, with a kind for exit codes and for a later HTTP API.

use serde::{Deserialize, Serialize};

use crate::limits::LimitError;

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
    #[error("You cannot attach to a stopped container, start it first")]
    AttachStopped,
    #[error("You cannot attach to a paused container, unpause it first")]
    AttachPaused,
    #[error("You cannot attach to a restarting container, wait until it is running")]
    AttachRestarting,
    /// Of a container `detach`, of an exec `escape`.
    #[error("Invalid {what} keys ({keys}) provided")]
    DetachKeys { what: &'static str, keys: String },
    /// The text is Docker's.
    #[error("{0}")]
    LogOption(String),
    #[error("configured logging driver does not support reading")]
    NoLog,
    #[error("container {0} is being started by another command: try again when that has ended")]
    BeingStarted(String),
    #[error(
        "You cannot remove a running container {0}. Stop the container before attempting removal or force remove"
    )]
    StillRunning(String),
    #[error("Container {0} is paused, unpause the container before exec")]
    PausedForExec(String),
    #[error("Container {0} is already paused")]
    AlreadyPaused(String),
    #[error("Container {0} is not paused")]
    NotPaused(String),
    #[error("cannot start a paused container, try unpause instead")]
    StartPaused,
    #[error(
        "You cannot remove a paused container {0}. Unpause and then stop the container before attempting removal or force remove"
    )]
    RemovePaused(String),
    #[error(transparent)]
    Limits(#[from] LimitError),
    #[error("Cannot update container {container}")]
    Update {
        container: String,
        source: Box<dyn std::error::Error + Send + Sync>,
        kind: ErrorKind,
    },
    #[error("Couldn't find PID field in ps output")]
    NoPidColumn,
    #[error("ps: {0}")]
    Ps(String),
    #[error(
        "You cannot remove a restarting container {0}. Stop the container before attempting removal or force remove"
    )]
    StillRestarting(String),
    #[error("Container {0} is restarting, wait until the container is running")]
    IsRestarting(String),
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
    #[error("invalid {option} {value:?}: the kernel takes at most 64 bytes")]
    NameTooLong { option: &'static str, value: String },
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
    #[error(transparent)]
    Mount(#[from] crate::engine::mounts::MountError),

    // What a container is made of: filter, user, root filesystem, volumes, names.
    #[error("Decoding seccomp profile failed: {0}")]
    SeccompProfile(String),
    #[error("invalid {option}: unknown capability: {name:?}")]
    UnknownCapability { option: &'static str, name: String },
    #[error("{0} cannot be given: coracle does not have it itself, nor can a container")]
    MissingCapability(String),
    #[error("conflicting options: {0} and the UTS mode")]
    ConflictsWithUts(&'static str),
    #[error("sysctl {0:?} not allowed in host network namespace")]
    SysctlOfHostNetwork(String),
    #[error("sysctl {0:?} is not allowed in the hosts ipc namespace")]
    SysctlOfHostIpc(String),
    #[error("container {0} is not running")]
    JoinPidNotRunning(String),
    #[error("can't join IPC of container {container}: {why}")]
    JoinIpc { container: String, why: String },
    #[error("Unable to find group {0}: no matching entries in group file")]
    NoSuchExtraGroup(String),
    #[error("device path {0} in the container must be below /dev")]
    DeviceOutsideDev(String),
    #[error("error gathering device information while adding custom device {path:?}: {why}")]
    Device {
        path: String,
        why: &'static str,
        kind: ErrorKind,
    },
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
         put --root on another file system, in a container on a volume \
         (run it with -v NAME:FOLDER, or make its image with VOLUME FOLDER)"
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
    #[error("Could not find the file {path} in container {container}")]
    NoSuchPath { container: String, path: String },
    #[error("extraction point is not a directory")]
    NotExtractable,
    #[error("mounted volume is marked read-only")]
    ReadOnlyVolume,
    #[error("container rootfs is marked read-only")]
    ReadOnlyRootfs,
    #[error("Container {0} is restarting, wait until the container is running")]
    Restarting(String),
    #[error(transparent)]
    Unpack(#[from] image::layer::LayerError),
    #[error(transparent)]
    Pack(#[from] image::layer::pack::PackError),
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
            NoSuchContainer(_) | NoSuchImage(_) | NoSuchPath { .. } => ErrorKind::NotFound,
            NotExtractable => ErrorKind::Invalid,
            ReadOnlyVolume | ReadOnlyRootfs => ErrorKind::Forbidden,
            Restarting(_) => ErrorKind::Conflict,
            Unpack(e) if e.is_content() => ErrorKind::Invalid,
            Unpack(_) | Pack(_) => ErrorKind::Internal,
            NameInUse { .. }
            | NotRunning(_)
            | AttachStopped
            | AttachPaused
            | AttachRestarting
            | NoLog
            | BeingStarted(_)
            | StillRunning(_)
            | PausedForExec(_)
            | AlreadyPaused(_)
            | NotPaused(_)
            | StartPaused
            | RemovePaused(_)
            | StillRestarting(_)
            | IsRestarting(_)
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
            | NameTooLong { .. }
            | ExposedPort(_)
            | JoinSelf => ErrorKind::Invalid,
            NewName(source) => source.kind(),
            AmbiguousId(_)
            | DetachKeys { .. }
            | LogOption(_)
            | SameName
            | HealthTime(_)
            | NoCommand
            | InvalidSignal(_)
            | RelativeMountTarget(_)
            | DuplicateMount(_)
            | PortsNeedNetwork(_)
            | RelativeWorkdir(_) => ErrorKind::Invalid,
            Limits(_) | NoPidColumn | Ps(_) => ErrorKind::Invalid,
            Update { kind, .. } | Program { kind, .. } | Device { kind, .. } => *kind,
            Mount(e) => e.kind(),
            SeccompProfile(_)
            | UnknownCapability { .. }
            | MissingCapability(_)
            | ConflictsWithUts(_)
            | SysctlOfHostNetwork(_)
            | SysctlOfHostIpc(_)
            | NoSuchExtraGroup(_)
            | DeviceOutsideDev(_) => ErrorKind::Invalid,
            JoinPidNotRunning(_) | JoinIpc { .. } => ErrorKind::Conflict,
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

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
