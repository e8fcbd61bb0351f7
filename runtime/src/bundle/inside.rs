//! Opens and makes paths below a root filesystem that is not trusted: no symlink of an image leads out of it.
//!
//! Every look-up is one openat2(2) with RESOLVE_IN_ROOT, so that the kernel itself takes the directory for `/`, also
//! while somebody renames things in it. Joining strings and calling `canonicalize` would not do.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// As many symlinks as the kernel itself follows (path_resolution(7)).
const MAX_LINKS: u32 = 40;
/// openat2(2): EAGAIN when a rename or mount somewhere races with `..`.
const ATTEMPTS: u32 = 64;

/// A root filesystem as the directory that paths are resolved below.
#[derive(Debug)]
pub struct Inside {
    root: OwnedFd,
}

impl Inside {
    pub fn new(rootfs: &Path) -> io::Result<Inside> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(rootfs, flags, Mode::empty())?;
        Ok(Inside { root })
    }

    /// Opens `path` as a process with this root would. O_CLOEXEC is added.
    pub fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        self.open_raw(path, flags).map_err(io::Error::from)
    }

    fn open_raw(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = if path.as_os_str().is_empty() {
            Path::new("/")
        } else {
            path
        };
        let mut result = Err(Errno::AGAIN);
        for _ in 0..ATTEMPTS {
            result = rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve);
            if !matches!(result, Err(Errno::AGAIN | Errno::INTR)) {
                break;
            }
        }
        result
    }

    /// Opens a regular file for reading. Anything else (a FIFO would block, a device could do anything) is refused
    /// before it is opened.
    pub fn open_regular(&self, path: &Path) -> io::Result<std::fs::File> {
        let found = self.open(path, OFlags::PATH)?;
        let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
        if kind != rustix::fs::FileType::RegularFile {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        // Of a running container, /proc is in reach too. Its files may block a reader for ever, as kmsg does, which only we have
        // the right to open, and what they tell is nobody's text.
        if rustix::fs::fstatfs(&found)?.f_type == rustix::fs::PROC_SUPER_MAGIC {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a file of procfs",
            ));
        }
        // The descriptor is of the file itself: nobody can put another in its place.
        std::fs::File::open(by_descriptor(found.as_fd()))
    }

    /// The directory `path`, made with all that is missing above it (mode 755). A dangling symlink on the way is
    /// followed, and what it points to is made.
    pub fn make_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        self.make_directory_at(path, &mut 0)
    }

    fn make_directory_at(&self, path: &Path, links: &mut u32) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.open_raw(path, flags) {
            Err(Errno::NOENT) => {}
            other => return Ok(other?),
        }
        let (parent, name) = split(path)?;
        let parent_fd = self.make_directory_at(&parent, links)?;
        match rustix::fs::mkdirat(&parent_fd, &name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                // umask is the caller's, and must not decide what a container sees.
                let made = rustix::fs::openat(
                    &parent_fd,
                    &name,
                    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                    Mode::empty(),
                )?;
                rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
                Ok(made)
            }
            Err(Errno::EXIST) => match follow(&parent_fd, &parent, &name, links)? {
                Some(target) => self.make_directory_at(&target, links),
                // Somebody else has made it meanwhile.
                None => self.open(path, flags),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// An empty file at `path` if nothing is there yet, with all that is missing above it.
    pub fn make_file(&self, path: &Path) -> io::Result<OwnedFd> {
        self.make_file_at(path, &mut 0)
    }

    fn make_file_at(&self, path: &Path, links: &mut u32) -> io::Result<OwnedFd> {
        match self.open_raw(path, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            other => return Ok(other?),
        }
        let (parent, name) = split(path)?;
        let parent_fd = self.make_directory_at(&parent, links)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        match rustix::fs::openat(&parent_fd, &name, flags, Mode::from_raw_mode(0o644)) {
            Ok(made) => {
                rustix::fs::fchmod(&made, Mode::from_raw_mode(0o644))?;
                Ok(made)
            }
            Err(Errno::EXIST) => match follow(&parent_fd, &parent, &name, links)? {
                Some(target) => self.make_file_at(&target, links),
                None => self.open(path, OFlags::PATH),
            },
            Err(error) => Err(error.into()),
        }
    }
}

/// A path of this process that names what the descriptor is of.
pub fn by_descriptor(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// The path above, and the last name.
fn split(path: &Path) -> io::Result<(PathBuf, PathBuf)> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let mut components = path.components();
    match components.next_back() {
        Some(Component::Normal(name)) => Ok((components.as_path().to_owned(), PathBuf::from(name))),
        // `..` of a directory that is not there: make that one, then its parent is there too.
        Some(Component::ParentDir) => Err(io::Error::from(io::ErrorKind::NotFound)),
        _ => Err(invalid()),
    }
}

/// Where the symlink `name` points, as a path below the root; `None` if it is none.
fn follow(
    parent_fd: &OwnedFd,
    parent: &Path,
    name: &Path,
    links: &mut u32,
) -> io::Result<Option<PathBuf>> {
    *links += 1;
    if *links > MAX_LINKS {
        return Err(Errno::LOOP.into());
    }
    match rustix::fs::readlinkat(parent_fd, name, Vec::new()) {
        Ok(target) => {
            use std::os::unix::ffi::OsStrExt;
            let target = std::ffi::OsStr::from_bytes(target.as_bytes());
            // `join` lets an absolute target replace the parent, which is what the link means.
            Ok(Some(parent.join(target)))
        }
        Err(Errno::INVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn rootfs() -> (tempfile::TempDir, Inside) {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir.path().join("rootfs");
        std::fs::create_dir(&rootfs).unwrap();
        let inside = Inside::new(&rootfs).unwrap();
        (dir, inside)
    }

    #[test]
    fn absolute_and_climbing_links_end_inside() {
        let (dir, inside) = rootfs();
        std::fs::write(dir.path().join("secret"), "host").unwrap();
        let root = dir.path().join("rootfs");
        symlink(dir.path().join("secret"), root.join("absolute")).unwrap();
        symlink("../../../../../../../../etc/passwd", root.join("climbing")).unwrap();
        for name in ["absolute", "climbing", "../secret", "/../../secret"] {
            let error = inside.open_regular(Path::new(name)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{name}");
        }
    }

    #[test]
    fn a_directory_is_made_behind_a_dangling_link_and_only_inside() {
        let (dir, inside) = rootfs();
        let root = dir.path().join("rootfs");
        let outside = dir.path().join("outside");
        symlink(&outside, root.join("data")).unwrap();
        symlink("../../over/there", root.join("relative")).unwrap();
        inside.make_directory(Path::new("/data/sub")).unwrap();
        inside.make_file(Path::new("relative/file")).unwrap();
        assert!(!outside.exists());
        let inner = root.join(outside.strip_prefix("/").unwrap());
        assert!(inner.join("sub").is_dir());
        assert!(root.join("over/there/file").is_file());
    }

    #[test]
    fn a_link_to_itself_is_an_error_and_no_endless_loop() {
        let (dir, inside) = rootfs();
        symlink("loop", dir.path().join("rootfs/loop")).unwrap();
        assert!(inside.make_directory(Path::new("/loop/x")).is_err());
        assert!(inside.make_file(Path::new("/loop")).is_err());
    }

    #[test]
    fn what_exists_stays_as_it_is() {
        let (dir, inside) = rootfs();
        let file = dir.path().join("rootfs/etc/hosts");
        std::fs::create_dir(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "text").unwrap();
        inside.make_file(Path::new("/etc/hosts")).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "text");
        assert!(inside.make_directory(Path::new("/etc/hosts")).is_err());
    }
}
