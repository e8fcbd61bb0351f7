//! Paths inside a container, as `cp` writes them. A path that ends in `/` or `/.` means a directory, and so what a symlink
//! points to.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, openat2, readlinkat, statat};
use rustix::io::Errno;

use crate::error::Error;

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStat {
    /// Its last name.
    pub name: String,
    pub size: u64,
    /// As `st_mode`.
    pub mode: u32,
    /// For a symlink: the path that it leads to in the end, absolute, whether or not something is there.
    pub link_target: Option<String>,
}

impl PathStat {
    pub fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::Directory
    }
}

/// As Go's filepath.Clean does it.
pub fn clean(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    let is_absolute = path.starts_with('/');
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." if names.last().is_some_and(|last| *last != "..") => drop(names.pop()),
            ".." if is_absolute => {}
            name => names.push(name),
        }
    }
    match (is_absolute, names.is_empty()) {
        (true, _) => format!("/{}", names.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => names.join("/"),
    }
}

/// Absolute and clean, with the `/` or `/.` that it ended in.
pub fn absolute(path: &str) -> String {
    let cleaned = clean(&format!("/{path}"));
    keep_ending(cleaned, path)
}

/// A clean path as the directory that the one it came from stood for.
pub fn keep_ending(cleaned: String, from: &str) -> String {
    let dot = from == "." || from.ends_with("/.");
    let mut kept = cleaned;
    if dot && !kept.ends_with("/.") && kept != "." {
        if !kept.ends_with('/') {
            kept.push('/');
        }
        kept.push('.');
    } else if from.ends_with('/') && !kept.ends_with('/') {
        kept.push('/');
    }
    kept
}

/// The directory and the last name; `.` where a path ends in it.
pub fn split(path: &str) -> (String, String) {
    let mut cleaned = clean(path);
    if path == "." || path.ends_with("/.") {
        cleaned.push_str("/.");
    }
    match cleaned.rfind('/') {
        Some(0) if cleaned == "/" => ("/".to_owned(), "/".to_owned()),
        Some(0) => ("/".to_owned(), cleaned[1..].to_owned()),
        Some(at) => (clean(&cleaned[..at]), cleaned[at + 1..].to_owned()),
        None => (".".to_owned(), cleaned),
    }
}

/// The last name; `/` of the root.
pub fn base_name(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    match trimmed.rsplit('/').next() {
        Some(name) if !trimmed.is_empty() => name.to_owned(),
        _ => "/".to_owned(),
    }
}

const RESOLVE: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// openat2(2): EAGAIN when a rename somewhere races with `..`.
const ATTEMPTS: u32 = 64;

