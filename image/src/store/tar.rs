//! The tar of a stored layer again, byte for byte as it was when its layer was applied.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::{StoredLayer, layer_path};
use crate::digest::Digest;
use crate::error::Error;
use crate::layer::changes;
use crate::layer::recipe::rebuild::{RebuildError, strict};
use crate::layer::recipe::{self, rebuild};

/// Writes the uncompressed tar of a layer: its SHA-256 is the diff ID, or the end is an error. `out` has then had all of it, so
/// nobody may trust what came before this returns. The caller holds the layer's lock.
pub(crate) fn write(root: &Path, layer: &StoredLayer, out: &mut dyn Write) -> Result<(), Error> {
    let path = layer_path(root, &layer.chain_id);
    let tree: OwnedFd = File::open(&path).map_err(Error::io("open", &path))?.into();
    let recipe_path = recipe::path(&path);
    let recipe = match File::open(&recipe_path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return write_packed(&tree, layer, out);
        }
        recipe => recipe.map_err(Error::io("open the recipe", &recipe_path))?,
    };
    let mut hashed = HashWriter::new(out);
    let damaged = |why: String| Error::LayerDamaged {
        layer: layer.chain_id.short().to_owned(),
        why,
    };
    match rebuild(recipe, tree.as_fd(), &mut hashed, &mut strict) {
        Ok(()) => {}
        Err(RebuildError::Write(e)) => return Err(Error::io("write the tar of", &path)(e)),
        Err(RebuildError::Recipe(e)) => {
            let why = format!("its recipe {}: {e}", recipe_path.display());
            return Err(damaged(why));
        }
        Err(e @ RebuildError::File { .. }) => return Err(damaged(e.to_string())),
    }
    let got = hashed.finish();
    if got != layer.diff_id {
        let why = format!("its tar has the digest {got} and not {}", layer.diff_id);
        return Err(damaged(why));
    }
    Ok(())
}

/// A layer of a time without recipes: what `commit` has packed comes out the same again, unless it has whiteouts.
fn write_packed(tree: &OwnedFd, layer: &StoredLayer, out: &mut dyn Write) -> Result<(), Error> {
    let lost = || Error::NoRecipe {
        layer: layer.chain_id.short().to_owned(),
    };
    let all = changes::changes(tree, &[], &|_| false).map_err(|_| lost())?;
    let mut nowhere = io::sink();
    let trial = changes::write(tree, &all, HashWriter::new(&mut nowhere));
    match trial.map(HashWriter::finish) {
        Ok(digest) if digest == layer.diff_id => {}
        _ => return Err(lost()),
    }
    let hashed = changes::write(tree, &all, HashWriter::new(out)).map_err(Error::Pack)?;
    match hashed.finish() == layer.diff_id {
        true => Ok(()),
        false => Err(lost()),
    }
}

/// Hashes what is written through it.
pub(super) struct HashWriter<'a> {
    out: &'a mut dyn Write,
    hash: Sha256,
}

impl<'a> HashWriter<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        HashWriter {
            out,
            hash: Sha256::new(),
        }
    }

    pub(super) fn finish(self) -> Digest {
        Digest::finish(self.hash)
    }
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
