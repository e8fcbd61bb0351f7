//! Named and anonymous volumes: their rows, their directories below `ROOT/volumes`, and how they are filled.
//!
//! Whether a container uses a volume is not known here.

mod copy;
pub mod options;

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::bundle::inside::Inside;
use crate::error::Error;
use crate::events::{self, Subject};
use crate::names;

pub use copy::{is_cut_off, populate};

/// The one driver, as an event's attribute.
pub const DRIVER: (&str, &str) = ("driver", "local");

/// A volume that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub name: String,
    /// Made for one container, and removed with it.
    pub anonymous: bool,
    pub created: OffsetDateTime,
    pub labels: Vec<(String, String)>,
    /// Of the driver: see [`options`].
    pub options: Vec<(String, String)>,
    /// What is mounted into containers: `ROOT/volumes/NAME/_data`.
    pub path: PathBuf,
}

/// Creates this module's table where it is missing. Cheap when it is there.
pub fn create_tables(conn: &Connection) -> Result<(), Error> {
    conn.execute_batch(
        "CREATE TABLE IF NOT EXISTS volumes (
            name TEXT PRIMARY KEY NOT NULL,
            anonymous INTEGER NOT NULL,
            created TEXT NOT NULL,
            labels TEXT NOT NULL,
            options TEXT NOT NULL DEFAULT '[]'
        ) STRICT;",
    )
    .map_err(table("create it"))
}

/// The directory of a volume's content.
pub fn data_path(root: &Path, name: &str) -> PathBuf {
    directory(root, name).join("_data")
}

/// All of a volume.
pub fn directory(root: &Path, name: &str) -> PathBuf {
    root.join("volumes").join(name)
}

/// What a new volume is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted<'a> {
    pub name: &'a str,
    pub anonymous: bool,
    pub labels: &'a [(String, String)],
    /// Checked here.
    pub options: &'a [(String, String)],
}

/// Creates a volume; one of that name is returned as it is, with its directory made anew should it be gone. The row is
/// the caller's to commit: without it the directory is an empty one that the next `create` takes over.
pub fn create(conn: &Connection, root: &Path, wanted: &Wanted<'_>) -> Result<Volume, Error> {
    let name = wanted.name;
    if name.chars().count() == 1 {
        return Err(Error::ShortVolumeName(name.to_owned()));
    }
    if !names::is_valid(name) {
        return Err(Error::InvalidVolumeName(name.to_owned()));
    }
    options::check(name, wanted.options)?;
    let data = data_path(root, name);
    std::fs::create_dir_all(&data).map_err(file("create", &data))?;
    let now = OffsetDateTime::now_utc()
        .format(&Rfc3339)
        .unwrap_or_default();
    let text = |pairs| serde_json::to_string(pairs).unwrap_or_default();
    let rows = conn
        .execute(
            "INSERT OR IGNORE INTO volumes (name, anonymous, created, labels, options) VALUES (?1, ?2, ?3, ?4, ?5)",
            (
                name,
                wanted.anonymous,
                now,
                text(wanted.labels),
                text(wanted.options),
            ),
        )
        .map_err(table("insert a row"))?;
    if rows == 1 {
        events::record(conn, Subject::Volume, "create", name, &[DRIVER])?;
    }
    find(conn, root, name)?.ok_or_else(|| Error::NoSuchVolume(name.to_owned()))
}

pub fn find(conn: &Connection, root: &Path, name: &str) -> Result<Option<Volume>, Error> {
    conn.query_row(
        "SELECT name, anonymous, created, labels, options FROM volumes WHERE name = ?1",
        [name],
        |row| from_row(row, root),
    )
    .optional()
    .map_err(table("look a volume up"))
}

/// All volumes, by name.
pub fn list(conn: &Connection, root: &Path) -> Result<Vec<Volume>, Error> {
    let all = || -> rusqlite::Result<Vec<Volume>> {
        conn.prepare("SELECT name, anonymous, created, labels, options FROM volumes ORDER BY name")?
            .query_map([], |row| from_row(row, root))?
            .collect()
    };
    all().map_err(table("list the volumes"))
}

fn from_row(row: &rusqlite::Row<'_>, root: &Path) -> rusqlite::Result<Volume> {
    let name: String = row.get(0)?;
    let created: String = row.get(2)?;
    let labels: String = row.get(3)?;
    let options: String = row.get(4)?;
    Ok(Volume {
        path: data_path(root, &name),
        anonymous: row.get(1)?,
        created: OffsetDateTime::parse(&created, &Rfc3339).unwrap_or(OffsetDateTime::UNIX_EPOCH),
        labels: serde_json::from_str(&labels).unwrap_or_default(),
        options: serde_json::from_str(&options).unwrap_or_default(),
        name,
    })
}

/// A directory that is on its way out.
const GONE: &str = ".gone-";

