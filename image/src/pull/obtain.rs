//! Gets every layer of an image: from the store, from the registry, or from another process that is just getting it.
//!
//! One thread, the caller's, hands out layers to threads that download, and looks at the database. Each layer that is made
//! is locked exclusively, each that is there shared. Locks are tried and never waited for, and a layer's lock is only taken
//! when there is a thread for it, so that two pulls of one image share its layers.
//!
//! That no two pulls wait for each other for ever: a pull without anything to download makes permanent what it has finished from the
//! lowest layer up and lets go of it, before it waits. What it then still holds lies above a layer that it lacks. Suppose that
//! none of several pulls moves, and take the one whose lowest missing layer is lowest. Another one holds that layer, finished,
//! and could not let go of it, so it lacks one below. But a chain ID stands for all that is below as well: both have the
//! same layers there, and so that one's lowest missing layer is lower still.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::ahead::Budget;
use super::resolve::Resolved;
use super::{Message, PullEvent, Shared, space, stream};
use crate::digest::{Digest, chain_ids};
use crate::error::{Error, ErrorKind};
use crate::interrupt::Interrupt;
use crate::layer::Applied;
use crate::layer::recipe::Recorder;
use crate::lock::{LayerLock, Mode};
use crate::registry::Client;
use crate::registry::manifest::Layer;
use crate::staging::Staging;
use crate::store::{self, KnownBlob, LayerToCommit};

/// Layers that are downloaded at once.
const THREADS: usize = 3;
/// How often other processes' layers, and the front end's wish to stop, are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Bytes of a blob whose layer is worth a flush of its own; a small image waits for nothing but its commit.
const FLUSH_FROM: u64 = 16 << 20;
/// A pull that takes longer makes permanent what it has so often: others may wait for it, and a kill costs less.
const KEEP_EVERY: Duration = Duration::from_secs(10);

/// One layer of the image being pulled.
struct Part {
    layer: Layer,
    diff_id: Digest,
    chain_id: Digest,
    /// The name in staging.
    staged: String,
    state: State,
}

enum State {
    /// Neither there nor in our hands.
    Missing,
    Downloading(LayerLock),
    /// Whole but for what it takes from the layers below.
    Applied(LayerLock, OwnedFd, Applied),
    /// Whole, with the bytes of its files.
    Finished(LayerLock, u64),
    There(#[allow(dead_code, reason = "held, not used")] LayerLock),
}

pub struct Layers<'a> {
    root: &'a Path,
    staging: &'a Staging,
    /// Where the blobs are from: registry and repository.
    origin: (&'a str, &'a str),
    /// The lowest first.
    parts: Vec<Part>,
    /// The directories of the layers that are finished or there, from the lowest up without a gap.
    settled: Vec<OwnedFd>,
    kept_at: Instant,
    /// Of what was downloaded here.
    pub downloaded: u64,
    pub unpacked: u64,
    /// Some layer was not there when the pull began.
    pub any_new: bool,
}

/// What the threads that download need.
pub struct Source<'a> {
    pub client: &'a Client<'a>,
    pub shared: &'a Shared,
    pub receiver: &'a mpsc::Receiver<Message>,
    pub interrupt: &'a Interrupt,
}

type Downloaded = Result<(OwnedFd, Applied), Error>;

