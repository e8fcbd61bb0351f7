//! A record of the driver `local`: its length, the stream, the time, the bytes as they were, and the length again, by which
//! `--tail` goes backwards. Numbers are little endian: four bytes for a length, eight for nanoseconds since 1970.

use std::borrow::Cow;

use super::{Entry, Found, Stamp, Stream, Time};

/// The stream and the time.
const HEAD: usize = 9;
const LENGTH: usize = 4;
/// Of a record without its text.
pub(super) const AROUND: usize = 2 * LENGTH + HEAD;
/// More than any record has: a larger number is no length.
const LONGEST: usize = 1 << 20;

pub(super) fn append(to: &mut Vec<u8>, stream: Stream, stamp: Stamp, bytes: &[u8]) {
    let length = u32::try_from(HEAD + bytes.len()).unwrap_or(u32::MAX);
    to.extend_from_slice(&length.to_le_bytes());
    to.push(match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    });
    to.extend_from_slice(&stamp.0.to_le_bytes());
    to.extend_from_slice(bytes);
    to.extend_from_slice(&length.to_le_bytes());
}

/// The length of a whole record, from the number before or after it.
pub(super) fn length(number: [u8; LENGTH]) -> Option<usize> {
    let body = usize::try_from(u32::from_le_bytes(number)).ok()?;
    (HEAD..LONGEST).contains(&body).then_some(body + 2 * LENGTH)
}

pub(super) fn first(buffer: &[u8]) -> Found<'_> {
    let Some(number) = buffer.first_chunk::<LENGTH>() else {
        return Found::Part;
    };
    let Some(length) = length(*number) else {
        // Nothing that follows can be found any more.
        return Found::Record(buffer.len(), None);
    };
    let Some(record) = buffer.get(..length) else {
        return Found::Part;
    };
    if record[length - LENGTH..] != *number {
        return Found::Record(buffer.len(), None);
    }
    let mut nanoseconds = [0; 8];
    nanoseconds.copy_from_slice(&record[LENGTH + 1..LENGTH + HEAD]);
    Found::Record(
        length,
        Some(Entry {
            stream: match record[LENGTH] {
                2 => Stream::Stderr,
                _ => Stream::Stdout,
            },
            time: Time::Read(Stamp(i64::from_le_bytes(nanoseconds))),
            bytes: Cow::Borrowed(&record[LENGTH + HEAD..length - LENGTH]),
            attributes: Vec::new(),
        }),
    )
}

pub(super) fn whole(written: &[u8]) -> usize {
    let mut at = 0;
    while let Found::Record(length, Some(_)) = first(&written[at..]) {
        at += length;
    }
    at
}
