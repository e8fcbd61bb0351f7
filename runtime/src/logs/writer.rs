//! The writing side of a log.

use std::io;
use std::path::Path;

use super::files::Files;
use super::{Format, LONGEST_PIECE, Now, Options, Stream, json, scan};

/// Records are written out together, and at once when there are so many bytes of them.
const BATCH: usize = 128 * 1024;

/// Holds at most one unfinished line for each stream.
#[derive(Debug)]
pub struct Writer {
    format: Format,
    files: Files,
    /// What each record carries beside its text.
    suffix: Vec<u8>,
    unfinished: [Vec<u8>; 2],
    batch: Vec<u8>,
    records: u64,
    /// What could not be written since something last could: records, bytes, and why.
    dropped: Option<(u64, u64, io::Error)>,
}

impl Writer {
    /// Opens the log in a container's storage for appending: a restarted container goes on in the same file. `None` where
    /// there is to be no log.
    pub fn open(
        storage: &Path,
        options: &Options,
        attributes: &[(String, String)],
    ) -> io::Result<Option<Writer>> {
        let Some(format) = options.format else {
            return Ok(None);
        };
        let path = storage.join(format.file_name());
        Ok(Some(Writer {
            format,
            files: Files::open(&path, format, options.limits)?,
            suffix: match format {
                Format::Json => json::suffix(attributes),
                Format::Local => Vec::new(),
            },
            unfinished: [Vec::new(), Vec::new()],
            batch: Vec::new(),
            records: 0,
            dropped: None,
        }))
    }

    /// Takes what the container wrote; whole lines go to the file.
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let now = Now::read();
        let mut from = 0;
        while from < bytes.len() {
            let to = scan::newline(bytes, from);
            let ended = to < bytes.len();
            let piece = &bytes[from..to + usize::from(ended)];
            self.take(stream, &now, piece, ended);
            from += piece.len();
        }
        self.flush();
    }

    /// Writes out lines that never got their newline. Afterwards this process has no thread of the log's.
    pub fn finish(&mut self) {
        let now = Now::read();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(&mut self.unfinished[stream as usize]);
            if !rest.is_empty() {
                self.push(stream, &now, &rest);
            }
        }
        self.flush();
        self.files.finish();
    }

    /// A piece of a line, or its end.
    fn take(&mut self, stream: Stream, now: &Now, piece: &[u8], ended: bool) {
        let slot = stream as usize;
        if ended && self.unfinished[slot].is_empty() && piece.len() <= LONGEST_PIECE {
            return self.push(stream, now, piece);
        }
        let mut line = std::mem::take(&mut self.unfinished[slot]);
        line.extend_from_slice(piece);
        let mut from = 0;
        while line.len() - from > LONGEST_PIECE {
            let to = from + cut(&line[from..]);
            self.push(stream, now, &line[from..to]);
            from = to;
        }
        if ended {
            self.push(stream, now, &line[from..]);
            from = line.len();
        }
        line.drain(..from);
        line.shrink_to(LONGEST_PIECE);
        self.unfinished[slot] = line;
    }

    fn push(&mut self, stream: Stream, now: &Now, bytes: &[u8]) {
        if self.files.is_full(self.batch.len()) {
            self.flush();
            if let Err(e) = self.files.rotate() {
                eprintln!("cannot rotate the log: {e}");
            }
        }
        self.format
            .append(&mut self.batch, stream, now, &self.suffix, bytes);
        self.records += 1;
        if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if self.tell_of_drops() {
            let (left, error) = self.files.append(&self.batch, self.format);
            if let Some(error) = error {
                let written = self.batch.len() - left;
                let records = self.count(written);
                self.dropped = Some((self.records - records, left as u64, error));
            }
        } else if let Some((records, bytes, _)) = &mut self.dropped {
            *records += self.records;
            *bytes += self.batch.len() as u64;
        }
        self.batch.clear();
        self.records = 0;
        // One long record must not keep its memory for the life of the container.
        self.batch.shrink_to(BATCH + LONGEST_PIECE);
    }

    /// Says in the log what is missing from it, once there is room again; false as long as there is none.
    fn tell_of_drops(&mut self) -> bool {
        let Some((records, bytes, error)) = &self.dropped else {
            return true;
        };
        let text = format!(
            "coracle: {records} lines ({bytes} bytes of log) are missing here, they could not be written: {}\n",
            error.to_string().split(" (os").next().unwrap_or_default()
        );
        let mut note = Vec::new();
        self.format.append(
            &mut note,
            Stream::Stderr,
            &Now::read(),
            &self.suffix,
            text.as_bytes(),
        );
        if self.files.append(&note, self.format).1.is_some() {
            return false;
        }
        self.dropped = None;
        true
    }

    /// How many records the first so many bytes of the batch are.
    fn count(&self, bytes: usize) -> u64 {
        let (mut at, mut count) = (0, 0);
        while at < bytes {
            let super::Found::Record(length, _) = self.format.first(&self.batch[at..bytes]) else {
                break;
            };
            at += length;
            count += 1;
        }
        count
    }
}

/// Where to cut a line that is too long: not within a character, if it is one.
fn cut(line: &[u8]) -> usize {
    let continues = |at: usize| line[at] & 0b1100_0000 == 0b1000_0000;
    (LONGEST_PIECE - 3..=LONGEST_PIECE)
        .rev()
        .find(|at| !continues(*at))
        .unwrap_or(LONGEST_PIECE)
}
