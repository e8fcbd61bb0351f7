//! Turns the entries of a tar into a tree, whiteouts included ("image-spec layer, Whiteouts").
//!
//! The paths that it keeps for later are those of directories as they really are, without symlinks.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Bound;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, linkat, makedev, mkdirat, mknodat, openat, symlinkat,
};
use rustix::io::Errno;

use super::entry::{Entries, Entry, Kind, Time};
use super::metadata::Metadata;
use super::numbers::octets;
use super::recipe::Recorder;
use super::tree::{
    Directory, Made, Missing, Tree, enter, is_directory, is_whiteout, names, set_opaque,
};
use super::{LayerError, Limits};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";
/// Names that aufs, where the whiteouts come from, keeps for itself; no file of an image.
const AUFS: &[u8] = b".wh..wh.";

/// Bytes of a single name (NAME_MAX).
const MAX_NAME: usize = 255;

/// A tree that holds all of its layer, but for what comes from the layers below.
#[derive(Default)]
pub struct Applied {
    /// Bytes of the files.
    pub(super) size: u64,
    /// Directories that the tar left out, made for what is in them.
    pub(super) implicit: BTreeMap<Vec<u8>, ()>,
    /// The times of directories, set when nothing changes in them any more.
    pub(super) times: BTreeMap<Vec<u8>, Time>,
    /// The default ACLs of directories, set when nothing is made in them any more.
    pub(super) default_acls: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What hides the lower layers' file of the same path.
    pub(super) hidden: BTreeMap<Vec<u8>, ()>,
    /// Hard links whose target is not in this layer: path, order in the tar, and target.
    pub(super) links: BTreeMap<Vec<u8>, (usize, Vec<u8>)>,
    links_seen: usize,
    pub(super) root_is_opaque: bool,
    /// Files that come from the layers below.
    pub(super) copied: Vec<Vec<u8>>,
}

/// What becomes of the files' data.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    Written,
    /// The files are holes of the right size.
    LeftOut,
}

struct Applier<R> {
    tree: Tree,
    entries: Entries<R>,
    content: Content,
    done: Applied,
    buffer: Vec<u8>,
}

/// Applies a tar to an empty directory. Stops at the end of the archive; the stream may hold more.
pub fn apply<R: Read>(root: &OwnedFd, tar: R, limits: Limits) -> Result<Applied, LayerError> {
    let (applied, _) = run(root, Entries::new(tar, limits), Content::Written)?;
    Ok(applied)
}

/// As `apply`. The recorder comes back for what the stream has after the archive.
pub(crate) fn apply_recorded<R: Read>(
    root: &OwnedFd,
    tar: R,
    recorder: Recorder,
    limits: Limits,
) -> Result<(Applied, Option<Recorder>), LayerError> {
    let mut entries = Entries::new(tar, limits);
    entries.recorder = Some(recorder);
    run(root, entries, Content::Written)
}

/// As `apply`, for a look at everything but the content of files, which are holes.
pub(crate) fn apply_hollow<R: Read>(
    root: &OwnedFd,
    tar: R,
    limits: Limits,
) -> Result<Applied, LayerError> {
    let (applied, _) = run(root, Entries::new(tar, limits), Content::LeftOut)?;
    Ok(applied)
}

fn run<R: Read>(
    root: &OwnedFd,
    entries: Entries<R>,
    content: Content,
) -> Result<(Applied, Option<Recorder>), LayerError> {
    let mut applier = Applier {
        tree: Tree::new(root)?,
        entries,
        content,
        done: Applied::default(),
        buffer: vec![0; 256 << 10],
    };
    applier.done.implicit.insert(Vec::new(), ());
    let mut path = Vec::new();
    while let Some(entry) = applier.entries.next().map_err(|e| e.at(&path))? {
        applier.entry(&entry).map_err(|e| e.at(&entry.path))?;
        path = entry.path;
    }
    Ok((applier.done, applier.entries.recorder))
}

