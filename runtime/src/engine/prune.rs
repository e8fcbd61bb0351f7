//! `container prune`.

use std::fs;
use std::path::Path;

use super::{Engine, finish};
use crate::error::Error;
use crate::record::{Container, State};

/// What `container prune` has removed.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// Full IDs.
    pub containers: Vec<String>,
    /// Bytes of what they had written.
    pub reclaimed: u64,
}

impl Engine {
    /// Removes the containers that neither run nor wait for a restart and that `wanted` names.
    pub fn prune_containers(
        &mut self,
        wanted: impl Fn(&Container) -> bool,
    ) -> Result<Pruned, Error> {
        let mut pruned = Pruned::default();
        for container in self.list()? {
            let is_over = matches!(container.state, State::Created | State::Exited { .. });
            if !is_over || !wanted(&container) {
                continue;
            }
            let storage = finish::storage(&self.settings.root, &container.id);
            let size = size_of(&storage.join("diff"));
            match self.remove(&container.id, false, true) {
                Ok(()) => {
                    pruned.containers.push(container.id);
                    pruned.reclaimed += size;
                }
                // Somebody has just started or removed it.
                Err(Error::StillRunning(_) | Error::StillRestarting(_)) => {}
                Err(Error::NoSuchContainer(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pruned)
    }
}

/// Bytes of the files below a directory; links are not followed. What cannot be read does not count.
fn size_of(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => size_of(&entry.path()),
            Ok(found) if found.is_file() => found.len(),
            _ => 0,
        })
        .sum()
}
