//! Talks to one registry about one repository ("OCI distribution-spec, Pull"): a client, which of the mirrors it asks, and the documents
//! that it fetches. How a request is sent is in `call`, blobs are in `blob` and `upload`.
//!
//! Hands out bytes; what they mean is for `manifest` and for the callers. Credentials go to the registry and to the
//! token server that it names, encrypted unless the registry itself is one that may be spoken to in the clear.

use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ureq::http::{Method, Response, StatusCode, header};
use ureq::{Agent, Body};

use crate::Reference;
use crate::digest::Digest;
use crate::error::Error;
use crate::interrupt::Interrupt;

mod agents;
mod auth;
mod blob;
mod call;
mod certificates;
mod challenge;
pub mod credentials;
mod cut;
mod endpoint;
mod failure;
mod hops;
mod http;
pub mod login;
pub mod manifest;
pub mod platform;
mod proxy;
mod retry;
mod settings;
mod tags;
mod upload;
mod url;

pub use blob::BlobBody;
use call::Call;
use endpoint::Endpoint;
use http::{header_text, refuse_encoding};
pub use retry::Backoff;
pub use settings::{Insecure, Mirror, Registries};
pub use upload::{Interrupted, Upload};
use url::Url;

/// Manifests and configs beyond this are refused; the specification asks registries to take 4 MiB.
pub const MAX_DOCUMENT: u64 = 4 << 20;

/// What a client is going to do in its repository: the scope of the token that it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Pull,
    Push,
}

impl Access {
    /// The actions of a token's scope.
    fn actions(self) -> &'static str {
        match self {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        }
    }
}

/// Where the client tells of waiting, and learns that it should give up.
pub trait Watcher: Send + Sync {
    fn notice(&self, text: String);
    fn cancelled(&self) -> bool;
    /// Ends waiting for the network; `cancelled` must say so too.
    fn stop(&self) -> Interrupt {
        Interrupt::default()
    }
}

/// A client for a web server that is no registry: verified as the host does, through the proxy that is set.
pub(crate) fn agent_for(url: &str) -> Result<Agent, Error> {
    let parsed = Url::parse(url).ok_or_else(|| match url.rsplit_once('@') {
        // A password must not be shown again.
        Some((_, rest)) => Error::untrusted(
            format!("...@{rest}"),
            "a URL with a user name or password is not taken: pipe what another program fetches into `-`",
        ),
        None => Error::untrusted(url, "it is no URL of http or https"),
    })?;
    let registries = Registries::default();
    let trust = agents::Trust {
        certificates: Default::default(),
        listed: false,
        verify: true,
    };
    let agents = agents::Agents::new(&parsed.authority, trust, &registries, &Interrupt::default());
    Ok(agents.route(&parsed)?.agent)
}

pub struct Client<'a> {
    repository: String,
    /// As people write it; for Docker's texts.
    familiar: String,
    /// Mirrors in their order, and last the registry itself.
    endpoints: Vec<Endpoint>,
    /// The one that is asked; those before it have failed.
    current: AtomicUsize,
    /// `repository:library/x:pull`
    scope: String,
    /// What tokens must be good for besides: `repository:library/y:pull`, where blobs are mounted from.
    more_scopes: Mutex<Vec<String>>,
    access: Access,
    /// Set once the registry has refused an upload in pieces.
    whole_only: AtomicBool,
    watcher: &'a dyn Watcher,
}

/// A document and where it came from.
pub struct Document {
    pub bytes: Vec<u8>,
    pub digest: Digest,
    /// The Content-Type without parameters; empty if there was none.
    pub content_type: String,
}

#[cfg(fuzzing)]
pub(crate) use challenge::challenges;

