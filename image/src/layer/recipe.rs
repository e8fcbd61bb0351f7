//! What a layer's tree does not tell of the tar that it came from, so that the same tar can be made again: a recipe.
//!
//! A Zstandard stream of operations, in the tar's order: bytes as they are (headers, extended headers, padding, what follows
//! the archive's end, the data of what is in no tree), and files of the tree whose content comes next. The content of a file
//! that the same tar replaces later is among the bytes (`record.rs`). Here is the form; `rebuild.rs` makes the tar.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

pub mod rebuild;
pub mod record;

pub use rebuild::rebuild;
pub use record::Recorder;

/// What a recipe's name has after its layer's.
pub const SUFFIX: &str = ".recipe";

/// The first bytes, unpacked; the digit is the version of the form.
const MAGIC: &[u8] = b"coracle recipe 1\n";
/// Bytes come in pieces of at most this.
const CHUNK: usize = 64 << 10;
/// As many as the applier takes (`sparse.rs`), and paths as deep as it makes.
const MAX_PIECES: u64 = 1 << 20;
const MAX_PATH: u64 = 1 << 20;

const END: u8 = 0;
const BYTES: u8 = 1;
const FILE: u8 = 2;

/// Where the recipe of the layer in a directory is.
pub fn path(layer: &Path) -> PathBuf {
    let mut path = layer.as_os_str().to_owned();
    path.push(SUFFIX);
    path.into()
}

/// A file of the tree whose content is in the tar.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileData {
    /// Its directories as they really are, without symlinks.
    pub path: Vec<u8>,
    /// Bytes of the file, holes included.
    pub size: u64,
    /// CRC-32 of what is in the tar: the digest of the whole does not say which file has changed.
    pub crc: u32,
    /// Offset and length of what is in the tar; `None` if the whole file is.
    pub pieces: Option<Vec<(u64, u64)>>,
}

/// One step of making the tar.
#[derive(Debug, PartialEq, Eq)]
pub enum Op {
    Bytes(Vec<u8>),
    File(FileData),
}

fn write_number(out: &mut impl Write, mut number: u64) -> io::Result<()> {
    // LEB128: seven bits a byte, the lowest first.
    while number >= 0x80 {
        out.write_all(&[number as u8 | 0x80])?;
        number >>= 7;
    }
    out.write_all(&[number as u8])
}

fn write_bytes(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(&[BYTES])?;
    write_number(out, bytes.len() as u64)?;
    out.write_all(bytes)
}

fn write_file(out: &mut impl Write, file: &FileData) -> io::Result<()> {
    // In one piece: the encoder has a price for each call.
    let mut op = vec![FILE];
    write_number(&mut op, file.path.len() as u64)?;
    op.extend_from_slice(&file.path);
    write_number(&mut op, file.size)?;
    op.extend_from_slice(&file.crc.to_le_bytes());
    let pieces = file.pieces.as_deref();
    write_number(&mut op, pieces.map_or(0, |pieces| pieces.len() as u64 + 1))?;
    for (offset, length) in pieces.unwrap_or_default() {
        write_number(&mut op, *offset)?;
        write_number(&mut op, *length)?;
    }
    out.write_all(&op)
}

/// The operations of a recipe, one after the other. Any error means that the recipe is damaged, or cannot be read.
pub struct Ops {
    input: BufReader<zstd::Decoder<'static, BufReader<File>>>,
}

impl Ops {
    pub fn open(recipe: File) -> io::Result<Ops> {
        let mut input = BufReader::with_capacity(CHUNK, zstd::Decoder::new(recipe)?);
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic)?;
        match magic == MAGIC {
            true => Ok(Ops { input }),
            false => Err(damaged("it does not begin as a recipe of this version")),
        }
    }

    /// `None` at the end.
    pub fn next(&mut self) -> io::Result<Option<Op>> {
        match self.byte()? {
            END => Ok(None),
            BYTES => {
                let length = self.number(CHUNK as u64)?;
                self.bytes(length).map(|bytes| Some(Op::Bytes(bytes)))
            }
            FILE => self.file().map(|file| Some(Op::File(file))),
            _ => Err(damaged("an unknown operation")),
        }
    }

    fn file(&mut self) -> io::Result<FileData> {
        let length = self.number(MAX_PATH)?;
        let path = self.bytes(length)?;
        let size = self.number(i64::MAX as u64)?;
        let mut crc = [0; 4];
        self.input.read_exact(&mut crc)?;
        let count = self.number(MAX_PIECES + 1)?;
        let pieces = (1..count).map(|_| {
            let offset = self.number(size)?;
            Ok((offset, self.number(size - offset)?))
        });
        let pieces: Vec<_> = pieces.collect::<io::Result<_>>()?;
        Ok(FileData {
            path,
            size,
            crc: u32::from_le_bytes(crc),
            pieces: (count > 0).then_some(pieces),
        })
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.input.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn bytes(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length as usize];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn number(&mut self, most: u64) -> io::Result<u64> {
        let mut number = 0_u64;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return match number <= most {
                    true => Ok(number),
                    false => Err(damaged("a number out of range")),
                };
            }
        }
        Err(damaged("a number out of range"))
    }
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests;
