//! Maps of sparse files: GNU's old headers, and GNU's three versions within PAX (GNU tar manual, "Sparse Formats").

use std::io::Read;

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::LayerError;
use super::entry::{BLOCK, Entries, Entry};
use super::numbers::{header_size, octets};
use super::pax::{Pax, decimal};

/// More pieces than this are refused: they cost memory before a byte is written.
pub const MAX_PIECES: usize = 1 << 20;

/// Reads the map of an entry of type `S`.
pub fn gnu<R: Read>(
    entries: &mut Entries<R>,
    header: &Header,
    entry: &mut Entry,
) -> Result<(), LayerError> {
    let gnu = header
        .as_gnu()
        .ok_or_else(|| LayerError::malformed("a sparse file without a GNU header"))?;
    let mut pieces = Vec::new();
    let mut add = |list: &[GnuSparseHeader]| -> Result<(), LayerError> {
        for piece in list.iter().filter(|piece| !piece.is_empty()) {
            pieces.push((header_size(&piece.offset)?, header_size(&piece.numbytes)?));
        }
        if pieces.len() > MAX_PIECES {
            return Err(LayerError::malformed("a sparse file of too many pieces"));
        }
        Ok(())
    };
    add(&gnu.sparse)?;
    let mut more = gnu.is_extended();
    while more {
        let block = entries
            .read_block()?
            .ok_or_else(|| LayerError::malformed("it ends in a sparse map"))?;
        let mut extended = GnuExtSparseHeader::new();
        extended.as_mut_bytes().copy_from_slice(&block);
        add(extended.sparse())?;
        more = extended.is_extended();
    }
    let real_size = header_size(&gnu.realsize)?;
    settle(entries, entry, pieces, real_size)
}

/// Reads the map of a sparse file in PAX form; that of version 1.0 stands before the data.
pub fn pax<R: Read>(
    entries: &mut Entries<R>,
    pax: &Pax,
    entry: &mut Entry,
) -> Result<(), LayerError> {
    let real_size = pax
        .sparse
        .real_size
        .ok_or_else(|| LayerError::malformed("a sparse file without a size"))?;
    let numbers = match (&pax.sparse.map, pax.sparse.major) {
        (_, Some(1)) => read_map(entries)?,
        (Some(map), _) => map.clone(),
        (None, _) => pax.sparse.list.clone(),
    };
    if !numbers.len().is_multiple_of(2) {
        return Err(LayerError::malformed("a sparse map with half a piece"));
    }
    let pieces = numbers.chunks_exact(2).map(|p| (p[0], p[1])).collect();
    settle(entries, entry, pieces, real_size)
}

/// Version 1.0: decimal numbers, a line each, the count of pieces first, filled up to a block.
fn read_map<R: Read>(entries: &mut Entries<R>) -> Result<Vec<u64>, LayerError> {
    let mut read = 0_u64;
    let mut line = Vec::new();
    let mut next = |entries: &mut Entries<R>| -> Result<u64, LayerError> {
        line.clear();
        loop {
            let mut byte = [0];
            if entries.read_data(&mut byte)? == 0 || line.len() > 20 {
                return Err(LayerError::malformed("a bad sparse map"));
            }
            read += 1;
            match byte[0] {
                b'\n' => return decimal(&line),
                digit => line.push(digit),
            }
        }
    };
    let count = next(entries)?;
    if count > MAX_PIECES as u64 {
        return Err(LayerError::malformed("a sparse file of too many pieces"));
    }
    let numbers = (0..count * 2)
        .map(|_| next(entries))
        .collect::<Result<_, _>>()?;
    let mut fill = vec![0; ((BLOCK - read % BLOCK) % BLOCK) as usize];
    let mut filled = 0;
    while filled < fill.len() {
        match entries.read_data(&mut fill[filled..])? {
            0 => return Err(LayerError::malformed("a bad sparse map")),
            n => filled += n,
        }
    }
    Ok(numbers)
}

/// The pieces must ascend, stay inside the file, and be exactly the data that follows.
fn settle<R: Read>(
    entries: &Entries<R>,
    entry: &mut Entry,
    pieces: Vec<(u64, u64)>,
    real_size: u64,
) -> Result<(), LayerError> {
    let mut end = 0_u64;
    let mut data = 0_u64;
    for &(offset, length) in &pieces {
        let next = offset.checked_add(length).filter(|&next| next <= real_size);
        match next {
            Some(next) if offset >= end => end = next,
            _ => {
                return Err(LayerError::refused(
                    octets(&entry.path),
                    "a sparse map that does not fit the file",
                ));
            }
        }
        data += length;
    }
    if data != entries.data {
        return Err(LayerError::refused(
            octets(&entry.path),
            "a sparse map that does not fit the data",
        ));
    }
    entry.size = real_size;
    entry.pieces = Some(pieces);
    Ok(())
}
