//! `pull`: from a reference to a committed image, reporting what happens as values.
//!
//! Order: sweep, manifest and config, a look at the space, the missing layers by a few threads (`obtain`), commit. The
//! database is only read before the commit, and locks no writer out while bytes come in. What was finished before a
//! failure is kept for the next pull.

use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::layer::Applied;
use crate::registry::{Access, Client, Registries, Watcher};
use crate::staging::Staging;
use crate::store::{self, ImageToCommit};
use crate::{Image, Reference};

mod ahead;
mod body;
mod obtain;
pub(crate) mod resolve;
pub(crate) mod space;
pub(crate) mod stream;
mod tags;

use obtain::{Layers, Source};
pub use tags::tags;

/// What to pull, and how.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// `os/arch[/variant]`; `None`: this host's.
    pub platform: Option<String>,
    pub registries: Registries,
    /// Ends the pull with `Error::Interrupted`; what is finished is kept.
    pub interrupt: Interrupt,
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
    /// The last one, where layers were downloaded.
    Summary(Summary),
}

/// What a pull took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the blobs that were downloaded.
    pub downloaded: u64,
    /// Bytes of the files in them.
    pub unpacked: u64,
    pub elapsed: Duration,
    /// Of all of this process's threads.
    pub cpu: Duration,
    /// Bytes that the root directory's file system has left.
    pub free: u64,
}

/// What a thread of a pull has to say.
enum Message {
    Event(PullEvent),
    /// The number of a layer, and what became of it.
    Done(usize, Result<(std::os::fd::OwnedFd, Applied), Error>),
}

/// What the threads of a pull share.
struct Shared {
    messages: mpsc::Sender<Message>,
    /// Some layer has failed, or the front end wants no more.
    stop: Interrupt,
}

impl Shared {
    fn new() -> (Shared, mpsc::Receiver<Message>) {
        let (messages, receiver) = mpsc::channel();
        let stop = Interrupt::default();
        (Shared { messages, stop }, receiver)
    }

    fn send(&self, event: PullEvent) {
        // The receiver lives as long as the threads do.
        let _ = self.messages.send(Message::Event(event));
    }
}

impl Watcher for Shared {
    fn notice(&self, text: String) {
        self.send(PullEvent::Notice(text));
    }

    fn cancelled(&self) -> bool {
        self.stop.is_requested()
    }

    fn stop(&self) -> Interrupt {
        self.stop.clone()
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
    let (begun, cpu) = (Instant::now(), cpu_time());
    let (shared, receiver) = Shared::new();
    let client = Client::new(reference, &options.registries, Access::Pull, &shared)?;
    let source = Source {
        client: &client,
        shared: &shared,
        receiver: &receiver,
        interrupt: &options.interrupt,
    };
    let resolved = pump(&source, progress, || {
        resolve::resolve(&client, reference, options)
    })?;
    let staging = Staging::create(root)?;
    let origin = (reference.registry.as_str(), reference.repository.as_str());
    // Of an image that is here, Docker names no layers.
    let known = store::load(conn, root, resolved.id.as_str()).is_ok();
    let progress: &mut dyn FnMut(PullEvent) = &mut |event| {
        if !(known && matches!(event, PullEvent::AlreadyExists { .. })) {
            progress(event);
        }
    };
    let mut layers = Layers::begin(conn, root, &staging, origin, &resolved, progress)?;
    layers.obtain(conn, &source, progress)?;
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
        chain: &layers.chain(),
        names: &[reference.clone(), digest_name],
    };
    let image = store::commit(conn, root, &staging, &layers.to_commit(), &to_commit)?;
    layers.committed(progress)?;
    progress(PullEvent::Digest(resolved.digest.to_string()));
    let newer = layers.any_new || before.is_none_or(|found| found.id != resolved.id.as_str());
    progress(status(newer, reference));
    if layers.downloaded > 0 {
        progress(PullEvent::Summary(Summary {
            downloaded: layers.downloaded,
            unpacked: layers.unpacked,
            elapsed: begun.elapsed(),
            cpu: cpu_time().saturating_sub(cpu),
            free: space::free(staging.fd(), root)?.bytes,
        }));
    }
    Ok(image)
}

/// Of this process so far (clock_gettime(2), CLOCK_PROCESS_CPUTIME_ID).
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn status(newer: bool, reference: &Reference) -> PullEvent {
    PullEvent::Status {
        newer,
        reference: reference.to_string(),
    }
}

/// Runs `work` beside this thread, which meanwhile hands on what happens, and the front end's wish to stop.
fn pump<T: Send>(
    source: &Source<'_>,
    progress: &mut dyn FnMut(PullEvent),
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let mut hand_on = |message| {
        if let Message::Event(event) = message {
            progress(event);
        }
    };
    thread::scope(|scope| {
        let worker = scope.spawn(work);
        while !worker.is_finished() {
            if source.interrupt.is_requested() {
                source.shared.stop.request();
            }
            if let Ok(message) = source.receiver.recv_timeout(Duration::from_millis(20)) {
                hand_on(message);
            }
        }
        source.receiver.try_iter().for_each(hand_on);
        let result = worker
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match source.shared.stop.is_requested() {
            true => Err(Error::Interrupted),
            false => result,
        }
    })
}
