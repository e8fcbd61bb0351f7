//! `load`: the images of an archive, verified as those of a registry are. Each becomes permanent as a whole, one after the other.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::contents::{self, Contained, PackedLayer};
use super::members::Archive;
use crate::Reference;
use crate::digest::{Digest, HashReader, chain_ids};
use crate::error::Error;
use crate::layer::recipe::Recorder;
use crate::layer::{Applied, LayerError};
use crate::lock::LayerLock;
use crate::pull::space;
use crate::pull::stream::{self, Packed};
use crate::registry::platform::Platform;
use crate::staging::Staging;
use crate::store::{self, ImageToCommit, LayerToCommit};

/// Layers that are applied at once; each is two threads.
const THREADS: usize = 2;
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// What to take of an archive.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// `os/arch[/variant]`; `None`: this host's, where there is a choice.
    pub platform: Option<String>,
}

/// What happens, in its order; layers of one image interleave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadEvent {
    /// Bytes of the layer as the archive has it. `layer` is the first 12 digits of its diff ID.
    Layer {
        layer: String,
        done: u64,
        total: u64,
    },
    /// A name that another image, of this ID, had until now.
    Renamed {
        name: String,
        old: String,
    },
    /// An image is there, under a name.
    Loaded {
        id: String,
        name: String,
    },
    /// An image is there, without a name.
    LoadedNameless {
        id: String,
    },
    Notice(String),
}

/// One layer of the image at hand.
struct Part<'a> {
    layer: &'a PackedLayer,
    diff_id: &'a Digest,
    chain_id: Digest,
    /// The name in staging; none if the layer is there already.
    staged: Option<String>,
    _lock: LayerLock,
}

/// Loads all images of an archive: a tar, or one packed with gzip or Zstandard, from where `input` stands.
pub fn load(
    conn: &mut Connection,
    root: &Path,
    input: File,
    options: &LoadOptions,
    progress: &mut dyn FnMut(LoadEvent),
) -> Result<(), Error> {
    let asked = options.platform.as_deref().map(Platform::parse);
    let asked = asked.transpose()?;
    store::sweep(conn, root)?;
    let staging = Staging::create(root)?;
    let archive = Archive::open(input, &staging)?;
    let images = contents::images(&archive, asked.as_ref())?;
    for image in &images {
        load_image(conn, root, &archive, image, progress)?;
    }
    Ok(())
}

fn load_image(
    conn: &mut Connection,
    root: &Path,
    archive: &Archive,
    image: &Contained,
    progress: &mut dyn FnMut(LoadEvent),
) -> Result<(), Error> {
    let staging = Staging::create(root)?;
    let parts = take_layers(conn, root, image, progress)?;
    space::fits(needed(&parts), space::free(staging.fd(), root)?, root)?;
    let applied = apply_all(archive, &staging, &parts, progress)?;
    let layers = settle(root, &parts, applied)?;
    let chain: Vec<Digest> = parts.iter().map(|part| part.chain_id.clone()).collect();
    let mut renamed = Vec::new();
    for name in &image.names {
        let before = store::resolve(conn, &store::stored_name(name))?;
        let before = before.filter(|found| found.name.is_some() && found.id != image.id.as_str());
        renamed.push(before.map(|found| found.id));
    }
    let to_commit = ImageToCommit {
        id: &image.id,
        config: &image.config_bytes,
        manifest: None,
        created: image.config.created().as_deref(),
        chain: &chain,
        names: &image.names,
    };
    store::commit(conn, root, &staging, &layers, &to_commit)?;
    let id = image.id.to_string();
    if image.names.is_empty() {
        progress(LoadEvent::LoadedNameless { id });
        return Ok(());
    }
    for (name, old) in image.names.iter().map(Reference::to_string).zip(renamed) {
        if let Some(old) = old {
            let name = name.clone();
            progress(LoadEvent::Renamed { name, old });
        }
        let id = id.clone();
        progress(LoadEvent::Loaded { id, name });
    }
    Ok(())
}

/// Locks every layer, the lowest first, as a pull does.
fn take_layers<'a>(
    conn: &Connection,
    root: &Path,
    image: &'a Contained,
    progress: &mut dyn FnMut(LoadEvent),
) -> Result<Vec<Part<'a>>, Error> {
    let chain = chain_ids(&image.diff_ids);
    let mut parts = Vec::with_capacity(chain.len());
    for (i, chain_id) in chain.into_iter().enumerate() {
        let (layer, diff_id) = (&image.layers[i], &image.diff_ids[i]);
        let (lock, present) = store::hold_layer(conn, root, &chain_id, &mut || {
            let short = diff_id.short();
            let text = format!("waiting for another process that has layer {short} in hand");
            progress(LoadEvent::Notice(text));
        })?;
        parts.push(Part {
            layer,
            diff_id,
            chain_id,
            staged: (!present).then(|| i.to_string()),
            _lock: lock,
        });
    }
    Ok(parts)
}

