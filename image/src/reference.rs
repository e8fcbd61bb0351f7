//! Image references as people write them, and their full form. Pure.

/// `redis`, `localhost:5000/x/y:tag`, `name@sha256:...`: parsed once, at the edge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// `docker.io`, or the host and port as written.
    pub registry: String,
    /// `library/redis`.
    pub repository: String,
    /// Set unless there is only a digest; `latest` where nothing was written.
    pub tag: Option<String>,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: Option<String>,
}
