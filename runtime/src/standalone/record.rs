//! A container's folder: `ROOT/ID`, with its record, the spec it was created from, and libcontainer's own files.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Error;
use crate::cgroup::{self, Group};
use crate::process::Identity;

const RECORD: &str = "container.json";
/// The bundle's spec as it was at `create`: what happens to the bundle afterwards has no effect (runtime-spec, Lifecycle).
const SPEC: &str = "spec.json";
/// There from `start` on.
const STARTED: &str = "started";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub id: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// Absolute, as the spec given to libcontainer has it.
    pub cgroup: PathBuf,
    /// RFC 3339.
    pub created: String,
    #[serde(default)]
    pub annotations: HashMap<String, String>,
    /// Who creates it: without a first process, this tells whether there will be one.
    pub creator: Identity,
    pub init: Option<Identity>,
    #[serde(skip)]
    pub folder: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// The container of this ID below `root`.
pub fn load(root: &Path, id: &str) -> Result<Record, Error> {
    check_id(id)?;
    let folder = root.join(id);
    let path = folder.join(RECORD);
    let text = match fs::read(&path) {
        Ok(text) => text,
        // A create that was killed before it had written anything.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Error::NoSuchContainer(id.to_owned()));
        }
        Err(e) => return Err(Error::file("read", &path)(e)),
    };
    let mut record: Record =
        serde_json::from_slice(&text).map_err(|e| Error::file("read", &path)(e.into()))?;
    record.folder = folder;
    Ok(record)
}

/// All containers below `root`, by ID. One that cannot be read is left out.
pub fn list(root: &Path) -> Vec<Record> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let mut all: Vec<Record> = entries
        .filter_map(|entry| load(root, entry.file_name().to_str()?).ok())
        .collect();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    all
}

/// It becomes the name of a folder.
pub(super) fn check_id(id: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    match !id.is_empty() && id != "." && id != ".." && id.len() < 1024 && id.chars().all(plain) {
        true => Ok(()),
        false => Err(Error::InvalidId(id.to_owned())),
    }
}

impl Record {
    pub fn status(&self) -> Status {
        match self.init {
            None if self.creator.is_alive() => Status::Creating,
            Some(init) if init.is_alive() => {
                if !self.folder.join(STARTED).exists() {
                    Status::Created
                } else if cgroup::is_frozen(&self.group()) {
                    Status::Paused
                } else {
                    Status::Running
                }
            }
            _ => Status::Stopped,
        }
    }

    /// The state as the specification has it (runtime-spec, State), which hooks read and `state` prints.
    pub fn state(&self, status: Status) -> Value {
        let mut state = json!({
            "ociVersion": oci_spec::runtime::VERSION,
            "id": self.id,
            // Paused is not a status of the specification, but runc's, and engines know it.
            "status": status.to_string(),
            "pid": match status {
                Status::Stopped => 0,
                _ => self.init.map_or(0, |init| init.pid),
            },
            "bundle": self.bundle,
        });
        if !self.annotations.is_empty() {
            state["annotations"] = json!(self.annotations);
        }
        state
    }

    /// The same with what runc adds.
    pub fn description(&self) -> Value {
        let mut state = self.state(self.status());
        state["rootfs"] = json!(self.rootfs);
        state["created"] = json!(self.created);
        state["owner"] = json!("");
        state
    }

    pub fn spec(&self) -> Result<Spec, Error> {
        let path = self.folder.join(SPEC);
        Spec::load(&path).map_err(|e| Error::Bundle {
            path,
            why: e.to_string(),
        })
    }

    pub(super) fn keep_spec(&self, spec: &Spec) -> Result<(), Error> {
        let text = serde_json::to_vec(spec).unwrap_or_default();
        write_atomically(&self.folder.join(SPEC), &text)
    }

    pub(super) fn save(&self) -> Result<(), Error> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        write_atomically(&self.folder.join(RECORD), &text)
    }

    pub(super) fn mark_started(&self) -> Result<(), Error> {
        write_atomically(&self.folder.join(STARTED), b"")
    }

    pub(super) fn unmark_started(&self) {
        let _ = fs::remove_file(self.folder.join(STARTED));
    }

    /// Where libcontainer keeps its own files.
    pub(super) fn inner(&self) -> PathBuf {
        self.folder.join("libcontainer")
    }

    /// The folder with the spec that libcontainer is given.
    pub(super) fn inner_bundle(&self) -> PathBuf {
        self.folder.join("bundle")
    }

    pub(super) fn group(&self) -> Group {
        Group::at(&self.cgroup)
    }
}

/// Whoever reads it finds the old content or the new, whenever the writer is killed.
pub(super) fn write_atomically(path: &Path, content: &[u8]) -> Result<(), Error> {
    let write = || {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let mut file = tempfile::Builder::new()
            .prefix(".new-")
            .tempfile_in(folder)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(Error::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names_of_folders_and_nothing_else() {
        for id in ["a", "0123456789abcdef", "x_y-z.1+2"] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in ["", ".", "..", "a/b", "../x", "a b", "a\nb", "é"] {
            assert!(check_id(id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn a_container_without_first_process_is_stopped_once_its_creator_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut record = Record {
            id: "c".into(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            cgroup: "/coracle-oci/none".into(),
            created: String::new(),
            annotations: HashMap::new(),
            creator: Identity::myself().unwrap(),
            init: None,
            folder: folder.path().join("c"),
        };
        fs::create_dir(&record.folder).unwrap();
        assert_eq!(record.status(), Status::Creating);
        record.creator.start += 1;
        assert_eq!(record.status(), Status::Stopped);
        record.save().unwrap();
        assert_eq!(load(folder.path(), "c").unwrap().creator, record.creator);
        assert_eq!(list(folder.path()).len(), 1);
        assert!(load(folder.path(), "d").is_err());
    }
}
