//! The one error of this crate, with a kind for exit codes and for a later HTTP API.

/// What sort of failure it is: the caller maps it to an exit code or an HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request itself is wrong (a malformed port, a gateway outside its subnet).
    Invalid,
    NotFound,
    /// Something exists and is in the way: a port, a name, a subnet, an active endpoint.
    Conflict,
    /// Not allowed on this object (a predefined network).
    Forbidden,
    /// Addresses, ports or another finite thing has run out.
    Exhausted,
    /// This host failed: database, kernel, a missing command.
    Internal,
}

/// Grows a variant for each operation; names the object in each.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("network {0} not found")]
    NetworkNotFound(String),
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::NetworkNotFound(_) => ErrorKind::NotFound,
        }
    }
}
