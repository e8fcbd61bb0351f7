//! A stored layer as the blob that a registry takes: its exact tar, compressed. The same layer gives the same bytes each
//! time, so that a blob can be had twice, once for its digest and once to send.

use std::io::{self, Write};
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;
use crate::error::Error;
use crate::pipe::PipeWriter;
use crate::registry::manifest::{Blob, Compression};
use crate::store::{self, StoredLayer};

const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// How far the packing has come: bytes of the tar.
pub type Progress<'a> = &'a (dyn Fn(u64) + Sync);

/// How a layer is compressed, and how hard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// 1 to 9.
    Gzip(u32),
    /// 1 to 22.
    Zstd(i32),
}

impl Default for Packing {
    fn default() -> Self {
        Packing::Gzip(6)
    }
}

impl Packing {
    pub fn kind(self) -> Compression {
        match self {
            Packing::Gzip(_) => Compression::Gzip,
            Packing::Zstd(_) => Compression::Zstd,
        }
    }
}

/// `gzip`, `zstd` or one of them with a level: `zstd:19`.
impl FromStr for Packing {
    type Err = Error;

    fn from_str(text: &str) -> Result<Packing, Error> {
        let refuse = |why: &str| Error::InvalidArgument {
            what: "compression",
            value: text.to_owned(),
            why: why.to_owned(),
        };
        let (kind, level) = match text.split_once(':') {
            Some((kind, level)) => (kind, Some(level)),
            None => (text, None),
        };
        let level = |default: i32, highest: i32| match level {
            None => Ok(default),
            Some(level) => level
                .parse()
                .ok()
                .filter(|level| (1..=highest).contains(level))
                .ok_or_else(|| refuse(&format!("the level of {kind} is from 1 to {highest}"))),
        };
        match kind {
            "gzip" => Ok(Packing::Gzip(level(6, 9)?.unsigned_abs())),
            "zstd" => Ok(Packing::Zstd(level(3, 22)?)),
            _ => Err(refuse(
                "it must be gzip or zstd, perhaps with a level: zstd:9",
            )),
        }
    }
}

/// Packs a layer into a pipe. Whoever reads it learns of a failure as of the end of a stream that is broken off.
pub fn pack(
    root: &Path,
    layer: &StoredLayer,
    packing: Packing,
    mut out: PipeWriter,
    progress: Progress<'_>,
) -> Result<(), Error> {
    let packed = write(root, layer, packing, &mut out, progress)
        .and_then(|()| out.flush().map_err(|e| passing_on(layer)(e)));
    if let Err(e) = &packed {
        out.fail(e);
    }
    packed
}

/// The digest and size that the packed layer has.
pub fn measure(root: &Path, layer: &StoredLayer, packing: Packing) -> Result<Blob, Error> {
    let mut sum = Sum {
        hash: Sha256::new(),
        size: 0,
    };
    write(root, layer, packing, &mut sum, &|_| {})?;
    Ok(Blob {
        digest: Digest::finish(sum.hash),
        size: sum.size,
    })
}

fn write(
    root: &Path,
    layer: &StoredLayer,
    packing: Packing,
    out: &mut dyn Write,
    progress: Progress<'_>,
) -> Result<(), Error> {
    let finished = match packing {
        Packing::Gzip(level) => {
            let encoder = GzEncoder::new(out, flate2::Compression::new(level));
            counted(root, layer, encoder, progress)?.finish().map(drop)
        }
        Packing::Zstd(level) => {
            let encoder = zstd::stream::write::Encoder::new(out, level);
            let encoder = encoder.map_err(|e| passing_on(layer)(e))?;
            counted(root, layer, encoder, progress)?.finish().map(drop)
        }
    };
    finished.map_err(|e| passing_on(layer)(e))
}

fn counted<W: Write>(
    root: &Path,
    layer: &StoredLayer,
    encoder: W,
    progress: Progress<'_>,
) -> Result<W, Error> {
    let mut out = Counted {
        inner: encoder,
        count: 0,
        told: Instant::now(),
        progress,
    };
    store::tar::write(root, layer, &mut out)?;
    Ok(out.inner)
}

fn passing_on(layer: &StoredLayer) -> impl FnOnce(io::Error) -> Error {
    Error::io("pack layer", layer.diff_id.short())
}

/// Tells now and then how much has been written through it.
struct Counted<'a, W> {
    inner: W,
    count: u64,
    told: Instant,
    progress: Progress<'a>,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.count += n as u64;
        if self.told.elapsed() >= PROGRESS_EVERY {
            self.told = Instant::now();
            (self.progress)(self.count);
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct Sum {
    hash: Sha256,
    size: u64,
}

impl Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compression_has_perhaps_a_level() {
        let good = |text: &str, expect| assert_eq!(text.parse::<Packing>().unwrap(), expect);
        good("gzip", Packing::Gzip(6));
        good("gzip:9", Packing::Gzip(9));
        good("zstd", Packing::Zstd(3));
        good("zstd:19", Packing::Zstd(19));
        for bad in [
            "", "xz", "gzip:", "gzip:0", "gzip:10", "zstd:23", "zstd:-1", "zstd:x",
        ] {
            assert!(bad.parse::<Packing>().is_err(), "{bad}");
        }
    }
}