impl<R: Read> Applier<R> {
    fn entry(&mut self, entry: &Entry) -> Result<(), LayerError> {
        let parts = clean(&entry.path)?;
        let Some((name, above)) = parts.split_last() else {
            if entry.kind != Kind::Directory {
                return Err(LayerError::refused("/", "the root must be a directory"));
            }
            let root = self.tree.root().clone();
            return self.set_directory(&root, entry);
        };
        if parts
            .iter()
            .any(|part| part.starts_with(AUFS) && **part != *OPAQUE_MARKER)
        {
            return Ok(());
        }
        if above.iter().any(|part| part.starts_with(WHITEOUT)) {
            return Err(LayerError::refused(
                octets(&entry.path),
                "a whiteout is no directory",
            ));
        }
        let parent = self.parent(&above.join(&b'/'))?;
        if name == OPAQUE_MARKER {
            return self.opaque(&parent);
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(LayerError::refused(
                    octets(&entry.path),
                    "a whiteout of nothing",
                ));
            }
            return self.hide(&parent, hidden);
        }
        match entry.kind {
            Kind::HardLink => self.link(&parent, name, entry),
            Kind::Directory => self.directory(&parent, name, entry),
            _ => self.other(&parent, name, entry),
        }
    }

    /// The directory that an entry is in; made if the tar left it out.
    fn parent(&mut self, path: &[u8]) -> Result<Directory, LayerError> {
        parent(&mut self.tree, &mut self.done, path)
    }

    fn opaque(&mut self, dir: &Directory) -> Result<(), LayerError> {
        if dir.path.is_empty() {
            // Overlayfs does not look for the attribute on the root of a layer.
            self.done.root_is_opaque = true;
            return Ok(());
        }
        set_opaque(dir.fd.as_fd(), &dir.path)
    }

    /// A whiteout. What this same layer brings under the name stays, whichever comes first, and hides the lower one.
    fn hide(&mut self, parent: &Directory, name: &[u8]) -> Result<(), LayerError> {
        let path = parent.join(name);
        self.done.hidden.insert(path.clone(), ());
        match parent.stat(name)? {
            Some(stat) if is_directory(&stat) => {
                self.done.implicit.remove(&path);
                set_opaque(enter(parent, name)?.fd.as_fd(), &path)
            }
            Some(_) => Ok(()),
            None if self.done.links.contains_key(&path) => Ok(()),
            None => self.tree.whiteout(parent, name),
        }
    }

    fn directory(
        &mut self,
        parent: &Directory,
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), LayerError> {
        let path = parent.join(name);
        let mut replaces = self.done.hidden.contains_key(&path);
        let make = || mkdirat(&*parent.fd, name, Mode::from_raw_mode(0o700));
        let mut made = make();
        let mut existing = None;
        if made == Err(Errno::EXIST) {
            existing = parent.stat(name)?;
            if existing.as_ref().is_some_and(is_directory) {
                return self.set_directory(&enter(parent, name)?, entry);
            }
            replaces = true;
        }
        self.clear(parent, name, existing)?;
        if made == Err(Errno::EXIST) {
            made = make();
        }
        made.map_err(LayerError::place("create directory", &path))?;
        let dir = enter(parent, name)?;
        if replaces {
            set_opaque(dir.fd.as_fd(), &path)?;
        }
        self.set_directory(&dir, entry)
    }

    fn set_directory(&mut self, dir: &Directory, entry: &Entry) -> Result<(), LayerError> {
        let mut metadata = Metadata::of_entry(entry);
        if let Some(acl) = metadata.take_default_acl() {
            self.done.default_acls.insert(dir.path.clone(), acl);
        }
        metadata.set(dir.fd.as_fd(), &dir.path)?;
        self.done.implicit.remove(&dir.path);
        self.done.times.insert(dir.path.clone(), entry.mtime);
        Ok(())
    }

    /// Files, symlinks, FIFOs and devices.
    fn other(&mut self, parent: &Directory, name: &[u8], entry: &Entry) -> Result<(), LayerError> {
        let path = parent.join(name);
        if matches!(entry.kind, Kind::Char(0, 0)) {
            // It would be a whiteout.
            return Err(LayerError::refused(
                octets(&path),
                "a character device 0, 0",
            ));
        }
        let metadata = Metadata::of_entry(entry);
        if entry.kind != Kind::File {
            let existing = parent.stat(name)?;
            self.clear(parent, name, existing)?;
        }
        let (kind, device) = match entry.kind {
            Kind::File => {
                self.count(entry, &path)?;
                let file = self.fresh_file(parent, name)?;
                self.copy_data(&file, entry, &path)?;
                return metadata.set_with_time(file.as_fd(), &path);
            }
            Kind::Symlink => {
                if entry.link.is_empty() || entry.link.contains(&0) {
                    return Err(LayerError::refused(
                        octets(&path),
                        "a symbolic link to nothing",
                    ));
                }
                symlinkat(&*entry.link, &*parent.fd, name)
                    .map_err(LayerError::place("create symbolic link", &path))?;
                // Docker counts it too.
                self.done.size += entry.link.len() as u64;
                return metadata.set_by_name(parent, name, false);
            }
            Kind::Char(major, minor) => (FileType::CharacterDevice, makedev(major, minor)),
            Kind::Block(major, minor) => (FileType::BlockDevice, makedev(major, minor)),
            Kind::Fifo | Kind::Directory | Kind::HardLink => (FileType::Fifo, 0),
        };
        mknodat(&*parent.fd, name, kind, Mode::from_raw_mode(0o600), device)
            .map_err(LayerError::place("create device or FIFO", &path))?;
        metadata.set_by_name(parent, name, true)
    }

    /// What has the name already is rare, and goes.
    fn fresh_file(&mut self, parent: &Directory, name: &[u8]) -> Result<File, LayerError> {
        match create_file(parent, name) {
            Err(LayerError::Place { source, .. })
                if source.kind() == io::ErrorKind::AlreadyExists =>
            {
                let existing = parent.stat(name)?;
                self.clear(parent, name, existing)?;
                create_file(parent, name)
            }
            file => {
                self.clear(parent, name, None)?;
                file
            }
        }
    }

    /// Judges a file by its size, before a byte of it is written.
    fn count(&mut self, entry: &Entry, path: &[u8]) -> Result<(), LayerError> {
        let most = match entry.pieces {
            None => self.entries.limits.tar.min(self.entries.limits.files),
            Some(_) => self.entries.limits.files,
        };
        // What was replaced counts as well, which no honest layer comes to feel.
        self.done.size = self.done.size.saturating_add(entry.size);
        if self.done.size > most {
            let why = format!(
                "with its {} bytes the files are over the limit of {most}",
                entry.size
            );
            return Err(LayerError::refused(octets(path), why));
        }
        Ok(())
    }

    fn copy_data(&mut self, mut file: &File, entry: &Entry, path: &[u8]) -> Result<(), LayerError> {
        let whole = [(0, entry.size)];
        let pieces = entry.pieces.as_deref().unwrap_or(&whole);
        for &(offset, mut left) in pieces {
            if entry.pieces.is_some() {
                file.seek(SeekFrom::Start(offset))
                    .map_err(LayerError::place("write", path))?;
            }
            while left > 0 {
                let most = self
                    .buffer
                    .len()
                    .min(usize::try_from(left).unwrap_or(usize::MAX));
                let n = self.entries.read_file(&mut self.buffer[..most])?;
                if n == 0 {
                    return Err(LayerError::malformed("it ends in the middle of a file"));
                }
                if self.content == Content::Written {
                    file.write_all(&self.buffer[..n])
                        .map_err(LayerError::place("write", path))?;
                }
                left -= n as u64;
            }
        }
        if entry.pieces.is_some() || self.content == Content::LeftOut {
            file.set_len(entry.size)
                .map_err(LayerError::place("write", path))?;
        }
        match &mut self.entries.recorder {
            Some(recorder) => recorder.file(path, entry.size, entry.pieces.as_deref()),
            None => Ok(()),
        }
    }

    fn link(&mut self, parent: &Directory, name: &[u8], entry: &Entry) -> Result<(), LayerError> {
        let path = parent.join(name);
        let target = clean(&entry.link)?;
        let Some((last, above)) = target.split_last() else {
            return Err(LayerError::refused(
                octets(&path),
                "a hard link to the root",
            ));
        };
        let target_path = target.join(&b'/');
        let found = self.tree.directory(&above.join(&b'/'), Missing::Stop)?;
        let found = match &found {
            Some(dir) => dir.stat(last)?.map(|stat| (dir, stat)),
            None => None,
        };
        match found {
            Some((dir, _)) if dir.join(last) == path => {
                Err(LayerError::refused(octets(&path), "a hard link to itself"))
            }
            Some((_, stat)) if is_directory(&stat) => Err(LayerError::refused(
                octets(&path),
                "a hard link to a directory",
            )),
            Some((dir, stat)) if !is_whiteout(&stat) => {
                let dir = dir.clone();
                let real = dir.join(last);
                if real
                    .strip_prefix(&*path)
                    .is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
                {
                    let why = "a hard link to what it replaces";
                    return Err(LayerError::refused(octets(&path), why));
                }
                let existing = parent.stat(name)?;
                self.clear(parent, name, existing)?;
                make_link(&dir, last, parent, name)
            }
            // A lower layer's file, which this layer does not delete at the same time.
            _ if target_path == path => {
                Err(LayerError::refused(octets(&path), "a hard link to itself"))
            }
            _ => {
                let existing = parent.stat(name)?;
                self.clear(parent, name, existing)?;
                self.done.links_seen += 1;
                let order = self.done.links_seen;
                self.done.links.insert(path, (order, target_path));
                Ok(())
            }
        }
    }

    /// Makes room for something else under the name.
    fn clear(
        &mut self,
        parent: &Directory,
        name: &[u8],
        existing: Option<Stat>,
    ) -> Result<(), LayerError> {
        let path = parent.join(name);
        self.done.links.remove(&path);
        let Some(stat) = existing else {
            return Ok(());
        };
        match &mut self.entries.recorder {
            Some(recorder) if recorder.wants(&stat) => {
                recorder.move_aside(parent, name)?;
                self.tree.forget();
            }
            _ => self.tree.remove(parent, name)?,
        }
        if is_directory(&stat) {
            self.done.forget(&path);
        }
        Ok(())
    }
}

