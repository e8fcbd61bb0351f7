//! `user[:group]` looked up in a container's own /etc/passwd and /etc/group: as text, never through NSS.

use std::path::Path;

use crate::error::Error;

/// Who the program runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups: those that list the user in /etc/group, where no group was written.
    pub groups: Vec<u32>,
    /// From /etc/passwd, else `/` ("/root" for 0 if the file has it).
    pub home: String,
}

/// Looks `spec` up under `rootfs`; both files are read with symlinks resolved inside `rootfs` and a cap on size.
/// An empty `spec` is root. Errors as Docker's: `unable to find user x: no matching entries in passwd file`.
pub fn look_up(rootfs: &Path, spec: &str) -> Result<User, Error> {
    todo!("{rootfs:?} {spec}")
}
