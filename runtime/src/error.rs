//! The one error of this crate, with a kind for exit codes and for a later HTTP API.

/// What sort of failure it is: the caller maps it to an exit code or an HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Grows a variant for each operation; names the object in each.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("No such container: {0}")]
    NoSuchContainer(String),
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
        match self {
            Error::NoSuchContainer(_) => ErrorKind::NotFound,
            Error::Image(e) => match e.kind() {
                image::ErrorKind::Invalid => ErrorKind::Invalid,
                image::ErrorKind::NotFound => ErrorKind::NotFound,
                image::ErrorKind::Conflict => ErrorKind::Conflict,
                image::ErrorKind::Unauthorized => ErrorKind::Forbidden,
                image::ErrorKind::Unavailable => ErrorKind::Unavailable,
                image::ErrorKind::Untrusted | image::ErrorKind::Internal => ErrorKind::Internal,
            },
            Error::Network(e) => match e.kind() {
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
