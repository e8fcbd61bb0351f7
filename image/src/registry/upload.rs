//! Sends blobs and manifests ("OCI distribution-spec, Push"): blobs in pieces that go on after a cut, blobs whole, and mounts
//! of what another repository has.
//!
//! Knows no layers: what is sent again after a lost upload is the caller's to make again.

use std::io::Read;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use ureq::http::{HeaderMap, HeaderName, Method, StatusCode, header};

use super::endpoint::Endpoint;
use super::http::header_text;
use super::url::{Url, percent_encode};
use super::{Backoff, Call, Client};
use crate::digest::Digest;
use crate::error::Error;

mod request;

use request::{Payload, Refusal, Sending};

/// Pieces are halved where a registry refuses them as too large, or where the wire does not hold for long, down to this.
const SMALLEST_PIECE: usize = 256 << 10;

/// An upload that the registry has begun.
#[derive(Debug)]
pub struct Upload {
    url: Url,
    /// Bytes that the registry has acknowledged.
    sent: u64,
    /// Bytes that are sent at once, at most.
    piece: usize,
    /// All pieces but the last must be as long (`OCI-Chunk-Min-Length`); 0 for most registries.
    pub least: usize,
}

/// Why a blob is not there yet.
pub enum Interrupted {
    /// The registry has forgotten the upload: begin another one.
    Lost(Error),
    /// It takes no pieces: send the blob whole.
    NoPieces,
    Failed(Error),
}

impl From<Error> for Interrupted {
    fn from(error: Error) -> Interrupted {
        Interrupted::Failed(error)
    }
}

