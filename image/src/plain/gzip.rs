//! The members of a gzip stream (RFC 1952), around flate2's inflating.
//!
//! flate2's own reader takes the checksum from its inflating crate, whose CRC-32 is not inlined and cost a twelfth of a pull;
//! crc32fast is some ten times as fast. So the frame, a header and eight bytes at the end, is read here.

use std::io::{self, BufRead, Read};

use crc32fast::Hasher;
use flate2::{Decompress, FlushDecompress, Status};

const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];

/// Flags of a header: what follows its ten bytes, in this order but for the last two.
const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;
const CHECKSUM: u8 = 2;

/// Bytes of a name or a comment. Nothing is done with them.
const MAX_TEXT: u64 = 64 << 10;

/// Reads one member after the other, until the input ends behind one.
pub struct Decoder<R> {
    packed: R,
    inflate: Decompress,
    place: Place,
    checksum: Hasher,
    /// Bytes of this member so far.
    length: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The input may not end here: a stream has at least one member.
    Start,
    Inside,
    Between,
}

impl<R: BufRead> Decoder<R> {
    pub fn new(packed: R) -> Self {
        Decoder {
            packed,
            inflate: Decompress::new(false),
            place: Place::Start,
            checksum: Hasher::new(),
            length: 0,
        }
    }

    /// The header of a member; `false` if there is none left.
    fn begin(&mut self) -> io::Result<bool> {
        if self.place == Place::Between && self.packed.fill_buf()?.is_empty() {
            return Ok(false);
        }
        read_header(&mut self.packed)?;
        self.inflate.reset(false);
        self.checksum.reset();
        self.length = 0;
        self.place = Place::Inside;
        Ok(true)
    }

    /// The checksum and the length, modulo 2^32, at the end of a member.
    fn end(&mut self) -> io::Result<()> {
        let mut trailer = [0; 8];
        self.packed.read_exact(&mut trailer)?;
        let [a, b, c, d, e, f, g, h] = trailer;
        let checksum = u32::from_le_bytes([a, b, c, d]);
        let length = u32::from_le_bytes([e, f, g, h]);
        if checksum != self.checksum.clone().finalize() || length != self.length as u32 {
            return Err(invalid("the checksum of the gzip stream is wrong"));
        }
        self.place = Place::Between;
        Ok(())
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            if self.place != Place::Inside && !self.begin()? {
                return Ok(0);
            }
            let packed = self.packed.fill_buf()?;
            let ended = packed.is_empty();
            let (taken, made) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(packed, buf, FlushDecompress::None)
                .map_err(|_| invalid("corrupt deflate stream"))?;
            let taken = (self.inflate.total_in() - taken) as usize;
            let made = (self.inflate.total_out() - made) as usize;
            self.packed.consume(taken);
            self.checksum.update(&buf[..made]);
            self.length += made as u64;
            if status == Status::StreamEnd {
                self.end()?;
            } else if made == 0 && ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            } else if made == 0 && taken == 0 {
                return Err(invalid("corrupt deflate stream"));
            }
            if made > 0 {
                return Ok(made);
            }
        }
    }
}

fn read_header(packed: &mut impl BufRead) -> io::Result<()> {
    let mut packed = Summed {
        inner: packed,
        checksum: Hasher::new(),
    };
    let fixed: [u8; 10] = packed.bytes()?;
    if fixed[..3] != MAGIC {
        return Err(invalid("invalid gzip header"));
    }
    let flags = fixed[3];
    if flags & EXTRA != 0 {
        let length = u16::from_le_bytes(packed.bytes()?);
        packed.skip(length.into())?;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            packed.skip_text()?;
        }
    }
    if flags & CHECKSUM != 0 {
        let computed = packed.checksum.clone().finalize() as u16;
        if u16::from_le_bytes(packed.bytes()?) != computed {
            return Err(invalid("the checksum of the gzip header is wrong"));
        }
    }
    Ok(())
}

/// A header on its way, with its checksum.
struct Summed<'a, R> {
    inner: &'a mut R,
    checksum: Hasher,
}

