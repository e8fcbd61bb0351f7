//! A container's cgroups: where they are, which processes are in them, and removing them.
//!
//! libcontainer makes them; what may change afterwards, and what is to be read, is here: the limits, the freezer, the counters.
//! After a crash only the directories are left to tell, so nothing but them is read.

mod freezer;
mod host;
mod limits;
mod nested;
mod oom;
mod throttle;
mod usage;

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

pub use freezer::{Frozen, freeze, is_frozen, thaw};
pub use host::Host;
pub use limits::{DEFAULT_PERIOD, Undo, apply, bandwidth};
pub use nested::{below, make_room_for_children};
pub use oom::{Watch, kills};
pub use throttle::{block_device, can_throttle, throttle};
pub use usage::{Usage, network, usage};

use crate::record::Container;

const ROOT: &str = "/sys/fs/cgroup";

/// Below this directory of each hierarchy, one directory for each container without a `--cgroup-parent`.
const PARENT: &str = "coracle";

/// The cgroups of one container: the same path in every hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Relative to a hierarchy's root: `coracle/ID`.
    path: PathBuf,
}

impl Group {
    pub fn of(container: &Container) -> Group {
        let parent = container.request.cgroup_parent.as_deref();
        Group {
            path: parent_path(parent.unwrap_or_default()).join(&container.id),
        }
    }

    /// At a path of somebody else's choice, absolute below each hierarchy's root.
    pub fn at(path: &Path) -> Group {
        Group {
            path: path.strip_prefix("/").unwrap_or(path).to_owned(),
        }
    }

    /// The path that the OCI spec carries, absolute below each hierarchy's root.
    pub fn path(&self) -> PathBuf {
        Path::new("/").join(&self.path)
    }

    /// Its directory under a controller (`memory`, `pids`); on v2 it has one for all. It may not exist.
    fn directory(&self, controller: &str) -> Option<PathBuf> {
        hierarchy(controller).map(|root| root.join(&self.path))
    }

    fn directories(&self) -> Vec<PathBuf> {
        hierarchies()
            .into_iter()
            .map(|hierarchy| hierarchy.join(&self.path))
            .filter(|directory| directory.exists())
            .collect()
    }
}

/// `--cgroup-parent` as a path below the root: read as text, so that `..` leads nowhere else. Empty: our own.
fn parent_path(parent: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for component in Path::new(parent).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => drop(path.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    match path.as_os_str().is_empty() {
        true => PARENT.into(),
        false => path,
    }
}

/// Whether the host has pure cgroup v2: one hierarchy, at the root itself.
pub fn is_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// All processes in the container's cgroups, and in those that it has made below them.
pub fn processes(group: &Group) -> Vec<i32> {
    let mut pids = Vec::new();
    for directory in group.directories() {
        add_processes(&directory, &mut pids);
    }
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn add_processes(directory: &Path, pids: &mut Vec<i32>) {
    if let Ok(text) = fs::read_to_string(directory.join("cgroup.procs")) {
        pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    }
    for below in subdirectories(directory) {
        add_processes(&below, pids);
    }
}

/// Removes the container's cgroups. The kernel refuses while a process of it is still being torn down: wait for that.
pub fn remove(group: &Group) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    for directory in group.directories() {
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
/// of an ID whether nobody answers for it. Looks only where containers without a `--cgroup-parent` are.
pub fn sweep(is_gone: impl Fn(&str) -> bool) {
    let mut ids: Vec<String> = hierarchies()
        .iter()
        .flat_map(|hierarchy| subdirectories(&hierarchy.join(PARENT)))
        .filter_map(|directory| Some(directory.file_name()?.to_str()?.to_owned()))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    for id in ids {
        let group = Group {
            path: Path::new(PARENT).join(&id),
        };
        if processes(&group).is_empty() && is_gone(&id) {
            // Somebody else's at the last moment: then the kernel refuses, and it stays.
            let _ = group.directories().iter().try_for_each(|d| remove_tree(d));
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
    for below in subdirectories(directory) {
        remove_tree(&below)?;
    }
    fs::remove_dir(directory)
}

fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        // `cpuacct -> cpu,cpuacct` and the like name the same hierarchy twice.
        .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn hierarchies() -> Vec<PathBuf> {
    match is_v2() {
        true => vec![ROOT.into()],
        false => subdirectories(Path::new(ROOT)),
    }
}

/// Where a controller is mounted; several may share a mount (`cpu,cpuacct`). `None`: this kernel or host has it not.
fn hierarchy(controller: &str) -> Option<PathBuf> {
    if is_v2() {
        return Some(ROOT.into());
    }
    let own = Path::new(ROOT).join(controller);
    if own.join("cgroup.procs").exists() {
        return Some(own);
    }
    hierarchies().into_iter().find(|directory| {
        let name = directory.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.split(',').any(|part| part == controller))
    })
}

/// A file of `name value` lines: the value of one of them.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .and_then(|value| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_below_the_root_whatever_is_written() {
        for (written, meant) in [
            ("", "coracle"),
            ("/", "coracle"),
            ("/ci", "ci"),
            ("ci/jobs/", "ci/jobs"),
            ("/a/../../b", "b"),
            ("../..", "coracle"),
            ("x.slice", "x.slice"),
        ] {
            assert_eq!(parent_path(written), Path::new(meant), "{written}");
        }
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(field(text, "oom_kill"), Some(3));
        assert_eq!(field(text, "oom"), None);
    }
}