impl<'a> Layers<'a> {
    /// Looks which layers are there, and whether the others fit.
    pub fn begin(
        conn: &Connection,
        root: &'a Path,
        staging: &'a Staging,
        origin: (&'a str, &'a str),
        resolved: &Resolved,
        progress: &mut dyn FnMut(PullEvent),
    ) -> Result<Self, Error> {
        let mut layers = Layers {
            root,
            staging,
            origin,
            parts: Vec::new(),
            settled: Vec::new(),
            kept_at: Instant::now(),
            downloaded: 0,
            unpacked: 0,
            any_new: false,
        };
        for (i, chain_id) in chain_ids(&resolved.diff_ids).into_iter().enumerate() {
            let mut part = Part {
                layer: resolved.layers[i].clone(),
                diff_id: resolved.diff_ids[i].clone(),
                chain_id,
                staged: i.to_string(),
                state: State::Missing,
            };
            let layer = part.layer.blob.digest.short().to_owned();
            if let Some(lock) = there(conn, root, &part.chain_id)? {
                part.state = State::There(lock);
                progress(PullEvent::AlreadyExists { layer });
            } else {
                layers.any_new = true;
                progress(PullEvent::PullingFsLayer { layer });
            }
            layers.parts.push(part);
        }
        let free = space::free(staging.fd(), root)?;
        if let Some(text) = space::check(layers.missing(), free, root)? {
            progress(PullEvent::Notice(text));
        }
        Ok(layers)
    }

    fn missing(&self) -> impl Iterator<Item = &Layer> {
        let missing = |part: &&Part| !matches!(part.state, State::There(_));
        self.parts.iter().filter(missing).map(|part| &part.layer)
    }

    /// Returns when every layer is finished here or there. When this host, the network or the user ends it, what was finished from
    /// the lowest layer up is kept. Of an image that is not what it says, nothing is.
    pub fn obtain(
        &mut self,
        conn: &mut Connection,
        source: &Source<'_>,
        progress: &mut dyn FnMut(PullEvent),
    ) -> Result<(), Error> {
        let result = self.download(conn, source, progress);
        let result = result.and_then(|()| self.settle());
        if let Err(error) = result {
            if error.kind() == ErrorKind::Untrusted {
                return Err(error);
            }
            // What was free when it happened: the layers cut short are still there.
            let free = space::free(self.staging.fd(), self.root).ok();
            let layers: Vec<&Layer> = self.missing().collect();
            let error = space::explain(error, &layers, free, self.root);
            for part in &mut self.parts {
                if let State::Downloading(_) = part.state {
                    part.state = State::Missing;
                    // On a full disk this makes room for what is to be kept. The sweep takes what is left.
                    let _ = self.staging.discard(&part.staged);
                }
            }
            if let Err(second) = self.keep_finished(conn, progress) {
                tracing::warn!(error = %second, "the finished layers are not kept");
            }
            return Err(error);
        }
        Ok(())
    }

