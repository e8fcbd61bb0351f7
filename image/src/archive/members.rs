//! The members of an archive, found by name without unpacking it.
//!
//! A plain file is read in place: headers only, the data passed over. What comes down a pipe or is packed as a whole is put on
//! disk first, as one plain tar in staging, because the documents that say what the rest is stand at its end (Docker, podman). The
//! archive is hostile until proven otherwise: what is kept of it in memory is capped, and no name of it ever becomes a path.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Error;
use crate::layer::{Entries, Kind, LayerError, Limits};
use crate::registry::MAX_DOCUMENT;
use crate::registry::manifest::Compression;
use crate::staging::Staging;

use super::packed;

/// Of an archive, headers of all kinds included: a thousand images of a hundred layers each, and more.
const MOST_ENTRIES: u64 = 400_000;
/// Bytes of all names together.
const MOST_NAMES: usize = 32 << 20;
/// Bytes of all documents together, each as often as it is read: an archive can name one config as that of a hundred thousand images.
const MOST_DOCUMENTS: u64 = 64 << 20;
/// Links that lead from one to the next; old Dockers write one.
const MOST_LINKS: usize = 8;
/// A packed archive may become 256 times as long, or this.
const SMALL: u64 = 4 << 30;
/// The longest archive that is put on disk, in bytes.
const LONGEST: u64 = 1 << 40;

/// An archive whose members can be read at will.
#[derive(Debug)]
pub struct Archive {
    file: File,
    members: BTreeMap<String, Member>,
    /// Bytes of documents that have been read.
    documents: AtomicU64,
}

impl Archive {
    fn new(file: File, members: BTreeMap<String, Member>) -> Archive {
        Archive {
            file,
            members,
            documents: AtomicU64::new(0),
        }
    }
}

#[derive(Debug)]
enum Member {
    Data(Extent),
    /// The name of another member.
    Link(String),
    /// Two of one name: which of them counts would be the reader's choice.
    Twice,
}

/// Where a member's data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    at: u64,
    pub size: u64,
}

impl Archive {
    /// Reads the headers of `input`, from where it stands; puts it into staging first if it cannot be read at will.
    pub fn open(mut input: File, staging: &Staging) -> Result<Archive, Error> {
        let is_file = input.metadata().is_ok_and(|data| data.is_file());
        if is_file && let Some(archive) = Archive::in_place(&mut input)? {
            return Ok(archive);
        }
        let path = staging.path().join("archive");
        let spool = File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(Error::io("create", &path))?;
        let read = Cell::new(0);
        let mut counted = Counted {
            inner: input,
            read: &read,
        };
        let mut plain = packed::open(&mut counted)?;
        let tee = Tee {
            inner: &mut plain,
            copy: BufWriter::with_capacity(256 << 10, &spool),
            buffer: Vec::new(),
            at: 0,
            small: SMALL,
            read: &read,
            path: &path,
        };
        let (members, mut tee) = members(tee, |tee, n| tee.pass(n))?;
        // What follows the end of the tar is nobody's, but the writer of a pipe wants to get rid of it.
        let rest = io::copy(&mut tee.inner, &mut io::sink());
        rest.and_then(|_| tee.flush())
            .map_err(|e| unreadable(LayerError::Read(e)))?;
        drop(tee);
        drop(plain);
        Ok(Archive::new(spool, members))
    }

    /// `None` if it is packed.
    fn in_place(input: &mut File) -> Result<Option<Archive>, Error> {
        let reading = |e| Error::io("read the archive", "-")(e);
        let start = input.stream_position().map_err(reading)?;
        let mut head = Vec::new();
        let begun = Read::by_ref(input)
            .take(packed::HEAD as u64)
            .read_to_end(&mut head);
        begun.map_err(reading)?;
        input.seek(SeekFrom::Start(start)).map_err(reading)?;
        if packed::compression(&head)? != Compression::None {
            return Ok(None);
        }
        let length = input.metadata().map_err(reading)?.len();
        let file = input.try_clone().map_err(reading)?;
        let (members, _) = members(
            InPlace {
                file: input,
                length,
            },
            |input, n| input.pass(n),
        )?;
        Ok(Some(Archive::new(file, members)))
    }

