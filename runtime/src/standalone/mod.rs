//! The OCI runtime: `create`, `start`, `state`, `kill`, `delete` and the like on a bundle that another engine has made.
//!
//! It knows no images, networks or database: its state is one folder for each container. `record` is what that holds, `adapt`
//! turns the bundle's spec into what libcontainer is given, `hooks` runs the engine's programs, `life` ends and pauses.

mod adapt;
mod begin;
pub mod hooks;
mod life;
mod record;

use std::path::{Path, PathBuf};

pub use begin::{Create, Exec, create, exec, start};
pub use life::{delete, kill, pause, processes, resume};
pub use record::{Record, Status, list, load};

use crate::oci::Failure;

/// What went wrong, in words that engines look for: podman tells exit code 127 from "executable file not found".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("container with id {0:?} already exists")]
    Exists(String),
    #[error("container {0:?} does not exist")]
    NoSuchContainer(String),
    #[error("invalid container id {0:?}: letters, digits, _, +, - and . are allowed")]
    InvalidId(String),
    #[error("cannot {verb} a container that is {status}: container {id:?} must be {must_be}")]
    WrongStatus {
        verb: &'static str,
        id: String,
        status: Status,
        must_be: &'static str,
    },
    /// containerd and dockerd look for this text.
    #[error("container not running")]
    NotRunning,
    #[error("cannot delete container {id} that is not stopped: {status}")]
    NotStopped { id: String, status: Status },
    #[error("the bundle {path}: {why}")]
    Bundle { path: PathBuf, why: String },
    #[error("{0}: not supported")]
    Unsupported(&'static str),
    #[error("{0}")]
    Program(String),
    #[error("invalid signal {0:?}")]
    Signal(String),
    #[error("cannot {operation} {path}")]
    File {
        operation: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot {step}")]
    Host {
        step: &'static str,
        source: std::io::Error,
    },
    #[error("hook {path}")]
    Hook {
        path: PathBuf,
        source: hooks::HookError,
    },
    #[error(transparent)]
    Runtime(#[from] crate::Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        Error::Program(failure.message)
    }
}

impl Error {
    fn file(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::File {
            operation,
            path,
            source,
        }
    }
}
