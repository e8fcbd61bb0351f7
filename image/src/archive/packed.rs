//! How a stream is packed, told by its first bytes.

use std::io::{Cursor, Read};

use crate::error::Error;
use crate::plain::plain;
use crate::registry::manifest::Compression;

/// As many bytes as the longest magic number has.
pub const HEAD: usize = 6;

/// What the first bytes say. What is packed in another way than the three that images use is refused with what to do.
pub fn compression(head: &[u8]) -> Result<Compression, Error> {
    match head {
        [] => Err(refuse("it is empty")),
        [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Compression::Zstd),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] | [0xfd, b'7', b'z', b'X', b'Z', 0] => Err(refuse(
            "it is packed with bzip2 or xz: unpack it first and pipe the tar in",
        )),
        _ => Ok(Compression::None),
    }
}

/// The plain tar, whichever way it is packed.
pub fn open<'a>(tar: &'a mut dyn Read) -> Result<Box<dyn Read + 'a>, Error> {
    let mut head = Vec::new();
    let begun = tar.take(HEAD as u64).read_to_end(&mut head);
    begun.map_err(Error::io("read the archive", "-"))?;
    let compression = compression(&head)?;
    plain(Cursor::new(head).chain(tar), compression).map_err(Error::io("read the archive", "-"))
}

fn refuse(why: &str) -> Error {
    Error::InvalidArgument {
        what: "archive",
        value: "-".to_owned(),
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell() {
        assert!(matches!(
            compression(b"\x1f\x8b\x08"),
            Ok(Compression::Gzip)
        ));
        assert!(matches!(
            compression(b"\x28\xb5\x2f\xfd"),
            Ok(Compression::Zstd)
        ));
        assert!(matches!(compression(b"manife"), Ok(Compression::None)));
        for other in [&b""[..], b"BZh91A", b"\xfd7zXZ\0"] {
            assert!(compression(other).is_err());
        }
    }
}
