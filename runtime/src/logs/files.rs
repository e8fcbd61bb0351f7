//! Where a log lies: the file that is written, and those that are full, numbered in the order in which they were: `json.log`,
//! `json.log.7`, `json.log.6.gz`. A rotation is one rename(2), so a kill at any moment leaves whole files; and no file
//! changes its number, so a reader knows what comes next.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::Format;

const COMPRESSED: &str = ".gz";
/// Not a part of the log yet.
const UNFINISHED: &str = ".part";

/// Stack of the thread that compresses; its state is on the heap, and goes with it.
const STACK: usize = 256 * 1024;

/// How large a file grows, and how many are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) max_size: Option<u64>,
    /// The one that is written included.
    pub(super) max_files: usize,
    pub(super) compress: bool,
}

/// The writer's hold on the files.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    file: File,
    pub(super) size: u64,
    limits: Limits,
    compressing: Option<JoinHandle<()>>,
}

impl Files {
    /// Goes on in the file of the last run. What a killed writer has left half done is cut off or taken away.
    pub(super) fn open(path: &Path, format: Format, limits: Limits) -> io::Result<Files> {
        let mut file = open(path)?;
        let size = mend(&mut file, format)?;
        for left in names(path)?.filter(|name| name.ends_with(UNFINISHED)) {
            let _ = fs::remove_file(path.with_file_name(left));
        }
        Ok(Files {
            path: path.to_owned(),
            file,
            size,
            limits,
            compressing: None,
        })
    }

    pub(super) fn is_full(&self, waiting: usize) -> bool {
        let size = self.size + waiting as u64;
        size > 0 && self.limits.max_size.is_some_and(|most| size >= most)
    }

    /// Appends whole records, as many as there is room for; how many bytes of them are left, and why.
    pub(super) fn append(&mut self, bytes: &[u8], format: Format) -> (usize, Option<io::Error>) {
        let mut done = 0;
        while done < bytes.len() {
            match self.file.write(&bytes[done..]) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    let whole = format.whole(&bytes[..done]);
                    self.size += whole as u64;
                    if whole < done {
                        let _ = self.file.set_len(self.size);
                    }
                    return (bytes.len() - whole, Some(e));
                }
            }
        }
        self.size += done as u64;
        (bytes.len() - done, None)
    }

    /// Lays the full file aside and begins another.
    pub(super) fn rotate(&mut self) -> io::Result<()> {
        // One at a time: a second thread would hold its memory too.
        self.finish();
        let rotated = rotated(&self.path)?;
        let number = rotated.last().map_or(1, |last| last + 1);
        let aside = numbered(&self.path, number);
        fs::rename(&self.path, &aside)?;
        match open(&self.path) {
            Ok(file) => self.file = file,
            Err(e) => {
                // Out of inodes, say: better a file that is too large than none.
                let _ = fs::rename(&aside, &self.path);
                return Err(e);
            }
        }
        self.size = 0;
        let kept = self.limits.max_files.saturating_sub(1);
        let all: Vec<u64> = rotated.into_iter().chain([number]).collect();
        for old in &all[..all.len().saturating_sub(kept)] {
            let plain = numbered(&self.path, *old);
            let _ = fs::remove_file(compressed(&plain));
            let _ = fs::remove_file(plain);
        }
        if self.limits.compress && kept > 0 {
            let compress = move || {
                // What cannot be compressed stays as it is.
                let _ = compress(&aside);
            };
            let thread = std::thread::Builder::new().stack_size(STACK);
            self.compressing = thread.spawn(compress).ok();
        }
        Ok(())
    }

    /// Waits for what is being compressed: afterwards this process has no thread of ours.
    pub(super) fn finish(&mut self) {
        if let Some(thread) = self.compressing.take() {
            let _ = thread.join();
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

/// Cuts off a record that a killed writer has not finished; the size that remains. Only the end of the file is looked at.
fn mend(file: &mut File, format: Format) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let kept = match format {
        Format::Json => {
            // More than a record has whose every byte is escaped.
            let from = size.saturating_sub(256 * 1024);
            let mut end = Vec::new();
            file.seek(SeekFrom::Start(from))?;
            file.read_to_end(&mut end)?;
            match format.whole(&end) {
                0 => size,
                whole => from + whole as u64,
            }
        }
        Format::Local => {
            let mut at = 0;
            // By the lengths alone.
            while let Some(length) = local_length(file, at)
                && at + length <= size
            {
                at += length;
            }
            at
        }
    };
    if kept < size {
        file.set_len(kept)?;
    }
    Ok(kept)
}

fn local_length(file: &File, at: u64) -> Option<u64> {
    let mut number = [0; 4];
    file.read_exact_at(&mut number, at).ok()?;
    super::local::length(number).map(|length| length as u64)
}

fn compress(path: &Path) -> io::Result<()> {
    let target = compressed(path);
    let mut unfinished = target.clone().into_os_string();
    unfinished.push(UNFINISHED);
    let unfinished = PathBuf::from(unfinished);
    let mut encoder = GzEncoder::new(open(&unfinished)?, Compression::fast());
    let copied = io::copy(&mut File::open(path)?, &mut encoder).and_then(|_| encoder.finish());
    if let Err(e) = copied {
        let _ = fs::remove_file(&unfinished);
        return Err(e);
    }
    fs::rename(&unfinished, &target)?;
    fs::remove_file(path)
}

pub(super) fn numbered(path: &Path, number: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

pub(super) fn compressed(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(COMPRESSED);
    name.into()
}

/// The numbers of the full files, the oldest first.
pub(super) fn rotated(path: &Path) -> io::Result<Vec<u64>> {
    let own = path.file_name().unwrap_or_default().to_string_lossy();
    let number = |name: String| {
        let rest = name.strip_prefix(&*own)?.strip_prefix('.')?;
        rest.strip_suffix(COMPRESSED)
            .unwrap_or(rest)
            .parse::<u64>()
            .ok()
    };
    let mut numbers: Vec<u64> = names(path)?.filter_map(number).collect();
    numbers.sort_unstable();
    // While it is compressed, a file has two names.
    numbers.dedup();
    Ok(numbers)
}

fn names(path: &Path) -> io::Result<impl Iterator<Item = String>> {
    let own = path.file_name().unwrap_or_default().to_owned();
    let own = own.to_string_lossy().into_owned();
    let entries = fs::read_dir(path.parent().unwrap_or(Path::new("/")))?;
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(move |name| name.starts_with(&own)))
}

/// Device and inode: whether a name still leads to a file that is open.
pub(super) fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}
