//! Sends blobs and manifests ("OCI distribution-spec, Push"): blobs in pieces that go on after a cut, blobs whole, and mounts
//! of what another repository has.
//!
//! Knows no layers: what is sent again after a lost upload is the caller's to make again.

use std::io::Read;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ureq::http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, header};
use ureq::{Body, SendBody};

use super::endpoint::Endpoint;
use super::http::{header_text, registry_errors};
use super::url::{Url, percent_encode};
use super::{Backoff, Call, Client, Failure, retry};
use crate::digest::Digest;
use crate::error::Error;

/// Pieces are halved where a registry refuses them as too large, or where the wire does not hold for long, down to this.
const SMALLEST_PIECE: usize = 256 << 10;
/// A registry that has all of a blob may move it to its place before it answers.
const ANSWER_WITHIN: Duration = Duration::from_secs(600);
const BYTES: &str = "application/octet-stream";

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

/// One request of an upload.
struct Sending<'a> {
    method: Method,
    url: &'a Url,
    headers: Vec<(HeaderName, String)>,
    what: &'a str,
}

/// What a request carries.
enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    /// It can be read once only.
    Stream(&'a mut dyn Read, u64),
}

/// An answer that is no success, or none.
enum Refusal {
    /// Another try may help, after as long.
    Passing(Error, Option<Duration>),
    TooLarge(Error),
    /// The registry does not know this upload (any more).
    Unknown(Error),
    NoPieces,
    /// The piece does not follow what the registry has.
    WrongPlace(Error),
    Final(Error),
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

    /// Where an upload goes on: relative or absolute, here or at a storage server of the registry's.
    fn location(&self, from: &Url, headers: &HeaderMap) -> Result<Url, Error> {
        let location = header_text(headers, header::LOCATION);
        let refused = |why: &str| {
            let why = format!("its upload's location {location:?} {why}");
            Error::untrusted(format!("registry {}", self.registry().name), why)
        };
        let mut url = from
            .join(&location)
            .ok_or_else(|| refused("is malformed"))?;
        if from.scheme == "https" && url.scheme == "http" {
            // A registry behind a proxy that ends TLS often takes its own address for plain HTTP.
            if url.host_and_port().0 != from.host_and_port().0 {
                return Err(refused("leads out of encryption"));
            }
            (url.scheme, url.authority) = (from.scheme.clone(), from.authority.clone());
        }
        Ok(url)
    }

    fn patch(&self, upload: &mut Upload, piece: &[u8]) -> Result<(), Refusal> {
        let end = upload.sent + piece.len() as u64;
        let sending = Sending {
            method: Method::PATCH,
            url: &upload.url,
            headers: vec![
                (header::CONTENT_TYPE, BYTES.to_owned()),
                (
                    header::CONTENT_RANGE,
                    format!("{}-{}", upload.sent, end - 1),
                ),
            ],
            what: "a piece of an upload",
        };
        let response = self.attempt(&sending, Payload::Bytes(piece))?;
        if !response.status().is_success() {
            return Err(self.refusal(response, sending.what));
        }
        self.moved(upload, response.headers())
            .map_err(Refusal::Final)?;
        upload.sent = match acknowledged(response.headers()) {
            Some(n) => n,
            None => end,
        };
        Ok(())
    }

    /// Asks how far an upload has come.
    fn find_place(&self, upload: &mut Upload) -> Result<(), Interrupted> {
        let mut backoff = Backoff::new();
        loop {
            let sending = Sending {
                method: Method::GET,
                url: &upload.url,
                headers: Vec::new(),
                what: "how far an upload has come",
            };
            let answered = self.attempt(&sending, Payload::None);
            let refusal = match answered {
                Ok(response) if response.status().is_success() => {
                    self.moved(upload, response.headers())?;
                    upload.sent = acknowledged(response.headers()).unwrap_or(0);
                    return Ok(());
                }
                Ok(response) => self.refusal(response, sending.what),
                Err(refusal) => refusal,
            };
            match refusal {
                Refusal::Passing(e, after) => backoff.wait(e, after, self.watcher)?,
                Refusal::Final(e @ (Error::PushDenied { .. } | Error::Unauthorized { .. })) => {
                    return Err(Interrupted::Failed(e));
                }
                Refusal::Unknown(e)
                | Refusal::WrongPlace(e)
                | Refusal::TooLarge(e)
                | Refusal::Final(e) => return Err(Interrupted::Lost(e)),
                Refusal::NoPieces => return Err(Interrupted::NoPieces),
            }
        }
    }

    /// Each answer may say that the upload goes on elsewhere.
    fn moved(&self, upload: &mut Upload, headers: &HeaderMap) -> Result<(), Error> {
        if headers.contains_key(header::LOCATION) {
            upload.url = self.location(&upload.url, headers)?;
        }
        Ok(())
    }

    /// PUT with the digest, which makes a blob of the upload and of `bytes` after it.
    fn close(&self, upload: &Upload, digest: &Digest, body: Payload<'_>) -> Result<(), Refusal> {
        let mut url = upload.url.clone();
        url.path
            .push(if url.path.contains('?') { '&' } else { '?' });
        url.path
            .push_str(&format!("digest={}", percent_encode(digest.as_str())));
        let what = format!("blob {digest}");
        let sending = Sending {
            method: Method::PUT,
            url: &url,
            headers: vec![(header::CONTENT_TYPE, BYTES.to_owned())],
            what: &what,
        };
        let response = self.attempt(&sending, body)?;
        match response.status().is_success() {
            true => Ok(()),
            false => Err(self.refusal(response, sending.what)),
        }
    }

