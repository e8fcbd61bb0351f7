//! One request to a registry until it has its answer: authentication, redirects, retries, and what a refusal means.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use ureq::Body;
use ureq::http::{HeaderMap, Method, Request, Response, StatusCode, header};

use super::agents::Route;
use super::endpoint::Endpoint;
use super::http::{header_text, registry_errors};
use super::url::Url;
use super::{Access, Backoff, Client, auth, retry};
use crate::digest::Digest;
use crate::error::Error;

const MAX_REDIRECTS: usize = 10;

/// A request to the registry, sent as often as it takes.
pub struct Call<'a> {
    pub method: Method,
    /// From `/v2/` on.
    pub path: &'a str,
    pub headers: &'a [(header::HeaderName, &'a str)],
    pub body: Option<&'a [u8]>,
    /// For messages: `manifest latest`, `blob sha256:...`.
    pub what: &'a str,
    /// The answers that are a success.
    pub expected: &'a [StatusCode],
}

/// Why no answer came.
pub enum Failure {
    /// Another try may help.
    Passing(Error),
    Final(Error),
}

impl Failure {
    pub fn of(endpoint: &Endpoint, error: &ureq::Error, url: &Url, route: &Route) -> Failure {
        let told = endpoint.unreachable(error, &url.authority, route.via.as_deref());
        match endpoint.is_passing(error) {
            true => Failure::Passing(told),
            false => Failure::Final(told),
        }
    }
}

impl Client<'_> {
    /// A request that succeeds, after as many tries as are due; of the registry itself, once its mirrors have failed.
    pub fn send(&self, call: &Call<'_>) -> Result<Response<Body>, Error> {
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

    pub fn authenticate(
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

    pub fn status_error(&self, endpoint: &Endpoint, response: Response<Body>, what: &str) -> Error {
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
    sent.map_err(|error| Failure::of(endpoint, &error, url, &route))
}
