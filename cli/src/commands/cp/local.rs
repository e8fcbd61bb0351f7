//! The end of a copy on this side: which directory and which name a path means. What is here is the caller's own, so paths are
//! walked as every program does.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anyhow::{Context as _, anyhow};
use runtime::engine::files::{base_name, clean, split};

use super::Target;
use crate::failure::Failure;

/// What is copied from here.
#[derive(Debug)]
pub struct Source {
    pub dir: String,
    /// Its name in the directory; `.`: the directory itself.
    pub last: String,
    /// The name it goes by.
    pub name: String,
    pub is_directory: bool,
}

/// Absolute and clean, but with the `/` or `/.` that it ended in.
pub fn absolute(path: &str) -> Result<String, Failure> {
    if path.starts_with('/') {
        return Ok(runtime::engine::files::absolute(path));
    }
    let cwd = std::env::current_dir().context("find the current directory")?;
    let whole = format!("{}/{path}", cwd.display());
    Ok(runtime::engine::files::absolute(&whole))
}

/// Refuses an output that cannot become one, in Docker's words.
pub fn check_output(path: &str) -> Result<(), Failure> {
    let refuse = |text: String| Err(Failure::Refused(anyhow!("invalid output path: {text}")));
    let cleaned = clean(path);
    let (dir, _) = split(&cleaned);
    if matches!(fs::metadata(&dir), Err(e) if e.kind() == ErrorKind::NotFound) {
        return refuse(format!("directory {dir:?} does not exist"));
    }
    match fs::metadata(path).map(|found| check_kind(found.mode())) {
        Ok(Err(why)) => refuse(format!(
            "{path:?} must be a directory or a regular file: {why}"
        )),
        Err(e) if e.kind() == ErrorKind::NotADirectory => {
            Err(Failure::Own(anyhow!(e).context(format!("stat {path}"))))
        }
        _ => Ok(()),
    }
}

/// What nobody can have meant to write to. `mode` as `st_mode`.
pub fn check_kind(mode: u32) -> Result<(), &'static str> {
    match rustix::fs::FileType::from_raw_mode(mode) {
        rustix::fs::FileType::CharacterDevice | rustix::fs::FileType::BlockDevice => {
            Err("got a device")
        }
        _ => Ok(()),
    }
}

/// More symlinks than Docker follows here are an error.
const MAX_LINKS: usize = 10;

/// The destination, through symlinks in its last place, dangling ones too.
pub fn target(asked: &str) -> Result<Target, Failure> {
    let mut path = asked.to_owned();
    for _ in 0..=MAX_LINKS {
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_symlink() => {
                let link = fs::read_link(&path).with_context(|| format!("read the link {path}"))?;
                let (dir, _) = split(&path);
                path = clean(&Path::new(&dir).join(link).to_string_lossy());
            }
            Ok(found) => {
                let kind = found.file_type();
                if kind.is_fifo() || kind.is_socket() {
                    tracing::debug!(path, "is replaced");
                }
                return Ok(Target {
                    path,
                    is_directory: Some(found.is_dir()),
                });
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let (dir, _) = split(&path);
                let parent = fs::metadata(&dir).with_context(|| format!("stat {dir}"))?;
                if !parent.is_dir() {
                    return Err(Failure::Refused(anyhow!("not a directory")));
                }
                return Ok(Target {
                    path,
                    is_directory: None,
                });
            }
            Err(e) => return Err(Failure::Own(anyhow!(e).context(format!("lstat {path}")))),
        }
    }
    Err(Failure::Refused(anyhow!("too many symlinks in {asked}")))
}

/// What is copied. Symlinks above the last name are followed, with `follow` the last one too; a name that a symlink had stays.
pub fn source(path: &str, follow: bool) -> Result<Source, Failure> {
    let lstat = |path: &str| format!("lstat {path}");
    let resolved = if follow {
        let real = fs::canonicalize(path).with_context(|| lstat(path))?;
        real.to_string_lossy().into_owned()
    } else {
        let (dir, last) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = if dir.is_empty() { "/" } else { dir };
        let dir = fs::canonicalize(dir).with_context(|| lstat(dir))?;
        format!("{}/{last}", dir.to_string_lossy().trim_end_matches('/'))
    };
    let asks_contents = path.ends_with("/.");
    let resolved = match follow && asks_contents {
        true => format!("{resolved}/."),
        false => resolved,
    };
    let found = fs::symlink_metadata(&resolved).with_context(|| lstat(path))?;
    let (dir, last) = split(&resolved);
    let last = if last == "/" { ".".to_owned() } else { last };
    let name = match asks_contents {
        true => ".".to_owned(),
        false => base_name(path),
    };
    Ok(Source {
        dir,
        last,
        name,
        is_directory: found.is_dir(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_was_asked_for_stays_whatever_it_leads_to() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let root = root.to_str().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        std::os::unix::fs::symlink("d", dir.path().join("l")).unwrap();
        for (path, follow, last, name, is_directory) in [
            ("d", false, "d", "d", true),
            ("d/", false, "d", "d", true),
            ("d/.", false, ".", ".", true),
            ("l", false, "l", "l", false),
            ("l/", false, "d", "l", true),
            ("l", true, "d", "l", true),
            ("l/.", true, ".", ".", true),
        ] {
            let found = source(&format!("{root}/{path}"), follow).unwrap();
            let got = (found.last.as_str(), found.name.as_str(), found.is_directory);
            assert_eq!(got, (last, name, is_directory), "{path} {follow}");
        }
        assert!(source(&format!("{root}/nope"), false).is_err());
    }
}
