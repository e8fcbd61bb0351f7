//! What is inside of a compressed stream.

mod gzip;

use std::io::{self, BufReader, Read};

use crate::registry::manifest::Compression;

/// Bytes of compressed input at a time. With each the decoder saves its window of 32 KiB.
const INPUT: usize = 256 << 10;

/// Unpacks a stream of one or more members or frames.
pub fn plain<'a>(
    packed: impl Read + 'a,
    compression: Compression,
) -> io::Result<Box<dyn Read + 'a>> {
    let packed = BufReader::with_capacity(INPUT, packed);
    Ok(match compression {
        Compression::None => Box::new(packed),
        Compression::Gzip => Box::new(gzip::Decoder::new(packed)),
        // With a window of at most 128 MiB, the library's default limit.
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(packed)?),
    })
}
