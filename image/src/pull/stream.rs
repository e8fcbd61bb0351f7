//! One layer from the registry into its staging directory, without a temporary file: HTTP, SHA-256 and inflating on one
//! thread, SHA-256 of the plain tar (the diff ID) and untarring on another.
//!
//! Nothing is committed here. What comes back has had its blob's size and digest and its diff ID verified. `load` takes the same way
//! from an archive (`apply_packed`).

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

pub use super::ahead::Budget;
use super::body::Body;
use crate::digest::Digest;
use crate::error::Error;
use crate::layer::recipe::Recorder;
use crate::layer::{Applied, LayerError, Limits, apply_recorded};
use crate::plain::plain;
use crate::registry::Client;
use crate::registry::manifest::{Compression, Layer};

const CHUNK: usize = 256 << 10;
/// Chunks that the one thread may be ahead of the other.
const AHEAD: usize = 8;
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// How far the download has come: bytes of the blob.
pub type Progress<'a> = &'a (dyn Fn(u64) + Sync);

pub fn fetch(
    client: &Client<'_>,
    budget: &Budget,
    layer: &Layer,
    diff_id: &Digest,
    root: &OwnedFd,
    recorder: Recorder,
    progress: Progress<'_>,
) -> Result<Applied, Error> {
    thread::scope(|scope| {
        let body = Body::new(client, &layer.blob, budget, scope);
        let packed = Packed {
            blob: BlobReader::new(body, layer, progress),
            compression: layer.compression,
            size: layer.blob.size,
            name: layer.blob.digest.short(),
            diff_id,
        };
        apply_packed(scope, packed, root, recorder, BlobReader::verify)
    })
}

/// A layer as it is packed somewhere.
pub struct Packed<'a, B> {
    pub blob: B,
    pub compression: Compression,
    /// Of the blob, as far as is known: it may be promised only.
    pub size: u64,
    /// For messages.
    pub name: &'a str,
    /// What its tar must have.
    pub diff_id: &'a Digest,
}

/// Unpacks a layer on another thread and applies it on this one. `judge` gets the blob, of which it reads what is left, and how
/// unpacking went: a blob that is not what was promised explains whatever is wrong with its tar.
pub fn apply_packed<'scope, B: Read + Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    packed: Packed<'_, B>,
    root: &OwnedFd,
    recorder: Recorder,
    judge: impl FnOnce(B, io::Result<()>) -> Result<(), Error>,
) -> Result<Applied, Error> {
    let (name, wanted, compression) = (packed.name, packed.diff_id, packed.compression);
    let (sender, receiver) = sync_channel(AHEAD);
    let (give_back, used) = channel();
    let received = Arc::new(AtomicU64::new(0));
    let mut blob = Counted {
        inner: packed.blob,
        count: received.clone(),
    };
    let unpacking = scope.spawn(move || {
        let result = unpack(&mut blob, compression, sender, &used);
        (blob.inner, result)
    });
    let mut chunks = Chunks {
        receiver,
        give_back,
        chunk: Vec::new(),
        at: 0,
    };
    let limits = Limits::for_blob(packed.size);
    let applied = untar_buffered(&mut chunks, root, recorder, limits, Some(&received));
    drop(chunks);
    // A panic there is a bug; it goes on here.
    let (blob, unpacked) = unpacking
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    // Where this host has failed, the rest of the blob is of no use.
    if applied
        .as_ref()
        .map_or_else(LayerError::is_content, |_| true)
    {
        judge(blob, unpacked)?;
    }
    let (applied, computed) = applied.map_err(|source| Error::Layer {
        layer: name.to_owned(),
        source,
    })?;
    if computed != *wanted {
        let why = format!("its tar has the digest {computed} and the image's config says {wanted}");
        return Err(Error::untrusted(format!("layer {name}"), why));
    }
    Ok(applied)
}

/// Applies a plain tar, and hashes and records all of the stream, what follows the archive's end included.
pub fn untar<R: Read>(
    tar: R,
    root: &OwnedFd,
    recorder: Recorder,
    limits: Limits,
) -> Result<(Applied, Digest), LayerError> {
    let tar = BufReader::with_capacity(CHUNK, tar);
    untar_buffered(tar, root, recorder, limits, None)
}