impl Applied {
    /// Forgets a directory that this layer made and then replaced.
    fn forget(&mut self, dir: &[u8]) {
        let inside = [dir, b"/"].concat();
        // `0` is what follows `/`.
        let end = [dir, b"0"].concat();
        let range = (Bound::Included(inside.clone()), Bound::Excluded(end));
        remove_range(&mut self.implicit, &range);
        remove_range(&mut self.hidden, &range);
        remove_range(&mut self.times, &range);
        remove_range(&mut self.default_acls, &range);
        remove_range(&mut self.links, &range);
        self.implicit.remove(dir);
        self.times.remove(dir);
        self.default_acls.remove(dir);
    }
}

fn remove_range<V>(map: &mut BTreeMap<Vec<u8>, V>, range: &(Bound<Vec<u8>>, Bound<Vec<u8>>)) {
    let gone: Vec<_> = map
        .range(range.clone())
        .map(|(path, _)| path.clone())
        .collect();
    for path in gone {
        map.remove(&path);
    }
}

/// The directory at a path; made, and noted, where the tar left it out.
pub(super) fn parent(
    tree: &mut Tree,
    done: &mut Applied,
    path: &[u8],
) -> Result<Directory, LayerError> {
    let mut tell = |made: Made| {
        match made {
            Made::Implicit(path) => done.implicit.insert(path, ()),
            Made::OverWhiteout(path) => done.hidden.insert(path, ()),
        };
    };
    tree.directory(path, Missing::Make(&mut tell))?
        .ok_or_else(|| LayerError::refused(octets(path), "it has no directory"))
}

