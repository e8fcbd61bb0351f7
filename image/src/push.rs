//! `push`: an image of the store into a registry, reporting what happens as values.
//!
//! Order: locks on all layers from the lowest up, the layers by a few threads, the config, the manifest. Nothing is
//! written to disk but the notes of which layer is which blob there, each as soon as it is true: a push that is broken off
//! goes on where it was.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use rusqlite::Connection;

use crate::Reference;
use crate::digest::Digest;
use crate::error::Error;
use crate::lock::{LayerLock, Mode};
use crate::registry::manifest::{Blob, Compression};
use crate::registry::platform::Platform;
use crate::registry::{Access, Client, Registries, Watcher};
use crate::store::{self, KnownBlob, StoredLayer};

mod layer;
mod manifest;
mod pack;

use manifest::Original;
pub use pack::Packing;

/// Layers that are packed and sent at once.
const THREADS: usize = 3;

/// How to push.
#[derive(Clone, Debug, Default)]
pub struct PushOptions {
    pub registries: Registries,
    /// All tags of the repository; the reference's own counts for nothing then.
    pub all_tags: bool,
    /// How layers that the registry does not have are packed; `None`: gzip, and whatever form the registry has is good.
    pub packing: Option<Packing>,
    /// `os/arch[/variant]` that the image must be of.
    pub platform: Option<String>,
    /// Each layer in one request: for registries that take no pieces. It is packed twice then.
    pub whole: bool,
}

/// Progress, in the order in which things happen; layers interleave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushEvent {
    /// `The push refers to repository [docker.io/library/x]`
    Started {
        repository: String,
    },
    /// `layer` is the first 12 digits of the diff ID, in all that follow.
    Preparing {
        layer: String,
    },
    Waiting {
        layer: String,
    },
    /// Bytes of the layer, unpacked.
    Pushing {
        layer: String,
        done: u64,
        total: u64,
    },
    Pushed {
        layer: String,
    },
    AlreadyExists {
        layer: String,
    },
    /// `from` is another repository of the same registry.
    Mounted {
        layer: String,
        from: String,
    },
    /// `latest: digest: sha256:... size: 527`; the size is the manifest's.
    Digest {
        tag: String,
        digest: String,
        size: u64,
    },
    /// A line for a person who waits: the registry wants a pause.
    Notice(String),
}

/// What the threads of a push tell the one that has the database.
enum Message {
    Event(PushEvent),
    /// The layer of this number is this blob of the repository.
    Sent(usize, Blob, Compression),
}

/// What the threads of a push share.
struct Shared {
    messages: mpsc::Sender<Message>,
    cancelled: AtomicBool,
}

impl Shared {
    fn send(&self, event: PushEvent) {
        // The receiver lives as long as the threads do.
        let _ = self.messages.send(Message::Event(event));
    }
}

impl Watcher for Shared {
    fn notice(&self, text: String) {
        self.send(PushEvent::Notice(text));
    }

    fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// Where to, and how.
struct Target<'a> {
    client: &'a Client<'a>,
    root: &'a Path,
    name: &'a Reference,
    options: &'a PushOptions,
    shared: &'a Shared,
}

/// One layer of the image being pushed.
struct Part {
    layer: StoredLayer,
    /// Bytes of its files: about as long as its tar.
    size: u64,
    /// Blobs that it is known as, here or elsewhere; the best guess first.
    known: Vec<KnownBlob>,
    /// The blob that the image came with.
    original: Option<Digest>,
}

impl Part {
    fn is(&self, layer: &StoredLayer) -> bool {
        self.layer.diff_id == layer.diff_id
    }

    /// What the image came with first, so that its manifest stays as it was; then what may be there already.
    fn sort(&mut self, name: &Reference, options: &PushOptions) {
        self.known.sort_by_key(|blob| {
            let here = blob.registry == name.registry;
            let same = here && blob.repository == name.repository;
            (Some(&blob.digest) != self.original.as_ref(), !same, !here)
        });
        if let Some(packing) = options.packing {
            let kind = Some(packing.kind());
            self.known
                .retain(|blob| manifest::compression(&blob.media_type) == kind);
        }
    }

    fn short(&self) -> String {
        self.layer.diff_id.short().to_owned()
    }
}

