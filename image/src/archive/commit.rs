//! `commit`: an image that is another one and a layer of changes.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rusqlite::Connection;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::changes;
use crate::digest::{Digest, chain_ids};
use crate::error::Error;
use crate::layer::changes::Change;
use crate::layer::recipe::Recorder;
use crate::layer::{LayerError, Limits};
use crate::lock::{LayerLock, Mode};
use crate::pipe::{PipeReader, PipeWriter, pipe};
use crate::pull::stream;
use crate::registry::manifest::MAX_LAYERS;
use crate::staging::Staging;
use crate::store::{self, ImageToCommit, LayerToCommit};
use crate::{Image, Reference};

/// What becomes an image.
#[derive(Debug)]
pub struct Commit<'a> {
    /// The image below.
    pub base: &'a Image,
    /// The writable layer, and what in it counts.
    pub upper: &'a OwnedFd,
    pub changes: &'a [Change],
    /// In the form of an image's `config`.
    pub config: Value,
    /// Dockerfile lines over that.
    pub lines: &'a [String],
    pub author: &'a str,
    pub message: &'a str,
    /// The command line that made the changes, for the history.
    pub created_by: &'a str,
    pub name: Option<&'a Reference>,
}

/// Makes the image and returns it. Nothing stays behind where it fails.
pub fn commit(conn: &mut Connection, root: &Path, request: &Commit<'_>) -> Result<Image, Error> {
    let settings = changes::apply_to(request.config.clone(), request.lines)?;
    // Else it could be made, and neither run nor be pulled from where it is pushed.
    let (layers, most) = (request.base.layers.len() + 1, MAX_LAYERS);
    if layers > most {
        return Err(Error::TooManyLayers { layers, most });
    }
    let staging = Staging::create(root)?;
    let dir = staging.subdirectory("0")?;
    let below = request
        .base
        .layers
        .iter()
        .map(|path| fs::File::open(path).map_err(Error::io("open", path)))
        .collect::<Result<Vec<_>, _>>()?;
    let failed = |source| Error::Layer {
        layer: "of the changes".to_owned(),
        source,
    };
    let recorder = Recorder::create(&staging.path().join("0")).map_err(failed)?;
    let (writer, reader) = pipe();
    let (written, untarred) = std::thread::scope(|scope| {
        let writing = scope.spawn(move || write(request, writer));
        let untarred = untar(reader, &dir, recorder);
        (writing.join(), untarred)
    });
    written.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let (applied, diff_id) = untarred.map_err(failed)?;
    let fds: Vec<_> = below.iter().map(AsFd::as_fd).collect();
    let size = applied.finish(&dir, &fds).map_err(failed)?;

    let base = store::raw_config(root, &request.base.id)?;
    let mut diff_ids = Vec::new();
    for id in base["rootfs"]["diff_ids"].as_array().into_iter().flatten() {
        let id = id.as_str().unwrap_or_default();
        diff_ids.push(Digest::expect(id, "the config of the image below")?);
    }
    diff_ids.push(diff_id.clone());
    let config = image_config(&base, settings, &diff_ids, request);
    let bytes = config.to_string().into_bytes();
    let id = Digest::of(&bytes);
    let chain = chain_ids(&diff_ids);
    let Some((top, lower)) = chain.split_last() else {
        return Err(Error::NotFound(request.base.id.clone()));
    };
    // The lowest first, as everybody takes them.
    let mut locks = Vec::new();
    for layer in lower {
        locks.push(LayerLock::take(root, layer, Mode::Shared)?);
        // Container and image may both have been removed meanwhile.
        if !store::has_layer(conn, root, layer)? {
            return Err(Error::NotFound(request.base.id.clone()));
        }
    }
    locks.push(LayerLock::take(root, top, Mode::Exclusive)?);
    let layers = match store::has_layer(conn, root, top)? {
        true => Vec::new(),
        false => vec![LayerToCommit {
            chain_id: top.clone(),
            diff_id,
            staged: "0".to_owned(),
            size,
            blob: None,
        }],
    };
    let to_commit = ImageToCommit {
        id: &id,
        config: &bytes,
        manifest: None,
        created: config["created"].as_str(),
        chain: &chain,
        names: request.name.map_or(&[], std::slice::from_ref),
    };
    store::commit(conn, root, &staging, &layers, &to_commit)
}

