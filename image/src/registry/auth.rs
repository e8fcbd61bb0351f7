//! Answers a registry's 401: Basic, or a Bearer token from the server that the challenge names
//! ("distribution, Token Authentication"; with an identity token, "OAuth2 Token Authentication").

use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ureq::Body;
use ureq::http::{HeaderMap, Response, header};

use super::agents::{Agents, Route};
use super::challenge::{Challenge, parse_challenges, scopes};
use super::credentials::{Credentials, Secret};
use super::settings::Registries;
use super::url::{Url, is_loopback, percent_encode};
use crate::error::Error;

const MAX_TOKEN: u64 = 1 << 20;
/// How token servers know us.
const CLIENT: &str = "coracle";

/// What is sent with requests to the registry.
#[derive(Default)]
pub struct Auth {
    /// `None`: not looked up yet.
    credentials: Option<Option<Credentials>>,
    header: Option<String>,
    /// What a token server has given in place of the password.
    identity: Option<String>,
}

/// Whom credentials are for, and what for.
pub struct Asked<'a> {
    pub agents: &'a Agents,
    pub registries: &'a Registries,
    /// The registry's own URL.
    pub own: &'a Url,
    /// The scope of what we are going to do: `repository:x:pull`.
    pub scope: Option<&'a str>,
    /// Log in: an identity token is wanted, to keep it in place of the password.
    pub offline: bool,
}

pub enum Failure {
    /// The registry wants some and we have none.
    NoCredentials(String),
    /// They, or the conditions, are not accepted, by the server or by us.
    Refused(String),
    /// The token server was not reached.
    Transport {
        authority: String,
        via: Option<String>,
        error: ureq::Error,
    },
    Own(Error),
}

impl Auth {
    pub fn with(credentials: Option<Credentials>) -> Auth {
        Auth {
            credentials: Some(credentials),
            ..Auth::default()
        }
    }

    /// The value of the Authorization header.
    pub fn header(&self) -> Option<String> {
        self.header.clone()
    }

    /// The token to keep in place of the password, if there was one.
    pub fn identity(&self) -> Option<String> {
        self.identity.clone()
    }

    /// Gives it the credentials, unless it has been told of them.
    pub fn learn<E>(
        &mut self,
        look_up: impl FnOnce() -> Result<Option<Credentials>, E>,
    ) -> Result<(), E> {
        if self.credentials.is_none() {
            self.credentials = Some(look_up()?);
        }
        Ok(())
    }

    fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()?.as_ref()
    }

    /// Finds what satisfies the challenges in `headers`.
    pub fn answer(&mut self, headers: &HeaderMap, asked: &Asked<'_>) -> Result<(), Failure> {
        let values = headers.get_all(header::WWW_AUTHENTICATE);
        let challenges: Vec<_> = values
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse_challenges)
            .collect();
        if let Some(bearer) = challenges.iter().find(|c| c.scheme == "bearer") {
            self.header = Some(format!("Bearer {}", self.token(bearer, asked)?));
            return Ok(());
        }
        if challenges.iter().any(|c| c.scheme == "basic") {
            let Some(basic) = self.basic() else {
                return Err(match self.credentials() {
                    None => Failure::NoCredentials("no basic auth credentials".to_owned()),
                    Some(_) => Failure::Refused(
                        "an identity token is stored for it, and it wants a password: log in again"
                            .to_owned(),
                    ),
                });
            };
            if self.header.as_ref() == Some(&basic) {
                return Err(Failure::Refused(
                    "unauthorized: user name or password is wrong".to_owned(),
                ));
            }
            self.header = Some(basic);
            return Ok(());
        }
        Err(Failure::Refused(
            "it asks for a kind of authentication that is not supported".to_owned(),
        ))
    }

    fn basic(&self) -> Option<String> {
        let credentials = self.credentials()?;
        let Secret::Password(password) = &credentials.secret else {
            return None;
        };
        let pair = format!("{}:{password}", credentials.user);
        Some(format!("Basic {}", STANDARD.encode(pair)))
    }

    fn token(&mut self, challenge: &Challenge, asked: &Asked<'_>) -> Result<String, Failure> {
        let realm = challenge.get("realm").unwrap_or("");
        let realm_url = Url::parse(realm)
            .ok_or_else(|| Failure::Refused(format!("its token server {realm:?} is not a URL")))?;
        let authority = &realm_url.authority;
        if self.credentials().is_some() && !may_see_credentials(&realm_url, asked) {
            return Err(Failure::Refused(format!(
                "its token server {authority} is another host without encryption, and would see them"
            )));
        }
        let route = asked.agents.route(&realm_url).map_err(Failure::Own)?;
        let scopes = scopes(asked.scope, challenge.get("scope"));
        let service = challenge.get("service");
        let sent = match self.credentials() {
            Some(Credentials {
                secret: Secret::IdentityToken(token),
                ..
            }) => exchange(&route, &realm_url, token, service, &scopes),
            _ => self.ask(&route, &realm_url, service, &scopes, asked.offline),
        };
        let failed = |error| Failure::Transport {
            authority: authority.clone(),
            via: route.via.clone(),
            error,
        };
        let response = sent.map_err(failed)?;
        let status = response.status();
        let mut bytes = Vec::new();
        let mut body = response.into_body().into_reader().take(MAX_TOKEN);
        body.read_to_end(&mut bytes)
            .map_err(|e| failed(ureq::Error::Io(e)))?;
        if !status.is_success() {
            let detail = format!("the token server {authority} answered {}", status.as_u16());
            return Err(match (status.as_u16(), self.credentials()) {
                (401 | 403, None) => Failure::NoCredentials(detail),
                _ => Failure::Refused(detail),
            });
        }
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        // A header of our own must not come of it.
        let clean = |name: &str| {
            let text = json[name].as_str();
            text.filter(|it| !it.is_empty() && it.bytes().all(|b| b.is_ascii_graphic()))
        };
        let token = clean("token").or_else(|| clean("access_token"));
        let token = token.ok_or_else(|| {
            Failure::Refused(format!("the token server {authority} sent no token"))
        })?;
        if asked.offline {
            self.identity = clean("refresh_token").map(str::to_owned);
        }
        Ok(token.to_owned())
    }

    /// `GET realm?service=...&scope=...`, with the password if there is one.
    fn ask(
        &self,
        route: &Route,
        realm: &Url,
        service: Option<&str>,
        scopes: &[String],
        offline: bool,
    ) -> Result<Response<Body>, ureq::Error> {
        let mut url = realm.to_string();
        let mut add = |name: &str, value: &str| {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&format!("{name}={}", percent_encode(value)));
        };
        if let Some(service) = service {
            add("service", service);
        }
        for scope in scopes {
            add("scope", scope);
        }
        if offline {
            add("offline_token", "true");
            add("client_id", CLIENT);
        }
        let mut request = route.agent.get(&url);
        if let Some(basic) = self.basic() {
            request = request.header(header::AUTHORIZATION, basic);
        }
        request.call()
    }
}

/// `POST realm`: a token for an identity token.
fn exchange(
    route: &Route,
    realm: &Url,
    identity: &str,
    service: Option<&str>,
    scopes: &[String],
) -> Result<Response<Body>, ureq::Error> {
    let scopes = scopes.join(" ");
    let fields = [
        ("grant_type", "refresh_token"),
        ("refresh_token", identity),
        ("service", service.unwrap_or("")),
        ("scope", &scopes),
        ("client_id", CLIENT),
    ];
    let fields = fields.map(|(name, value)| format!("{name}={}", percent_encode(value)));
    let request = route.agent.post(realm.to_string());
    request
        .content_type("application/x-www-form-urlencoded")
        .send(fields.join("&"))
}

/// Encrypted, or the registry's own origin, or nothing leaves this machine either way, or it was listed as insecure.
fn may_see_credentials(realm: &Url, asked: &Asked<'_>) -> bool {
    realm.scheme == "https"
        || realm.same_origin(asked.own)
        || (is_loopback(&asked.own.authority) && is_loopback(&realm.authority))
        || asked.registries.lists_as_insecure(&realm.authority)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::agents::Trust;

    #[test]
    fn credentials_stay_from_other_hosts_in_the_clear() {
        let own = Url::parse("https://r.io/").unwrap();
        let registries = Registries {
            insecure: vec!["listed.io".parse().unwrap()],
            ..Registries::default()
        };
        let trust = Trust::of("r.io", "r.io", &registries).unwrap();
        let agents = Agents::new("r.io", trust, &registries);
        let asked = Asked {
            agents: &agents,
            registries: &registries,
            own: &own,
            scope: None,
            offline: false,
        };
        let may = |realm: &str| may_see_credentials(&Url::parse(realm).unwrap(), &asked);
        assert!(may("https://auth.io/token"));
        assert!(may("http://listed.io/token"));
        assert!(!may("http://auth.io/token"));
        assert!(!may("http://r.io/token"));
        assert!(!may("http://127.0.0.1:1/token"));
    }
}
