//! Reads the entries of a layer's tar from a stream: ustar, GNU and PAX, with caps on everything that a hostile tar
//! could make large. Touches no file.
//!
//! The `tar` crate knows the header's fields. Its iterator is not used: it buffers long names and PAX records without
//! bound, and knows no PAX sparse files.

use std::io::Read;

use tar::{EntryType, Header};

use super::numbers::{header_number, header_size, octets};
use super::pax::Pax;
use super::recipe::Recorder;
use super::sparse;
use super::{LayerError, Limits};

pub const BLOCK: u64 = 512;

/// What an entry is, apart from its metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File,
    Symlink,
    HardLink,
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// Names and values of extended attributes.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Seconds and nanoseconds since 1970; the seconds may be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    pub seconds: i64,
    pub nanoseconds: u32,
}

#[derive(Debug)]
pub struct Entry {
    pub path: Vec<u8>,
    /// The target of a link.
    pub link: Vec<u8>,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// The file's size, holes included.
    pub size: u64,
    /// Offset and length of the pieces that the data consists of, where the file has holes.
    pub pieces: Option<Vec<(u64, u64)>>,
    pub xattrs: Xattrs,
}

/// A cursor over the entries of a tar.
pub struct Entries<R> {
    inner: R,
    pub(super) limits: Limits,
    count: u64,
    /// Of the current entry: bytes of data not read yet, then padding.
    pub(super) data: u64,
    pub(super) padding: u64,
    global: Pax,
    /// Hears of all bytes; those of files' data come as data.
    pub(super) recorder: Option<Recorder>,
}

/// What stands before an entry's own header.
#[derive(Default)]
struct Prefix {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

impl<R: Read> Entries<R> {
    pub fn new(inner: R, limits: Limits) -> Self {
        Entries {
            inner,
            limits,
            count: 0,
            data: 0,
            padding: 0,
            global: Pax::default(),
            recorder: None,
        }
    }

