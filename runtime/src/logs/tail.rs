//! Where the last so many records of a log begin, without reading what comes before them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{Format, local};

/// How much is read at a time.
const BLOCK: u64 = 64 * 1024;

/// The offset of the last `count` records of a file, and how many there are of them.
pub(super) fn start(file: &File, format: Format, count: usize) -> io::Result<(u64, usize)> {
    match format {
        Format::Json => lines(file, count),
        Format::Local => by_lengths(file, count),
    }
}

fn lines(file: &File, count: usize) -> io::Result<(u64, usize)> {
    let size = file.metadata()?.len();
    let (mut end, mut found) = (size, 0);
    let mut block = vec![0; BLOCK as usize];
    while end > 0 {
        let from = end.saturating_sub(BLOCK);
        let block = &mut block[..(end - from) as usize];
        file.read_exact_at(block, from)?;
        for at in (0..block.len()).rev() {
            // A newline ends the record before; what comes after the last is a record that is still being written.
            if block[at] != b'\n' {
                continue;
            }
            if found == count {
                return Ok((from + at as u64 + 1, found));
            }
            found += 1;
        }
        end = from;
    }
    Ok((0, found))
}

fn by_lengths(file: &File, count: usize) -> io::Result<(u64, usize)> {
    let mut at = file.metadata()?.len();
    for found in 0..count {
        let mut number = [0; 4];
        if at < local::AROUND as u64 {
            return Ok((at, found));
        }
        file.read_exact_at(&mut number, at - 4)?;
        match local::length(number).filter(|length| *length as u64 <= at) {
            Some(length) => at -= length as u64,
            None => return Ok((at, found)),
        }
    }
    Ok((at, count))
}
