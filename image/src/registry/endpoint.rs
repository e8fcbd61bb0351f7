//! A server that is asked for a repository, the registry itself or a mirror of it: which scheme it speaks, how it is reached, what it is
//! told of us. Knows nothing of what is asked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use ureq::http::{HeaderMap, StatusCode};

use super::Watcher;
use super::agents::{Agents, Route, Trust};
use super::auth::{self, Asked, Auth};
use super::credentials::{self, Credentials};
use super::failure::Contact;
use super::settings::{Mirror, Registries};
use super::url::{Url, is_loopback};
use crate::error::Error;
use crate::interrupt::Interrupt;

const PLAIN: &[&str] = &["http"];
const ENCRYPTED: &[&str] = &["https"];
/// On this machine nobody listens on the wire: what is answered without a handshake comes first.
const LOCAL: &[&str] = &["http", "https"];
const LISTED: &[&str] = &["https", "http"];

pub struct Endpoint {
    /// As the reference names the registry, or a mirror's URL; for messages.
    pub name: String,
    /// Passed over when it fails.
    pub is_mirror: bool,
    /// As credentials and certificates name it.
    registry: String,
    /// Host and port as connected to.
    authority: String,
    /// What stands before `/v2/`.
    prefix: String,
    /// The schemes that are allowed, in the order of trying.
    schemes: &'static [&'static str],
    scheme: OnceLock<&'static str>,
    registries: Registries,
    agents: Agents,
    auth: Mutex<Auth>,
    /// Set with the first answer: from then on a refused connection is worth another try.
    reached: AtomicBool,
}