/// As `untar`, without another buffer. `received`: bytes of the blob that the tar comes from, so far.
fn untar_buffered<R: BufRead>(
    tar: R,
    root: &OwnedFd,
    recorder: Recorder,
    limits: Limits,
    received: Option<&AtomicU64>,
) -> Result<(Applied, Digest), LayerError> {
    let mut stream = Hashed {
        inner: tar,
        hash: Sha256::new(),
        seen: 0,
        count: 0,
        limit: limits.tar,
        received,
    };
    let (applied, mut recorder) = apply_recorded(root, &mut stream, recorder, limits)?;
    loop {
        let rest = match stream.fill_buf() {
            Ok([]) => break,
            Ok(rest) => rest,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(LayerError::Read(e)),
        };
        if let Some(recorder) = &mut recorder {
            recorder.bytes(rest)?;
        }
        let n = rest.len();
        stream.consume(n);
    }
    if let Some(recorder) = recorder {
        recorder.finish()?;
    }
    Ok((applied, Digest::finish(stream.hash)))
}

/// Sends the plain tar down the channel, until its end or until nobody wants it.
fn unpack(
    blob: &mut impl Read,
    compression: Compression,
    sender: SyncSender<io::Result<Vec<u8>>>,
    used: &Receiver<Vec<u8>>,
) -> io::Result<()> {
    let mut plain = plain(blob, compression)?;
    loop {
        // Fresh memory costs a page fault every 4 KiB, as much as inflating into it.
        let mut chunk = used.try_recv().unwrap_or_default();
        chunk.resize(CHUNK, 0);
        let mut filled = 0;
        // A decoder that is given no room to write to may call that an error: zstd does.
        let end = loop {
            if filled == CHUNK {
                break Ok(false);
            }
            match plain.read(&mut chunk[filled..]) {
                Ok(0) => break Ok(true),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break Err(e),
            }
        };
        chunk.truncate(filled);
        if filled > 0 && sender.send(Ok(chunk)).is_err() {
            return Ok(());
        }
        match end {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(e) => {
                // Without this the other side would take it for the end.
                let _ = sender.send(Err(io::Error::new(e.kind(), e.to_string())));
                return Err(e);
            }
        }
    }
}

/// Tells the other thread how much has come.
struct Counted<B> {
    inner: B,
    count: Arc<AtomicU64>,
}

impl<B: Read> Read for Counted<B> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.count.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// The blob as it comes, hashed and counted.
struct BlobReader<'scope, 'env> {
    body: Body<'scope, 'env>,
    layer: &'env Layer,
    progress: Progress<'env>,
    told: Instant,
    hash: Sha256,
    count: u64,
    /// What went wrong on the way, which the decoder above would only call bad input.
    failure: Option<Error>,
}

impl<'scope, 'env> BlobReader<'scope, 'env> {
    fn new(body: Body<'scope, 'env>, layer: &'env Layer, progress: Progress<'env>) -> Self {
        BlobReader {
            body,
            layer,
            progress,
            told: Instant::now(),
            hash: Sha256::new(),
            count: 0,
            failure: None,
        }
    }

    /// Reads what the decoder has left, and judges the whole.
    fn verify(mut self, unpacked: io::Result<()>) -> Result<(), Error> {
        // Its failure is kept below.
        let _ = io::copy(&mut self, &mut io::sink());
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let what = format!("blob {}", self.layer.blob.digest);
        let (wanted, got) = (&self.layer.blob.digest, Digest::finish(self.hash));
        if got != *wanted {
            let why = format!("its content has the digest {got}: the registry's copy is damaged");
            return Err(Error::untrusted(what, why));
        }
        unpacked.map_err(|e| Error::Layer {
            layer: wanted.short().to_owned(),
            source: LayerError::Read(e),
        })
    }

    fn fail(&mut self, error: Error) -> io::Error {
        let text = io::Error::other(error.to_string());
        self.failure.get_or_insert(error);
        text
    }
}