impl<'a> Client<'a> {
    pub fn new(
        reference: &Reference,
        registries: &Registries,
        access: Access,
        watcher: &'a dyn Watcher,
    ) -> Result<Client<'a>, Error> {
        let stop = watcher.stop();
        let mut endpoints = Vec::new();
        if reference.registry == "docker.io" && access == Access::Pull {
            for mirror in &registries.mirrors {
                endpoints.push(Endpoint::mirror(mirror, registries, &stop)?);
            }
        }
        endpoints.push(Endpoint::of(&reference.registry, registries, &stop)?);
        Ok(Client {
            familiar: reference.familiar_name(),
            repository: reference.repository.clone(),
            scope: format!("repository:{}:{}", reference.repository, access.actions()),
            more_scopes: Mutex::default(),
            access,
            whole_only: AtomicBool::new(false),
            endpoints,
            current: AtomicUsize::new(0),
            watcher,
        })
    }

    /// Fetches a manifest by tag or digest. Its digest is computed, and compared with the one asked for or promised.
    pub fn manifest(&self, tag_or_digest: &str) -> Result<Document, Error> {
        let what = format!("manifest {tag_or_digest}");
        let path = format!("/v2/{}/manifests/{tag_or_digest}", self.repository);
        let accept = manifest::ACCEPT.join(", ");
        let document = self.document(&path, &accept, &what, None)?;
        if let Some(wanted) = Digest::parse(tag_or_digest)
            && wanted != document.digest
        {
            let why = format!("the registry sent {} instead", document.digest);
            return Err(Error::untrusted(what, why));
        }
        Ok(document)
    }

    /// Fetches a small blob whole, and checks its size and digest.
    pub fn small_blob(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, Error> {
        let what = format!("blob {digest}");
        if size > MAX_DOCUMENT {
            let why = format!("{size} bytes are over the limit of {MAX_DOCUMENT}");
            return Err(Error::untrusted(what, why));
        }
        let path = format!("/v2/{}/blobs/{digest}", self.repository);
        let document = self.document(&path, "*/*", &what, Some(size))?;
        if document.digest != *digest {
            let why = format!("its content has the digest {}", document.digest);
            return Err(Error::untrusted(what, why));
        }
        Ok(document.bytes)
    }

    /// For a reader of `blob` that failed.
    pub fn broken_off(&self, what: &str, error: &std::io::Error) -> Error {
        let at = self.current.load(Ordering::Relaxed);
        let error = Error::BrokenOff {
            registry: self.endpoints[at].name.clone(),
            what: what.to_owned(),
            detail: error.to_string(),
        };
        if self.endpoints[at].is_mirror {
            self.pass_over(at, &error);
        }
        error
    }

    pub fn watcher(&self) -> &dyn Watcher {
        self.watcher
    }

    fn document(
        &self,
        path: &str,
        accept: &str,
        what: &str,
        size: Option<u64>,
    ) -> Result<Document, Error> {
        Ok(self.page(path, accept, what, size)?.0)
    }

    /// A document, and the `Link` header that came with it; empty if there was none.
    fn page(
        &self,
        path: &str,
        accept: &str,
        what: &str,
        size: Option<u64>,
    ) -> Result<(Document, String), Error> {
        let mut backoff = Backoff::new();
        loop {
            let response = self.get(path, accept, what)?;
            let content_type = header_text(response.headers(), header::CONTENT_TYPE);
            let link = header_text(response.headers(), header::LINK);
            let mut bytes = Vec::new();
            let limit = size.unwrap_or(MAX_DOCUMENT);
            let mut body = response.into_body().into_reader().take(limit + 1);
            match body.read_to_end(&mut bytes) {
                Ok(_) if bytes.len() as u64 > limit => {
                    let why = format!("it is longer than {limit} bytes");
                    return Err(Error::untrusted(what, why));
                }
                Ok(_) if size.is_some_and(|size| size != bytes.len() as u64) => {
                    let why = format!("it has {} bytes instead of {limit}", bytes.len());
                    return Err(Error::untrusted(what, why));
                }
                Ok(_) => {
                    let document = Document {
                        digest: Digest::of(&bytes),
                        content_type: content_type
                            .split(';')
                            .next()
                            .unwrap_or("")
                            .trim()
                            .to_owned(),
                        bytes,
                    };
                    return Ok((document, link));
                }
                Err(e) => backoff.wait(self.broken_off(what, &e), None, self.watcher)?,
            }
        }
    }

    /// A request for a document or blob.
    fn get(&self, path: &str, accept: &str, what: &str) -> Result<Response<Body>, Error> {
        let response = self.send(&Call {
            method: Method::GET,
            path,
            headers: &[(header::ACCEPT, accept)],
            body: None,
            what,
            expected: &[StatusCode::OK],
        })?;
        refuse_encoding(response.headers(), what)?;
        Ok(response)
    }

    /// A mirror that has failed is not asked again.
    fn pass_over(&self, at: usize, error: &Error) {
        let next = at + 1;
        let moved = self
            .current
            .compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
        if moved.is_ok() {
            let (mirror, next) = (&self.endpoints[at].name, &self.endpoints[next].name);
            self.watcher.notice(format!(
                "mirror {mirror} is passed over: {error}: going on with {next}"
            ));
        }
    }
}
