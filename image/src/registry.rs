//! Talks HTTP to one registry about one repository: authentication, redirects, retries ("OCI distribution-spec, Pull").
//!
//! Hands out bytes; what they mean is for `manifest` and for the callers. Credentials go to the registry and to the
//! token server that it names, encrypted unless the registry itself is one that may be spoken to in the clear.

use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use ureq::http::{HeaderMap, Method, Request, Response, StatusCode, header};
use ureq::{Agent, Body};

use crate::Reference;
use crate::digest::Digest;
use crate::error::Error;
use crate::interrupt::Interrupt;

mod auth;
mod blob;
mod credentials;
mod cut;
mod http;
pub mod manifest;
pub mod platform;
mod retry;
mod url;

use auth::Auth;
pub use blob::BlobBody;
use http::{agent, header_text, refuse_encoding, registry_errors};
pub use retry::Backoff;
use url::Url;

/// Manifests and configs beyond this are refused; the specification asks registries to take 4 MiB.
pub const MAX_DOCUMENT: u64 = 4 << 20;
const MAX_REDIRECTS: usize = 10;

/// How registries are reached, as the configuration and the command line say it.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    /// Registries (`host[:port]`) to which plain HTTP, or TLS without a known certificate, is allowed. Loopback addresses always are.
    pub insecure: Vec<String>,
    /// Asked in this order before docker.io itself: `https://host[:port]`.
    pub mirrors: Vec<String>,
    /// Folders of folders named as registries, which hold `*.crt` (CAs), `*.cert` and `*.key` (the client's own): `/etc/coracle/certs.d`.
    pub certificates: Vec<PathBuf>,
    /// User and password; `None`: `~/.docker/config.json` is asked.
    pub credentials: Option<(String, String)>,
}

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

pub struct Client<'a> {
    /// As written in the reference; for messages.
    registry: String,
    /// Host and port as connected to.
    authority: String,
    repository: String,
    /// As people write it; for Docker's texts.
    familiar: String,
    /// The schemes that are allowed, in the order of trying.
    schemes: &'static [&'static str],
    scheme: OnceLock<&'static str>,
    agent: Agent,
    auth: Mutex<Auth>,
    access: Access,
    /// Set with the first answer: from then on a refused connection is worth another try.
    reached: AtomicBool,
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
pub(crate) use auth::challenges;

impl<'a> Client<'a> {
    pub fn new(
        reference: &Reference,
        registries: &Registries,
        access: Access,
        watcher: &'a dyn Watcher,
    ) -> Result<Client<'a>, Error> {
        let authority = match reference.registry.as_str() {
            "docker.io" => "registry-1.docker.io".to_owned(),
            other => other.to_owned(),
        };
        let loopback = url::is_loopback(&authority);
        let schemes: &[&str] = if loopback {
            &["http", "https"]
        } else if registries.insecure.contains(&reference.registry) {
            &["https", "http"]
        } else {
            &["https"]
        };
        let credentials = match &registries.credentials {
            Some(credentials) => Some(credentials.clone()),
            None => credentials::for_registry(&reference.registry)?,
        };
        Ok(Client {
            registry: reference.registry.clone(),
            familiar: reference.familiar_name(),
            repository: reference.repository.clone(),
            agent: agent(loopback, watcher.stop()),
            auth: Mutex::new(Auth::new(credentials, loopback)),
            access,
            scheme: OnceLock::new(),
            reached: AtomicBool::new(false),
            authority,
            schemes,
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
        Error::BrokenOff {
            registry: self.registry.clone(),
            what: what.to_owned(),
            detail: error.to_string(),
        }
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
        let mut backoff = Backoff::new();
        loop {
            let response = self.get(path, accept, what)?;
            let content_type = header_text(response.headers(), header::CONTENT_TYPE);
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
                    return Ok(Document {
                        digest: Digest::of(&bytes),
                        content_type: content_type
                            .split(';')
                            .next()
                            .unwrap_or("")
                            .trim()
                            .to_owned(),
                        bytes,
                    });
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

    /// A request that succeeds, after as many tries as are due.
    fn send(&self, call: &Call<'_>) -> Result<Response<Body>, Error> {
        let mut backoff = Backoff::new();
        let mut authenticated = false;
        loop {
            let url = Url::new(self.scheme()?, &self.authority, call.path);
            let used = self.auth().header();
            let (response, own) = match self.follow(url, call, used.as_deref()) {
                Ok(response) => response,
                Err(e) if self.is_passing(&e) => {
                    backoff.wait(self.unreachable(&e), None, self.watcher)?;
                    continue;
                }
                Err(Failure::Refused(e)) => return Err(e),
                Err(e) => return Err(self.unreachable(&e)),
            };
            let status = response.status();
            if call.expected.contains(&status) {
                return Ok(response);
            }
            if status == StatusCode::UNAUTHORIZED && own && !authenticated {
                authenticated = true;
                self.authenticate(response.headers(), used.as_deref())?;
                continue;
            }
            let after = retry::retry_after(response.headers());
            let error = self.status_error(response, call.what);
            if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
                backoff.wait(error, after, self.watcher)?;
                continue;
            }
            return Err(error);
        }
    }

    /// Sends a request and follows redirects; the second value is whether the registry itself answered last.
    fn follow(
        &self,
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
            let response = self.run(request, call.body).map_err(Failure::Transport)?;
            self.reached.store(true, Ordering::Relaxed);
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok((response, own));
            }
            let location = header_text(response.headers(), header::LOCATION);
            let refused = |why: &str| {
                Failure::Refused(Error::untrusted(
                    format!("registry {}", self.registry),
                    format!("its redirect to {location:?} {why}"),
                ))
            };
            url = url.join(&location).ok_or_else(|| refused("is malformed"))?;
            if start.scheme == "https" && url.scheme != "https" {
                return Err(refused("leads out of encryption"));
            }
        }
        let why = format!("more than {MAX_REDIRECTS} redirects");
        Err(Failure::Refused(Error::untrusted(
            format!("registry {}", self.registry),
            why,
        )))
    }