/// Removes a volume with all that is in it. Should the caller be killed half-way, `sweep` removes the rest.
pub fn remove(conn: &Connection, root: &Path, name: &str) -> Result<(), Error> {
    let rows = conn
        .execute("DELETE FROM volumes WHERE name = ?1", [name])
        .map_err(table("delete a row"))?;
    if rows == 0 {
        return Err(Error::NoSuchVolume(name.to_owned()));
    }
    events::record(conn, Subject::Volume, "destroy", name, &[DRIVER])?;
    // The rename first, so that a volume of this name that is made meanwhile starts empty.
    let from = directory(root, name);
    let to = root
        .join("volumes")
        .join(format!("{GONE}{}", names::new_id()?));
    match std::fs::rename(&from, &to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(file("remove", &from))?,
    }
    image::remove_at(&to).map_err(file("remove", &to))
}

/// Removes what a killed `remove` or `create` has left. Directories without a row that hold anything are not touched: they
/// may be all that is left of somebody's data.
pub fn sweep(conn: &Connection, root: &Path) -> Result<(), Error> {
    let volumes = root.join("volumes");
    let entries = match std::fs::read_dir(&volumes) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(file("read", &volumes))?,
    };
    let mut nameless = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(GONE) {
            let path = entry.path();
            image::remove_at(&path).map_err(file("remove", &path))?;
        } else if find(conn, root, &name)?.is_none() {
            nameless.push(name);
        }
    }
    match nameless.is_empty() {
        true => Ok(()),
        false => sweep_nameless(conn, root, &nameless),
    }
}

/// Behind the lock of the tables: a volume that is just being created has its directory first, and then its row.
fn sweep_nameless(conn: &Connection, root: &Path, names: &[String]) -> Result<(), Error> {
    let behaviour = rusqlite::TransactionBehavior::Immediate;
    let tx = rusqlite::Transaction::new_unchecked(conn, behaviour).map_err(table("lock it"))?;
    for name in names {
        if find(&tx, root, name)?.is_none() {
            // Neither succeeds where there is something inside.
            let _ = std::fs::remove_dir(data_path(root, name));
            let _ = std::fs::remove_dir(directory(root, name));
        }
    }
    Ok(())
}

/// The permissions of a directory inside the mounted root filesystem; `None`: there is none.
pub fn mode_of_directory(rootfs: &Path, target: &str) -> Option<u32> {
    use rustix::fs::OFlags;
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let found = Inside::new(rootfs).ok()?.open(Path::new(target), flags);
    let stat = rustix::fs::fstat(found.ok()?).ok()?;
    Some(stat.st_mode & 0o7777)
}

