//! The one error of this crate, with a kind for exit codes and for a later HTTP API.
//!
//! Docker's own wording where scripts look for it; elsewhere ours, naming what was being done to what.

use std::io;
use std::path::PathBuf;

use crate::layer::LayerError;

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

    #[error("invalid reference format")]
    InvalidReference,

    #[error("invalid reference format: repository name must be lowercase")]
    UppercaseRepository,

    /// Docker's guard against taking an image ID for a name.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    HexName(String),

    /// A platform, a `--change` line, a tar on stdin: an argument that cannot be meant.
    #[error("invalid {what} {value:?}: {why}")]
    InvalidArgument {
        what: &'static str,
        value: String,
        why: String,
    },

    /// The instruction of a `--change` line, as Docker says it.
    #[error("{0} is not a valid change command")]
    NotAChange(String),

    /// What a commit would make.
    #[error(
        "the image would have {layers} layers, and no more than {most} can be mounted: make one layer of them by `export` and `import`"
    )]
    TooManyLayers { layers: usize, most: usize },

    #[error(transparent)]
    Pack(crate::layer::pack::PackError),

    #[error("{0} is the beginning of more than one image ID: give more digits")]
    AmbiguousId(String),

    /// The whole text after `conflict: ` is Docker's.
    #[error("conflict: {0}")]
    Conflict(String),

    #[error("manifest for {0} not found: manifest unknown: manifest unknown")]
    ManifestUnknown(String),

    #[error("blob {digest} not found in {repository}: blob unknown to registry {registry}")]
    BlobUnknown {
        digest: String,
        repository: String,
        registry: String,
    },

    #[error(
        "pull access denied for {repository}, repository does not exist or may require 'coracle login': {detail}"
    )]
    AccessDenied { repository: String, detail: String },

    /// As Docker says it.
    #[error("repository {repository} not found: {detail}")]
    RepositoryUnknown { repository: String, detail: String },

    #[error("denied: requested access to the resource is denied: {repository}: {detail}")]
    PushDenied { repository: String, detail: String },

    #[error("refusing to create a tag with a digest reference")]
    TagOfDigest,

    /// As Docker's client says it.
    #[error("Error parsing reference: {text:?} is not a valid repository/tag")]
    NotAName { text: String, source: Box<Error> },

    #[error("cannot push a digest reference")]
    PushOfDigest,

    /// As Docker says it.
    #[error("tag does not exist: {0}")]
    NoSuchTag(String),

    /// As Docker says it.
    #[error("An image does not exist locally with the tag: {0}")]
    NoSuchRepository(String),

    #[error("registry {registry} refused the credentials: {detail}")]
    Unauthorized { registry: String, detail: String },

    #[error("login attempt to {url} {why}")]
    LoginRefused { url: String, why: String },

    #[error("{program}: {detail}")]
    CredentialHelper { program: String, detail: String },

    #[error("neither HOME nor DOCKER_CONFIG says where credentials are kept: set one of them")]
    NoHome,

    /// A variable of the environment and what is wrong with it.
    #[error("{0}")]
    Proxy(String),

    #[error("certificate {path}: {why}")]
    Certificate { path: PathBuf, why: String },

    #[error("cannot reach registry {registry}: {detail}: {hint}")]
    Unreachable {
        registry: String,
        detail: String,
        hint: String,
    },

    #[error("registry {registry} answered {status} to {request}: {detail}")]
    RegistryStatus {
        registry: String,
        status: u16,
        request: String,
        detail: String,
    },

    #[error(
        "registry {registry} refuses {what} as too large (413): have the proxy before it allow longer requests (nginx: client_max_body_size)"
    )]
    TooLarge { registry: String, what: String },

    #[error("registry {registry} broke off while sending {what}: {detail}")]
    BrokenOff {
        registry: String,
        what: String,
        detail: String,
    },

    #[error(
        "toomanyrequests: registry {registry} asks to wait {seconds} s before the next try: wait, or log in for a higher limit"
    )]
    RateLimited { registry: String, seconds: u64 },

    #[error("cannot fetch {url}: {why}")]
    Fetch { url: String, why: String },

    #[error(
        "no matching manifest for {wanted} in the manifest list entries of {reference}: it offers {offered}"
    )]
    NoPlatform {
        wanted: String,
        reference: String,
        offered: String,
    },

    #[error(
        "image with reference {reference} was found but does not match the specified platform: wanted {wanted}, actual: {actual}"
    )]
    WrongPlatform {
        reference: String,
        wanted: String,
        actual: String,
    },

    /// A manifest, config or blob that is not what was promised.
    #[error("{what}: {why}")]
    Untrusted { what: String, why: String },

    #[error("applying layer {layer}")]
    Layer { layer: String, source: LayerError },

    #[error(
        "not enough space in {path}: the layers need at least {needed} bytes and {free} are free: remove images or choose another root directory"
    )]
    NoSpace {
        path: PathBuf,
        needed: u64,
        free: u64,
    },

    #[error(
        "not enough space in {path}: the {layers} layers need more than the {free} inodes that are free: remove images or choose another root directory"
    )]
    NoInodes {
        path: PathBuf,
        layers: u64,
        free: u64,
    },

    /// In the middle of a layer. What was finished before is kept.
    #[error(
        "applying layer {layer}: no space left in {root}: the layers to be pulled need about {needed} bytes, {free} bytes and {inodes} inodes are free there; the finished layers are kept for the next pull"
    )]
    LayerNoSpace {
        layer: String,
        source: Box<LayerError>,
        root: PathBuf,
        needed: u64,
        free: u64,
        /// `u64::MAX` where the file system has no fixed number of them.
        inodes: u64,
    },

    #[error(
        "layer {layer} of image {image} is missing from {path}: remove the image and pull it again"
    )]
    LayerMissing {
        layer: String,
        image: String,
        path: PathBuf,
    },

    /// What is on disk is not what was pulled.
    #[error("layer {layer} is damaged: {why}: try `coracle image check --repair`")]
    LayerDamaged { layer: String, why: String },

    #[error(
        "layer {layer} was stored by a version that did not keep what its tar was like: try `coracle image check --repair`, or remove its image and pull it again"
    )]
    NoRecipe { layer: String },

    #[error("{operation} {path}")]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },

    #[error("database: {operation}")]
    Database {
        operation: &'static str,
        source: rusqlite::Error,
    },

    /// Another layer of the same pull failed; that failure is the one to report.
    #[error("given up because another layer failed")]
    Cancelled,

    /// By the front end. What was finished is kept.
    #[error("interrupted: the finished layers are kept for the next pull")]
    Interrupted,
}

