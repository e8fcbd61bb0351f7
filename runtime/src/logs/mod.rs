//! A container's log: written by its monitor, read by `logs`.
//!
//! `options` says what was asked for, `json` and `local` are the two formats of a record, `files` is where they lie and how
//! they are rotated, `writer` and `reader` the two sides. The writer must never stop a container: what cannot be written is
//! counted and dropped. Readers and the writer know nothing of each other but the files.

mod files;
mod json;
mod local;
mod options;
mod reader;
mod scan;
mod stamp;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

use std::borrow::Cow;

pub use options::{Options, attributes, check};
pub use reader::{Wanted, read};
use stamp::Now;
pub use stamp::Stamp;
pub use writer::Writer;

/// A line longer than this is written in pieces, all but the last without a newline, as Docker does.
const LONGEST_PIECE: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// How records are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Docker's json-file.
    Json,
    /// Our own: the bytes as they are, between two lengths.
    Local,
}

/// One record as it is read.
#[derive(Debug, PartialEq, Eq)]
struct Entry<'a> {
    stream: Stream,
    time: Time<'a>,
    bytes: Cow<'a, [u8]>,
    /// Names and values, sorted.
    attributes: Vec<(String, String)>,
}

/// Read only where somebody asks: it costs more than the rest of a record.
#[derive(Debug, PartialEq, Eq)]
enum Time<'a> {
    Read(Stamp),
    Written(&'a [u8]),
}

impl Time<'_> {
    /// What is no time counts as the earliest.
    fn stamp(&self) -> Stamp {
        match self {
            Time::Read(stamp) => *stamp,
            Time::Written(text) => std::str::from_utf8(text)
                .ok()
                .and_then(Stamp::parse)
                .unwrap_or(Stamp(0)),
        }
    }
}

/// What begins a buffer.
enum Found<'a> {
    /// A record of so many bytes; `None`: it cannot be read, as after a power loss.
    Record(usize, Option<Entry<'a>>),
    /// Its end has not been read yet.
    Part,
}

impl Format {
    /// In a container's storage.
    pub fn file_name(self) -> &'static str {
        match self {
            Format::Json => "json.log",
            Format::Local => "local.log",
        }
    }

    fn append(self, to: &mut Vec<u8>, stream: Stream, now: &Now, suffix: &[u8], bytes: &[u8]) {
        match self {
            Format::Json => json::append(to, stream, &now.text, suffix, bytes),
            Format::Local => local::append(to, stream, now.stamp, bytes),
        }
    }

    /// The record that `buffer` begins with.
    fn first(self, buffer: &[u8]) -> Found<'_> {
        match self {
            Format::Json => json::first(buffer),
            Format::Local => local::first(buffer),
        }
    }

    /// How many bytes of `written`, which begins with a record, are whole records.
    fn whole(self, written: &[u8]) -> usize {
        match self {
            Format::Json => json::whole(written),
            Format::Local => local::whole(written),
        }
    }
}
