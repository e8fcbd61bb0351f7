//! `pull`: from a reference to a committed image, reporting what happens as values.
//!
//! Order: sweep, manifest and config, locks on all layers from the lowest up, download of the missing ones by a few
//! threads, what they take from the layers below, commit. The database is only read before the commit, and locks no writer out
//! while bytes come in.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use rusqlite::Connection;

use crate::digest::{Digest, chain_ids};
use crate::error::Error;
use crate::layer::Applied;
use crate::layer::recipe::Recorder;
use crate::lock::{LayerLock, Mode};
use crate::registry::manifest::Layer;
use crate::registry::{Access, Client, Registries, Watcher};
use crate::staging::Staging;
use crate::store::{self, ImageToCommit, KnownBlob, LayerToCommit};
use crate::{Image, Reference};

pub(crate) mod resolve;
pub(crate) mod stream;

use resolve::Resolved;

/// Layers that are downloaded at once.
const THREADS: usize = 3;

/// What to pull, and how.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// `os/arch[/variant]`; `None`: this host's.
    pub platform: Option<String>,
    pub registries: Registries,
}

/// Progress, in the order in which things happen; layers interleave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullEvent {
    /// `latest: Pulling from library/alpine`
    Started {
        tag: String,
        repository: String,
    },
    /// `layer` is the first 12 digits of the blob's digest, in all that follow.
    PullingFsLayer {
        layer: String,
    },
    AlreadyExists {
        layer: String,
    },
    /// Bytes of the compressed blob.
    Downloading {
        layer: String,
        done: u64,
        total: u64,
    },
    Extracting {
        layer: String,
    },
    PullComplete {
        layer: String,
    },
    Digest(String),
    /// `newer`: false where the image was there already.
    Status {
        newer: bool,
        reference: String,
    },
    /// A line for a person who waits: another process pulls the same layer, or the registry wants a pause.
    Notice(String),
}

/// One layer of the image being pulled.
struct Part {
    layer: Layer,
    diff_id: Digest,
    chain_id: Digest,
    /// The name in staging; none if the layer is there already.
    staged: Option<String>,
    _lock: LayerLock,
}

/// What the threads of a pull share.
struct Shared {
    events: mpsc::Sender<PullEvent>,
    cancelled: AtomicBool,
}

impl Shared {
    fn send(&self, event: PullEvent) {
        // The receiver lives as long as the threads do.
        let _ = self.events.send(event);
    }
}

