//! `pull`: from a reference to a committed image, reporting what happens as values.

use std::path::Path;

use rusqlite::Connection;

use crate::error::Error;
use crate::{Image, Reference};

/// What to pull, and how.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// `os/arch[/variant]`; `None`: this host's.
    pub platform: Option<String>,
    /// Registries (`host[:port]`) to which plain HTTP is allowed. Loopback addresses always are.
    pub insecure_registries: Vec<String>,
    /// User and password; `None`: `~/.docker/config.json` is asked.
    pub credentials: Option<(String, String)>,
}

/// Progress, in the order in which things happen; layers interleave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullEvent {
    /// `Using default tag: latest`
    DefaultTag,
    /// `latest: Pulling from library/alpine`
    Started {
        tag: String,
        repository: String,
    },
    /// `layer` is the first 12 digits of the blob's digest, in all that follow.
    PullingFsLayer {
        layer: String,
    },
    AlreadyExists {
        layer: String,
    },
    /// Bytes of the compressed blob.
    Downloading {
        layer: String,
        done: u64,
        total: u64,
    },
    Extracting {
        layer: String,
    },
    PullComplete {
        layer: String,
    },
    Digest(String),
    /// `newer`: false where the image was there already.
    Status {
        newer: bool,
        reference: String,
    },
}

/// Pulls an image into `root`. Idempotent; two pulls of one image at once do not harm each other.
pub fn pull(
    conn: &mut Connection,
    root: &Path,
    reference: &Reference,
    options: &PullOptions,
    progress: &mut dyn FnMut(PullEvent),
) -> Result<Image, Error> {
    let _ = (conn, root, reference, options, progress);
    todo!()
}
