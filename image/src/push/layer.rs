//! One layer into the repository: found there, mounted from another repository, or packed and sent without a temporary
//! file. What is packed goes through a pipe of bounded length from one thread to the other.

use std::io::{self, Read};
use std::path::Path;
use std::thread;

use sha2::{Digest as _, Sha256};

use super::pack::{self, Packing, Progress};
use super::{Part, PushEvent, Shared, Target, manifest};
use crate::Reference;
use crate::digest::Digest;
use crate::error::Error;
use crate::layer::pack::PackError;
use crate::pipe::{PipeReader, pipe};
use crate::registry::manifest::{Blob, Compression};
use crate::registry::{Backoff, Client, Interrupted, Watcher};
use crate::store::KnownBlob;

/// What is held in memory of each layer, to be sent again after a cut. Registries upon S3 join shorter pieces at some cost.
const PIECE: usize = 5 << 20;
/// Registries that want longer pieces get the blob whole.
const LONGEST_PIECE: usize = 16 << 20;
/// Of the digests that a layer is known by elsewhere, so many are asked for.
const GUESSES: usize = 4;

/// What the blob is in the end.
pub fn send(target: &Target<'_>, part: &Part) -> Result<(Blob, Compression), Error> {
    let Target { client, shared, .. } = target;
    let layer = part.short();
    if let Some((known, compression)) = find(client, part)? {
        shared.send(PushEvent::AlreadyExists { layer });
        return Ok((known, compression));
    }
    if let Some((known, compression)) = mount(client, target.name, part)? {
        shared.send(PushEvent::Mounted {
            layer,
            from: known.repository.clone(),
        });
        return Ok((blob_of(known), compression));
    }
    let packing = target.options.packing.unwrap_or_default();
    let progress = |done| {
        shared.send(PushEvent::Pushing {
            layer: part.short(),
            done,
            total: part.size,
        });
    };
    progress(0);
    let upload = Uploading {
        client,
        root: target.root,
        part,
        packing,
        progress: &progress,
        shared,
    };
    let blob = upload.run(target.options.whole)?;
    shared.send(PushEvent::Pushed { layer });
    Ok((blob, packing.kind()))
}

fn blob_of(known: &KnownBlob) -> Blob {
    Blob {
        digest: known.digest.clone(),
        size: known.size,
    }
}

/// A blob that the layer is known as and that the repository has.
fn find(client: &Client<'_>, part: &Part) -> Result<Option<(Blob, Compression)>, Error> {
    let mut asked: Vec<&Digest> = Vec::new();
    for known in &part.known {
        let Some(compression) = manifest::compression(&known.media_type) else {
            continue;
        };
        if asked.contains(&&known.digest) {
            continue;
        }
        if asked.len() == GUESSES {
            break;
        }
        asked.push(&known.digest);
        if client.has_blob(&known.digest, known.size)? {
            return Ok(Some((blob_of(known), compression)));
        }
    }
    Ok(None)
}

/// A blob of another repository of this registry, which is in ours from now on.
fn mount<'p>(
    client: &Client<'_>,
    name: &Reference,
    part: &'p Part,
) -> Result<Option<(&'p KnownBlob, Compression)>, Error> {
    let elsewhere =
        |known: &&KnownBlob| known.registry == name.registry && known.repository != name.repository;
    for known in part.known.iter().filter(elsewhere).take(GUESSES) {
        if let Some(compression) = manifest::compression(&known.media_type)
            && client.mount(&known.digest, &known.repository)?
        {
            return Ok(Some((known, compression)));
        }
    }
    Ok(None)
}

/// A layer on its way.
struct Uploading<'a> {
    client: &'a Client<'a>,
    root: &'a Path,
    part: &'a Part,
    packing: Packing,
    progress: Progress<'a>,
    shared: &'a Shared,
}

