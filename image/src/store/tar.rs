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
pub(crate) struct HashWriter<'a> {
    out: &'a mut dyn Write,
    hash: Sha256,
}

impl<'a> HashWriter<'a> {
    pub(crate) fn new(out: &'a mut dyn Write) -> Self {
        HashWriter {
            out,
            hash: Sha256::new(),
        }
    }

    pub(crate) fn finish(self) -> Digest {
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

#[cfg(test)]
mod tests {
    use std::fs;

    use rusqlite::Connection;

    use super::super::{create_tables, layers_of};
    use super::*;
    use crate::archive::import;

    /// An import of a tar that `changes::write` has made, and its layer.
    struct Stored {
        root: tempfile::TempDir,
        tar: Vec<u8>,
        layer: StoredLayer,
    }

    impl Stored {
        fn new() -> Stored {
            let root = tempfile::tempdir().unwrap();
            let source = root.path().join("source");
            fs::create_dir_all(source.join("d")).unwrap();
            fs::write(source.join("d/file"), vec![b'x'; 100_000]).unwrap();
            let source: OwnedFd = File::open(source).unwrap().into();
            let all = changes::changes(&source, &[], &|_| false).unwrap();
            let tar = changes::write(&source, &all, Vec::new()).unwrap();
            let mut conn = Connection::open_in_memory().unwrap();
            create_tables(&conn).unwrap();
            let image = import(
                &mut conn,
                root.path(),
                &mut &*tar,
                &crate::archive::ImportOptions::default(),
            )
            .unwrap();
            let layer = layers_of(&conn, &image.id).unwrap().remove(0);
            Stored { root, tar, layer }
        }

        fn tree(&self) -> std::path::PathBuf {
            layer_path(self.root.path(), &self.layer.chain_id)
        }

        fn write(&self) -> Result<Vec<u8>, Error> {
            let mut out = Vec::new();
            write(self.root.path(), &self.layer, &mut out).map(|()| out)
        }
    }

    #[test]
    fn a_stored_layers_tar_is_what_came_in() {
        let stored = Stored::new();
        assert!(stored.write().unwrap() == stored.tar);
    }

    #[test]
    fn a_changed_layer_is_an_error_that_names_the_file() {
        let stored = Stored::new();
        fs::write(stored.tree().join("d/file"), vec![b'y'; 100_000]).unwrap();
        let error = stored.write().unwrap_err().to_string();
        assert!(
            error.contains("/d/file: its content has changed"),
            "{error}"
        );
        assert!(error.contains("coracle image check --repair"), "{error}");
    }

    #[test]
    fn without_a_recipe_there_is_only_what_packing_gives() {
        let stored = Stored::new();
        fs::remove_file(recipe::path(&stored.tree())).unwrap();
        assert!(stored.write().unwrap() == stored.tar);
        fs::write(stored.tree().join("d/other"), "").unwrap();
        let error = stored.write().unwrap_err();
        assert!(matches!(error, Error::NoRecipe { .. }), "{error}");
    }
}