/// Makes what a mount on `target` needs in the mounted root filesystem: a directory, or a file for a mount of a file,
/// with all directories above. Symlinks are resolved inside, dangling ones too. What is there stays.
pub fn ensure_mountpoint(rootfs: &Path, target: &str, is_dir: bool) -> Result<(), Error> {
    let path = Path::new(target);
    let found_as = |source: io::Error| Error::FileSystem {
        operation: "make the mount target",
        path: rootfs.join(target.trim_start_matches('/')),
        source,
    };
    let inside = Inside::new(rootfs).map_err(found_as)?;
    let made = if is_dir {
        inside.make_directory(path)
    } else {
        inside.make_file(path)
    };
    let kinds = |found, wanted| Error::MountTargetKind {
        target: target.to_owned(),
        found,
        wanted,
    };
    match made {
        Ok(fd) => {
            let mode = rustix::fs::fstat(&fd)
                .map_err(|e| found_as(e.into()))?
                .st_mode;
            match rustix::fs::FileType::from_raw_mode(mode).is_dir() {
                found if found == is_dir => Ok(()),
                true => Err(kinds("a directory", "a file")),
                false => Err(kinds("a file", "a directory")),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory && is_dir => {
            Err(kinds("a file", "a directory"))
        }
        Err(error) => Err(found_as(error)),
    }
}

fn table(operation: &'static str) -> impl FnOnce(rusqlite::Error) -> Error {
    move |source| Error::VolumeTable { operation, source }
}

fn file(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::FileSystem {
        operation,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn fresh() -> (tempfile::TempDir, Connection) {
        let conn = Connection::open_in_memory().unwrap();
        create_tables(&conn).unwrap();
        create_tables(&conn).unwrap();
        events::create_tables(&conn).unwrap();
        (tempfile::tempdir().unwrap(), conn)
    }

    fn create(
        conn: &Connection,
        root: &Path,
        name: &str,
        anonymous: bool,
        labels: &[(String, String)],
    ) -> Result<Volume, Error> {
        let wanted = Wanted {
            name,
            anonymous,
            labels,
            options: &[],
        };
        super::create(conn, root, &wanted)
    }

    #[test]
    fn creating_twice_is_the_same_volume_with_its_content() {
        let (root, conn) = fresh();
        let labels = [("k".to_owned(), "v".to_owned())];
        let first = create(&conn, root.path(), "data", false, &labels).unwrap();
        std::fs::write(first.path.join("x"), "1").unwrap();
        let again = create(&conn, root.path(), "data", true, &[]).unwrap();
        assert_eq!(again, first);
        assert!(!again.anonymous);
        assert_eq!(again.labels, labels);
        assert!(again.path.join("x").exists());
        assert!(again.path.ends_with("volumes/data/_data"));
        assert_eq!(list(&conn, root.path()).unwrap(), [first]);
    }

    #[test]
    fn removing_takes_row_and_content_and_a_second_time_says_so() {
        let (root, conn) = fresh();
        let volume = create(&conn, root.path(), "data", false, &[]).unwrap();
        std::fs::write(volume.path.join("x"), "1").unwrap();
        remove(&conn, root.path(), "data").unwrap();
        assert_eq!(find(&conn, root.path(), "data").unwrap(), None);
        assert_eq!(
            std::fs::read_dir(root.path().join("volumes"))
                .unwrap()
                .count(),
            0
        );
        let error = remove(&conn, root.path(), "data").unwrap_err();
        assert_eq!(error.to_string(), "get data: no such volume");
    }

    #[test]
    fn events_tell_of_what_is_made_and_removed_once() {
        let (root, conn) = fresh();
        create(&conn, root.path(), "data", false, &[]).unwrap();
        create(&conn, root.path(), "data", false, &[]).unwrap();
        remove(&conn, root.path(), "data").unwrap();
        remove(&conn, root.path(), "data").unwrap_err();
        let events: String = conn
            .query_row(
                "SELECT group_concat(subject || ' ' || action || ' ' || actor || ' ' || attributes, '; ') FROM events",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(
            events,
            r#"volume create data {"driver":"local"}; volume destroy data {"driver":"local"}"#
        );
    }

    #[test]
    fn sweep_removes_only_what_a_killed_creation_or_removal_has_left() {
        let (root, conn) = fresh();
        sweep(&conn, root.path()).unwrap();
        let volumes = root.path().join("volumes");
        std::fs::create_dir_all(volumes.join("half/_data")).unwrap();
        std::fs::create_dir_all(volumes.join("full/_data")).unwrap();
        std::fs::write(volumes.join("full/_data/x"), "1").unwrap();
        let volume = create(&conn, root.path(), "data", false, &[]).unwrap();
        let gone = root.path().join("volumes/.gone-1/_data");
        std::fs::create_dir_all(&gone).unwrap();
        sweep(&conn, root.path()).unwrap();
        assert!(volume.path.exists());
        assert!(!volumes.join("half").exists());
        assert!(volumes.join("full/_data/x").exists());
        assert!(!gone.parent().unwrap().exists());
    }

    #[test]
    fn names_that_are_paths_are_refused() {
        let (root, conn) = fresh();
        for bad in ["a/b", "..", "../x", "", "-a", "a b"] {
            let error = create(&conn, root.path(), bad, false, &[]).unwrap_err();
            assert!(matches!(error, Error::InvalidVolumeName(_)), "{bad}");
        }
        let error = create(&conn, root.path(), "x", false, &[]).unwrap_err();
        assert!(error.to_string().contains("too short"), "{error}");
        assert!(!root.path().join("volumes").exists());
    }

    #[test]
    fn mount_targets_are_made_inside_whatever_the_image_links_to() {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir.path().join("rootfs");
        std::fs::create_dir_all(rootfs.join("etc")).unwrap();
        let outside = dir.path().join("outside");
        symlink(&outside, rootfs.join("data")).unwrap();
        symlink("/run/resolv.conf", rootfs.join("etc/resolv.conf")).unwrap();
        ensure_mountpoint(&rootfs, "/data/a/b", true).unwrap();
        ensure_mountpoint(&rootfs, "/etc/resolv.conf", false).unwrap();
        ensure_mountpoint(&rootfs, "/etc/resolv.conf", false).unwrap();
        assert!(!outside.exists());
        assert!(rootfs.join("run/resolv.conf").is_file());
    }

    #[test]
    fn a_file_is_no_target_for_a_directory_nor_the_other_way_round() {
        let rootfs = tempfile::tempdir().unwrap();
        std::fs::write(rootfs.path().join("file"), "").unwrap();
        std::fs::create_dir(rootfs.path().join("dir")).unwrap();
        for (target, is_dir) in [("/file", true), ("/file/below", true), ("/dir", false)] {
            let error = ensure_mountpoint(rootfs.path(), target, is_dir).unwrap_err();
            assert!(
                matches!(error, Error::MountTargetKind { .. }),
                "{target}: {error}"
            );
        }
    }
}
