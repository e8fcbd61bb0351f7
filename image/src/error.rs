//! The one error of this crate, with a kind for exit codes and for a later HTTP API.

/// What sort of failure it is: the caller maps it to an exit code or an HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request itself is wrong (a malformed reference, say).
    Invalid,
    /// The object asked for does not exist, here or at the registry.
    NotFound,
    /// The object exists and is in the way (in use, name taken).
    Conflict,
    /// The registry refused the credentials, or wants some.
    Unauthorized,
    /// The registry could not be reached, or broke off.
    Unavailable,
    /// What arrived is not what was promised (digest, size, format), or must not be applied.
    Untrusted,
    /// This host failed: disk, database, kernel.
    Internal,
}

/// Grows a variant for each operation; names the object in each.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("No such image: {0}")]
    NotFound(String),
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::NotFound(_) => ErrorKind::NotFound,
        }
    }
}