impl Uploading<'_> {
    /// Begins again, from the first byte on, where the registry has lost what it had.
    fn run(&self, whole: bool) -> Result<Blob, Error> {
        let mut again = Backoff::new();
        let mut measured = None;
        loop {
            let sent = match whole || self.client.takes_only_whole() {
                true => self.whole(&mut measured),
                false => self.in_pieces(),
            };
            match sent {
                Ok(blob) => return Ok(blob),
                Err(Interrupted::Failed(e)) => return Err(e),
                Err(Interrupted::Lost(e)) => again.wait(e, None, self.shared)?,
                Err(Interrupted::NoPieces) if !whole && self.client.takes_only_whole() => {}
                Err(Interrupted::NoPieces) => {
                    let why = "it takes blobs neither in pieces nor whole";
                    return Err(Error::untrusted("the registry", why));
                }
            }
        }
    }

    /// Packs on another thread, while `send` has what comes.
    fn packed<T>(
        &self,
        send: impl FnOnce(&mut PipeReader) -> Result<T, Interrupted>,
    ) -> Result<T, Interrupted> {
        let (writer, mut reader) = pipe();
        let (packed, sent) = thread::scope(|scope| {
            let packing = scope.spawn(|| {
                pack::pack(
                    self.root,
                    &self.part.layer,
                    self.packing,
                    writer,
                    self.progress,
                )
            });
            let sent = send(&mut reader);
            // Then the other side finds that nobody reads.
            drop(reader);
            let packed = packing
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (packed, sent)
        });
        match (packed, sent) {
            (Ok(()), sent) => sent,
            // What is wrong with the layer explains why its bytes came to no good; that nobody read them does not.
            (Err(e), _) if !is_broken_pipe(&e) => Err(Interrupted::Failed(e)),
            (Err(e), sent) => sent.and(Err(Interrupted::Failed(e))),
        }
    }

    /// As it is packed, piece by piece; the digest is known with the last.
    fn in_pieces(&self) -> Result<Blob, Interrupted> {
        self.packed(|packed| {
            let mut piece = Vec::new();
            let mut hash = Sha256::new();
            let mut end = self.fill(packed, &mut piece, PIECE)?;
            hash.update(&piece);
            let mut size = piece.len() as u64;
            if end {
                let digest = Digest::finish(hash);
                self.client.send_small(&digest, &piece)?;
                return Ok(Blob { digest, size });
            }
            let mut upload = self.client.begin_upload(PIECE)?;
            if upload.least > LONGEST_PIECE {
                self.client.abandon(&upload);
                return self.client.refuse_pieces();
            }
            let length = PIECE.max(upload.least);
            let sent = loop {
                let before = piece.len();
                if !end && before < length {
                    end = self.fill(packed, &mut piece, length)?;
                    hash.update(&piece[before..]);
                    size += (piece.len() - before) as u64;
                }
                if let Err(e) = self.client.send_piece(&mut upload, &piece) {
                    break Err(e);
                }
                if end {
                    let digest = Digest::finish(hash);
                    break self
                        .client
                        .finish_upload(&upload, &digest)
                        .map(|()| Blob { digest, size });
                }
                piece.clear();
            };
            if sent.is_err() {
                self.client.abandon(&upload);
            }
            sent
        })
    }

    /// In one request, after its digest and size have been found out.
    fn whole(&self, measured: &mut Option<Blob>) -> Result<Blob, Interrupted> {
        let blob = match measured.take() {
            Some(blob) => blob,
            None => pack::measure(self.root, &self.part.layer, self.packing)?,
        };
        let blob = &*measured.insert(blob);
        if !self.client.has_blob(&blob.digest, blob.size)? {
            self.packed(|packed| self.client.send_whole(&blob.digest, blob.size, packed))?;
        }
        Ok(blob.clone())
    }

    /// Reads until `piece` has `length` bytes; true at the end of the stream.
    fn fill(
        &self,
        packed: &mut PipeReader,
        piece: &mut Vec<u8>,
        length: usize,
    ) -> Result<bool, Interrupted> {
        if self.shared.cancelled() {
            return Err(Error::Cancelled.into());
        }
        let wanted = length.saturating_sub(piece.len()) as u64;
        piece.reserve_exact(wanted as usize);
        packed
            .by_ref()
            .take(wanted)
            .read_to_end(piece)
            .map_err(Error::io("pack layer", self.part.short()))?;
        Ok(piece.len() < length)
    }
}

/// Nobody reads any more what is packed.
fn is_broken_pipe(error: &Error) -> bool {
    let source = match error {
        Error::Io { source, .. } | Error::Pack(PackError::Write(source)) => source,
        _ => return false,
    };
    source.kind() == io::ErrorKind::BrokenPipe
}
