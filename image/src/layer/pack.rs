//! Writes files and directories as a tar (POSIX pax), from open directories: no path is walked, no symlink followed.
//!
//! The tree may be somebody else's and changing: what vanishes is left out, a file that shrinks is filled up with zeros, one
//! that grows is cut. Sockets are left out, as in Docker.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, major, minor, openat, readlinkat, statat,
};
use rustix::io::Errno;
use tar::{EntryType, Header};

use super::entry::{BLOCK, Xattrs};
use super::metadata::read_xattrs;
use super::numbers::octets;
use super::tree::join;

/// Why a tar was not written.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error("cannot read /{path}")]
    Read { path: String, source: io::Error },
    #[error("/{path} is nested too deeply")]
    TooDeep { path: String },
    /// Whoever was to take it does not.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
}

/// Largest numbers that the fields of an ustar header hold.
const MAX_ID: u32 = 0o7_777_777;
const MAX_SIZE: u64 = 0o77_777_777_777;

/// Deeper trees are refused: each level holds a descriptor, and has its path's length again in the tar. Programs cannot name paths
/// of so many directories, but a container can make them, one inside the other.
pub(super) const MAX_DEPTH: usize = 500;

/// A tar that is being written.
pub struct Packer<W> {
    out: W,
    /// Files with several names: (device, inode) and the first of them.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
}

impl<W: Write> Packer<W> {
    pub fn new(out: W) -> Packer<W> {
        Packer {
            out,
            links: HashMap::new(),
            buffer: vec![0; 256 << 10],
        }
    }

    /// The two empty blocks of the end.
    pub fn finish(mut self) -> Result<W, PackError> {
        self.write(&[0; 2 * BLOCK as usize])?;
        self.out.flush().map_err(PackError::Write)?;
        Ok(self.out)
    }

    /// `name` of an open directory with all below it, as `path` in the tar. `.` is the directory itself.
    pub fn tree(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<(), PackError> {
        match self.entry(dir, name, path)? {
            Some(inside) => self.inside(&inside, path),
            None => Ok(()),
        }
    }

    /// Everything in an open directory, by name.
    pub fn inside(&mut self, dir: &OwnedFd, path: &[u8]) -> Result<(), PackError> {
        if path.iter().filter(|&&byte| byte == b'/').count() > MAX_DEPTH {
            return Err(PackError::TooDeep { path: octets(path) });
        }
        for name in sorted(dir).map_err(reading(path))? {
            let below = match path {
                b"/" => [b"/", &*name].concat(),
                _ => join(path, &name),
            };
            self.tree(dir.as_fd(), &name, &below)?;
        }
        Ok(())
    }

    /// One name without what is below it; a directory comes back open. The file's first name in this tar makes its other
    /// names links.
    pub fn entry(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
    ) -> Result<Option<OwnedFd>, PackError> {
        let Some(found) = open_any(dir, name).map_err(reading(path))? else {
            return Ok(None);
        };
        let stat = fstat(&found).map_err(reading(path))?;
        let mut header = Header::new_ustar();
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mut link = Vec::new();
        match kind {
            FileType::Socket | FileType::Unknown => return Ok(None),
            FileType::Directory => header.set_entry_type(EntryType::Directory),
            FileType::Symlink => {
                header.set_entry_type(EntryType::Symlink);
                link = readlinkat(&found, "", Vec::new())
                    .map_err(reading(path))?
                    .into_bytes();
            }
            FileType::Fifo => header.set_entry_type(EntryType::Fifo),
            FileType::CharacterDevice | FileType::BlockDevice => {
                header.set_entry_type(match kind {
                    FileType::BlockDevice => EntryType::Block,
                    _ => EntryType::Char,
                });
                set_device(&mut header, &stat).map_err(reading(path))?;
            }
            FileType::RegularFile => header.set_entry_type(EntryType::Regular),
        }
        if kind != FileType::Directory && stat.st_nlink > 1 {
            let identity = (stat.st_dev, stat.st_ino);
            match self.links.get(&identity) {
                Some(first) => {
                    header.set_entry_type(EntryType::Link);
                    let first = first.clone();
                    self.header(header, path, &first, &stat, 0, &Vec::new())?;
                    return Ok(None);
                }
                None => self.links.insert(identity, path.to_vec()),
            };
        }
        if !matches!(kind, FileType::RegularFile | FileType::Directory) {
            self.header(header, path, &link, &stat, 0, &Vec::new())?;
            return Ok(None);
        }
        // By the descriptor, which is of a file or directory for certain: opening a device or a FIFO would do something.
        let file =
            File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).map_err(reading(path))?;
        let mut xattrs = read_xattrs(file.as_fd()).unwrap_or_default();
        xattrs.retain(|(name, _)| is_kept(name));
        if kind == FileType::Directory {
            let mut name = path.to_vec();
            if !name.ends_with(b"/") {
                name.push(b'/');
            }
            self.header(header, &name, &[], &stat, 0, &xattrs)?;
            return Ok(Some(file.into()));
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.header(header, path, &[], &stat, size, &xattrs)?;
        self.data(file, size, path)?;
        Ok(None)
    }

    /// "image-spec layer, Whiteouts": what hides the lower layers' file of this path.
    pub fn whiteout(&mut self, path: &[u8]) -> Result<(), PackError> {
        let (dir, name) = super::tree::split(path);
        let marker = join(dir, &[b".wh.", name].concat());
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0);
        let numbers = Numbers::default();
        self.write_header(header, &marker, &[], &numbers, &Vec::new())
    }