/// The names of a path. A leading slash means the layer's root; `..` has no business in a layer.
pub(super) fn clean(path: &[u8]) -> Result<Vec<Vec<u8>>, LayerError> {
    let parts: Vec<Vec<u8>> = names(path).into();
    if parts.iter().any(|part| part == b"..") {
        return Err(LayerError::refused(octets(path), "the path has .. in it"));
    }
    let name = |part: &Vec<u8>| part.strip_prefix(WHITEOUT).unwrap_or(part).len();
    if let Some(length) = parts.iter().map(name).find(|&length| length > MAX_NAME) {
        let why = format!("a name of {length} bytes is longer than Linux allows");
        return Err(LayerError::refused(octets(path), why));
    }
    if path.contains(&0) {
        return Err(LayerError::refused(
            octets(path),
            "the path has a NUL in it",
        ));
    }
    Ok(parts)
}

pub(super) fn create_file(parent: &Directory, name: &[u8]) -> Result<File, LayerError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(&*parent.fd, name, flags, Mode::from_raw_mode(0o600))
        .map(File::from)
        .map_err(LayerError::place("create file", &parent.join(name)))
}

pub(super) fn make_link(
    from: &Directory,
    target: &[u8],
    to: &Directory,
    name: &[u8],
) -> Result<(), LayerError> {
    // Without AT_SYMLINK_FOLLOW a link to a symlink is another name of the symlink.
    linkat(&*from.fd, target, &*to.fd, name, AtFlags::empty())
        .map_err(LayerError::place("create hard link", &to.join(name)))
}
