//! `login` and `logout`: credentials are tried at a registry before they are kept.

use ureq::http::{StatusCode, header};

use super::agents::Route;
use super::auth;
use super::credentials::{self, Credentials, Kept, Secret};
use super::endpoint::Endpoint;
use super::http::header_text;
use super::settings::Registries;
use super::{Watcher, url::Url};
use crate::error::Error;

/// A registry as people name it to log in: `HOST[:PORT]`, a URL of it, or nothing for docker.io.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// As references name it.
    registry: String,
}

impl Server {
    pub fn parse(text: Option<&str>) -> Result<Server, Error> {
        let text = text.unwrap_or("");
        let host = text
            .strip_prefix("https://")
            .or(text.strip_prefix("http://"))
            .unwrap_or(text);
        let host = host.split('/').next().unwrap_or("");
        let registry = match host {
            "" if text.is_empty() => "docker.io",
            "docker.io" | "index.docker.io" => "docker.io",
            host if crate::reference::is_registry(host) => host,
            _ => {
                return Err(Error::InvalidArgument {
                    what: "registry",
                    value: text.to_owned(),
                    why: "it should be HOST or HOST:PORT".to_owned(),
                });
            }
        };
        Ok(Server {
            registry: registry.to_owned(),
        })
    }

    /// As Docker calls it where it keeps credentials.
    pub fn key(&self) -> &str {
        credentials::key(&self.registry)
    }

    pub fn is_docker_io(&self) -> bool {
        self.registry == "docker.io"
    }
}

/// What an earlier login has left.
pub fn stored(server: &Server, watcher: &dyn Watcher) -> Result<Option<Credentials>, Error> {
    credentials::for_registry(&server.registry, watcher)
}

/// Asks the registry whether it takes them. Gives back what is to be kept: a token server may give an identity token in place of the
/// password.
pub fn check(
    server: &Server,
    given: &Credentials,
    registries: &Registries,
    watcher: &dyn Watcher,
) -> Result<Credentials, Error> {
    let endpoint = Endpoint::of(&server.registry, registries, &watcher.stop())?
        .with_credentials(given.clone());
    let url = endpoint.url("/v2/")?;
    let refused = |why: &str| Error::LoginRefused {
        url: url.to_string(),
        why: why.to_owned(),
    };
    let first = ask(&endpoint, &url, None)?;
    let status = match first.status() {
        StatusCode::UNAUTHORIZED => {
            let answered = endpoint.authenticate(first.headers(), None, None, true, watcher);
            answered.map_err(|failure| match failure {
                auth::Failure::Refused(why) | auth::Failure::NoCredentials(why) => {
                    refused(&format!("failed: {why}"))
                }
                other => endpoint.unauthorized(other),
            })?;
            let header = endpoint.auth().header();
            ask(&endpoint, &url, header.as_deref())?.status()
        }
        other => other,
    };
    if status != StatusCode::OK {
        return Err(refused(&format!("failed with status: {status}")));
    }
    let identity = endpoint.auth().identity();
    Ok(match identity {
        Some(token) => Credentials {
            user: given.user.clone(),
            secret: Secret::IdentityToken(token),
        },
        None => given.clone(),
    })
}

fn ask(
    endpoint: &Endpoint,
    url: &Url,
    authorization: Option<&str>,
) -> Result<ureq::http::Response<ureq::Body>, Error> {
    let Route { agent, via } = endpoint.route(url)?;
    let mut request = agent.get(url.to_string());
    if let Some(value) = authorization {
        request = request.header(header::AUTHORIZATION, value);
    }
    let response = request
        .call()
        .map_err(|e| endpoint.unreachable(&e, &url.authority, via.as_deref()))?;
    if response.status().is_redirection() {
        let to = header_text(response.headers(), header::LOCATION);
        return Err(Error::LoginRefused {
            url: url.to_string(),
            why: format!("it leads to {to:?}: log in there"),
        });
    }
    Ok(response)
}

/// Keeps them for later commands, for all of them that read Docker's configuration.
pub fn store(
    server: &Server,
    credentials: &Credentials,
    watcher: &dyn Watcher,
) -> Result<Kept, Error> {
    credentials::store(&server.registry, credentials, watcher)
}

/// Forgets what is kept for a registry, if anything is.
pub fn erase(server: &Server, watcher: &dyn Watcher) -> Result<(), Error> {
    credentials::erase(&server.registry, watcher)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_in_many_ways() {
        let key = |text: &str| Server::parse(Some(text)).map(|it| it.key().to_owned());
        for hub in [
            "",
            "docker.io",
            "https://index.docker.io/v1/",
            "index.docker.io",
        ] {
            assert_eq!(key(hub).unwrap(), "https://index.docker.io/v1/", "{hub}");
        }
        assert!(Server::parse(None).unwrap().is_docker_io());
        assert_eq!(key("http://r.io:5000/v2/").unwrap(), "r.io:5000");
        assert_eq!(key("registry").unwrap(), "registry");
        for bad in ["a b", "https://", "/", "r.io:x", "user@r.io", "-r"] {
            assert!(key(bad).is_err(), "{bad}");
        }
    }
}
