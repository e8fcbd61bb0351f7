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

/// All processes in the container's cgroups, and in those that it has made below them.
pub fn processes(id: &str) -> Vec<i32> {
    processes_in(&directories(id))
}

/// All processes in these cgroups and below them.
pub fn processes_in(directories: &[PathBuf]) -> Vec<i32> {
    let mut pids = Vec::new();
    let mut below = directories.to_vec();
    while let Some(directory) = below.pop() {
        let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        below.extend(children(&directory));
    }
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// The cgroups right below this one.
fn children(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Removes the container's cgroups. The kernel refuses while a process of it is still being torn down: wait for that.
pub fn remove(id: &str) -> io::Result<()> {
    remove_all(&directories(id))
}

/// Removes these cgroups and all below them.
pub fn remove_all(directories: &[PathBuf]) -> io::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    for directory in directories {
        loop {
            match remove_tree(directory) {
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
    for child in children(directory) {
        remove_tree(&child)?;
    }
    fs::remove_dir(directory)
}

fn directories(id: &str) -> Vec<PathBuf> {
    directories_of(&path(id))
}

/// The directories of a cgroup (`/coracle/ID`) in each hierarchy that has it.
pub fn directories_of(cgroup: &Path) -> Vec<PathBuf> {
    let relative = cgroup.strip_prefix("/").unwrap_or(cgroup);
    hierarchies()
        .into_iter()
        .map(|hierarchy| hierarchy.join(relative))
        .filter(|directory| directory.exists())
        .collect()
}

/// Makes it possible to have cgroups with limits below the root of ours, on cgroup v2 in a container.
///
/// There the root of what we see is an ordinary cgroup, in which the container's processes are; and an ordinary cgroup has
/// either processes or controllers for those below (cgroups(7), "no internal processes" rule). So they move into one beside
/// ours, again and again until none is left: a process may fork between the look and the move.
pub fn make_room_for_children() -> io::Result<()> {
    const ATTEMPTS: usize = 50;
    let root = Path::new(ROOT);
    // The machine's own root has no type, and no such rule.
    if !is_v2() || !root.join("cgroup.type").exists() {
        return Ok(());
    }
    let read = |name: &str| fs::read_to_string(root.join(name));
    let mut result = Ok(());
    for _ in 0..ATTEMPTS {
        let enabled = read("cgroup.subtree_control")?;
        let missing: Vec<String> = read("cgroup.controllers")?
            .split_whitespace()
            .filter(|name| !enabled.split_whitespace().any(|other| other == *name))
            .map(|name| format!("+{name}"))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        result = fs::write(root.join("cgroup.subtree_control"), missing.join(" "));
        match &result {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {}
            _ => return result,
        }
        let aside = root.join("init");
        fs::create_dir(&aside).or_else(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => Ok(()),
            _ => Err(e),
        })?;
        for pid in read("cgroup.procs")?.lines() {
            // It may have ended by now; 0 is a process outside of our pid namespace, which is not ours to move.
            let _ = fs::write(aside.join("cgroup.procs"), pid);
        }
    }
    result
}

/// The part of a process's cgroup that is below the container's own: `init` where an engine inside has moved it there, since
/// then nobody can join the container's own (cgroup v2). `None`: it is in the container's own.
pub fn below_own(id: &str, pid: i32) -> Option<String> {
    below(&path(id), pid)
}

/// The same for any cgroup.
pub fn below(own: &Path, pid: i32) -> Option<String> {
    if !is_v2() {
        return None;
    }
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let cgroup = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let below = Path::new(cgroup).strip_prefix(own).ok()?;
    let below = below.to_str().filter(|text| !text.is_empty())?;
    Some(below.to_owned())
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