fn open(root: &OwnedFd, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut result = Err(Errno::AGAIN);
    for _ in 0..ATTEMPTS {
        let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
        result = openat2(root, path, flags, Mode::empty(), RESOLVE);
        if !matches!(result, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    result
}

fn failed(path: &str) -> impl FnOnce(Errno) -> Error {
    let path = path.into();
    move |errno| Error::FileSystem {
        operation: "lstat",
        path,
        source: io::Error::from(errno),
    }
}

/// The open directory that the path's last name is in, and that name; `.` where the path says that it is a directory.
pub(super) fn find(root: &OwnedFd, path: &str) -> Result<Option<(OwnedFd, String)>, Error> {
    let path = absolute(path);
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", &path));
    let dir = if dir.is_empty() { "/" } else { dir };
    let parent = match open(root, dir, OFlags::DIRECTORY) {
        Ok(parent) => parent,
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(failed(&path)(e)),
    };
    let name = if name.is_empty() { "." } else { name };
    match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(Some((parent, name.to_owned()))),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(failed(&path)(e)),
    }
}

pub(super) fn stat(root: &OwnedFd, path: &str) -> Result<Option<PathStat>, Error> {
    let Some((parent, name)) = find(root, path)? else {
        return Ok(None);
    };
    let stat = match statat(&parent, name.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(failed(path)(e)),
    };
    let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    Ok(Some(PathStat {
        name: base_name(&absolute(path)),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode,
        link_target: match is_link {
            true => Some(resolve(root, path)?),
            false => None,
        },
    }))
}

/// Whether a path without symlinks is a directory; `None` if nothing is there.
pub(super) fn directory(root: &OwnedFd, path: &str) -> Result<Option<bool>, Error> {
    match open(root, path, OFlags::NOFOLLOW) {
        Ok(found) => {
            let stat = rustix::fs::fstat(&found).map_err(failed(path))?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            Ok(Some(kind == FileType::Directory))
        }
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(failed(path)(e)),
    }
}

/// More symlinks than the kernel follows, as in Docker.
const MAX_LINKS: u32 = 255;

/// The path with all symlinks replaced, as far as something is there. A container may make it untrue at once: it is only
/// ever looked up again inside the root.
pub(super) fn resolve(root: &OwnedFd, path: &str) -> Result<String, Error> {
    let mut done: Vec<String> = Vec::new();
    let mut todo: Vec<String> = path.rsplit('/').map(str::to_owned).collect();
    let mut links = 0;
    while let Some(name) = todo.pop() {
        match name.as_str() {
            "" | "." => continue,
            ".." => {
                done.pop();
                continue;
            }
            _ => done.push(name),
        }
        let here = format!("/{}", done.join("/"));
        let Ok(found) = open(root, &here, OFlags::NOFOLLOW) else {
            continue;
        };
        let target = match readlinkat(&found, "", Vec::new()) {
            Ok(target) => target,
            Err(_) => continue,
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(failed(path)(Errno::LOOP));
        }
        let target = String::from_utf8_lossy(target.as_bytes()).into_owned();
        done.pop();
        if target.starts_with('/') {
            done.clear();
        }
        todo.extend(target.rsplit('/').map(str::to_owned));
    }
    Ok(format!("/{}", done.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_does_it() {
        for (path, cleaned) in [
            ("", "."),
            (".", "."),
            ("a//b/./c/..", "a/b"),
            ("../a", "../a"),
            ("/../a", "/a"),
            ("/", "/"),
            ("a/..", "."),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
        for (path, whole) in [
            ("a", "/a"),
            ("/a/", "/a/"),
            ("a/.", "/a/."),
            ("/", "/"),
            (".", "/."),
            ("/a/../", "/"),
        ] {
            assert_eq!(absolute(path), whole, "{path}");
        }
        for (path, dir, name) in [
            ("/a/b", "/a", "b"),
            ("/a/b/", "/a", "b"),
            ("/a/.", "/a", "."),
            ("/", "/", "/"),
            ("x", ".", "x"),
            ("/a", "/", "a"),
        ] {
            assert_eq!(split(path), (dir.to_owned(), name.to_owned()), "{path}");
        }
        for (path, name) in [("/a/b/", "b"), ("/", "/"), ("/a/.", "."), ("x", "x")] {
            assert_eq!(base_name(path), name, "{path}");
        }
    }

    #[test]
    fn symlinks_are_followed_inside_and_missing_ends_are_kept() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        symlink("/d", dir.path().join("ld")).unwrap();
        symlink("../../../nope/x", dir.path().join("d/broken")).unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        let root: OwnedFd = std::fs::File::open(dir.path()).unwrap().into();
        assert_eq!(resolve(&root, "/ld/a").unwrap(), "/d/a");
        assert_eq!(resolve(&root, "ld/broken").unwrap(), "/nope/x");
        assert!(resolve(&root, "loop").is_err());
        let link = stat(&root, "/ld").unwrap().unwrap();
        assert_eq!(
            (link.name.as_str(), link.link_target.as_deref()),
            ("ld", Some("/d"))
        );
        assert!(stat(&root, "/ld/").unwrap().unwrap().is_directory());
        assert_eq!(stat(&root, "/nope").unwrap(), None);
    }
}