    /// The next entry, or `None` at the end. What is unread of the one before is skipped.
    pub fn next(&mut self) -> Result<Option<Entry>, LayerError> {
        let mut prefix = Prefix::default();
        loop {
            self.skip_data()?;
            let Some(header) = self.read_header()? else {
                return Ok(None);
            };
            self.count += 1;
            if self.count > self.limits.entries {
                let most = self.limits.entries;
                return Err(LayerError::malformed(format!("more than {most} entries")));
            }
            let size = header_size(&header.as_old().size)?;
            match header.entry_type() {
                EntryType::GNULongName => prefix.long_name = Some(self.read_name(size)?),
                EntryType::GNULongLink => prefix.long_link = Some(self.read_name(size)?),
                EntryType::XHeader => {
                    let records = self.read_extra(size, self.limits.pax)?;
                    prefix.pax = Some(self.global.overlaid(&records)?);
                }
                EntryType::XGlobalHeader => {
                    let records = self.read_extra(size, self.limits.pax)?;
                    self.global = self.global.overlaid(&records)?;
                }
                // A GNU volume label says nothing about a file.
                EntryType::__Nonexhaustive(b'V') => self.begin_data(size),
                kind => return self.entry(&header, kind, size, prefix).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        kind: EntryType,
        size: u64,
        prefix: Prefix,
    ) -> Result<Entry, LayerError> {
        let pax = prefix.pax.unwrap_or_else(|| self.global.clone());
        let old = header.as_old();
        let path = match (
            pax.sparse.name.as_ref().or(pax.path.as_ref()),
            prefix.long_name,
        ) {
            (Some(path), _) => path.clone(),
            (None, Some(name)) => name,
            (None, None) => header.path_bytes().into_owned(),
        };
        let link = match (&pax.linkpath, prefix.long_link) {
            (Some(link), _) => link.clone(),
            (None, Some(link)) => link,
            (None, None) => header.link_name_bytes().unwrap_or_default().into_owned(),
        };
        let mut entry = Entry {
            kind: entry_kind(header, kind, &path)?,
            mode: (header_number(&old.mode)? & 0o7777) as u32,
            uid: owner(pax.uid, &old.uid, &path)?,
            gid: owner(pax.gid, &old.gid, &path)?,
            mtime: match pax.mtime {
                Some(mtime) => mtime,
                None => Time {
                    seconds: header_number(&old.mtime)?,
                    nanoseconds: 0,
                },
            },
            size: pax.size.unwrap_or(size),
            pieces: None,
            xattrs: pax.xattrs.clone(),
            path,
            link,
        };
        for name in [&entry.path, &entry.link] {
            if name.len() > self.limits.name {
                let shown: String = octets(name).chars().take(64).collect();
                return Err(LayerError::refused(
                    format!("{shown}..."),
                    format!("a name of {} bytes is longer than any path", name.len()),
                ));
            }
        }
        if entry.kind != Kind::File {
            // Links, devices and directories have no data, whatever their size field says (POSIX pax, ustar).
            entry.size = 0;
            return Ok(entry);
        }
        self.begin_data(entry.size);
        if kind == EntryType::GNUSparse {
            sparse::gnu(self, header, &mut entry)?;
        } else if pax.is_sparse() {
            sparse::pax(self, &pax, &mut entry)?;
        }
        Ok(entry)
    }

    /// Passes over the data of the current entry by the stream's own means: `skip` is given the stream and the number of bytes,
    /// padding included.
    pub fn skip_by(
        &mut self,
        skip: impl FnOnce(&mut R, u64) -> std::io::Result<()>,
    ) -> Result<(), LayerError> {
        let rest = std::mem::take(&mut self.data) + std::mem::take(&mut self.padding);
        skip(&mut self.inner, rest).map_err(LayerError::Read)
    }

    pub fn into_inner(self) -> R {
        self.inner
    }

    /// Reads data of the current entry that goes into its file; 0 at its end.
    pub fn read_file(&mut self, buf: &mut [u8]) -> Result<usize, LayerError> {
        let n = self.read(buf)?;
        if let Some(recorder) = &mut self.recorder {
            recorder.data(&buf[..n]);
        }
        Ok(n)
    }

    /// Reads data of the current entry; 0 at its end.
    pub fn read_data(&mut self, buf: &mut [u8]) -> Result<usize, LayerError> {
        let n = self.read(buf)?;
        if let Some(recorder) = &mut self.recorder {
            recorder.bytes(&buf[..n])?;
        }
        Ok(n)
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<usize, LayerError> {
        let most = usize::try_from(self.data)
            .unwrap_or(usize::MAX)
            .min(buf.len());
        if most == 0 {
            return Ok(0);
        }
        let n = self
            .inner
            .read(&mut buf[..most])
            .map_err(LayerError::Read)?;
        if n == 0 {
            return Err(LayerError::malformed("it ends in the middle of a file"));
        }
        self.data -= n as u64;
        Ok(n)
    }

    fn begin_data(&mut self, size: u64) {
        self.data = size;
        self.padding = (BLOCK - size % BLOCK) % BLOCK;
    }

    fn skip_data(&mut self) -> Result<(), LayerError> {
        let mut buf = [0; 4096];
        self.data += std::mem::take(&mut self.padding);
        while self.data > 0 {
            self.read_data(&mut buf)?;
        }
        Ok(())
    }

    /// A block that is no entry's data: a header, or more of one. `None` at the end of the stream.
    pub(super) fn read_block(&mut self) -> Result<Option<[u8; 512]>, LayerError> {
        let mut block = [0; 512];
        let mut filled = 0;
        while filled < block.len() {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(LayerError::malformed("it ends in the middle of a block")),
                Ok(n) => filled += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(LayerError::Read(e)),
            }
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.bytes(&block)?;
        }
        Ok(Some(block))
    }

    fn read_header(&mut self) -> Result<Option<Header>, LayerError> {
        let Some(block) = self.read_block()? else {
            return Ok(None);
        };
        if block.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        // Some old writers summed signed bytes.
        let sums = block.iter().enumerate().map(|(i, &b)| {
            let b = if (148..156).contains(&i) { b' ' } else { b };
            (i64::from(b), i64::from(b as i8))
        });
        let (unsigned, signed) = sums.fold((0, 0), |(a, b), (x, y)| (a + x, b + y));
        let written = header_number(&header.as_old().cksum)
            .map_err(|_| LayerError::malformed("a header has no checksum: this is no tar"))?;
        if written != unsigned && written != signed {
            return Err(LayerError::malformed("the checksum of a header is wrong"));
        }
        Ok(Some(header))
    }

    fn read_name(&mut self, size: u64) -> Result<Vec<u8>, LayerError> {
        // The terminating NUL counts.
        let mut name = self.read_extra(size, self.limits.name as u64 + 1)?;
        if let Some(end) = name.iter().position(|&b| b == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    fn read_extra(&mut self, size: u64, limit: u64) -> Result<Vec<u8>, LayerError> {
        if size > limit {
            return Err(LayerError::malformed(format!(
                "an extended header of {size} bytes is over the limit of {limit}"
            )));
        }
        self.begin_data(size);
        let mut bytes = vec![0; size as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            filled += self.read_data(&mut bytes[filled..])?;
        }
        Ok(bytes)
    }
}

fn entry_kind(header: &Header, kind: EntryType, path: &[u8]) -> Result<Kind, LayerError> {
    let device = || -> Result<(u32, u32), LayerError> {
        let Some(ustar) = header
            .as_ustar()
            .map(|u| (&u.dev_major, &u.dev_minor))
            .or_else(|| header.as_gnu().map(|g| (&g.dev_major, &g.dev_minor)))
        else {
            return Err(LayerError::refused(
                octets(path),
                "a device without numbers",
            ));
        };
        // mknod(2) has 12 bits and 20 bits for them, and cuts off what is more: 4096, 0 would be a whiteout.
        let number = |field: &[u8], bits: u32| {
            let number = u32::try_from(header_number(field)?).ok();
            number
                .filter(|number| number >> bits == 0)
                .ok_or_else(|| LayerError::refused(octets(path), "a device number out of range"))
        };
        Ok((number(ustar.0, 12)?, number(ustar.1, 20)?))
    };
    Ok(match kind {
        // In the oldest format a directory is a file whose name ends in a slash.
        EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Link => Kind::HardLink,
        EntryType::Fifo => Kind::Fifo,
        EntryType::Char => device().map(|(major, minor)| Kind::Char(major, minor))?,
        EntryType::Block => device().map(|(major, minor)| Kind::Block(major, minor))?,
        other => {
            return Err(LayerError::refused(
                octets(path),
                format!("unknown entry type {:?}", char::from(other.as_byte())),
            ));
        }
    })
}

fn owner(pax: Option<u64>, field: &[u8], path: &[u8]) -> Result<u32, LayerError> {
    let id = match pax {
        Some(id) => Some(id),
        None => u64::try_from(header_number(field)?).ok(),
    };
    // 2^32-1 means "leave as it is" to chown(2).
    id.filter(|&id| id < u64::from(u32::MAX))
        .map(|id| id as u32)
        .ok_or_else(|| LayerError::refused(octets(path), "an owner that Linux does not have"))
}
