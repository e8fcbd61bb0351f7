//! The tar of a stored layer again, byte for byte as it was when its layer was applied.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::{StoredLayer, layer_path};
use crate::digest::Digest;
use crate::error::Error;
use crate::layer::recipe;

/// Writes the uncompressed tar of a layer: its SHA-256 is the diff ID, or the end is an error. `out` has then had all of it, so
/// nobody may trust what came before this returns. The caller holds the layer's lock.
pub(crate) fn write(root: &Path, layer: &StoredLayer, out: &mut dyn Write) -> Result<(), Error> {
    let path = recipe::path(&layer_path(root, &layer.chain_id));
    let recipe = File::open(&path).map_err(Error::io("open the recipe", &path))?;
    let mut hashed = HashWriter {
        out,
        hash: Sha256::new(),
    };
    recipe::rebuild(recipe, &mut hashed).map_err(Error::io("write the tar of", &path))?;
    let got = Digest::finish(hashed.hash);
    if got != layer.diff_id {
        return Err(Error::untrusted(
            format!("layer {}", layer.chain_id.short()),
            format!("its tar has the digest {got} and not {}", layer.diff_id),
        ));
    }
    Ok(())
}

/// Hashes what is written through it.
struct HashWriter<'a> {
    out: &'a mut dyn Write,
    hash: Sha256,
}

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hash.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