impl Read for BlobReader<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.failure.is_some() {
            return Err(io::Error::other("it has failed before"));
        }
        let n = match self.body.read(buf) {
            Ok(n) => n,
            Err(error) => return Err(self.fail(error)),
        };
        let (size, count) = (self.layer.blob.size, self.count + n as u64);
        if count > size {
            let what = format!("blob {}", self.layer.blob.digest);
            let why = format!("it is longer than the {size} bytes of the manifest");
            return Err(self.fail(Error::untrusted(what, why)));
        }
        self.hash.update(&buf[..n]);
        self.count = count;
        if self.told.elapsed() >= PROGRESS_EVERY || (count == size && n > 0) {
            self.told = Instant::now();
            (self.progress)(count);
        }
        Ok(n)
    }
}

/// The receiving end of the channel as a stream.
struct Chunks {
    receiver: Receiver<io::Result<Vec<u8>>>,
    /// Takes the chunks that have been read.
    give_back: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.chunk.len() {
            match self.receiver.recv() {
                Ok(chunk) => {
                    let old = std::mem::replace(&mut self.chunk, chunk?);
                    self.at = 0;
                    // The other side may be done already.
                    let _ = self.give_back.send(old);
                }
                Err(_) => break,
            }
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

impl Read for Chunks {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buf)
    }
}

/// `Read::read` of what has a buffer.
fn read_buffered(stream: &mut impl BufRead, buf: &mut [u8]) -> io::Result<usize> {
    let bytes = stream.fill_buf()?;
    let n = buf.len().min(bytes.len());
    buf[..n].copy_from_slice(&bytes[..n]);
    stream.consume(n);
    Ok(n)
}

/// Hashes a stream where it lies, a buffer at a time, and stops a decompression bomb.
struct Hashed<'a, R> {
    inner: R,
    hash: Sha256,
    /// Bytes of the inner buffer that are hashed already.
    seen: usize,
    count: u64,
    limit: u64,
    received: Option<&'a AtomicU64>,
}

impl<R> Hashed<'_, R> {
    fn most(&self) -> u64 {
        let so_far = |received: &AtomicU64| Limits::tar_of(received.load(Ordering::Relaxed));
        self.received.map_or(self.limit, so_far).min(self.limit)
    }
}

impl<R: BufRead> BufRead for Hashed<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let most = self.most();
        let bytes = self.inner.fill_buf()?;
        let new = &bytes[self.seen..];
        self.count += new.len() as u64;
        if self.count > most {
            return Err(io::Error::other(format!(
                "it unpacks to more than {most} bytes"
            )));
        }
        self.hash.update(new);
        self.seen = bytes.len();
        Ok(bytes)
    }

    fn consume(&mut self, n: usize) {
        self.seen -= n;
        self.inner.consume(n);
    }
}

impl<R: BufRead> Read for Hashed<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tar_may_become_is_told_by_what_has_come_and_not_by_what_is_promised() {
        let most = |limit, received: Option<&AtomicU64>| {
            let hashed = Hashed {
                inner: io::empty(),
                hash: Sha256::new(),
                seen: 0,
                count: 0,
                limit,
                received,
            };
            hashed.most()
        };
        let promised = Limits::for_blob(1 << 40).tar;
        assert_eq!(most(promised, None), 1 << 48);
        let received = AtomicU64::new(1000);
        assert_eq!(most(promised, Some(&received)), (4 << 30) + 1_032_000);
        received.store(1 << 40, Ordering::Relaxed);
        assert_eq!(most(promised, Some(&received)), 1 << 48);
        assert_eq!(most(100, Some(&received)), 100);
    }

    #[test]
    fn a_stream_is_hashed_once_and_ends_at_its_limit() {
        let read = |limit| {
            let mut stream = Hashed {
                inner: BufReader::with_capacity(7, &b"some bytes of a tar"[..]),
                hash: Sha256::new(),
                seen: 0,
                count: 0,
                limit,
                received: None,
            };
            let mut bytes = [0; 3];
            while stream.read(&mut bytes)? > 0 {}
            Ok::<_, io::Error>(Digest::finish(stream.hash))
        };
        assert_eq!(read(19).unwrap(), Digest::of(b"some bytes of a tar"));
        let error = read(18).unwrap_err().to_string();
        assert_eq!(error, "it unpacks to more than 18 bytes");
    }
}
