//! Marks of commands that are half-way through something which no transaction covers: a file in a folder of `RUN_ROOT`, named
//! after the container and the command. One whose command was killed is for repair.
//!
//! Must not know what the commands do.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::process::Identity;

/// Stands until its value goes.
#[derive(Debug)]
pub(super) struct Mark(PathBuf);

impl Mark {
    /// `folder`: which of the marks, a name of its own in `RUN_ROOT`.
    pub(super) fn set(run_root: &Path, folder: &str, container: &str) -> io::Result<Mark> {
        let folder = run_root.join(folder);
        fs::create_dir_all(&folder)?;
        let path = folder.join(own_name(container)?);
        File::create(&path)?;
        Ok(Mark(path))
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // Another command may have seen to it as well.
        if let Err(error) = fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "a mark of a finished change stays");
        }
    }
}

fn own_name(container: &str) -> io::Result<String> {
    let me = Identity::myself()?;
    Ok(format!("{container}.{}.{}", me.pid, me.start))
}

/// Takes over the marks of commands that have died, with the containers that they are about. Of two commands that look, one has each
/// mark; should it die as well, the mark still stands. Cheap when there is none.
pub(super) fn take_orphaned(run_root: &Path, folder: &str) -> Vec<(Mark, String)> {
    let folder = run_root.join(folder);
    let Ok(entries) = fs::read_dir(&folder) else {
        return Vec::new();
    };
    let orphan = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let mut words = name.split('.');
        let container = words.next()?.to_owned();
        let command = Identity {
            pid: words.next()?.parse().ok()?,
            start: words.next()?.parse().ok()?,
        };
        if command.is_alive() {
            return None;
        }
        let own = folder.join(own_name(&container).ok()?);
        fs::rename(entry.path(), &own).ok()?;
        Some((Mark(own), container))
    };
    entries.flatten().filter_map(orphan).collect()
}

/// Takes away all marks of a container: what they stand for is the caller's now.
pub(super) fn forget(run_root: &Path, folder: &str, container: &str) {
    for entry in fs::read_dir(run_root.join(folder))
        .into_iter()
        .flatten()
        .flatten()
    {
        if entry.file_name().to_string_lossy().starts_with(container) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marks_of_the_dead_are_taken_and_only_once() {
        let run_root = tempfile::tempdir().unwrap();
        let mine = Mark::set(run_root.path(), "marks", "one").unwrap();
        // Above the kernel's highest number.
        let dead = run_root.path().join(format!("marks/two.{}.1", i32::MAX));
        File::create(&dead).unwrap();
        let taken = take_orphaned(run_root.path(), "marks");
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].1, "two");
        assert!(!dead.exists());
        assert!(take_orphaned(run_root.path(), "marks").is_empty());
        drop(taken);
        forget(run_root.path(), "marks", "one");
        assert_eq!(
            fs::read_dir(run_root.path().join("marks")).unwrap().count(),
            0
        );
        drop(mine);
    }
}
