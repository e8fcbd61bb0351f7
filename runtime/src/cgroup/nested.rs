//! Cgroup v2 where engines run in containers: room for cgroups below one's own, and where a container's processes are then.

use std::fs;
use std::io;
use std::path::Path;

use super::{Group, ROOT, is_v2};

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
pub fn below(group: &Group, pid: i32) -> Option<String> {
    if !is_v2() {
        return None;
    }
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let cgroup = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let below = Path::new(cgroup).strip_prefix(group.path()).ok()?;
    let below = below.to_str().filter(|text| !text.is_empty())?;
    Some(below.to_owned())
}
