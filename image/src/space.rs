//! What trees take on disk: the blocks that are allocated to them, directories included, as du(1) counts them. Changes nothing.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, lstat, openat, statat};
use rustix::io::Errno;

/// Counts trees. A file with several names is counted once, whichever of the trees they are in.
#[derive(Debug, Default)]
pub struct Meter {
    seen: HashSet<(u64, u64)>,
}

/// A directory that is being read.
struct Level {
    id: (u64, u64),
    /// Its directories that have not been read.
    left: Vec<CString>,
}

impl Meter {
    /// Bytes on disk of what is at a path, symlinks not followed; 0 where nothing is. What vanishes meanwhile does not count.
    pub fn tree(&mut self, path: &Path) -> io::Result<u64> {
        let stat = match lstat(path) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(0),
            stat => stat?,
        };
        let own = self.count(&stat);
        if !is_directory(&stat) {
            return Ok(own);
        }
        match File::open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            dir => Ok(own + self.below(dir?.into())?),
        }
    }

    /// What is in a directory. It holds one descriptor and no stack, however deep a container has nested them.
    fn below(&mut self, mut dir: OwnedFd) -> io::Result<u64> {
        let mut bytes = 0;
        let mut levels = vec![self.read(&dir, &mut bytes)?];
        while let Some(level) = levels.last_mut() {
            if let Some(name) = level.left.pop() {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                dir = match openat(&dir, name, flags, Mode::empty()) {
                    Ok(child) => child,
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                    Err(e) => return Err(e.into()),
                };
                levels.push(self.read(&dir, &mut bytes)?);
                continue;
            }
            levels.pop();
            let Some(above) = levels.last() else { break };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            match openat(&dir, "..", flags, Mode::empty()) {
                Ok(up) if id(&fstat(&up)?) == above.id => dir = up,
                // It was moved or deleted under us: the way back is lost.
                Ok(_) | Err(Errno::NOENT) => break,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(bytes)
    }

    fn read(&mut self, dir: &OwnedFd, bytes: &mut u64) -> io::Result<Level> {
        let mut level = Level {
            id: id(&fstat(dir)?),
            left: Vec::new(),
        };
        for entry in rustix::fs::Dir::read_from(dir)? {
            let entry = match entry {
                Err(Errno::NOENT) => break,
                entry => entry?,
            };
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match statat(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                stat => stat?,
            };
            *bytes += self.count(&stat);
            if is_directory(&stat) {
                level.left.push(name.to_owned());
            }
        }
        Ok(level)
    }

    fn count(&mut self, stat: &Stat) -> u64 {
        let has_one_name = is_directory(stat) || stat.st_nlink < 2;
        match has_one_name || self.seen.insert(id(stat)) {
            true => own(stat),
            false => 0,
        }
    }
}

/// Bytes on disk of what is at a path alone, without what is in it; 0 where nothing is.
pub fn own_size(path: &Path) -> io::Result<u64> {
    match lstat(path) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(0),
        stat => Ok(own(&stat?)),
    }
}

/// stat(2): `st_blocks` are of 512 bytes, whatever the file system's are.
fn own(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * 512
}

fn id(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode).is_dir()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn blocks(path: &Path) -> u64 {
        fs::symlink_metadata(path).unwrap().blocks() * 512
    }

    #[test]
    fn blocks_count_not_lengths_and_a_file_with_two_names_once() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir_all(&a).unwrap();
        fs::create_dir(&b).unwrap();
        fs::write(a.join("x"), [1; 10_000]).unwrap();
        fs::hard_link(a.join("x"), a.join("y")).unwrap();
        fs::hard_link(a.join("x"), b.join("x")).unwrap();
        // A hole takes nothing.
        File::create(a.join("hole"))
            .unwrap()
            .set_len(1 << 30)
            .unwrap();
        std::os::unix::fs::symlink("/", a.join("link")).unwrap();
        let expected = [a.clone(), a.join("x"), a.join("hole"), a.join("link")];
        let expected: u64 = expected.iter().map(|path| blocks(path)).sum();
        let mut meter = Meter::default();
        assert_eq!(meter.tree(&a).unwrap(), expected);
        assert_eq!(meter.tree(&b).unwrap(), blocks(&b));
        assert_eq!(
            Meter::default().tree(&b).unwrap(),
            blocks(&b) + blocks(&a.join("x"))
        );
        assert_eq!(meter.tree(&dir.path().join("none")).unwrap(), 0);
        assert_eq!(own_size(&a).unwrap(), blocks(&a));
    }

    #[test]
    fn any_depth_and_any_breadth_are_counted() {
        let top = tempfile::tempdir().unwrap();
        let tree = top.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut dir: OwnedFd = File::open(&tree).unwrap().into();
        let mut expected = blocks(&tree);
        // Deeper than a path can name, and than there are descriptors.
        for level in 0..3000 {
            for name in ["d", "e"] {
                rustix::fs::mkdirat(&dir, name, Mode::RWXU).unwrap();
                let made = statat(&dir, name, AtFlags::empty()).unwrap();
                expected += own(&made);
            }
            let name = if level % 2 == 0 { "d" } else { "e" };
            dir = openat(
                &dir,
                name,
                OFlags::RDONLY | OFlags::DIRECTORY,
                Mode::empty(),
            )
            .unwrap();
        }
        drop(dir);
        assert_eq!(Meter::default().tree(&tree).unwrap(), expected);
        crate::remove_at(&tree).unwrap();
    }
}
