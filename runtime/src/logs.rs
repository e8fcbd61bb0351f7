//! A container's log in Docker's json-file format: written by its monitor, read by `logs`.
//!
//! One JSON object a line: `{"log":"text\n","stream":"stdout","time":"RFC 3339"}`. The writer must never stop a
//! container: what cannot be written is counted and dropped.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::engine::LogOptions;

/// A line longer than this is written in pieces, all but the last without a newline, as Docker does.
const LONGEST_PIECE: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    Stdout,
    Stderr,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    log: String,
    stream: Stream,
    time: String,
}

/// The writing side. Holds at most one unfinished line for each stream.
#[derive(Debug)]
pub struct Writer {
    file: File,
    unfinished: [Vec<u8>; 2],
    batch: Vec<u8>,
    /// Bytes of log that could not be written (a full disk).
    pub dropped: u64,
}

impl Writer {
    /// Opens the log for appending: a restarted container goes on in the same file.
    pub fn open(path: &Path) -> io::Result<Writer> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(path)?;
        Ok(Writer {
            file,
            unfinished: [Vec::new(), Vec::new()],
            batch: Vec::new(),
            dropped: 0,
        })
    }

    /// Takes what the container wrote; whole lines go to the file in one write.
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let slot = stream as usize;
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            self.unfinished[slot].extend_from_slice(piece);
            while self.unfinished[slot].len() > LONGEST_PIECE {
                let rest = self.unfinished[slot].split_off(LONGEST_PIECE);
                self.push(stream);
                self.unfinished[slot] = rest;
            }
            if piece.ends_with(b"\n") {
                self.push(stream);
            }
        }
        self.flush();
    }

    /// Writes out lines that never got their newline.
    pub fn finish(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !self.unfinished[stream as usize].is_empty() {
                self.push(stream);
            }
        }
        self.flush();
    }

    fn push(&mut self, stream: Stream) {
        let entry = Entry {
            log: String::from_utf8_lossy(&self.unfinished[stream as usize]).into_owned(),
            stream,
            time: OffsetDateTime::now_utc()
                .format(&Rfc3339)
                .unwrap_or_default(),
        };
        self.unfinished[stream as usize].clear();
        // Serialising into memory fails only for maps with odd keys; an entry has none.
        if serde_json::to_writer(&mut self.batch, &entry).is_ok() {
            self.batch.push(b'\n');
        }
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if self.file.write_all(&self.batch).is_err() {
            self.dropped += self.batch.len() as u64;
        }
        self.batch.clear();
        // One long burst must not keep its memory for the life of the container.
        self.batch.shrink_to(2 * LONGEST_PIECE);
    }
}

/// Prints a log. With `follow`, until `ended` becomes readable (the descriptor of the container's monitor).
pub fn read(
    path: &Path,
    options: &LogOptions,
    ended: Option<&OwnedFd>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    let mut reader = LineReader {
        reader: BufReader::new(file),
        partial: Vec::new(),
    };
    let watch = match ended {
        Some(ended) if options.follow => Some((watch(path)?, ended)),
        _ => None,
    };
    let mut printer = Printer {
        timestamps: options.timestamps,
        out,
        err,
    };
    match options.tail {
        None => reader.each(|line| printer.print(line))?,
        Some(count) => {
            let mut last: VecDeque<Vec<u8>> = VecDeque::new();
            reader.each(|line| {
                last.push_back(line.to_vec());
                if last.len() > count {
                    last.pop_front();
                }
                Ok(())
            })?;
            last.iter().try_for_each(|line| printer.print(line))?;
        }
    }
    printer.flush()?;
    let Some((inotify, ended)) = watch else {
        return Ok(());
    };
    loop {
        let over = wait(&inotify, ended)?;
        // After the end everything is in the file: one last look is enough.
        reader.each(|line| printer.print(line))?;
        printer.flush()?;
        if over {
            return Ok(());
        }
    }
}

fn watch(path: &Path) -> io::Result<OwnedFd> {
    let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    inotify::add_watch(&inotify, path, inotify::WatchFlags::MODIFY)?;
    Ok(inotify)
}

