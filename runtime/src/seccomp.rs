//! Docker's default seccomp profile as a compiled filter, cached by its hash.

use std::path::Path;

use crate::error::Error;

/// A compiled program for `seccomp(2)`: an array of `struct sock_filter`, 8 bytes each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(pub Vec<u8>);

/// Docker's default profile for a process with these capabilities (`CAP_SYS_ADMIN`, ...): they open further calls.
/// Compiled once for each set and kept in `cache`.
pub fn default_filter(cache: &Path, capabilities: &[&str]) -> Result<Filter, Error> {
    todo!("{cache:?} {capabilities:?}")
}

/// Loads a filter into the calling process. Needs CAP_SYS_ADMIN or no_new_privs. Async-signal-safe: it allocates nothing.
pub fn load(filter: &Filter) -> Result<(), rustix::io::Errno> {
    todo!("{filter:?}")
}
