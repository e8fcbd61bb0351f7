//! Writes a recipe while its tar is applied.
//!
//! The tree is complete only at the tar's end: until then a file that is recorded may be replaced, alone or with a directory
//! above it. What is replaced is therefore moved aside instead of deleted, and at the end the recipe is written once more, with
//! its content. Hardly any tar has such files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat, renameat};

use super::super::LayerError;
use super::super::tree::{Directory, join};
use super::rebuild::copy_file;
use super::{CHUNK, END, FileData, MAGIC, Op, Ops, path, write_bytes, write_file};

/// Fast rather than small: a pull waits for it.
const LEVEL: i32 = 1;

pub struct Recorder {
    out: zstd::Encoder<'static, File>,
    path: PathBuf,
    /// Not written yet.
    bytes: Vec<u8>,
    /// Of the data of the file at hand.
    crc: crc32fast::Hasher,
    /// How many have been recorded.
    files: u64,
    aside: Option<Aside>,
}

/// What was recorded and then replaced.
struct Aside {
    dir: OwnedFd,
    path: PathBuf,
    count: u64,
    /// By path: how many files had been recorded when it was moved, and its number in `dir`, in that order.
    moved: BTreeMap<Vec<u8>, Vec<(u64, u64)>>,
}

impl Recorder {
    /// Begins the recipe of the layer that is made in the directory `layer`: a file beside it. One that is there begins anew.
    pub fn create(layer: &Path) -> Result<Recorder, LayerError> {
        let path = path(layer);
        let out = encoder(&path).map_err(failed)?;
        match crate::staging::remove_at(&aside_path(&path)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        Ok(Recorder {
            out,
            path,
            bytes: Vec::with_capacity(CHUNK),
            crc: crc32fast::Hasher::new(),
            files: 0,
            aside: None,
        })
    }

    /// Bytes of the tar that no file has.
    pub fn bytes(&mut self, mut bytes: &[u8]) -> Result<(), LayerError> {
        while !bytes.is_empty() {
            let now = bytes.len().min(CHUNK - self.bytes.len());
            self.bytes.extend_from_slice(&bytes[..now]);
            bytes = &bytes[now..];
            if self.bytes.len() == CHUNK {
                self.flush().map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Data of the file at hand.
    pub fn data(&mut self, data: &[u8]) {
        self.crc.update(data);
    }

    /// The file at hand is done: it had all the data since the one before.
    pub fn file(
        &mut self,
        path: &[u8],
        size: u64,
        pieces: Option<&[(u64, u64)]>,
    ) -> Result<(), LayerError> {
        let crc = std::mem::take(&mut self.crc).finalize();
        if size == 0 {
            return Ok(());
        }
        self.flush().map_err(failed)?;
        let file = FileData {
            path: path.to_vec(),
            size,
            crc,
            pieces: pieces.map(<[_]>::to_vec),
        };
        self.files += 1;
        write_file(&mut self.out, &file).map_err(failed)
    }

    /// Whether something that is being replaced may be wanted for the recipe.
    pub fn wants(&self, stat: &Stat) -> bool {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => true,
            FileType::RegularFile => stat.st_size > 0,
            _ => false,
        }
    }

    /// Takes away what is being replaced.
    pub fn move_aside(&mut self, parent: &Directory, name: &[u8]) -> Result<(), LayerError> {
        let aside = match &mut self.aside {
            Some(aside) => aside,
            empty => empty.insert(Aside::create(&self.path).map_err(failed)?),
        };
        let path = parent.join(name);
        let number = aside.count;
        aside.count += 1;
        renameat(&*parent.fd, name, &aside.dir, number.to_string())
            .map_err(LayerError::place("replace", &path))?;
        let moved = aside.moved.entry(path).or_default();
        moved.push((self.files, number));
        Ok(())
    }

    /// The tar has ended, and with it the recipe.
    pub fn finish(mut self) -> Result<(), LayerError> {
        self.flush().and_then(|()| end(self.out)).map_err(failed)?;
        let Some(aside) = self.aside else {
            return Ok(());
        };
        aside.embed(&self.path).map_err(failed)?;
        crate::staging::remove_at(&aside.path).map_err(failed)
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.bytes.is_empty() {
            write_bytes(&mut self.out, &self.bytes)?;
            self.bytes.clear();
        }
        Ok(())
    }
}

impl Aside {
    fn create(recipe: &Path) -> io::Result<Aside> {
        let path = aside_path(recipe);
        fs::create_dir(&path)?;
        Ok(Aside {
            dir: File::open(&path)?.into(),
            path,
            count: 0,
            moved: BTreeMap::new(),
        })
    }

    /// Writes the recipe anew, with the content of the files that have gone.
    fn embed(&self, recipe: &Path) -> io::Result<()> {
        let mut ops = Ops::open(File::open(recipe)?)?;
        let new = aside_path(recipe).join("recipe");
        let mut out = encoder(&new)?;
        let mut files = 0;
        while let Some(op) = ops.next()? {
            match op {
                Op::Bytes(bytes) => write_bytes(&mut out, &bytes)?,
                Op::File(file) => {
                    match self.find(&file.path, files) {
                        Some(path) => {
                            let gone = FileData { path, ..file };
                            let fault = copy_file(self.dir.as_fd(), &gone, &mut AsBytes(&mut out))?;
                            if let Some(fault) = fault {
                                return Err(io::Error::other(fault));
                            }
                        }
                        None => write_file(&mut out, &file)?,
                    }
                    files += 1;
                }
            }
        }
        end(out)?;
        fs::rename(&new, recipe)
    }

    /// Where the `index`th file is, if it has gone: what was moved first of all that were moved after it was recorded.
    fn find(&self, path: &[u8], index: u64) -> Option<Vec<u8>> {
        let ends = (0..=path.len()).filter(|&end| end == path.len() || path[end] == b'/');
        let moves = ends.filter_map(|end| {
            let moved = self.moved.get(&path[..end])?;
            let first = moved.partition_point(|(files, _)| *files <= index);
            moved.get(first).map(|(_, number)| (*number, end))
        });
        let (number, end) = moves.min()?;
        let rest = path[end..].strip_prefix(b"/").unwrap_or_default();
        let number = number.to_string().into_bytes();
        Some(match rest {
            b"" => number,
            rest => join(&number, rest),
        })
    }
}

fn aside_path(recipe: &Path) -> PathBuf {
    recipe.with_extension("aside")
}

fn encoder(path: &Path) -> io::Result<zstd::Encoder<'static, File>> {
    let mut out = zstd::Encoder::new(File::create(path)?, LEVEL)?;
    out.include_checksum(true)?;
    out.write_all(MAGIC)?;
    Ok(out)
}

fn end(mut out: zstd::Encoder<'static, File>) -> io::Result<()> {
    out.write_all(&[END])?;
    out.finish().map(drop)
}

fn failed(source: io::Error) -> LayerError {
    LayerError::place("write the recipe of", b"")(source)
}

/// What is written becomes bytes of a recipe.
struct AsBytes<'a, W>(&'a mut W);

impl<W: Write> Write for AsBytes<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let now = &bytes[..bytes.len().min(CHUNK)];
        if !now.is_empty() {
            write_bytes(self.0, now)?;
        }
        Ok(now.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
