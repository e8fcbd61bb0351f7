//! One layer against its recipe: the tar that comes out of it has the diff ID, and applying that tar once more, without the
//! content of files, gives the tree that is there.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::rows::LayerFacts;
use super::{Object, Problem};
use crate::digest::Digest;
use crate::error::Error;
use crate::layer::compare::{Faults, compare};
use crate::layer::numbers::octets;
use crate::layer::recipe::rebuild::RebuildError;
use crate::layer::recipe::{self, rebuild};
use crate::layer::{Limits, apply_hollow};
use crate::pipe::pipe;
use crate::staging::Staging;
use crate::store::layer_path;
use crate::store::tar::HashWriter;

/// What is wrong with a layer whose directory and recipe are there; of others `rows.rs` tells.
pub fn problems(
    root: &Path,
    staging: &Staging,
    id: &Digest,
    facts: &LayerFacts,
) -> Result<Vec<Problem>, Error> {
    let path = layer_path(root, id);
    let recipe_path = recipe::path(&path);
    if !path.is_dir() || !recipe_path.exists() {
        return Ok(Vec::new());
    }
    let below: Vec<_> = facts
        .below
        .iter()
        .rev()
        .map(|id| layer_path(root, id))
        .collect();
    if below.iter().any(|below| !below.is_dir()) {
        let why = "it cannot be checked: a layer below it is missing";
        return Ok(vec![Problem::new(Object::Layer(id.clone()), why)]);
    }
    let tree: OwnedFd = File::open(&path).map_err(Error::io("open", &path))?.into();
    let recipe = File::open(&recipe_path).map_err(Error::io("open", &recipe_path))?;
    let below = below
        .iter()
        .map(|path| Ok(File::open(path).map_err(Error::io("open", path))?.into()))
        .collect::<Result<Vec<OwnedFd>, Error>>()?;
    let mut faults = Faults::default();
    let hollow = staging.subdirectory(id.hex())?;
    let general = look(recipe, &tree, &facts.diff_id, &hollow, &below, &mut faults)?;
    staging.discard(id.hex())?;
    let object = || Object::Layer(id.clone());
    let mut problems: Vec<Problem> = general
        .into_iter()
        .map(|why| Problem::new(object(), why))
        .collect();
    problems.extend(faults.shown.into_iter().map(|fault| Problem {
        path: Some(format!("/{}", octets(&fault.path))),
        ..Problem::new(object(), fault.why)
    }));
    if faults.more > 0 {
        let why = format!("{} more paths are not as the image has them", faults.more);
        problems.push(Problem::new(object(), why));
    }
    Ok(problems)
}

/// Says what is wrong with the layer as a whole.
fn look(
    recipe: File,
    tree: &OwnedFd,
    diff_id: &Digest,
    hollow: &OwnedFd,
    below: &[OwnedFd],
    faults: &mut Faults,
) -> Result<Option<String>, Error> {
    let (mut writer, reader) = pipe();
    let (applied, rebuilt, digest) = std::thread::scope(|scope| {
        let faults = &mut *faults;
        let rebuilding = scope.spawn(move || {
            let mut out = Patient(&mut writer);
            let mut hashed = HashWriter::new(&mut out);
            let mut note = |fault: rebuild::Fault| {
                faults.add(&fault.path, fault.why);
                Ok(())
            };
            let rebuilt = rebuild(recipe, tree.as_fd(), &mut hashed, &mut note);
            let digest = hashed.finish();
            if let Err(e) = &rebuilt {
                writer.fail(e);
            }
            (rebuilt, digest)
        });
        let limits = Limits {
            tar: u64::MAX,
            ..Limits::default()
        };
        let applied = apply_hollow(hollow, reader, limits);
        let (rebuilt, digest) = rebuilding
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (applied, rebuilt, digest)
    });
    match rebuilt {
        Err(RebuildError::Recipe(e)) => return Ok(Some(format!("its recipe is damaged: {e}"))),
        Err(e) => return Ok(Some(e.to_string())),
        Ok(()) => {}
    }
    let fds: Vec<_> = below.iter().map(AsFd::as_fd).collect();
    let finished = applied.and_then(|applied| applied.finish_and_tell(hollow, &fds));
    let finished = match finished {
        Ok(finished) => finished,
        // The tar was once applied: it has changed, or this host cannot do it now.
        Err(e) if e.is_content() => return Ok(Some(format!("its tar cannot be applied: {e}"))),
        Err(source) => {
            let layer = diff_id.short().to_owned();
            return Err(Error::Layer { layer, source });
        }
    };
    compare(hollow, tree, &finished, faults)
        .map_err(Error::io("compare layer", diff_id.short()))?;
    if digest != *diff_id && faults.is_empty() {
        return Ok(Some(format!(
            "its recipe gives a tar with the digest {digest} and not {diff_id}"
        )));
    }
    Ok(None)
}

/// What nobody wants to read any more is no error: the applier stops at the end of the archive, and the digest needs the rest.
struct Patient<'a>(&'a mut dyn Write);

impl Write for Patient<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(bytes.len()),
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0.flush() {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            flushed => flushed,
        }
    }
}