    fn run(
        &self,
        request: ureq::http::request::Builder,
        body: Option<&[u8]>,
    ) -> Result<Response<Body>, ureq::Error> {
        match body {
            Some(body) => self.agent.run(request.body(body)?),
            None => self.agent.run(request.body(())?),
        }
    }

    fn authenticate(&self, headers: &HeaderMap, used: Option<&str>) -> Result<(), Error> {
        let mut auth = self.auth();
        if auth.header().as_deref() != used {
            // Another thread has been here in the meantime.
            return Ok(());
        }
        let own = Url::new(self.scheme()?, &self.authority, "/");
        auth.answer(headers, &self.agent, &own, &self.repository, self.access)
            .map_err(|failure| match failure {
                auth::Failure::NoCredentials(detail) => self.denied(&detail),
                auth::Failure::Refused(detail) => Error::Unauthorized {
                    registry: self.registry.clone(),
                    detail,
                },
                auth::Failure::Transport(e) => self.unreachable(&Failure::Transport(e)),
            })
    }

    fn auth(&self) -> MutexGuard<'_, Auth> {
        self.auth.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The scheme that the registry speaks. Where both are allowed, the first one that gets an answer.
    fn scheme(&self) -> Result<&'static str, Error> {
        if let [only] = self.schemes {
            return Ok(only);
        }
        if let Some(scheme) = self.scheme.get() {
            return Ok(scheme);
        }
        let mut first_failure = None;
        for scheme in self.schemes {
            let url = Url::new(scheme, &self.authority, "/v2/");
            match self.agent.get(url.to_string()).call() {
                // What Go's TLS servers answer to plain HTTP.
                Ok(response)
                    if *scheme == "http" && response.status() == StatusCode::BAD_REQUEST => {}
                Ok(_) => {
                    self.reached.store(true, Ordering::Relaxed);
                    return Ok(self.scheme.get_or_init(|| scheme));
                }
                Err(e) => drop(first_failure.get_or_insert(e)),
            }
        }
        Err(match first_failure {
            Some(e) => self.unreachable(&Failure::Transport(e)),
            None => Error::untrusted(
                format!("registry {}", self.registry),
                "it speaks neither HTTP nor HTTPS",
            ),
        })
    }

    /// Whether another try may help.
    fn is_passing(&self, failure: &Failure) -> bool {
        use std::io::ErrorKind::{ConnectionRefused, NotFound};
        match failure {
            Failure::Transport(ureq::Error::Io(e))
                if matches!(e.kind(), ConnectionRefused | NotFound) =>
            {
                self.reached.load(Ordering::Relaxed)
            }
            Failure::Transport(
                ureq::Error::Io(_)
                | ureq::Error::Timeout(_)
                | ureq::Error::ConnectionFailed
                | ureq::Error::Protocol(_),
            ) => self.reached.load(Ordering::Relaxed),
            _ => false,
        }
    }

    fn unreachable(&self, failure: &Failure) -> Error {
        let Failure::Transport(error) = failure else {
            return Error::untrusted(format!("registry {}", self.registry), "a bad redirect");
        };
        let (detail, hint) = retry::describe(error, self.schemes.contains(&"http"));
        Error::Unreachable {
            registry: self.registry.clone(),
            detail,
            hint,
        }
    }

    fn denied(&self, detail: &str) -> Error {
        Error::AccessDenied {
            repository: self.familiar.clone(),
            detail: detail.to_owned(),
        }
    }

    fn status_error(&self, response: Response<Body>, what: &str) -> Error {
        let status = response.status().as_u16();
        let (code, detail) = registry_errors(response);
        match (status, what.split_once(' ')) {
            (401 | 403, _) => self.denied(&detail),
            // Docker says the same of a repository that is missing and of one that is hidden.
            (404, _) if code == "NAME_UNKNOWN" => Error::AccessDenied {
                repository: self.familiar.clone(),
                detail,
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
                registry: self.registry.clone(),
            },
            _ => Error::RegistryStatus {
                registry: self.registry.clone(),
                status,
                request: what.to_owned(),
                detail,
            },
        }
    }
}

/// Why no answer came.
enum Failure {
    Transport(ureq::Error),
    /// Something that must not be followed.
    Refused(Error),
}
