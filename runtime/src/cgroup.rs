//! What is left of a container's cgroups: finding its processes and removing the directories.
//!
//! libcontainer makes the cgroups; after a crash only the directories are left to tell, so this reads them alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const ROOT: &str = "/sys/fs/cgroup";

/// Below this directory of each hierarchy, one directory for each container.
const PARENT: &str = "coracle";

/// The path that the OCI spec carries.
pub fn path(id: &str) -> PathBuf {
    Path::new("/").join(PARENT).join(id)
}

/// Whether the host has pure cgroup v2: one hierarchy, at the root itself.
pub fn is_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// All processes in the container's cgroups.
pub fn processes(id: &str) -> Vec<i32> {
    let mut pids: Vec<i32> = directories(id)
        .iter()
        .filter_map(|directory| fs::read_to_string(directory.join("cgroup.procs")).ok())
        .flat_map(|text| {
            text.lines()
                .filter_map(|line| line.parse().ok())
                .collect::<Vec<i32>>()
        })
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// Removes the container's cgroups. The kernel refuses while a process of it is still being torn down: wait for that.
pub fn remove(id: &str) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    for directory in directories(id) {
        loop {
            match remove_tree(&directory) {
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                result => break result?,
            }
        }
    }
    Ok(())
}

/// Removes the cgroups of containers that are gone: what a crash has left where no row tells of it any more. `is_gone` says
/// of an ID whether nobody answers for it.
pub fn sweep(is_gone: impl Fn(&str) -> bool) {
    let mut ids: Vec<String> = hierarchies()
        .iter()
        .filter_map(|hierarchy| fs::read_dir(hierarchy.join(PARENT)).ok())
        .flat_map(|entries| entries.flatten())
        .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    for id in ids {
        if processes(&id).is_empty() && is_gone(&id) {
            // Somebody else's at the last moment: then the kernel refuses, and it stays.
            let _ = directories(&id).iter().try_for_each(|d| remove_tree(d));
        }
    }
}

/// Removes our parent directory from every hierarchy where no container is left in it.
pub fn remove_parent() {
    for directory in hierarchies() {
        // Busy or missing: somebody else's containers, or nothing to do.
        let _ = fs::remove_dir(directory.join(PARENT));
    }
}

/// A program in the container may have made cgroups below its own (containers in containers do).
fn remove_tree(directory: &Path) -> io::Result<()> {
    match fs::remove_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
        result => return result,
    }
    for entry in fs::read_dir(directory)?.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(directory)
}

fn directories(id: &str) -> Vec<PathBuf> {
    hierarchies()
        .into_iter()
        .map(|h| h.join(PARENT).join(id))
        .filter(|d| d.exists())
        .collect()
}

fn hierarchies() -> Vec<PathBuf> {
    if is_v2() {
        return vec![ROOT.into()];
    }
    let Ok(entries) = fs::read_dir(ROOT) else {
        return Vec::new();
    };
    entries
        .flatten()
        // `cpuacct -> cpu,cpuacct` and the like name the same hierarchy twice.
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| e.path())
        .collect()
}

/// A container whose processes stand still; they go on when this is dropped.
#[derive(Debug)]
pub struct Frozen {
    file: PathBuf,
    thawed: &'static str,
}

/// How long the kernel may take to stop the last process.
const FREEZING: Duration = Duration::from_secs(10);

impl Frozen {
    /// `None` if there is nothing to freeze, or if somebody else has frozen it already.
    pub fn freeze(id: &str) -> Option<Frozen> {
        let directory = Path::new(PARENT).join(id);
        let (file, events, frozen, thawed) = match is_v2() {
            true => {
                let directory = Path::new(ROOT).join(directory);
                (
                    directory.join("cgroup.freeze"),
                    directory.join("cgroup.events"),
                    "1",
                    "0",
                )
            }
            false => {
                let state = Path::new(ROOT)
                    .join("freezer")
                    .join(directory)
                    .join("freezer.state");
                (state.clone(), state, "FROZEN", "THAWED")
            }
        };
        let now = fs::read_to_string(&file).ok()?;
        if now.trim() != thawed {
            return None;
        }
        fs::write(&file, frozen).ok()?;
        let made = Frozen { file, thawed };
        let deadline = Instant::now() + FREEZING;
        let is_frozen = |text: String| match is_v2() {
            true => text.lines().any(|line| line == "frozen 1"),
            false => text.trim() == frozen,
        };
        while !fs::read_to_string(&events).is_ok_and(is_frozen) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        Some(made)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // Gone, if the container was killed meanwhile.
        let _ = fs::write(&self.file, self.thawed);
    }
}