impl<R: BufRead> Summed<'_, R> {
    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        self.checksum.update(&bytes);
        Ok(bytes)
    }

    fn skip(&mut self, length: usize) -> io::Result<()> {
        let mut bytes = vec![0; length];
        self.inner.read_exact(&mut bytes)?;
        self.checksum.update(&bytes);
        Ok(())
    }

    /// With the zero at its end.
    fn skip_text(&mut self) -> io::Result<()> {
        let mut text = Vec::new();
        let mut limited = Read::take(&mut *self.inner, MAX_TEXT);
        limited.read_until(0, &mut text)?;
        if text.last() != Some(&0) {
            return Err(match text.len() as u64 {
                MAX_TEXT => invalid("a name in the gzip header is too long"),
                _ => io::ErrorKind::UnexpectedEof.into(),
            });
        }
        self.checksum.update(&text);
        Ok(())
    }
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write};

    use flate2::{Compression, GzBuilder};

    use super::*;

    /// Text that packs to some blocks, with long matches and none.
    fn text(length: usize) -> Vec<u8> {
        let byte = |i: usize| (i.wrapping_mul(i / 7 + 1) >> (i / 4096 % 5)) as u8;
        (0..length).map(byte).collect()
    }

    fn pack(builder: GzBuilder, plain: &[u8]) -> Vec<u8> {
        let mut packed = builder.write(Vec::new(), Compression::new(6));
        packed.write_all(plain).unwrap();
        packed.finish().unwrap()
    }

    /// With buffers that cut the stream everywhere.
    fn unpack(packed: &[u8], capacity: usize) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        Decoder::new(BufReader::with_capacity(capacity, packed)).read_to_end(&mut plain)?;
        Ok(plain)
    }

    fn refusal(packed: &[u8]) -> (io::ErrorKind, String) {
        let error = unpack(packed, 64).unwrap_err();
        (error.kind(), error.to_string())
    }

    #[test]
    fn members_follow_each_other_with_all_that_a_header_may_have() {
        let all = GzBuilder::new()
            .extra(vec![7; 300])
            .filename("a layer")
            .comment("for a test")
            .mtime(5);
        let (long, short) = (text(300_000), text(10));
        let mut packed = pack(all, &long);
        packed.extend(pack(GzBuilder::new(), b""));
        packed.extend(pack(GzBuilder::new().filename("x"), &short));
        let plain = [&long[..], &short].concat();
        for capacity in [1, 3, 64, 1 << 20] {
            assert!(unpack(&packed, capacity).unwrap() == plain, "{capacity}");
        }
    }

    #[test]
    fn a_header_with_a_checksum_is_held_against_it() {
        let plain = pack(GzBuilder::new(), b"data");
        let mut fixed = plain[..10].to_vec();
        fixed[3] |= CHECKSUM;
        let checksum = crc32fast::hash(&fixed) as u16;
        let with = |checksum: u16| [&fixed[..], &checksum.to_le_bytes(), &plain[10..]].concat();
        assert_eq!(unpack(&with(checksum), 64).unwrap(), b"data");
        assert_eq!(
            refusal(&with(checksum ^ 1)).1,
            "the checksum of the gzip header is wrong"
        );
    }

    #[test]
    fn a_stream_that_is_cut_anywhere_is_no_shorter_one() {
        let head = GzBuilder::new().filename("n").extra(vec![1, 2]);
        let packed = pack(head, &text(2000));
        for end in 0..packed.len() {
            assert_eq!(
                refusal(&packed[..end]).0,
                io::ErrorKind::UnexpectedEof,
                "{end}"
            );
        }
        // A second one as well.
        let both = [&packed[..], &packed[..5]].concat();
        assert_eq!(refusal(&both).0, io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_no_gzip_or_damaged_is_refused() {
        let packed = pack(GzBuilder::new(), &text(2000));
        let end = packed.len();
        let with = |at: usize| {
            let mut packed = packed.clone();
            packed[at] ^= 1;
            refusal(&packed).1
        };
        for at in 0..3 {
            assert_eq!(with(at), "invalid gzip header");
        }
        for at in end - 8..end {
            assert_eq!(with(at), "the checksum of the gzip stream is wrong");
        }
        let reserved_block = [&packed[..10], &[0xff]].concat();
        assert_eq!(refusal(&reserved_block).1, "corrupt deflate stream");
        let garbage = [&packed[..], b"garbage behind it"].concat();
        assert_eq!(refusal(&garbage).1, "invalid gzip header");
        let mut endless = packed[..10].to_vec();
        endless[3] |= NAME;
        endless.resize(1 << 20, b'x');
        assert_eq!(refusal(&endless).1, "a name in the gzip header is too long");
    }
}