impl Endpoint {
    /// The registry that a reference names.
    pub fn of(
        registry: &str,
        registries: &Registries,
        stop: &Interrupt,
    ) -> Result<Endpoint, Error> {
        let authority = match registry {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let trust = Trust::of(authority, registry, registries)?;
        let schemes = match (trust.listed, trust.verify) {
            (true, _) => LISTED,
            (false, true) => ENCRYPTED,
            (false, false) => LOCAL,
        };
        let auth = match &registries.credentials {
            Some((user, password)) => Auth::with(Some(Credentials::password(user, password))),
            None => Auth::default(),
        };
        Ok(Endpoint {
            name: registry.to_owned(),
            is_mirror: false,
            registry: registry.to_owned(),
            prefix: String::new(),
            schemes,
            scheme: OnceLock::new(),
            agents: Agents::new(authority, trust, registries, stop),
            authority: authority.to_owned(),
            registries: registries.clone(),
            auth: Mutex::new(auth),
            reached: AtomicBool::new(false),
        })
    }

    /// What was logged in to for the mirror's own name counts there; what is docker.io's never gets there.
    pub fn mirror(
        mirror: &Mirror,
        registries: &Registries,
        stop: &Interrupt,
    ) -> Result<Endpoint, Error> {
        let authority = mirror.url.authority.clone();
        let trust = Trust::of(&authority, &authority, registries)?;
        let in_the_clear = mirror.url.scheme == "http";
        let auth = match in_the_clear && !trust.listed && !is_loopback(&authority) {
            true => Auth::with(None),
            false => Auth::default(),
        };
        Ok(Endpoint {
            name: mirror.to_string(),
            is_mirror: true,
            registry: authority.clone(),
            prefix: mirror.url.path.clone(),
            schemes: if in_the_clear { PLAIN } else { ENCRYPTED },
            scheme: OnceLock::new(),
            agents: Agents::new(&authority, trust, registries, stop),
            authority,
            registries: registries.clone(),
            auth: Mutex::new(auth),
            reached: AtomicBool::new(false),
        })
    }

    /// Another one's credentials than those that are stored.
    pub fn with_credentials(self, credentials: Credentials) -> Endpoint {
        Endpoint {
            auth: Mutex::new(Auth::with(Some(credentials))),
            ..self
        }
    }

    /// The URL of a path from `/v2/` on.
    pub fn url(&self, path: &str) -> Result<Url, Error> {
        let path = format!("{}{path}", self.prefix);
        Ok(Url::new(self.scheme()?, &self.authority, &path))
    }

    pub fn route(&self, url: &Url) -> Result<Route, Error> {
        self.agents.route(url)
    }

    pub fn note_answer(&self) {
        self.reached.store(true, Ordering::Relaxed);
    }

    pub fn auth(&self) -> MutexGuard<'_, Auth> {
        self.auth.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a 401 to a request that was sent with `used`. `scope` and `offline` are those of [`Asked`].
    pub fn authenticate(
        &self,
        headers: &HeaderMap,
        used: Option<&str>,
        scope: Option<&str>,
        offline: bool,
        watcher: &dyn Watcher,
    ) -> Result<(), auth::Failure> {
        let own = self.url("/").map_err(auth::Failure::Own)?;
        let mut auth = self.auth();
        if auth.header().as_deref() != used {
            // Another thread has been here in the meantime.
            return Ok(());
        }
        auth.learn(|| self.stored_credentials(watcher))
            .map_err(auth::Failure::Own)?;
        auth.answer(
            headers,
            &Asked {
                agents: &self.agents,
                registries: &self.registries,
                own: &own,
                scope,
                offline,
            },
        )
    }

    /// A helper that fails is told, and is no reason to keep a public image from anyone.
    fn stored_credentials(&self, watcher: &dyn Watcher) -> Result<Option<Credentials>, Error> {
        match credentials::for_registry(&self.registry, watcher) {
            Err(e @ Error::CredentialHelper { .. }) => {
                watcher.notice(format!("{e}: going on without credentials"));
                Ok(None)
            }
            other => other,
        }
    }

    /// What a failed login is called.
    pub fn unauthorized(&self, failure: auth::Failure) -> Error {
        match failure {
            auth::Failure::NoCredentials(detail) | auth::Failure::Refused(detail) => {
                Error::Unauthorized {
                    registry: self.name.clone(),
                    detail,
                }
            }
            auth::Failure::Transport {
                authority,
                via,
                error,
            } => self.unreachable(&error, &authority, via.as_deref()),
            auth::Failure::Own(error) => error,
        }
    }

    /// The scheme that the server speaks. Where both are allowed, the first one that gets an answer.
    fn scheme(&self) -> Result<&'static str, Error> {
        if let [only] = self.schemes {
            return Ok(only);
        }
        if let Some(scheme) = self.scheme.get() {
            return Ok(scheme);
        }
        let mut first_failure = None;
        for scheme in self.schemes {
            let url = Url::new(scheme, &self.authority, &format!("{}/v2/", self.prefix));
            let Route { agent, via } = self.route(&url)?;
            match agent.get(url.to_string()).call() {
                // What Go's TLS servers answer to plain HTTP.
                Ok(response)
                    if *scheme == "http" && response.status() == StatusCode::BAD_REQUEST => {}
                Ok(_) => {
                    self.note_answer();
                    return Ok(self.scheme.get_or_init(|| scheme));
                }
                Err(e) => drop(first_failure.get_or_insert((e, via))),
            }
        }
        Err(match first_failure {
            Some((e, via)) => self.unreachable(&e, &self.authority, via.as_deref()),
            None => Error::untrusted(
                format!("registry {}", self.name),
                "it speaks neither HTTP nor HTTPS",
            ),
        })
    }

    /// Whether another try may help. An answer that is no HTTP will be none the next time.
    pub fn is_passing(&self, error: &ureq::Error) -> bool {
        matches!(
            error,
            ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed
        ) && self.reached.load(Ordering::Relaxed)
    }

    /// `authority`: who did not answer, perhaps another one than this server.
    pub fn unreachable(&self, error: &ureq::Error, authority: &str, via: Option<&str>) -> Error {
        let other = !authority.eq_ignore_ascii_case(&self.authority);
        let folders = &self.registries.certificates;
        let contact = Contact {
            registry: &self.name,
            other: other.then_some(authority),
            via,
            folder: folders.first().map(|folder| {
                let name = if other { authority } else { &self.registry };
                folder.join(name).display().to_string()
            }),
        };
        contact.unreachable(error)
    }
}