fn write(request: &Commit<'_>, writer: PipeWriter) -> Result<(), Error> {
    let written = crate::layer::changes::write(request.upper, request.changes, writer);
    match written {
        Ok(_) => Ok(()),
        // Then the other side says why it has stopped reading.
        Err(crate::layer::pack::PackError::Write(_)) => Ok(()),
        Err(e) => Err(Error::Pack(e)),
    }
}

fn untar(
    reader: PipeReader,
    dir: &OwnedFd,
    recorder: Recorder,
) -> Result<(crate::layer::Applied, Digest), LayerError> {
    let limits = Limits {
        tar: u64::MAX,
        ..Limits::default()
    };
    stream::untar(reader, dir, recorder, limits)
}

fn image_config(base: &Value, settings: Value, diff_ids: &[Digest], request: &Commit<'_>) -> Value {
    let created = OffsetDateTime::now_utc()
        .format(&Rfc3339)
        .unwrap_or_default();
    let mut entry = json!({"created": created, "created_by": request.created_by});
    for (key, value) in [("author", request.author), ("comment", request.message)] {
        if !value.is_empty() {
            entry[key] = value.into();
        }
    }
    let mut history = base["history"].as_array().cloned().unwrap_or_default();
    history.push(entry);
    let diff_ids: Vec<&str> = diff_ids.iter().map(Digest::as_str).collect();
    let mut config = json!({
        "created": created,
        "architecture": base["architecture"],
        "os": base["os"],
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": history,
    });
    for key in ["variant", "os.version", "os.features"] {
        if let Some(value) = base.get(key) {
            config[key] = value.clone();
        }
    }
    if !request.author.is_empty() {
        config["author"] = request.author.into();
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{ImportOptions, import};

    #[test]
    fn an_image_that_goes_meanwhile_is_not_built_upon() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let open = || Connection::open(root.join("coracle.db")).unwrap();
        let (mut conn, mut other) = (open(), open());
        store::create_tables(&conn).unwrap();
        let tar = vec![0; 1024];
        let base = import(&mut conn, root, &mut &*tar, &ImportOptions::default()).unwrap();
        let layer = store::layers_of(&conn, &base.id).unwrap().remove(0);
        let upper: OwnedFd = fs::File::open(tempfile::tempdir().unwrap().path())
            .unwrap()
            .into();
        let request = Commit {
            base: &base,
            upper: &upper,
            changes: &[],
            config: json!({}),
            lines: &[],
            author: "",
            message: "",
            created_by: "",
            name: None,
        };
        let removing = LayerLock::take(root, &layer.chain_id, Mode::Exclusive).unwrap();
        let made = std::thread::scope(|scope| {
            let commit = scope.spawn(|| commit(&mut other, root, &request));
            // It waits for the lock by then, or finds the layer gone a little sooner.
            std::thread::sleep(std::time::Duration::from_millis(200));
            conn.execute_batch("DELETE FROM image_layers; DELETE FROM images; DELETE FROM layers")
                .unwrap();
            fs::remove_dir_all(store::layer_path(root, &layer.chain_id)).unwrap();
            drop(removing);
            commit.join().unwrap()
        });
        // Where it came late, the directory was gone before it could open it.
        let refused = matches!(made, Err(Error::NotFound(_) | Error::Io { .. }));
        assert!(refused, "{made:?}");
        let left: u64 = conn
            .query_row("SELECT count(*) FROM images", [], |row| row.get(0))
            .unwrap();
        assert_eq!(left, 0);
    }
}