impl Watcher for Shared {
    fn notice(&self, text: String) {
        self.send(PullEvent::Notice(text));
    }

    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// Pulls an image into `root`. Idempotent; two pulls of one image at once do not harm each other.
pub fn pull(
    conn: &mut Connection,
    root: &Path,
    reference: &Reference,
    options: &PullOptions,
    progress: &mut dyn FnMut(PullEvent),
) -> Result<Image, Error> {
    store::sweep(conn, root)?;
    progress(PullEvent::Started {
        tag: reference
            .digest
            .clone()
            .or_else(|| reference.tag.clone())
            .unwrap_or_default(),
        repository: reference.repository.clone(),
    });
    let before =
        store::resolve(conn, &store::stored_name(reference))?.filter(|found| found.name.is_some());
    if let (Some(found), Some(digest)) = (&before, &reference.digest)
        && options.platform.is_none()
        && let Ok(image) = store::load(conn, root, &found.id)
    {
        // A digest means one content for ever: the registry could say nothing new.
        progress(PullEvent::Digest(digest.clone()));
        progress(status(false, reference));
        return Ok(image);
    }
    let (events, receiver) = mpsc::channel();
    let shared = Shared {
        events,
        cancelled: AtomicBool::new(false),
    };
    let client = Client::new(reference, &options.registries, Access::Pull, &shared)?;
    let resolved = pump(&receiver, progress, || {
        resolve::resolve(&client, reference, options)
    })?;
    let staging = Staging::create(root)?;
    let parts = take_layers(conn, root, &resolved, &staging, progress)?;
    let result = pump(&receiver, progress, || {
        download(&client, &shared, &staging, &parts)
    });
    let layers = settle(root, &staging, reference, &parts, result?)?;
    let chain: Vec<Digest> = parts.iter().map(|part| part.chain_id.clone()).collect();
    let digest_name = Reference {
        tag: None,
        digest: Some(resolved.digest.to_string()),
        ..reference.clone()
    };
    let to_commit = ImageToCommit {
        id: &resolved.id,
        config: &resolved.config_bytes,
        manifest: Some(&resolved.manifest_bytes),
        created: resolved.config.created().as_deref(),
        chain: &chain,
        names: &[reference.clone(), digest_name],
    };
    store::commit(conn, root, &staging, &layers, &to_commit)?;
    for part in parts.iter().filter(|part| part.staged.is_some()) {
        let layer = part.layer.blob.digest.short().to_owned();
        progress(PullEvent::PullComplete { layer });
    }
    progress(PullEvent::Digest(resolved.digest.to_string()));
    let newer = !layers.is_empty() || before.is_none_or(|found| found.id != resolved.id.as_str());
    progress(status(newer, reference));
    store::load(conn, root, resolved.id.as_str())
}

fn status(newer: bool, reference: &Reference) -> PullEvent {
    PullEvent::Status {
        newer,
        reference: reference.to_string(),
    }
}

/// Runs `work` beside this thread, which meanwhile hands on the events.
fn pump<T: Send>(
    receiver: &mpsc::Receiver<PullEvent>,
    progress: &mut dyn FnMut(PullEvent),
    work: impl FnOnce() -> T + Send,
) -> T {
    thread::scope(|scope| {
        let worker = scope.spawn(work);
        while !worker.is_finished() {
            if let Ok(event) = receiver.recv_timeout(std::time::Duration::from_millis(20)) {
                progress(event);
            }
        }
        receiver.try_iter().for_each(progress);
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Locks every layer, the lowest first: shared if it is there, exclusively if it is to be made.
fn take_layers(
    conn: &Connection,
    root: &Path,
    resolved: &Resolved,
    staging: &Staging,
    progress: &mut dyn FnMut(PullEvent),
) -> Result<Vec<Part>, Error> {
    let chain = chain_ids(&resolved.diff_ids);
    let mut parts = Vec::with_capacity(chain.len());
    for (i, chain_id) in chain.into_iter().enumerate() {
        let layer = resolved.layers[i].clone();
        let short = layer.blob.digest.short().to_owned();
        let (lock, present) = lock_layer(conn, root, &chain_id, &short, progress)?;
        progress(match present {
            true => PullEvent::AlreadyExists { layer: short },
            false => PullEvent::PullingFsLayer { layer: short },
        });
        parts.push(Part {
            layer,
            diff_id: resolved.diff_ids[i].clone(),
            chain_id,
            staged: (!present).then(|| i.to_string()),
            _lock: lock,
        });
    }
    check_space(staging, &parts)?;
    Ok(parts)
}

/// The lock, and whether the layer is there.
fn lock_layer(
    conn: &Connection,
    root: &Path,
    chain_id: &Digest,
    short: &str,
    progress: &mut dyn FnMut(PullEvent),
) -> Result<(LayerLock, bool), Error> {
    let mut take = |mode| match LayerLock::try_take(root, chain_id, mode)? {
        Some(lock) => Ok(lock),
        None => {
            let text = format!("waiting for another process that has layer {short} in hand");
            progress(PullEvent::Notice(text));
            LayerLock::take(root, chain_id, mode)
        }
    };
    loop {
        if store::has_layer(conn, root, chain_id)? {
            let lock = take(Mode::Shared)?;
            if store::has_layer(conn, root, chain_id)? {
                return Ok((lock, true));
            }
        } else {
            let lock = take(Mode::Exclusive)?;
            if !store::has_layer(conn, root, chain_id)? {
                return Ok((lock, false));
            }
        }
        // It came or went while we waited: once more, with the other kind of lock.
    }
}

/// Refuses at once what cannot fit even compressed.
fn check_space(staging: &Staging, parts: &[Part]) -> Result<(), Error> {
    let missing = parts.iter().filter(|part| part.staged.is_some());
    let needed = missing.fold(0_u64, |sum, part| sum.saturating_add(part.layer.blob.size));
    let stat = rustix::fs::fstatvfs(staging.fd())
        .map_err(Error::io("look for free space in", staging.path()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if needed > free {
        return Err(Error::NoSpace {
            path: staging.path().to_owned(),
            needed,
            free,
        });
    }
    Ok(())
}

type Downloaded = Vec<(OwnedFd, Applied)>;

/// Downloads all missing layers; the first failure ends the others.
fn download(
    client: &Client<'_>,
    shared: &Shared,
    staging: &Staging,
    parts: &[Part],
) -> Result<Downloaded, Error> {
    let todo: Vec<(&Part, &str)> = parts
        .iter()
        .filter_map(|part| Some((part, part.staged.as_deref()?)))
        .collect();
    let next = Mutex::new(todo.iter().enumerate());
    let results: Mutex<Vec<Option<(OwnedFd, Applied)>>> =
        Mutex::new(todo.iter().map(|_| None).collect());
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let worker = || {
        loop {
            let job = next.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((i, (part, staged))) = job else {
                return;
            };
            if shared.cancelled() {
                return;
            }
            match download_layer(client, shared, staging, part, staged) {
                Ok(done) => results.lock().unwrap_or_else(PoisonError::into_inner)[i] = Some(done),
                Err(e) => {
                    shared.cancelled.store(true, Ordering::Relaxed);
                    failure
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .get_or_insert(e);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..THREADS.min(todo.len()) {
            scope.spawn(worker);
        }
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(e) => Err(e),
        None => Ok(results
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .into_iter()
            .flatten()
            .collect()),
    }
}

/// One layer, begun again if the registry breaks off.
fn download_layer(
    client: &Client<'_>,
    shared: &Shared,
    staging: &Staging,
    part: &Part,
    staged: &str,
) -> Result<(OwnedFd, Applied), Error> {
    let layer = part.layer.blob.digest.short();
    let total = part.layer.blob.size;
    let progress = |done| {
        shared.send(PullEvent::Downloading {
            layer: layer.to_owned(),
            done,
            total,
        });
        if done == total {
            shared.send(PullEvent::Extracting {
                layer: layer.to_owned(),
            });
        }
    };
    let mut again = crate::registry::Backoff::new();
    loop {
        let root = staging.subdirectory(staged)?;
        let recorder =
            Recorder::create(&staging.path().join(staged)).map_err(|source| Error::Layer {
                layer: layer.to_owned(),
                source,
            })?;
        let (layer, diff_id) = (&part.layer, &part.diff_id);
        match stream::fetch(client, layer, diff_id, &root, recorder, &progress) {
            Ok(applied) => return Ok((root, applied)),
            Err(e @ Error::BrokenOff { .. }) => {
                staging.discard(staged)?;
                again.wait(e, None, shared)?;
            }
            Err(e) => return Err(e),
        }
    }
}

/// Finishes the new layers, the lowest first, each over those below it.
fn settle(
    root: &Path,
    staging: &Staging,
    reference: &Reference,
    parts: &[Part],
    downloaded: Downloaded,
) -> Result<Vec<LayerToCommit>, Error> {
    let mut downloaded = downloaded.into_iter();
    // The uppermost first.
    let mut below: Vec<OwnedFd> = Vec::with_capacity(parts.len());
    let mut layers = Vec::new();
    for part in parts {
        let Some(staged) = &part.staged else {
            let path = store::layer_path(root, &part.chain_id);
            let dir = std::fs::File::open(&path).map_err(Error::io("open", path))?;
            below.insert(0, dir.into());
            continue;
        };
        let Some((dir, applied)) = downloaded.next() else {
            return Err(Error::untrusted(
                staging.path().display().to_string(),
                "a layer is missing",
            ));
        };
        let fds: Vec<_> = below.iter().map(AsFd::as_fd).collect();
        let size = applied.finish(&dir, &fds).map_err(|source| Error::Layer {
            layer: part.layer.blob.digest.short().to_owned(),
            source,
        })?;
        layers.push(LayerToCommit {
            chain_id: part.chain_id.clone(),
            diff_id: part.diff_id.clone(),
            staged: staged.clone(),
            size,
            blob: Some(KnownBlob {
                registry: reference.registry.clone(),
                repository: reference.repository.clone(),
                digest: part.layer.blob.digest.clone(),
                size: part.layer.blob.size,
                media_type: part.layer.media_type.clone(),
            }),
        });
        below.insert(0, dir);
    }
    Ok(layers)
}