    /// Whether there is such a member.
    pub fn has(&self, name: &str) -> bool {
        normal(name).is_some_and(|name| self.members.contains_key(&name))
    }

    /// A member's data, through links.
    pub fn find(&self, name: &str) -> Result<Extent, Error> {
        let refuse = |why: &str| Error::untrusted(format!("archive member {name:?}"), why);
        let mut at = normal(name).ok_or_else(|| refuse("its name leads out of the archive"))?;
        for _ in 0..MOST_LINKS {
            match self.members.get(&at) {
                Some(Member::Data(extent)) => return Ok(*extent),
                Some(Member::Link(target)) => at.clone_from(target),
                Some(Member::Twice) => return Err(refuse("it is in the archive twice")),
                None => {
                    return Err(refuse(
                        "it is not in the archive, which is cut or was made of a part of an image: save it again",
                    ));
                }
            }
        }
        Err(refuse("its links lead nowhere"))
    }

    /// A small member as a whole.
    pub fn document(&self, name: &str) -> Result<Vec<u8>, Error> {
        let extent = self.find(name)?;
        if extent.size > MAX_DOCUMENT {
            let why = format!("{} bytes are over the limit of {MAX_DOCUMENT}", extent.size);
            return Err(Error::untrusted(format!("archive member {name:?}"), why));
        }
        let before = self.documents.fetch_add(extent.size, Ordering::Relaxed);
        if before + extent.size > MOST_DOCUMENTS {
            let why = format!("the documents of its images have more than {MOST_DOCUMENTS} bytes");
            return Err(Error::untrusted("archive", why));
        }
        let mut bytes = Vec::new();
        self.read(extent)
            .read_to_end(&mut bytes)
            .map_err(|e| unreadable(LayerError::Read(e)))?;
        Ok(bytes)
    }

    pub fn read(&self, extent: Extent) -> Section<'_> {
        Section {
            file: &self.file,
            at: extent.at,
            left: extent.size,
        }
    }

    pub fn compression(&self, extent: Extent) -> Result<Compression, Error> {
        let mut head = Vec::new();
        self.read(extent)
            .take(packed::HEAD as u64)
            .read_to_end(&mut head)
            .map_err(|e| unreadable(LayerError::Read(e)))?;
        packed::compression(&head)
    }
}

/// A member's data as a stream; several may be read at once.
#[derive(Debug)]
pub struct Section<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buf.len());
        let n = self.file.read_at(&mut buf[..most], self.at)?;
        if n == 0 && most > 0 {
            let why = "the archive has become shorter meanwhile";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        self.at += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

/// Reads all headers. `pass` passes over data, and says where it began.
fn members<R: Read>(
    tar: R,
    mut pass: impl FnMut(&mut R, u64) -> io::Result<u64>,
) -> Result<(BTreeMap<String, Member>, R), Error> {
    let limits = Limits {
        entries: MOST_ENTRIES,
        ..Limits::default()
    };
    let mut entries = Entries::new(tar, limits);
    let mut members = BTreeMap::new();
    let mut names = 0;
    while let Some(entry) = entries.next().map_err(unreadable)? {
        let mut at = 0;
        let passed = entries.skip_by(|tar, n| {
            at = pass(tar, n)?;
            Ok(())
        });
        passed.map_err(unreadable)?;
        let shown = crate::layer::octets(&entry.path);
        let refuse = |why: &str| Error::untrusted(format!("archive member {shown:?}"), why);
        // A name that is no text is none that a document could say.
        let Ok(path) = String::from_utf8(entry.path) else {
            continue;
        };
        let name = normal(&path).ok_or_else(|| refuse("its name leads out of the archive"))?;
        let link = String::from_utf8(entry.link).unwrap_or_default();
        let member = match entry.kind {
            Kind::File if entry.pieces.is_some() => {
                return Err(refuse(
                    "it is stored with holes, which no archive of images is",
                ));
            }
            Kind::File => Member::Data(Extent {
                at,
                size: entry.size,
            }),
            Kind::HardLink => Member::Link(normal(&link).unwrap_or_default()),
            Kind::Symlink => {
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                let target = match link.starts_with('/') {
                    true => None,
                    false => normal(&format!("{folder}/{link}")),
                };
                Member::Link(target.unwrap_or_default())
            }
            _ => continue,
        };
        names += name.len() + link.len();
        if names > MOST_NAMES {
            return Err(Error::untrusted(
                "archive",
                format!("its names have more than {MOST_NAMES} bytes"),
            ));
        }
        members
            .entry(name)
            .and_modify(|member| *member = Member::Twice)
            .or_insert(member);
    }
    Ok((members, entries.into_inner()))
}

/// A name without what says nothing; `None` if it leads out of the archive. Pure text: nothing is looked up.
fn normal(name: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn unreadable(error: LayerError) -> Error {
    match error {
        LayerError::Read(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
            Error::untrusted(
                "archive",
                format!("{source}: it was cut short on its way here"),
            )
        }
        LayerError::Read(source) => Error::Io {
            operation: "read the archive",
            path: "-".into(),
            source,
        },
        other => Error::untrusted("archive", other.to_string()),
    }
}

/// A file whose data is passed over by seeking.
struct InPlace<'a> {
    file: &'a mut File,
    length: u64,
}

impl InPlace<'_> {
    fn pass(&mut self, n: u64) -> io::Result<u64> {
        let at = self.file.stream_position()?;
        let end = at.checked_add(n).filter(|&end| end <= self.length);
        let Some(end) = end else {
            return Err(ended());
        };
        self.file.seek(SeekFrom::Start(end))?;
        Ok(at)
    }
}