/// Waits for more of the log or for the end; true at the end.
fn wait(inotify: &OwnedFd, ended: &OwnedFd) -> io::Result<bool> {
    let mut fds = [
        PollFd::new(inotify, PollFlags::IN),
        PollFd::new(ended, PollFlags::IN),
    ];
    match poll(&mut fds, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    let over = !fds[1].revents().is_empty();
    let mut events = [0u8; 4096];
    while matches!(rustix::io::read(inotify, &mut events), Ok(n) if n > 0) {}
    Ok(over)
}

/// Whole lines of a growing file: a line that is still being written is kept for the next look.
struct LineReader {
    reader: BufReader<File>,
    partial: Vec<u8>,
}

impl LineReader {
    fn each(&mut self, mut f: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        loop {
            if self.reader.read_until(b'\n', &mut self.partial)? == 0 {
                return Ok(());
            }
            if self.partial.ends_with(b"\n") {
                f(&self.partial)?;
                self.partial.clear();
            }
        }
    }
}

struct Printer<'a> {
    timestamps: bool,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
}

impl Printer<'_> {
    fn print(&mut self, line: &[u8]) -> io::Result<()> {
        // A line torn by a power loss is skipped: the lines around it are whole.
        let Ok(entry) = serde_json::from_slice::<Entry>(line) else {
            return Ok(());
        };
        let to = match entry.stream {
            Stream::Stdout => &mut self.out,
            Stream::Stderr => &mut self.err,
        };
        if self.timestamps {
            write!(to, "{} ", entry.time)?;
        }
        to.write_all(entry.log.as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.err.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(path: &Path, options: &LogOptions) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        read(path, options, None, &mut out, &mut err).unwrap();
        (
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        )
    }

    #[test]
    fn lines_come_back_in_order_on_their_own_streams() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut writer = Writer::open(&path).unwrap();
        writer.write(Stream::Stdout, b"one\ntw");
        writer.write(Stream::Stderr, b"oops\n");
        writer.write(Stream::Stdout, b"o\nthree");
        writer.finish();
        assert_eq!(
            printed(&path, &LogOptions::default()),
            ("one\ntwo\nthree".into(), "oops\n".into())
        );
        let tail = LogOptions {
            tail: Some(1),
            ..Default::default()
        };
        assert_eq!(printed(&path, &tail), ("three".into(), String::new()));
        let none = LogOptions {
            tail: Some(0),
            ..Default::default()
        };
        assert_eq!(printed(&path, &none), (String::new(), String::new()));
    }

    #[test]
    fn a_line_without_end_is_written_in_pieces_and_read_as_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let long = "x".repeat(3 * LONGEST_PIECE + 5);
        let mut writer = Writer::open(&path).unwrap();
        writer.write(Stream::Stdout, long.as_bytes());
        writer.finish();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 4);
        assert_eq!(printed(&path, &LogOptions::default()).0, long);
    }

    #[test]
    fn a_full_disk_is_counted_and_stops_nothing() {
        let mut writer = Writer::open(Path::new("/dev/full")).unwrap();
        writer.write(Stream::Stdout, b"lost\n");
        assert!(writer.dropped > 0);
    }

    #[test]
    fn following_ends_when_the_writer_has_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut writer = Writer::open(&path).unwrap();
        writer.write(Stream::Stdout, b"before\n");
        let (ended, alive) = std::io::pipe().unwrap();
        let follower = std::thread::spawn({
            let path = path.clone();
            move || {
                let options = LogOptions {
                    follow: true,
                    ..Default::default()
                };
                let (mut out, mut err) = (Vec::new(), Vec::new());
                read(&path, &options, Some(&ended.into()), &mut out, &mut err).unwrap();
                String::from_utf8(out).unwrap()
            }
        });
        writer.write(Stream::Stdout, b"after\n");
        drop(alive);
        assert_eq!(follower.join().unwrap(), "before\nafter\n");
    }
}