impl Error {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::NotFound(_)
            | Error::ManifestUnknown(_)
            | Error::BlobUnknown { .. }
            | Error::RepositoryUnknown { .. }
            | Error::NoSuchTag(_)
            | Error::NoSuchRepository(_)
            | Error::NoPlatform { .. }
            | Error::WrongPlatform { .. } => ErrorKind::NotFound,
            Error::InvalidReference
            | Error::UppercaseRepository
            | Error::HexName(_)
            | Error::PushOfDigest
            | Error::TagOfDigest
            | Error::NotAName { .. }
            | Error::AmbiguousId(_)
            | Error::Certificate { .. }
            | Error::Proxy(_)
            | Error::NotAChange(_)
            | Error::TooManyLayers { .. }
            | Error::InvalidArgument { .. } => ErrorKind::Invalid,
            Error::Conflict(_) => ErrorKind::Conflict,
            Error::AccessDenied { .. }
            | Error::PushDenied { .. }
            | Error::LoginRefused { .. }
            | Error::Unauthorized { .. } => ErrorKind::Unauthorized,
            Error::Unreachable { .. }
            | Error::Fetch { .. }
            | Error::RegistryStatus { .. }
            | Error::TooLarge { .. }
            | Error::BrokenOff { .. }
            | Error::RateLimited { .. } => ErrorKind::Unavailable,
            Error::Untrusted { .. } => ErrorKind::Untrusted,
            Error::Layer { source, .. } if source.is_content() => ErrorKind::Untrusted,
            Error::Layer { .. }
            | Error::NoSpace { .. }
            | Error::NoInodes { .. }
            | Error::LayerNoSpace { .. }
            | Error::LayerMissing { .. }
            | Error::LayerDamaged { .. }
            | Error::NoRecipe { .. }
            | Error::Io { .. }
            | Error::Database { .. }
            | Error::CredentialHelper { .. }
            | Error::NoHome
            | Error::Pack(_)
            | Error::Cancelled
            | Error::Interrupted => ErrorKind::Internal,
        }
    }

    pub(crate) fn untrusted(what: impl Into<String>, why: impl Into<String>) -> Self {
        Error::Untrusted {
            what: what.into(),
            why: why.into(),
        }
    }

    /// For `map_err` after a file operation.
    pub(crate) fn io<E: Into<io::Error>>(
        operation: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Error {
        let path = path.into();
        move |source| Error::Io {
            operation,
            path,
            source: source.into(),
        }
    }

    /// For `map_err` after a statement.
    pub(crate) fn db(operation: &'static str) -> impl FnOnce(rusqlite::Error) -> Error {
        move |source| Error::Database { operation, source }
    }
}
