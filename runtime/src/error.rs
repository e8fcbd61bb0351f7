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

            Error::CompileSeccomp(_) | Error::ExportSeccomp(_) | Error::SeccompTooLong(_) => {
                ErrorKind::Internal
            }
        }
    }
}
