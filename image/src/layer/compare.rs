//! Two trees of one layer, as it should be and as it is: everything but the content of its files.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, FileType, OFlags, Stat, lgetxattr, llistxattr, major, minor, readlinkat, statat,
};
use rustix::io::Errno;

use super::Finished;
use super::numbers::octets;
use super::pack::sorted;
use super::recipe::rebuild::{self, Fault};
use super::tree::{is_directory, is_whiteout, join};

/// What is wrong with a layer, by path. Only the first are kept.
#[derive(Debug, Default)]
pub struct Faults {
    pub shown: Vec<Fault>,
    /// How many there are besides.
    pub more: u64,
    paths: BTreeSet<Vec<u8>>,
}

impl Faults {
    const MOST: usize = 100;

    pub fn add(&mut self, path: &[u8], why: impl Into<String>) {
        if self.shown.len() == Self::MOST {
            self.more += 1;
            return;
        }
        self.paths.insert(path.to_vec());
        self.shown.push(Fault {
            path: path.to_vec(),
            why: why.into(),
        });
    }

    pub fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }
}

/// Both trees, open at one directory.
struct Pair {
    expected: OwnedFd,
    found: OwnedFd,
}

/// Adds what is otherwise in `found` than in `expected`; what has a fault already is not looked at again.
pub fn compare(
    expected: &OwnedFd,
    found: &OwnedFd,
    finished: &Finished,
    faults: &mut Faults,
) -> io::Result<()> {
    // By path rather than by open directories: a tree may be deeper than descriptors reach.
    let mut todo: Vec<Vec<u8>> = vec![Vec::new()];
    let mut links = HashMap::new();
    while let Some(path) = todo.pop() {
        let dir = Pair {
            expected: rebuild::open_directory(expected.as_fd(), &path)?,
            found: match rebuild::open_directory(found.as_fd(), &path) {
                Ok(dir) => dir,
                Err(e) => {
                    faults.add(&path, unreadable(e));
                    continue;
                }
            },
        };
        if path.is_empty() {
            same(&dir, b".", &path, finished, &mut links, faults)?;
        }
        let there: BTreeSet<Vec<u8>> = match sorted(&dir.found) {
            Ok(names) => names.into_iter().collect(),
            Err(e) => {
                faults.add(&path, unreadable(e));
                continue;
            }
        };
        let wanted: BTreeSet<Vec<u8>> = sorted(&dir.expected)?.into_iter().collect();
        for name in there.difference(&wanted) {
            faults.add(&join(&path, name), "the image does not bring it");
        }
        for name in &wanted {
            let below = join(&path, name);
            if faults.paths.contains(&below) {
                continue;
            }
            if !there.contains(name) {
                faults.add(&below, "it is missing");
            } else if same(&dir, name, &below, finished, &mut links, faults)? {
                todo.push(below);
            }
        }
    }
    for path in &finished.copied {
        if !faults.paths.contains(path) && !same_content(expected, found, path)? {
            faults.add(path, "its content has changed");
        }
    }
    Ok(())
}

fn unreadable(e: impl Into<io::Error>) -> String {
    format!("it cannot be read: {}", e.into())
}

/// Compares one name. Whether both are directories, to be entered.
fn same(
    dir: &Pair,
    name: &[u8],
    path: &[u8],
    finished: &Finished,
    links: &mut HashMap<u64, (u64, Vec<u8>)>,
    faults: &mut Faults,
) -> io::Result<bool> {
    let wanted = Node::of(dir.expected.as_fd(), name)?;
    let there = match Node::of(dir.found.as_fd(), name) {
        Ok(node) => node,
        Err(e) => {
            faults.add(path, unreadable(e));
            return Ok(false);
        }
    };
    if wanted.kind() != there.kind() {
        let why = format!("it is a {} instead of a {}", there.kind(), wanted.kind());
        faults.add(path, why);
        return Ok(false);
    }
    let directory = is_directory(&wanted.stat);
    let settled = match directory {
        true => finished.settled.contains(path),
        false => !is_whiteout(&wanted.stat),
    };
    let mut differences = there.differences(&wanted, settled);
    if !directory && wanted.stat.st_nlink > 1 {
        let first = links
            .entry(wanted.stat.st_ino)
            .or_insert_with(|| (there.stat.st_ino, path.to_vec()));
        if first.0 != there.stat.st_ino {
            differences.push(format!("it is no link to /{} any more", octets(&first.1)));
        }
    }
    if !differences.is_empty() {
        faults.add(path, differences.join(", "));
    }
    Ok(directory)
}