    fn data(&mut self, file: File, size: u64, path: &[u8]) -> Result<(), PackError> {
        let mut file = file.take(size);
        let mut left = size;
        while left > 0 {
            let most = self
                .buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            let n = match file.read(&mut self.buffer[..most]) {
                Ok(0) => {
                    // It has become shorter meanwhile.
                    self.buffer[..most].fill(0);
                    most
                }
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(reading(path)(e)),
            };
            self.out
                .write_all(&self.buffer[..n])
                .map_err(PackError::Write)?;
            left -= n as u64;
        }
        let padding = (BLOCK - size % BLOCK) % BLOCK;
        self.write(&vec![0; padding as usize])
    }

    fn header(
        &mut self,
        mut header: Header,
        path: &[u8],
        link: &[u8],
        stat: &Stat,
        size: u64,
        xattrs: &Xattrs,
    ) -> Result<(), PackError> {
        header.set_mode(stat.st_mode & 0o7777);
        let numbers = Numbers {
            uid: stat.st_uid,
            gid: stat.st_gid,
            size,
            seconds: stat.st_mtime,
            nanoseconds: stat.st_mtime_nsec as u32,
        };
        self.write_header(header, path, link, &numbers, xattrs)
    }

    /// The header, and before it in PAX records whatever it has no room for.
    fn write_header(
        &mut self,
        mut header: Header,
        path: &[u8],
        link: &[u8],
        numbers: &Numbers,
        xattrs: &Xattrs,
    ) -> Result<(), PackError> {
        let mut records = Vec::new();
        let old = header.as_old_mut();
        if !fits(path, &mut old.name) {
            record(&mut records, b"path", path);
        }
        if !fits(link, &mut old.linkname) {
            record(&mut records, b"linkpath", link);
        }
        let number = |records: &mut Vec<u8>, key: &[u8], value: String, fits: bool| {
            if !fits {
                record(records, key, value.as_bytes());
            }
            fits
        };
        let fits = number(
            &mut records,
            b"uid",
            numbers.uid.to_string(),
            numbers.uid <= MAX_ID,
        );
        header.set_uid(if fits { numbers.uid.into() } else { 0 });
        let fits = number(
            &mut records,
            b"gid",
            numbers.gid.to_string(),
            numbers.gid <= MAX_ID,
        );
        header.set_gid(if fits { numbers.gid.into() } else { 0 });
        let fits = number(
            &mut records,
            b"size",
            numbers.size.to_string(),
            numbers.size <= MAX_SIZE,
        );
        header.set_size(if fits { numbers.size } else { 0 });
        let whole = u64::try_from(numbers.seconds)
            .ok()
            .filter(|&s| s <= MAX_SIZE);
        let exact = whole.is_some() && numbers.nanoseconds == 0;
        number(&mut records, b"mtime", numbers.time(), exact);
        header.set_mtime(whole.unwrap_or(0));
        for (name, value) in xattrs {
            record(&mut records, &[b"SCHILY.xattr.", &**name].concat(), value);
        }
        if !records.is_empty() {
            let mut extended = Header::new_ustar();
            extended.set_entry_type(EntryType::XHeader);
            extended.as_old_mut().name[..14].copy_from_slice(b"PaxHeaders.0/x");
            extended.set_mode(0o644);
            extended.set_size(records.len() as u64);
            extended.set_cksum();
            self.write(extended.as_bytes())?;
            let padding = (BLOCK - records.len() as u64 % BLOCK) % BLOCK;
            records.resize(records.len() + padding as usize, 0);
            self.write(&records)?;
        }
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        self.out.write_all(bytes).map_err(PackError::Write)
    }
}

#[derive(Default)]
struct Numbers {
    uid: u32,
    gid: u32,
    size: u64,
    seconds: i64,
    nanoseconds: u32,
}

impl Numbers {
    /// As PAX writes it: before 1970 the fraction counts downwards too.
    fn time(&self) -> String {
        match (self.seconds, self.nanoseconds) {
            (seconds, 0) => seconds.to_string(),
            (seconds, nanoseconds) if seconds < 0 => {
                let (whole, rest) = (-(seconds + 1), 1_000_000_000 - nanoseconds);
                format!("-{whole}.{rest:09}")
            }
            (seconds, nanoseconds) => format!("{seconds}.{nanoseconds:09}"),
        }
    }
}

/// A name's own file; `None` if it has gone.
fn open_any(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(dir, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => Ok(None),
        found => found.map(Some),
    }
}

/// The names in a directory, sorted: the same tree is the same tar.
pub fn sorted(dir: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut all = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            all.push(name.to_vec());
        }
    }
    all.sort_unstable();
    Ok(all)
}

/// What a name is; `None` if it has gone.
pub fn look(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Stat>, Errno> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(None),
        found => found.map(Some),
    }
}

/// What means the same on another host. Labels of a security module and overlayfs's own do not.
fn is_kept(name: &[u8]) -> bool {
    name == b"security.capability"
        || name.starts_with(b"user.")
        || name.starts_with(b"system.posix_acl_")
}

fn set_device(header: &mut Header, stat: &Stat) -> io::Result<()> {
    header.set_device_major(major(stat.st_rdev))?;
    header.set_device_minor(minor(stat.st_rdev))
}

/// Puts a text into a field; false if it had to be cut, or if old readers would guess at its encoding.
fn fits(text: &[u8], field: &mut [u8]) -> bool {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
    text.len() <= field.len() && text.is_ascii()
}

/// `LENGTH key=value\n`, where the length counts itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn reading<E: Into<io::Error>>(path: &[u8]) -> impl FnOnce(E) -> PackError {
    let path = octets(path.strip_prefix(b"/").unwrap_or(path));
    move |source| PackError::Read {
        path,
        source: source.into(),
    }
}
