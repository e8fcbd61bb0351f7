//! Talks HTTP to one registry about one repository: authentication, redirects, retries ("OCI distribution-spec, Pull").
//!
//! Hands out bytes; what they mean is for `manifest` and for the callers. Credentials go to the registry and to the
//! token server that it names, encrypted unless the registry itself is one that may be spoken to in the clear.

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use ureq::http::{HeaderMap, Method, Request, Response, StatusCode, header};
use ureq::{Agent, Body};

use crate::Reference;
use crate::digest::Digest;
use crate::error::Error;
use crate::interrupt::Interrupt;

mod agents;
mod auth;
mod blob;
mod certificates;
mod challenge;
pub mod credentials;
mod cut;
mod endpoint;
mod failure;
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
use endpoint::Endpoint;
use http::{header_text, refuse_encoding, registry_errors};
pub use retry::Backoff;
pub use settings::{Insecure, Mirror, Registries};
pub use upload::{Interrupted, Upload};
use url::Url;

/// Manifests and configs beyond this are refused; the specification asks registries to take 4 MiB.
pub const MAX_DOCUMENT: u64 = 4 << 20;
const MAX_REDIRECTS: usize = 10;

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

/// A request to the registry, sent as often as it takes.
struct Call<'a> {
    method: Method,
    /// From `/v2/` on.
    path: &'a str,
    headers: &'a [(header::HeaderName, &'a str)],
    body: Option<&'a [u8]>,
    /// For messages: `manifest latest`, `blob sha256:...`.
    what: &'a str,
    /// The answers that are a success.
    expected: &'a [StatusCode],
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
    let parsed =
        Url::parse(url).ok_or_else(|| Error::untrusted(url, "it is no URL of http or https"))?;
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
    /// And what tokens must be good for besides: `repository:library/y:pull`, where blobs are mounted from.
    scope: String,
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

    /// A request that succeeds, after as many tries as are due; of the registry itself, once its mirrors have failed.
    fn send(&self, call: &Call<'_>) -> Result<Response<Body>, Error> {
        loop {
            let at = self.current.load(Ordering::Relaxed);
            let endpoint = &self.endpoints[at];
            match self.send_to(endpoint, call) {
                Err(error) if endpoint.is_mirror && !matches!(error, Error::Cancelled) => {
                    self.pass_over(at, &error);
                }
                other => return other,
            }
        }
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

    fn send_to(&self, endpoint: &Endpoint, call: &Call<'_>) -> Result<Response<Body>, Error> {
        let mut backoff = Backoff::new();
        // A mirror has someone behind it: nobody need wait for it.
        let mut wait = |error: Error, after| match endpoint.is_mirror {
            true => Err(error),
            false => backoff.wait(error, after, self.watcher),
        };
        let mut authenticated = false;
        loop {
            let url = endpoint.url(call.path)?;
            let used = endpoint.auth().header();
            let (response, own) = match self.follow(endpoint, url, call, used.as_deref()) {
                Ok(response) => response,
                Err(Failure::Passing(e)) => {
                    wait(e, None)?;
                    continue;
                }
                Err(Failure::Final(e)) => return Err(e),
            };
            let status = response.status();
            if call.expected.contains(&status) {
                return Ok(response);
            }
            if status == StatusCode::UNAUTHORIZED && own && !authenticated {
                authenticated = true;
                self.authenticate(endpoint, response.headers(), used.as_deref())?;
                continue;
            }
            let after = retry::retry_after(response.headers());
            let error = self.status_error(endpoint, response, call.what);
            if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
                wait(error, after)?;
                continue;
            }
            return Err(error);
        }
    }

    /// Sends a request and follows redirects; the second value is whether the registry itself answered last.
    fn follow(
        &self,
        endpoint: &Endpoint,
        start: Url,
        call: &Call<'_>,
        auth: Option<&str>,
    ) -> Result<(Response<Body>, bool), Failure> {
        let mut url = start.clone();
        for _ in 0..=MAX_REDIRECTS {
            let own = url.same_origin(&start);
            let mut request = Request::builder()
                .method(call.method.clone())
                .uri(url.to_string());
            for (name, value) in call.headers {
                request = request.header(name, *value);
            }
            // Another host must not see the token: it may be a storage server of anyone's.
            if let (true, Some(auth)) = (own, auth) {
                request = request.header(header::AUTHORIZATION, auth);
            }
            let response = run(endpoint, &url, request, call.body)?;
            endpoint.note_answer();
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok((response, own));
            }
            let location = header_text(response.headers(), header::LOCATION);
            let refused = |why: &str| {
                Failure::Final(Error::untrusted(
                    format!("registry {}", endpoint.name),
                    format!("its redirect to {location:?} {why}"),
                ))
            };
            url = url.join(&location).ok_or_else(|| refused("is malformed"))?;
            if start.scheme == "https" && url.scheme != "https" {
                return Err(refused("leads out of encryption"));
            }
            // Who serves only reads from there may be sent anywhere; nobody may have us change things at a third server.
            if call.body.is_some() && !url.same_origin(&start) {
                return Err(refused("would have another server changed"));
            }
        }
        let why = format!("more than {MAX_REDIRECTS} redirects");
        Err(Failure::Final(Error::untrusted(
            format!("registry {}", endpoint.name),
            why,
        )))
    }

    fn authenticate(
        &self,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        used: Option<&str>,
    ) -> Result<(), Error> {
        let more = self.more_scopes.lock();
        let more = more.unwrap_or_else(PoisonError::into_inner).join(" ");
        let scope = format!("{} {more}", self.scope);
        endpoint
            .authenticate(headers, used, Some(scope.trim()), false, self.watcher)
            .map_err(|failure| match failure {
                auth::Failure::NoCredentials(detail) => self.denied(&detail),
                other => endpoint.unauthorized(other),
            })
    }

    fn denied(&self, detail: &str) -> Error {
        let (repository, detail) = (self.familiar.clone(), detail.to_owned());
        match self.access {
            Access::Pull => Error::AccessDenied { repository, detail },
            Access::Push => Error::PushDenied { repository, detail },
        }
    }

    fn status_error(&self, endpoint: &Endpoint, response: Response<Body>, what: &str) -> Error {
        let status = response.status().as_u16();
        let (code, detail) = registry_errors(response);
        match (status, what.split_once(' ')) {
            (401 | 403, _) => self.denied(&detail),
            (404, Some(("tags", _))) => Error::RepositoryUnknown {
                repository: self.familiar.clone(),
                detail,
            },
            // Docker says the same of a repository that is missing and of one that is hidden.
            (404, _) if code == "NAME_UNKNOWN" => self.denied(&detail),
            (413, _) => Error::TooLarge {
                registry: endpoint.name.clone(),
                what: what.to_owned(),
            },
            (404, Some(("manifest", tag))) => {
                let separator = if Digest::parse(tag).is_some() {
                    '@'
                } else {
                    ':'
                };
                Error::ManifestUnknown(format!("{}{separator}{tag}", self.familiar))
            }
            (404, Some(("blob", digest))) => Error::BlobUnknown {
                digest: digest.to_owned(),
                repository: self.familiar.clone(),
                registry: endpoint.name.clone(),
            },
            _ => Error::RegistryStatus {
                registry: endpoint.name.clone(),
                status,
                request: what.to_owned(),
                detail,
            },
        }
    }
}

fn run(
    endpoint: &Endpoint,
    url: &Url,
    request: ureq::http::request::Builder,
    body: Option<&[u8]>,
) -> Result<Response<Body>, Failure> {
    let route = endpoint.route(url).map_err(Failure::Final)?;
    let sent = match body {
        Some(body) => request.body(body).map(|request| route.agent.run(request)),
        None => request.body(()).map(|request| route.agent.run(request)),
    };
    let sent = sent.map_err(ureq::Error::from).flatten();
    sent.map_err(|error| {
        let told = endpoint.unreachable(&error, &url.authority, route.via.as_deref());
        match endpoint.is_passing(&error) {
            true => Failure::Passing(told),
            false => Failure::Final(told),
        }
    })
}

/// Why no answer came.
enum Failure {
    /// Another try may help.
    Passing(Error),
    Final(Error),
}