/// What can be said of a name without opening it.
struct Node {
    stat: Stat,
    link: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Node {
    fn of(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Node, Errno> {
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let link = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => readlinkat(dir, name, Vec::new())?.into_bytes(),
            _ => Vec::new(),
        };
        Ok(Node {
            xattrs: xattrs(dir, name)?,
            stat,
            link,
        })
    }

    fn kind(&self) -> &'static str {
        match FileType::from_raw_mode(self.stat.st_mode) {
            _ if is_whiteout(&self.stat) => "whiteout",
            FileType::RegularFile => "file",
            FileType::Directory => "directory",
            FileType::Symlink => "symbolic link",
            FileType::Fifo => "FIFO",
            FileType::CharacterDevice => "character device",
            FileType::BlockDevice => "block device",
            FileType::Socket => "socket",
            FileType::Unknown => "thing unknown",
        }
    }

    /// `settled`: its mode and time are known.
    fn differences(&self, wanted: &Node, settled: bool) -> Vec<String> {
        let (a, b) = (&self.stat, &wanted.stat);
        let mut all = Vec::new();
        let kind = FileType::from_raw_mode(b.st_mode);
        if settled && kind != FileType::Symlink && a.st_mode != b.st_mode {
            let mode = |stat: &Stat| stat.st_mode & 0o7777;
            all.push(format!("mode {:04o} instead of {:04o}", mode(a), mode(b)));
        }
        if (a.st_uid, a.st_gid) != (b.st_uid, b.st_gid) {
            all.push(format!(
                "owner {}:{} instead of {}:{}",
                a.st_uid, a.st_gid, b.st_uid, b.st_gid
            ));
        }
        if kind == FileType::RegularFile && a.st_size != b.st_size {
            all.push(format!("{} bytes instead of {}", a.st_size, b.st_size));
        }
        let time = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
        if settled && time(a) != time(b) {
            let shown = |stat: &Stat| format!("{}.{:09}", stat.st_mtime, stat.st_mtime_nsec);
            all.push(format!("modified at {} instead of {}", shown(a), shown(b)));
        }
        let device = |stat: &Stat| (major(stat.st_rdev), minor(stat.st_rdev));
        if matches!(kind, FileType::CharacterDevice | FileType::BlockDevice)
            && device(a) != device(b)
        {
            all.push(format!("device {:?} instead of {:?}", device(a), device(b)));
        }
        if self.link != wanted.link {
            let shown = |node: &Node| octets(&node.link);
            all.push(format!(
                "leads to {} instead of {}",
                shown(self),
                shown(wanted)
            ));
        }
        let names: BTreeSet<_> = self.xattrs.keys().chain(wanted.xattrs.keys()).collect();
        for name in names {
            if self.xattrs.get(name) != wanted.xattrs.get(name) {
                all.push(format!("its attribute {} has changed", octets(name)));
            }
        }
        all
    }
}

/// All of a name's attributes but the label, which goes by the place that a file was made at.
fn xattrs(dir: BorrowedFd<'_>, name: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    // There is no listxattrat(2): the magic link leads to the open directory, and the last name is not followed.
    let mut by_fd = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    by_fd.extend_from_slice(name);
    let mut list = vec![0; 64 << 10];
    let length = match llistxattr(&*by_fd, &mut *list) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(e) => return Err(e),
    };
    let mut all = BTreeMap::new();
    for name in list[..length].split(|&b| b == 0) {
        if name.is_empty() || name == b"security.selinux" {
            continue;
        }
        let mut value = vec![0; 64 << 10];
        let length = lgetxattr(&*by_fd, OsStr::from_bytes(name), &mut *value)?;
        value.truncate(length);
        all.insert(name.to_vec(), value);
    }
    Ok(all)
}

/// Of a regular file in both; another kind of file has no content.
fn same_content(expected: &OwnedFd, found: &OwnedFd, path: &[u8]) -> io::Result<bool> {
    let open = |tree: &OwnedFd| -> io::Result<Option<File>> {
        let stat = rustix::fs::fstat(rebuild::look(tree.as_fd(), path)?)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let file = rebuild::beneath(tree.as_fd(), path, flags)?;
        Ok(Some(file.into()))
    };
    let (Some(mut a), Some(mut b)) = (open(expected)?, open(found)?) else {
        return Ok(true);
    };
    let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let n = a.read(&mut left)?;
        if n == 0 {
            return Ok(b.read(&mut right)? == 0);
        }
        match b.read_exact(&mut right[..n]) {
            Ok(()) if left[..n] == right[..n] => {}
            Ok(()) => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(e) => return Err(e),
        }
    }
}