    /// What an answer that is no success means for an upload.
    fn refusal(&self, response: Response<Body>, what: &str) -> Refusal {
        let status = response.status();
        let after = retry::retry_after(response.headers());
        if matches!(status.as_u16(), 401 | 403) {
            return Refusal::Final(self.status_error(self.registry(), response, what));
        }
        let (code, detail) = registry_errors(response);
        let error = Error::RegistryStatus {
            registry: self.registry().name.clone(),
            status: status.as_u16(),
            request: what.to_owned(),
            detail,
        };
        match status.as_u16() {
            413 => Refusal::TooLarge(Error::TooLarge {
                registry: self.registry().name.clone(),
                what: what.to_owned(),
            }),
            405 | 501 => Refusal::NoPieces,
            _ if code == "UNSUPPORTED" => Refusal::NoPieces,
            404 | 410 => Refusal::Unknown(error),
            416 => Refusal::WrongPlace(error),
            400 if code == "BLOB_UPLOAD_INVALID" || code == "BLOB_UPLOAD_UNKNOWN" => {
                Refusal::Unknown(error)
            }
            429 | 500..=599 => Refusal::Passing(error, after),
            _ => Refusal::Final(error),
        }
    }

    /// Sends a request once; and once more where the registry wants another token, unless the body cannot be had again.
    /// Another host than the registry's sees no token.
    fn attempt(
        &self,
        sending: &Sending<'_>,
        mut body: Payload<'_>,
    ) -> Result<Response<Body>, Refusal> {
        let registry = self.registry();
        let home = registry.url("/").map_err(Refusal::Final)?;
        let own = sending.url.same_origin(&home);
        let mut authenticated = false;
        loop {
            let used = registry.auth().header().filter(|_| own);
            let response = match self.exchange(sending, &mut body, used.as_deref()) {
                Ok(response) => response,
                Err(Failure::Passing(e)) => return Err(Refusal::Passing(e, None)),
                Err(Failure::Final(e)) => return Err(Refusal::Final(e)),
            };
            if response.status() != StatusCode::UNAUTHORIZED || !own || authenticated {
                return Ok(response);
            }
            // A token lives for some minutes, and an upload may take longer.
            authenticated = true;
            self.authenticate(registry, response.headers(), used.as_deref())
                .map_err(Refusal::Final)?;
            if let Payload::Stream(..) = body {
                let error = self.status_error(registry, response, sending.what);
                return Err(Refusal::Passing(error, None));
            }
        }
    }

    /// What is pushed goes to the registry itself, never to a mirror.
    fn registry(&self) -> &Endpoint {
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

    fn exchange(
        &self,
        sending: &Sending<'_>,
        body: &mut Payload<'_>,
        auth: Option<&str>,
    ) -> Result<Response<Body>, Failure> {
        let mut request = Request::builder()
            .method(sending.method.clone())
            .uri(sending.url.to_string());
        for (name, value) in &sending.headers {
            request = request.header(name, value);
        }
        if let Some(auth) = auth {
            request = request.header(header::AUTHORIZATION, auth);
        }
        let registry = self.registry();
        let route = registry.route(sending.url).map_err(Failure::Final)?;
        let mut bytes: &[u8];
        let (reader, size): (&mut dyn Read, u64) = match body {
            Payload::None => (&mut std::io::empty(), 0),
            Payload::Bytes(whole) => {
                bytes = whole;
                (&mut bytes, whole.len() as u64)
            }
            Payload::Stream(reader, size) => (*reader, *size),
        };
        let sent = match body_less(&sending.method) {
            true => request
                .body(())
                .map_err(ureq::Error::from)
                .and_then(|request| route.agent.run(request)),
            false => request
                .header(header::CONTENT_LENGTH, size)
                .body(SendBody::from_reader(reader))
                .map_err(ureq::Error::from)
                .and_then(|request| {
                    let request = route.agent.configure_request(request);
                    let request = request
                        .timeout_recv_response(Some(ANSWER_WITHIN))
                        .timeout_per_read(Some(ANSWER_WITHIN))
                        .build();
                    route.agent.run(request)
                }),
        };
        let response = sent.map_err(|error| {
            let told = registry.unreachable(&error, &sending.url.authority, route.via.as_deref());
            match registry.is_passing(&error) {
                true => Failure::Passing(told),
                false => Failure::Final(told),
            }
        })?;
        registry.note_answer();
        Ok(response)
    }
}

fn body_less(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::DELETE)
}

/// `Range: 0-N`: the registry has N + 1 bytes. An upload of none has `0-0` too; pieces of one byte are never sent.
fn acknowledged(headers: &HeaderMap) -> Option<u64> {
    let text = header_text(headers, header::RANGE);
    let text = text.strip_prefix("bytes=").unwrap_or(&text);
    let last: u64 = text.strip_prefix("0-")?.trim().parse().ok()?;
    Some(if last == 0 { 0 } else { last.saturating_add(1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_has_is_read_from_its_range() {
        let check = |text: &str, expect: Option<u64>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, text.parse().unwrap());
            assert_eq!(acknowledged(&headers), expect, "{text}");
        };
        check("0-0", Some(0));
        check("0-1023", Some(1024));
        check("bytes=0-9", Some(10));
        check("5-9", None);
        check("0-x", None);
        assert_eq!(acknowledged(&HeaderMap::new()), None);
    }
}