    fn download(
        &mut self,
        conn: &mut Connection,
        source: &Source<'_>,
        progress: &mut dyn FnMut(PullEvent),
    ) -> Result<(), Error> {
        let budget = Budget::default();
        let mut failure = None;
        let mut waits = false;
        // What is finished goes to the disk while the rest comes in: the commit's own wait is then short.
        let flushing = AtomicBool::new(false);
        let staging = self.staging;
        thread::scope(|scope| {
            let mut running = 0;
            loop {
                if source.interrupt.is_requested() && failure.is_none() {
                    failure = Some(Error::Interrupted);
                }
                while failure.is_none() && running < THREADS {
                    match self.claim(conn, progress) {
                        Ok(Some(i)) => {
                            running += 1;
                            self.spawn(i, source, &budget, scope);
                        }
                        Ok(None) => break,
                        Err(e) => failure = Some(e),
                    }
                }
                if failure.is_some() {
                    source.shared.stop.request();
                }
                let left = self.parts.iter().any(|part| part.is_missing());
                if running == 0 && (failure.is_some() || !left) {
                    break;
                }
                let others = running == 0 && !waits;
                if others && let Some(part) = self.parts.iter().find(|part| part.is_missing()) {
                    waits = true;
                    let layer = part.layer.blob.digest.short();
                    let text =
                        format!("waiting for another process that has layer {layer} in hand");
                    progress(PullEvent::Notice(text));
                }
                if (others || self.kept_at.elapsed() >= KEEP_EVERY)
                    && failure.is_none()
                    && let Err(e) = self.keep_finished(conn, progress)
                {
                    failure = Some(e);
                }
                match source.receiver.recv_timeout(LOOK_EVERY) {
                    Ok(Message::Event(event)) => progress(event),
                    Ok(Message::Done(i, result)) => {
                        running -= 1;
                        waits = false;
                        let worth = self.parts[i].layer.blob.size >= FLUSH_FROM;
                        if worth && running > 0 && !flushing.swap(true, Ordering::Relaxed) {
                            let flushing = &flushing;
                            scope.spawn(move || {
                                // Only ahead of time: the commit's tells of failures.
                                let _ = rustix::fs::syncfs(staging.fd());
                                flushing.store(false, Ordering::Relaxed);
                            });
                        }
                        if let Some(e) = self.finished(i, result) {
                            // Those that stop because of it say only that.
                            failure.get_or_insert(e);
                        }
                    }
                    Err(_) => {}
                }
            }
        });
        for message in source.receiver.try_iter() {
            if let Message::Event(event) = message {
                progress(event);
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// The largest of the layers that nobody has in hand, so that no long one is left to the end; locked.
    fn claim(
        &mut self,
        conn: &Connection,
        progress: &mut dyn FnMut(PullEvent),
    ) -> Result<Option<usize>, Error> {
        let mut missing: Vec<usize> = (0..self.parts.len())
            .filter(|&i| self.parts[i].is_missing())
            .collect();
        missing.sort_by_key(|&i| std::cmp::Reverse(self.parts[i].layer.blob.size));
        for i in missing {
            let part = &mut self.parts[i];
            let layer = || part.layer.blob.digest.short().to_owned();
            if let Some(lock) = there(conn, self.root, &part.chain_id)? {
                // Another process was faster.
                progress(PullEvent::PullComplete { layer: layer() });
                part.state = State::There(lock);
                continue;
            }
            let lock = LayerLock::try_take(self.root, &part.chain_id, Mode::Exclusive)?;
            let Some(lock) = lock else { continue };
            if store::has_layer(conn, self.root, &part.chain_id)? {
                // Between the two looks; the next one finds it.
                continue;
            }
            part.state = State::Downloading(lock);
            return Ok(Some(i));
        }
        Ok(None)
    }

    fn spawn<'scope, 'env>(
        &self,
        i: usize,
        source: &'env Source<'env>,
        budget: &'env Budget,
        scope: &'scope Scope<'scope, 'env>,
    ) where
        'a: 'env,
    {
        let part = &self.parts[i];
        let (layer, diff_id) = (part.layer.clone(), part.diff_id.clone());
        let (staging, staged) = (self.staging, part.staged.clone());
        let (client, shared) = (source.client, source.shared);
        scope.spawn(move || {
            let result = download(client, shared, budget, staging, &layer, &diff_id, &staged);
            // The receiver lives as long as the threads do.
            let _ = shared.messages.send(Message::Done(i, result));
        });
    }

    fn finished(&mut self, i: usize, result: Downloaded) -> Option<Error> {
        let part = &mut self.parts[i];
        match (result, std::mem::replace(&mut part.state, State::Missing)) {
            (Ok((dir, applied)), State::Downloading(lock)) => {
                self.downloaded += part.layer.blob.size;
                part.state = State::Applied(lock, dir, applied);
                None
            }
            (Err(error), state) => {
                part.state = state;
                Some(error)
            }
            (Ok(_), state) => {
                part.state = state;
                None
            }
        }
    }

    /// Finishes the layers from the lowest up, each over those below it, as far as there is no gap.
    fn settle(&mut self) -> Result<(), Error> {
        for part in self.parts.iter_mut().skip(self.settled.len()) {
            let dir = match std::mem::replace(&mut part.state, State::Missing) {
                State::There(lock) => {
                    part.state = State::There(lock);
                    let path = store::layer_path(self.root, &part.chain_id);
                    std::fs::File::open(&path)
                        .map_err(Error::io("open", path))?
                        .into()
                }
                State::Applied(lock, dir, applied) => {
                    // The uppermost first.
                    let below: Vec<_> = self.settled.iter().rev().map(AsFd::as_fd).collect();
                    let size = applied
                        .finish(&dir, &below)
                        .map_err(|source| Error::Layer {
                            layer: part.layer.blob.digest.short().to_owned(),
                            source,
                        })?;
                    self.unpacked += size;
                    part.state = State::Finished(lock, size);
                    dir
                }
                other => {
                    part.state = other;
                    return Ok(());
                }
            };
            self.settled.push(dir);
        }
        Ok(())
    }

    /// The finished layers, to be committed.
    pub fn to_commit(&self) -> Vec<LayerToCommit> {
        let layer = |part: &Part| {
            let State::Finished(_, size) = part.state else {
                return None;
            };
            let (registry, repository) = self.origin;
            Some(LayerToCommit {
                chain_id: part.chain_id.clone(),
                diff_id: part.diff_id.clone(),
                staged: part.staged.clone(),
                size,
                blob: Some(KnownBlob {
                    registry: registry.to_owned(),
                    repository: repository.to_owned(),
                    digest: part.layer.blob.digest.clone(),
                    size: part.layer.blob.size,
                    media_type: part.layer.media_type.clone(),
                }),
            })
        };
        self.parts.iter().filter_map(layer).collect()
    }

    /// To be called when they are committed: others may use them now.
    pub fn committed(&mut self, progress: &mut dyn FnMut(PullEvent)) -> Result<(), Error> {
        for part in &mut self.parts {
            match std::mem::replace(&mut part.state, State::Missing) {
                State::Finished(lock, _) => {
                    lock.share(self.root)?;
                    part.state = State::There(lock);
                    let layer = part.layer.blob.digest.short().to_owned();
                    progress(PullEvent::PullComplete { layer });
                }
                other => part.state = other,
            }
        }
        Ok(())
    }

    /// Makes permanent what is finished from the lowest layer up.
    fn keep_finished(
        &mut self,
        conn: &mut Connection,
        progress: &mut dyn FnMut(PullEvent),
    ) -> Result<(), Error> {
        self.kept_at = Instant::now();
        let result = self.settle();
        let layers = self.to_commit();
        if !layers.is_empty() {
            store::keep(conn, self.root, self.staging, &layers)?;
            self.committed(progress)?;
        }
        result
    }

    pub fn chain(&self) -> Vec<Digest> {
        self.parts
            .iter()
            .map(|part| part.chain_id.clone())
            .collect()
    }
}

impl Part {
    fn is_missing(&self) -> bool {
        matches!(self.state, State::Missing)
    }
}

/// The lock of a layer that is in the store.
fn there(conn: &Connection, root: &Path, chain_id: &Digest) -> Result<Option<LayerLock>, Error> {
    if !store::has_layer(conn, root, chain_id)? {
        return Ok(None);
    }
    let lock = LayerLock::try_take(root, chain_id, Mode::Shared)?;
    // It may have gone in between.
    let still = store::has_layer(conn, root, chain_id)?;
    Ok(lock.filter(|_| still))
}

/// One layer, into its directory in staging.
fn download(
    client: &Client<'_>,
    shared: &Shared,
    budget: &Budget,
    staging: &Staging,
    layer: &Layer,
    diff_id: &Digest,
    staged: &str,
) -> Downloaded {
    let short = layer.blob.digest.short();
    let total = layer.blob.size;
    let progress = |done| {
        shared.send(PullEvent::Downloading {
            layer: short.to_owned(),
            done,
            total,
        });
        if done == total {
            shared.send(PullEvent::Extracting {
                layer: short.to_owned(),
            });
        }
    };
    let root = staging.subdirectory(staged)?;
    let recorder =
        Recorder::create(&staging.path().join(staged)).map_err(|source| Error::Layer {
            layer: short.to_owned(),
            source,
        })?;
    let applied = stream::fetch(client, budget, layer, diff_id, &root, recorder, &progress)?;
    Ok((root, applied))
}