/// Pushes the image of a name, or with `all_tags` all of a repository's.
pub fn push(
    conn: &mut Connection,
    root: &Path,
    reference: &Reference,
    options: &PushOptions,
    progress: &mut dyn FnMut(PushEvent),
) -> Result<(), Error> {
    if reference.digest.is_some() {
        return Err(Error::PushOfDigest);
    }
    let repository = reference.full_name();
    progress(PushEvent::Started { repository });
    let known = store::tags_of(conn, reference)?;
    if known.is_empty() {
        return Err(Error::NoSuchRepository(reference.familiar_name()));
    }
    let tags = match (options.all_tags, &reference.tag) {
        (false, Some(tag)) => vec![tag.clone()],
        _ => known.into_iter().map(|(tag, _)| tag).collect(),
    };
    for tag in tags {
        let name = Reference {
            tag: Some(tag),
            ..reference.clone()
        };
        push_one(conn, root, &name, options, progress)?;
    }
    Ok(())
}

fn push_one(
    conn: &mut Connection,
    root: &Path,
    name: &Reference,
    options: &PushOptions,
    progress: &mut dyn FnMut(PushEvent),
) -> Result<(), Error> {
    let tag = name.tag.clone().unwrap_or_default();
    let id = match store::resolve(conn, &name.full())? {
        Some(found) if found.name.is_some() => Digest::expect(&found.id, "an image's row")?,
        _ => return Err(Error::NoSuchTag(name.to_string())),
    };
    let seen = store::steady(conn, id.as_str(), || {
        let (layers, locks) = lock_layers(conn, root, &id)?;
        let config = store::config_bytes(root, &id)?;
        let original = Original::read(root, &id, layers.len())?;
        Ok((layers, locks, config, original))
    })?;
    let (layers, _locks, config, original) =
        seen.ok_or_else(|| Error::NoSuchTag(name.to_string()))?;
    check_platform(name, &config, options)?;
    let mut parts = parts_of(conn, &layers)?;
    if let Some(original) = &original {
        let seen = store::repositories_of(conn, id.as_str())?;
        add_original(&mut parts, &layers, original, name, &seen);
    }
    for part in &mut parts {
        part.sort(name, options);
    }
    // As Docker has it: the uppermost is named first.
    for part in parts.iter().rev() {
        progress(PushEvent::Preparing {
            layer: part.short(),
        });
    }
    for part in parts.iter().skip(THREADS) {
        progress(PushEvent::Waiting {
            layer: part.short(),
        });
    }
    let (messages, receiver) = mpsc::channel();
    let shared = Shared {
        messages,
        cancelled: AtomicBool::new(false),
    };
    let client = Client::new(name, &options.registries, Access::Push, &shared)?;
    let target = Target {
        client: &client,
        root,
        name,
        options,
        shared: &shared,
    };
    let sent = send_layers(conn, &target, &parts, &receiver, progress)?;
    let of_layer = |layer: &StoredLayer| {
        let part = parts.iter().position(|part| part.is(layer));
        part.and_then(|i| sent[i].clone())
    };
    let blobs: Vec<(Blob, Compression)> = layers.iter().filter_map(of_layer).collect();
    let (media_type, bytes) = manifest::of_image(original.as_ref(), &id, &config, &blobs);
    let digest = {
        let finish = || -> Result<Digest, Error> {
            if !client.has_blob(&id, config.len() as u64)? {
                client.send_small(&id, &config)?;
            }
            client.send_manifest(&tag, &media_type, &bytes)
        };
        attend(&receiver, progress, &mut |_| Ok(()), finish)??
    };
    store::note_digest(conn, id.as_str(), name, &digest)?;
    progress(PushEvent::Digest {
        tag,
        digest: digest.to_string(),
        size: bytes.len() as u64,
    });
    Ok(())
}

/// Holds the layers of an image, the lowest first, so that they stay until they are sent.
fn lock_layers(
    conn: &Connection,
    root: &Path,
    id: &Digest,
) -> Result<(Vec<StoredLayer>, Vec<LayerLock>), Error> {
    let layers = store::layers_of(conn, id.as_str())?;
    let mut locks = Vec::with_capacity(layers.len());
    for layer in &layers {
        locks.push(LayerLock::take(root, &layer.chain_id, Mode::Shared)?);
        if !store::has_layer(conn, root, &layer.chain_id)? {
            return Err(Error::LayerMissing {
                layer: layer.chain_id.to_string(),
                image: id.to_string(),
                path: store::layer_path(root, &layer.chain_id),
            });
        }
    }
    Ok((layers, locks))
}

