//! The requests of an upload, each sent once, and what their answers mean for it.

use std::io::Read;
use std::time::Duration;

use ureq::http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, header};
use ureq::{Body, SendBody};

use super::{Interrupted, Upload};
use crate::digest::Digest;
use crate::error::Error;
use crate::registry::call::Failure;
use crate::registry::http::{header_text, registry_errors};
use crate::registry::url::{Url, percent_encode};
use crate::registry::{Backoff, Client, retry};

/// A registry that has all of a blob may move it to its place before it answers.
const ANSWER_WITHIN: Duration = Duration::from_secs(600);
const BYTES: &str = "application/octet-stream";

/// One request of an upload.
pub struct Sending<'a> {
    pub method: Method,
    pub url: &'a Url,
    pub headers: Vec<(HeaderName, String)>,
    pub what: &'a str,
}

/// What a request carries.
pub enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    /// It can be read once only.
    Stream(&'a mut dyn Read, u64),
}

/// An answer that is no success, or none.
pub enum Refusal {
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
    /// Where an upload goes on: relative or absolute, here or at a storage server of the registry's.
    pub fn location(&self, from: &Url, headers: &HeaderMap) -> Result<Url, Error> {
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

    pub fn patch(&self, upload: &mut Upload, piece: &[u8]) -> Result<(), Refusal> {
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
    pub fn find_place(&self, upload: &mut Upload) -> Result<(), Interrupted> {
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
    pub fn close(
        &self,
        upload: &Upload,
        digest: &Digest,
        body: Payload<'_>,
    ) -> Result<(), Refusal> {
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
    pub fn attempt(
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
        let response = sent.map_err(|error| Failure::of(registry, &error, sending.url, &route))?;
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
