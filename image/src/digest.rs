//! SHA-256 digests: parsed strictly, and computed.
//!
//! Only sha256 is known: a digest of another algorithm is refused, never trusted unchecked.

use std::fmt;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use crate::error::Error;

/// `sha256:` and 64 lowercase hexadecimal digits; safe as a file name because nothing else parses.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    pub fn parse(text: &str) -> Option<Digest> {
        let hex = text.strip_prefix("sha256:")?;
        let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (hex.len() == 64 && hex.bytes().all(lower_hex)).then(|| Digest(text.to_owned()))
    }

    /// As `parse`, for digests that a document brings; `what` names it in the error.
    pub fn expect(text: &str, what: &str) -> Result<Digest, Error> {
        Digest::parse(text)
            .ok_or_else(|| Error::untrusted(what, format!("{text:?} is not a sha256 digest")))
    }

    pub fn of(bytes: &[u8]) -> Digest {
        Digest::finish(Sha256::new_with_prefix(bytes))
    }

    pub fn finish(hash: Sha256) -> Digest {
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in hash.finalize() {
            text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
            text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        }
        Digest(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn hex(&self) -> &str {
        &self.0[7..]
    }

    /// The first 12 digits, as people see IDs.
    pub fn short(&self) -> &str {
        &self.0[7..19]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The chain IDs of a stack of layers, lowest first ("image-spec config, Layer ChainID").
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let id = match chain.last() {
            None => diff_id.clone(),
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(id);
    }
    chain
}

/// Hashes what is read through it.
pub struct HashReader<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> HashReader<R> {
    pub fn new(inner: R) -> Self {
        HashReader {
            inner,
            hash: Sha256::new(),
        }
    }

    /// Of what has been read so far.
    pub fn finish(self) -> Digest {
        Digest::finish(self.hash)
    }
}

impl<R: Read> Read for HashReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hash.update(&buf[..n]);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lowercase_sha256_digests_parse() {
        let good = format!("sha256:{}", "0a".repeat(32));
        assert!(Digest::parse(&good).is_some());
        let upper = format!("sha256:{}", "0A".repeat(32));
        for bad in ["", "sha256:", "sha256:../../x", "sha512:00", "0a", &upper] {
            assert!(Digest::parse(bad).is_none(), "{bad}");
        }
        let slashed = format!("sha256:{}/{}", "0".repeat(31), "0".repeat(32));
        assert!(Digest::parse(&slashed).is_none());
    }

    #[test]
    fn empty_input_has_the_well_known_digest() {
        assert_eq!(
            Digest::of(b"").hex(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn chain_id_of_the_lowest_layer_is_its_diff_id() {
        let a = Digest::of(b"a");
        let b = Digest::of(b"b");
        let chain = chain_ids(&[a.clone(), b.clone()]);
        assert_eq!(chain[0], a);
        assert_eq!(chain[1], Digest::of(format!("{a} {b}").as_bytes()));
    }
}
