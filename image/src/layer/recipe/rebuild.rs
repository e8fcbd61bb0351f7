//! Makes a tar from its recipe and its tree. The tree may have been tampered with: nothing but regular files is opened, no symlink
//! is followed, and what is not as it was recorded is told.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;

use super::super::numbers::octets;
use super::{FileData, Op, Ops};

/// A path is opened in parts that fit PATH_MAX.
const PATH_PART: usize = 4000;

/// A file that is not what the tar brought.
#[derive(Debug)]
pub struct Fault {
    /// From the layer's root, without a slash before it.
    pub path: Vec<u8>,
    pub why: String,
}

/// Why there is no tar.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error("the recipe is damaged")]
    Recipe(#[source] io::Error),
    #[error("writing the tar")]
    Write(#[source] io::Error),
    #[error("/{path}: {why}")]
    File { path: String, why: String },
}

/// Writes the tar. `on_fault` hears of files that have changed; if it lets them pass, the tar has zeros or the changed data, in
/// the right length.
pub fn rebuild(
    recipe: File,
    tree: BorrowedFd<'_>,
    out: &mut dyn Write,
    on_fault: &mut dyn FnMut(Fault) -> Result<(), RebuildError>,
) -> Result<(), RebuildError> {
    let mut ops = Ops::open(recipe).map_err(RebuildError::Recipe)?;
    while let Some(op) = ops.next().map_err(RebuildError::Recipe)? {
        match op {
            Op::Bytes(bytes) => out.write_all(&bytes).map_err(RebuildError::Write)?,
            Op::File(file) => {
                if let Some(why) = copy_file(tree, &file, out).map_err(RebuildError::Write)? {
                    let path = file.path;
                    on_fault(Fault { path, why })?;
                }
            }
        }
    }
    out.flush().map_err(RebuildError::Write)
}

/// For `rebuild`: the first fault ends it.
pub fn strict(fault: Fault) -> Result<(), RebuildError> {
    Err(RebuildError::File {
        path: octets(&fault.path),
        why: fault.why,
    })
}

/// Writes what the tar has of a file, always in its full length; says what is wrong with the file. The error is of writing.
pub fn copy_file(
    tree: BorrowedFd<'_>,
    file: &FileData,
    out: &mut (impl Write + ?Sized),
) -> io::Result<Option<String>> {
    let (found, mut why) = match open(tree, &file.path) {
        Ok((found, size)) if size == file.size => (Some(found), None),
        Ok((found, size)) => {
            let why = format!("it has {size} bytes instead of {}", file.size);
            (Some(found), Some(why))
        }
        Err(why) => (None, Some(why)),
    };
    let whole = [(0, file.size)];
    let mut crc = crc32fast::Hasher::new();
    let mut buffer = vec![0; (256 << 10).min(file.size as usize)];
    for &(offset, mut left) in file.pieces.as_deref().unwrap_or(&whole) {
        let mut source = found.as_ref();
        if let Some(found) = &mut source
            && file.pieces.is_some()
            && let Err(e) = found.seek(SeekFrom::Start(offset))
        {
            why.get_or_insert(e.to_string());
            source = None;
        }
        while left > 0 {
            let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            let read = source.as_mut().map(|file| file.read(&mut buffer[..most]));
            let n = match read {
                Some(Ok(n)) if n > 0 => n,
                Some(Err(e)) if e.kind() == io::ErrorKind::Interrupted => continue,
                ended => {
                    if let Some(Err(e)) = ended {
                        why.get_or_insert(format!("it cannot be read: {e}"));
                    }
                    source = None;
                    buffer[..most].fill(0);
                    most
                }
            };
            crc.update(&buffer[..n]);
            out.write_all(&buffer[..n])?;
            left -= n as u64;
        }
    }
    if why.is_none() && crc.finalize() != file.crc {
        why = Some("its content has changed".to_owned());
    }
    Ok(why)
}

/// A regular file and its size, or what is wrong.
fn open(tree: BorrowedFd<'_>, path: &[u8]) -> Result<(File, u64), String> {
    let told = |e: Errno| match e {
        Errno::NOENT => "it is missing".to_owned(),
        Errno::LOOP | Errno::NOTDIR => "its directory has been replaced".to_owned(),
        e => format!("it cannot be opened: {}", io::Error::from(e)),
    };
    let found = look(tree, path).map_err(told)?;
    let stat = fstat(&found).map_err(told)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err("it is not a regular file any more".to_owned());
    }
    // Between the two nobody but root can have put a FIFO there, and it would not block.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = File::from(beneath(tree, path, flags).map_err(told)?);
    match file.metadata().map(|metadata| metadata.is_file()) {
        Ok(true) => Ok((file, stat.st_size as u64)),
        _ => Err("it is not a regular file any more".to_owned()),
    }
}

/// What is at a path, without opening it for reading: even that has effects on devices.
pub fn look(tree: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    beneath(tree, path, OFlags::PATH)
}

pub fn open_directory(tree: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    beneath(tree, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

pub fn beneath(tree: BorrowedFd<'_>, mut path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let open = |dir: BorrowedFd<'_>, path: &[u8], flags| {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        openat2(dir, path, flags, Mode::empty(), resolve)
    };
    let mut above: Option<OwnedFd> = None;
    while path.len() > PATH_PART {
        let cut = path[..PATH_PART].iter().rposition(|&b| b == b'/');
        let cut = cut.ok_or(Errno::NAMETOOLONG)?;
        let dir = above.as_ref().map_or(tree, AsFd::as_fd);
        above = Some(open(dir, &path[..cut], OFlags::PATH | OFlags::DIRECTORY)?);
        path = &path[cut + 1..];
    }
    open(above.as_ref().map_or(tree, AsFd::as_fd), path, flags)
}