impl Read for InPlace<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read(buf)
    }
}

fn ended() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "it ends in the middle of a file",
    )
}

/// A stream of which a copy is kept.
struct Tee<'a> {
    inner: &'a mut dyn Read,
    copy: BufWriter<&'a File>,
    /// For what is passed over.
    buffer: Vec<u8>,
    at: u64,
    /// Bytes that it may always become.
    small: u64,
    /// Bytes that went in packed.
    read: &'a Cell<u64>,
    /// Of the copy.
    path: &'a Path,
}

impl Tee<'_> {
    fn pass(&mut self, n: u64) -> io::Result<u64> {
        let at = self.at;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(256 << 10, 0);
        let mut left = n;
        while left > 0 {
            let most = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            match self.read(&mut buffer[..most])? {
                0 => return Err(ended()),
                n => left -= n as u64,
            }
        }
        self.buffer = buffer;
        Ok(at)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.copy.flush().map_err(|e| self.writing(&e))
    }

    /// A failure of the copy, which is no fault of the stream.
    fn writing(&self, error: &io::Error) -> io::Error {
        let path = self.path.display();
        io::Error::new(error.kind(), format!("write {path}: {error}"))
    }
}

impl Read for Tee<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.at += n as u64;
        let most = self
            .small
            .max(self.read.get().saturating_mul(256))
            .min(LONGEST);
        if self.at > most {
            return Err(io::Error::other(format!(
                "it unpacks to more than {most} bytes"
            )));
        }
        self.copy
            .write_all(&buf[..n])
            .map_err(|e| self.writing(&e))?;
        Ok(n)
    }
}

struct Counted<'a, R> {
    inner: R,
    read: &'a Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.read.set(self.read.get() + n as u64);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        for (name, expected) in [
            ("./a//b/", Some("a/b")),
            ("/a/../b", Some("b")),
            ("..", None),
            ("a/../../b", None),
            ("", Some("")),
        ] {
            assert_eq!(normal(name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn what_unpacks_without_end_is_stopped() {
        let file = tempfile::tempfile().unwrap();
        let read = Cell::new(10);
        let copied = |small| {
            let mut tee = Tee {
                inner: &mut io::repeat(0).take(100_000),
                copy: BufWriter::new(&file),
                buffer: Vec::new(),
                at: 0,
                small,
                read: &read,
                path: Path::new("copy"),
            };
            tee.pass(99_999)
        };
        assert!(copied(100_000).is_ok());
        let error = copied(1000).unwrap_err().to_string();
        assert_eq!(error, "it unpacks to more than 2560 bytes");
    }
}
