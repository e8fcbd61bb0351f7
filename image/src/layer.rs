//! Applies a layer's tar to an empty directory, in the form that overlayfs wants of a lower layer.
//!
//! The tar is hostile until proven otherwise: all paths are resolved inside the directory (`layer/tree.rs`), all sizes
//! are capped (`Limits`), and whatever cannot be done exactly is refused. What a layer takes from the layers below it
//! (hard links to their files, metadata of directories that it leaves out) is settled last, by `Applied::finish`.
//! Knows nothing of registries, digests or the store.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

mod apply;
mod below;
mod entry;
mod finish;
mod metadata;
pub(crate) mod numbers;
mod pax;
mod sparse;
mod tree;

pub mod changes;
pub(crate) mod compare;
pub mod pack;
pub(crate) mod recipe;
pub mod unpack;

pub use apply::{Applied, apply};
pub(crate) use apply::{apply_hollow, apply_recorded};
pub(crate) use entry::{Entries, Kind};
pub(crate) use finish::Finished;
pub(crate) use numbers::octets;

/// Caps against bombs, far above what real images need.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries of one layer, extended headers included.
    pub entries: u64,
    /// Bytes of a path or of a link's target: Linux opens none that is longer (PATH_MAX).
    pub name: usize,
    /// Bytes of one PAX header.
    pub pax: u64,
    /// Bytes of one layer's tar.
    pub tar: u64,
    /// Bytes of all files of one layer, holes included.
    pub files: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            entries: 4_000_000,
            name: 4095,
            pax: 1 << 20,
            tar: 1 << 40,
            files: 1 << 50,
        }
    }
}

/// Bytes of tar that a blob may become however small it is.
const SMALL: u64 = 4 << 30;

impl Limits {
    /// As the default, with at most 4 GiB or 256 bytes of tar for each byte of blob: deflate reaches 1,032. An entry takes 10 bytes of
    /// blob or more, unless it is like all others.
    pub fn for_blob(size: u64) -> Limits {
        let limits = Limits::default();
        Limits {
            tar: SMALL.max(size.saturating_mul(256)),
            entries: limits.entries.min(100_000 + size / 4),
            ..limits
        }
    }

    /// Bytes of tar that so many bytes of a blob may have become on the way, whatever size the manifest promises: nothing packs better than
    /// deflate can, but zeros, and those only so long.
    pub fn tar_of(received: u64) -> u64 {
        SMALL.saturating_add(received.saturating_mul(1032))
    }
}

/// Why a layer was not applied. Names the path within the layer; the caller names the layer.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// What the tar asks for is not done.
    #[error("{path}: {why}: the image is damaged or hostile and cannot be used")]
    Refused { path: String, why: String },
    /// As Docker says it.
    #[error("cannot overwrite {what} {path:?} with {with} {entry:?}")]
    InTheWay {
        what: &'static str,
        path: String,
        with: &'static str,
        entry: String,
    },
    #[error("the tar is malformed: {0}")]
    Malformed(String),
    /// The stream of the tar failed: it may be compressed wrongly, or broken off.
    #[error("reading the tar")]
    Read(#[source] io::Error),
    /// The kernel refused an operation.
    #[error("{operation} {path}{hint}")]
    Place {
        operation: &'static str,
        path: String,
        hint: &'static str,
        source: io::Error,
    },
}

impl LayerError {
    /// Whether the layer is to blame, not this host.
    pub fn is_content(&self) -> bool {
        !matches!(self, LayerError::Place { .. })
    }

    /// The entry at which it was found; what names a path already stays as it is.
    fn at(self, path: &[u8]) -> Self {
        match self {
            LayerError::Malformed(why) if !path.is_empty() => {
                LayerError::Malformed(format!("{why}, at {}", numbers::octets(path)))
            }
            other => other,
        }
    }

    fn malformed(why: impl Into<String>) -> Self {
        LayerError::Malformed(why.into())
    }

    fn refused(path: impl Into<String>, why: impl Into<String>) -> Self {
        LayerError::Refused {
            path: path.into(),
            why: why.into(),
        }
    }

    /// For `map_err` after an operation on a path of the layer.
    fn place<E: Into<io::Error>>(operation: &'static str, path: &[u8]) -> impl FnOnce(E) -> Self {
        let path = format!("/{}", numbers::octets(path));
        move |source| {
            let source = source.into();
            let hint = match source
                .raw_os_error()
                .map(rustix::io::Errno::from_raw_os_error)
            {
                Some(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => {
                    ": remove images or choose another root directory"
                }
                Some(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => {
                    ": it takes root with the usual capabilities"
                }
                // chown(2) in a user namespace that does not map the owner.
                Some(rustix::io::Errno::INVAL) => {
                    ": the owner may lie outside the IDs of this user namespace"
                }
                Some(rustix::io::Errno::OPNOTSUPP) => {
                    ": the file system of the root directory does not support it"
                }
                _ => "",
            };
            LayerError::Place {
                operation,
                path,
                hint,
                source,
            }
        }
    }
}

/// Applies a whole tar over the given layers, the uppermost first, and returns the bytes of its files.
pub fn apply_over(
    root: &OwnedFd,
    tar: &mut dyn Read,
    below: &[OwnedFd],
    limits: Limits,
) -> Result<u64, LayerError> {
    let fds: Vec<_> = below.iter().map(|fd| fd.as_fd()).collect();
    apply(root, tar, limits)?.finish(root, &fds)
}