/// What is to be sent: each content once, however often it is in the stack.
fn parts_of(conn: &Connection, layers: &[StoredLayer]) -> Result<Vec<Part>, Error> {
    let mut parts: Vec<Part> = Vec::with_capacity(layers.len());
    for layer in layers {
        if parts.iter().any(|part| part.is(layer)) {
            continue;
        }
        parts.push(Part {
            layer: layer.clone(),
            size: store::layer_size(conn, &layer.chain_id)?,
            known: store::known_blobs(conn, &layer.chain_id)?,
            original: None,
        });
    }
    Ok(parts)
}

/// Where the image itself has been seen, its layers have been too, though they may have come by another image.
fn add_original(
    parts: &mut [Part],
    layers: &[StoredLayer],
    original: &Original,
    name: &Reference,
    seen: &[Reference],
) {
    for (i, layer) in layers.iter().enumerate() {
        let Some(part) = parts.iter_mut().find(|part| part.is(layer)) else {
            continue;
        };
        let packed = original.layer(i);
        part.original = Some(packed.blob.digest.clone());
        part.known
            .extend(seen.iter().chain([name]).map(|place| KnownBlob {
                registry: place.registry.clone(),
                repository: place.repository.clone(),
                digest: packed.blob.digest.clone(),
                size: packed.blob.size,
                media_type: packed.media_type.clone(),
            }));
    }
}

/// An image is of one platform, and another one cannot be pushed of it.
fn check_platform(name: &Reference, config: &[u8], options: &PushOptions) -> Result<(), Error> {
    let Some(wanted) = &options.platform else {
        return Ok(());
    };
    let wanted = Platform::parse(wanted)?;
    let actual: Platform = serde_json::from_slice(config)
        .map_err(|e| Error::untrusted(format!("config of {name}"), e.to_string()))?;
    match wanted.rank(&actual) {
        Some(_) => Ok(()),
        None => Err(Error::WrongPlatform {
            reference: name.to_string(),
            wanted: wanted.to_string(),
            actual: actual.to_string(),
        }),
    }
}

type Sent = Vec<Option<(Blob, Compression)>>;

/// Has all layers in the repository, each noted as soon as it is; the first failure ends the others.
fn send_layers(
    conn: &Connection,
    target: &Target<'_>,
    parts: &[Part],
    receiver: &mpsc::Receiver<Message>,
    progress: &mut dyn FnMut(PushEvent),
) -> Result<Sent, Error> {
    let Target { shared, name, .. } = target;
    let next = Mutex::new(parts.iter().enumerate());
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    let worker = || {
        while !shared.cancelled() {
            let job = next.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((i, part)) = job else {
                return;
            };
            match layer::send(target, part) {
                Ok((blob, compression)) => {
                    let _ = shared.messages.send(Message::Sent(i, blob, compression));
                }
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
    let mut sent: Sent = vec![None; parts.len()];
    let mut note = |(i, blob, compression): (usize, Blob, Compression)| {
        let known = KnownBlob {
            registry: name.registry.clone(),
            repository: name.repository.clone(),
            digest: blob.digest.clone(),
            size: blob.size,
            media_type: manifest::oci_layer(compression).to_owned(),
        };
        sent[i] = Some((blob, compression));
        store::note_blob(conn, &parts[i].layer.chain_id, &known)
    };
    attend(receiver, progress, &mut note, || {
        thread::scope(|scope| {
            for _ in 0..THREADS.min(parts.len()) {
                scope.spawn(worker);
            }
        });
    })?;
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(e) => Err(e),
        None => Ok(sent),
    }
}

/// Runs `work` beside this thread, which meanwhile hands on the events and has `note` write down what is sent.
fn attend<T: Send>(
    receiver: &mpsc::Receiver<Message>,
    progress: &mut dyn FnMut(PushEvent),
    note: &mut dyn FnMut((usize, Blob, Compression)) -> Result<(), Error>,
    work: impl FnOnce() -> T + Send,
) -> Result<T, Error> {
    let mut noted = Ok(());
    let mut hear = |message| match message {
        Message::Event(event) => progress(event),
        Message::Sent(i, blob, compression) => {
            if let Err(e) = note((i, blob, compression)) {
                noted = Err(e);
            }
        }
    };
    let done = thread::scope(|scope| {
        let worker = scope.spawn(work);
        while !worker.is_finished() {
            if let Ok(message) = receiver.recv_timeout(std::time::Duration::from_millis(20)) {
                hear(message);
            }
        }
        receiver.try_iter().for_each(&mut hear);
        worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    noted.map(|()| done)
}