impl Client<'_> {
    /// Whether the repository has a blob of this digest and size.
    pub fn has_blob(&self, digest: &Digest, size: u64) -> Result<bool, Error> {
        let response = self.send(&Call {
            method: Method::HEAD,
            path: &format!("/v2/{}/blobs/{digest}", self.repository),
            headers: &[],
            body: None,
            what: &format!("blob {digest}"),
            expected: &[StatusCode::OK, StatusCode::NOT_FOUND],
        })?;
        let length = header_text(response.headers(), header::CONTENT_LENGTH);
        Ok(
            response.status() == StatusCode::OK
                && (length.is_empty() || length == size.to_string()),
        )
    }

    /// Has a blob of another repository of this registry appear in ours. False where the registry would have it sent.
    pub fn mount(&self, digest: &Digest, from: &str) -> Result<bool, Error> {
        self.will_pull_from(from);
        let what = format!("blob {digest}");
        let (mount, from) = (percent_encode(digest.as_str()), percent_encode(from));
        let answered = self.send(&Call {
            method: Method::POST,
            path: &format!(
                "/v2/{}/blobs/uploads/?mount={mount}&from={from}",
                self.repository
            ),
            headers: &[],
            body: Some(&[]),
            what: &what,
            expected: &[StatusCode::CREATED, StatusCode::ACCEPTED],
        });
        let response = match answered {
            Ok(response) => response,
            Err(e @ (Error::Cancelled | Error::Unreachable { .. })) => return Err(e),
            // Whatever else it has against mounting, it may take the blob itself.
            Err(error) => {
                tracing::debug!(%error, "not mounted");
                return Ok(false);
            }
        };
        if response.status() == StatusCode::CREATED {
            return Ok(true);
        }
        if let Ok(upload) = self.upload_of(response.headers()) {
            self.abandon(&upload);
        }
        Ok(false)
    }

    /// Begins an upload of which pieces of `piece` bytes are to be sent.
    pub fn begin_upload(&self, piece: usize) -> Result<Upload, Error> {
        let response = self.send(&Call {
            method: Method::POST,
            path: &format!("/v2/{}/blobs/uploads/", self.repository),
            headers: &[],
            body: Some(&[]),
            what: "the beginning of an upload",
            expected: &[StatusCode::ACCEPTED],
        })?;
        let mut upload = self.upload_of(response.headers())?;
        upload.piece = piece.max(upload.least);
        Ok(upload)
    }

    /// Sends what follows; all of it has been acknowledged in the end.
    pub fn send_piece(&self, upload: &mut Upload, bytes: &[u8]) -> Result<(), Interrupted> {
        let start = upload.sent;
        let mut backoff = Backoff::new();
        while let Some(rest) = bytes.get((upload.sent - start) as usize..)
            && !rest.is_empty()
        {
            let piece = &rest[..rest.len().min(upload.piece)];
            let smaller = (piece.len() / 2).max(SMALLEST_PIECE).max(upload.least);
            match self.patch(upload, piece) {
                Ok(()) => backoff = Backoff::new(),
                Err(Refusal::TooLarge(_)) if smaller < piece.len() => upload.piece = smaller,
                Err(Refusal::NoPieces) => return self.refuse_pieces(),
                Err(Refusal::Unknown(e)) => return Err(Interrupted::Lost(e)),
                Err(Refusal::Passing(e, after)) => {
                    backoff.wait(e, after, self.watcher)?;
                    // It may be that a proxy in between has refused the length and hung up.
                    upload.piece = smaller;
                    self.find_place(upload)?;
                }
                Err(Refusal::WrongPlace(e)) => {
                    backoff.wait(e, None, self.watcher)?;
                    self.find_place(upload)?;
                }
                Err(Refusal::TooLarge(e) | Refusal::Final(e)) => return Err(e.into()),
            }
            if !(start..=start + bytes.len() as u64).contains(&upload.sent) {
                let why = format!("it has {} bytes of what was sent", upload.sent);
                return Err(Interrupted::Lost(Error::untrusted("an upload", why)));
            }
        }
        Ok(())
    }

    /// Closes an upload, whose bytes the registry now checks.
    pub fn finish_upload(&self, upload: &Upload, digest: &Digest) -> Result<(), Interrupted> {
        let mut backoff = Backoff::new();
        loop {
            match self.close(upload, digest, Payload::Bytes(&[])) {
                Ok(()) => return Ok(()),
                Err(Refusal::Passing(e, after)) => backoff.wait(e, after, self.watcher)?,
                Err(
                    Refusal::Unknown(e)
                    | Refusal::WrongPlace(e)
                    | Refusal::TooLarge(e)
                    | Refusal::Final(e),
                ) => {
                    // The answer to an earlier try may have been lost on the way.
                    return match self.has_blob(digest, upload.sent)? {
                        true => Ok(()),
                        false => Err(Interrupted::Lost(e)),
                    };
                }
                Err(Refusal::NoPieces) => return Err(Interrupted::NoPieces),
            }
        }
    }

    /// Sends a blob whole, once: a failure on the way has the caller begin again.
    pub fn send_whole(
        &self,
        digest: &Digest,
        size: u64,
        bytes: &mut dyn Read,
    ) -> Result<(), Interrupted> {
        let upload = self.begin_upload(0)?;
        self.close(&upload, digest, Payload::Stream(bytes, size))
            .map_err(|refusal| match refusal {
                Refusal::Passing(e, _) | Refusal::Unknown(e) | Refusal::WrongPlace(e) => {
                    Interrupted::Lost(e)
                }
                Refusal::TooLarge(e) | Refusal::Final(e) => Interrupted::Failed(e),
                Refusal::NoPieces => Interrupted::NoPieces,
            })
    }

    /// Sends a small blob whole, as often as it takes.
    pub fn send_small(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        let mut backoff = Backoff::new();
        let size = bytes.len() as u64;
        loop {
            match self.send_whole(digest, size, &mut &*bytes) {
                Ok(()) => return Ok(()),
                Err(Interrupted::Failed(e)) => return Err(e),
                Err(Interrupted::Lost(e)) => backoff.wait(e, None, self.watcher)?,
                Err(Interrupted::NoPieces) => {
                    let why = "it takes no uploads";
                    return Err(Error::untrusted(
                        format!("registry {}", self.registry().name),
                        why,
                    ));
                }
            }
            if self.has_blob(digest, size)? {
                return Ok(());
            }
        }
    }

    /// Lets the registry forget an upload; one that does not listen forgets it by itself.
    pub fn abandon(&self, upload: &Upload) {
        let sending = Sending {
            method: Method::DELETE,
            url: &upload.url,
            headers: Vec::new(),
            what: "an upload",
        };
        let _ = self.attempt(&sending, Payload::None);
    }

    /// From now on blobs are sent whole.
    pub fn refuse_pieces<T>(&self) -> Result<T, Interrupted> {
        self.whole_only.store(true, Ordering::Relaxed);
        Err(Interrupted::NoPieces)
    }

    /// Whether the registry has refused pieces.
    pub fn takes_only_whole(&self) -> bool {
        self.whole_only.load(Ordering::Relaxed)
    }

    /// Names what has been sent. The registry must have understood the same bytes as we.
    pub fn send_manifest(
        &self,
        tag: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, Error> {
        let what = format!("manifest {tag}");
        let response = self.send(&Call {
            method: Method::PUT,
            path: &format!("/v2/{}/manifests/{tag}", self.repository),
            headers: &[(header::CONTENT_TYPE, media_type)],
            body: Some(bytes),
            what: &what,
            expected: &[StatusCode::CREATED, StatusCode::OK, StatusCode::ACCEPTED],
        })?;
        let digest = Digest::of(bytes);
        let name = HeaderName::from_static("docker-content-digest");
        let theirs = header_text(response.headers(), name);
        if !theirs.is_empty() && theirs != digest.as_str() {
            let why = format!("the registry calls it {theirs} and it is {digest}");
            return Err(Error::untrusted(what, why));
        }
        Ok(digest)
    }

    /// The upload that an answer's headers name.
    fn upload_of(&self, headers: &HeaderMap) -> Result<Upload, Error> {
        let path = format!("/v2/{}/blobs/uploads/", self.repository);
        let own = self.registry().url(&path)?;
        let least = header_text(headers, HeaderName::from_static("oci-chunk-min-length"));
        Ok(Upload {
            url: self.location(&own, headers)?,
            sent: 0,
            piece: 0,
            least: least.parse().unwrap_or(0),
        })
    }

    /// What is pushed goes to the registry itself, never to a mirror.
    pub(super) fn registry(&self) -> &Endpoint {
        &self.endpoints[self.endpoints.len() - 1]
    }

    /// From now on tokens are asked to let us read in another repository too.
    fn will_pull_from(&self, repository: &str) {
        let scope = format!("repository:{repository}:pull");
        let scopes = self.more_scopes.lock();
        let mut scopes = scopes.unwrap_or_else(PoisonError::into_inner);
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
}
