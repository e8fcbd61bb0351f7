//! Whether what is to be pulled or loaded fits: looked at before the first byte comes, and said in numbers when it turns out not to.

use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::fstatvfs;
use rustix::io::Errno;

use crate::error::Error;
use crate::layer::LayerError;
use crate::registry::manifest::{Compression, Layer};

/// What the root directory's file system has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Free {
    pub bytes: u64,
    /// `None` where the file system has no fixed number of them.
    pub inodes: Option<u64>,
}

pub fn free(dir: BorrowedFd<'_>, path: &Path) -> Result<Free, Error> {
    let stat = fstatvfs(dir).map_err(Error::io("look for free space in", path))?;
    Ok(Free {
        bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        inodes: (stat.f_files > 0).then_some(stat.f_favail),
    })
}

/// Bytes that a layer takes unpacked, about. Debian's base and its packages grow 2.3 to 2.8 times out of gzip, and Zstandard packs a
/// tenth better.
pub fn unpacked(layer: &Layer) -> u64 {
    let size = layer.blob.size;
    match layer.compression {
        Compression::None => size,
        Compression::Gzip => size.saturating_mul(5) / 2,
        Compression::Zstd => size.saturating_mul(11) / 4,
    }
}

/// Refuses what cannot fit even compressed; what may not fit unpacked is only said, since nobody knows before.
pub fn check<'a>(
    missing: impl Iterator<Item = &'a Layer>,
    free: Free,
    path: &Path,
) -> Result<Option<String>, Error> {
    let (mut packed, mut plain, mut count) = (0_u64, 0_u64, 0_u64);
    for layer in missing {
        packed = packed.saturating_add(layer.blob.size);
        plain = plain.saturating_add(unpacked(layer));
        count += 1;
    }
    fits(packed, free, path)?;
    if let Some(inodes) = free.inodes
        && inodes < count
    {
        return Err(Error::NoInodes {
            path: path.to_owned(),
            layers: count,
            free: inodes,
        });
    }
    Ok((plain > free.bytes).then(|| {
        format!(
            "the layers may need about {plain} bytes unpacked, and {} has {} free",
            path.display(),
            free.bytes
        )
    }))
}

/// Refuses at once so many bytes that cannot fit.
pub fn fits(needed: u64, free: Free, path: &Path) -> Result<(), Error> {
    match needed > free.bytes {
        true => Err(Error::NoSpace {
            path: path.to_owned(),
            needed,
            free: free.bytes,
        }),
        false => Ok(()),
    }
}

/// A layer's failure, with what there is and what it takes where there is no more space.
pub fn explain(error: Error, layers: &[&Layer], free: Option<Free>, path: &Path) -> Error {
    let Error::Layer { layer, source } = error else {
        return error;
    };
    let full = match &source {
        LayerError::Place { source, .. } => matches!(
            source.raw_os_error().map(Errno::from_raw_os_error),
            Some(Errno::NOSPC | Errno::DQUOT)
        ),
        _ => false,
    };
    match free {
        Some(free) if full => Error::LayerNoSpace {
            layer,
            source: Box::new(source),
            root: path.to_owned(),
            needed: layers
                .iter()
                .fold(0, |sum, layer| unpacked(layer).saturating_add(sum)),
            free: free.bytes,
            inodes: free.inodes.unwrap_or(u64::MAX),
        },
        _ => Error::Layer { layer, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::registry::manifest::Blob;

    fn layer(size: u64, compression: Compression) -> Layer {
        let digest = Digest::of(b"x");
        Layer {
            blob: Blob { digest, size },
            media_type: String::new(),
            compression,
        }
    }

    #[test]
    fn what_cannot_fit_is_refused_and_what_may_not_is_said() {
        let layers = [layer(600, Compression::Gzip), layer(400, Compression::None)];
        let look = |bytes, inodes| check(layers.iter(), Free { bytes, inodes }, Path::new("/r"));
        assert!(look(1900, None).unwrap().is_none());
        let text = look(1899, Some(2)).unwrap().unwrap();
        assert!(
            text.contains("1900 bytes") && text.contains("1899"),
            "{text}"
        );
        let error = look(999, None).unwrap_err().to_string();
        assert!(error.contains("1000") && error.contains("999"), "{error}");
        assert!(
            look(5000, Some(1))
                .unwrap_err()
                .to_string()
                .contains("inodes")
        );
    }
}