/// Bytes that the missing layers take at least.
fn needed(parts: &[Part<'_>]) -> u64 {
    let missing = parts.iter().filter(|part| part.staged.is_some());
    missing.fold(0, |sum, part| sum.saturating_add(part.layer.extent.size))
}

type Unsettled = (OwnedFd, Applied);

/// Applies all missing layers, each to a directory of its own; the first failure ends the others.
fn apply_all(
    archive: &Archive,
    staging: &Staging,
    parts: &[Part<'_>],
    progress: &mut dyn FnMut(LoadEvent),
) -> Result<Vec<Unsettled>, Error> {
    let todo: Vec<(&Part<'_>, &str)> = parts
        .iter()
        .filter_map(|part| Some((part, part.staged.as_deref()?)))
        .collect();
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Option<Unsettled>>> = Mutex::new(todo.iter().map(|_| None).collect());
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let cancelled = AtomicBool::new(false);
    let (events, receiver) = mpsc::channel();
    let worker = |events: mpsc::Sender<LoadEvent>| {
        while !cancelled.load(Ordering::Relaxed) {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some((part, staged)) = todo.get(i) else {
                return;
            };
            match apply(archive, part, staging, staged, &events, &cancelled) {
                Ok(applied) => locked(&done)[i] = Some(applied),
                Err(e) => {
                    cancelled.store(true, Ordering::Relaxed);
                    locked(&failure).get_or_insert(e);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS.min(todo.len()) {
            let events = events.clone();
            let worker = &worker;
            scope.spawn(move || worker(events));
        }
        drop(events);
        receiver.iter().for_each(progress);
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(e) => Err(e),
        None => {
            let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
            Ok(done.into_iter().flatten().collect())
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One layer from the archive into a directory of its own.
fn apply(
    archive: &Archive,
    part: &Part<'_>,
    staging: &Staging,
    staged: &str,
    events: &mpsc::Sender<LoadEvent>,
    cancelled: &AtomicBool,
) -> Result<Unsettled, Error> {
    let name = part.diff_id.short();
    let failed = |source| Error::Layer {
        layer: name.to_owned(),
        source,
    };
    let extent = part.layer.extent;
    let tell = |done| {
        // The receiver lives as long as this thread does.
        let _ = events.send(LoadEvent::Layer {
            layer: name.to_owned(),
            done,
            total: extent.size,
        });
    };
    let dir = staging.subdirectory(staged)?;
    let recorder = Recorder::create(&staging.path().join(staged)).map_err(failed)?;
    let applied = std::thread::scope(|scope| {
        let told = Told {
            inner: archive.read(extent),
            done: 0,
            at: Instant::now(),
            tell,
            cancelled,
        };
        let packed = Packed {
            blob: HashReader::new(told),
            compression: part.layer.compression,
            size: extent.size,
            name,
            diff_id: part.diff_id,
        };
        stream::apply_packed(scope, packed, &dir, recorder, |mut blob, unpacked| {
            let drained = io::copy(&mut blob, &mut io::sink());
            if cancelled.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            drained.map_err(|e| failed(LayerError::Read(e)))?;
            let found = blob.finish();
            if let Some(promised) = &part.layer.digest
                && found != *promised
            {
                return Err(contents::wrong_digest(promised, &found));
            }
            unpacked.map_err(|e| failed(LayerError::Read(e)))
        })
    })?;
    Ok((dir, applied))
}

/// The blob as it is read, told of now and then.
struct Told<'a, R, F> {
    inner: R,
    done: u64,
    at: Instant,
    tell: F,
    cancelled: &'a AtomicBool,
}

impl<R: Read, F: Fn(u64)> Read for Told<'_, R, F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(io::Error::other("another layer failed"));
        }
        let n = self.inner.read(buf)?;
        self.done += n as u64;
        if (n == 0 && !buf.is_empty()) || self.at.elapsed() >= PROGRESS_EVERY {
            self.at = Instant::now();
            (self.tell)(self.done);
        }
        Ok(n)
    }
}

/// Finishes the new layers, the lowest first, each over those below it.
fn settle(
    root: &Path,
    parts: &[Part<'_>],
    applied: Vec<Unsettled>,
) -> Result<Vec<LayerToCommit>, Error> {
    let mut applied = applied.into_iter();
    // The uppermost first.
    let mut below: Vec<OwnedFd> = Vec::with_capacity(parts.len());
    let mut layers = Vec::new();
    for part in parts {
        let (Some(staged), Some((dir, applied))) = (
            &part.staged,
            part.staged.as_ref().and_then(|_| applied.next()),
        ) else {
            let path = store::layer_path(root, &part.chain_id);
            let dir = File::open(&path).map_err(Error::io("open", path))?;
            below.insert(0, dir.into());
            continue;
        };
        let fds: Vec<_> = below.iter().map(AsFd::as_fd).collect();
        let size = applied.finish(&dir, &fds).map_err(|source| Error::Layer {
            layer: part.diff_id.short().to_owned(),
            source,
        })?;
        layers.push(LayerToCommit {
            chain_id: part.chain_id.clone(),
            diff_id: part.diff_id.clone(),
            staged: staged.clone(),
            size,
            blob: None,
        });
        below.insert(0, dir);
    }
    Ok(layers)
}
