//! Answers a registry's 401: Basic, or a Bearer token from the server that the challenge names
//! ("distribution, Token Authentication").

use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ureq::Agent;
use ureq::http::{HeaderMap, header};

use super::Access;
use super::url::{Url, is_loopback, percent_encode};

const MAX_TOKEN: u64 = 1 << 20;

/// What is sent with requests to the registry.
pub struct Auth {
    credentials: Option<(String, String)>,
    /// The registry itself is on this machine.
    loopback: bool,
    header: Option<String>,
}

pub enum Failure {
    /// The registry wants some and we have none.
    NoCredentials(String),
    /// They, or the conditions, are not accepted, by the server or by us.
    Refused(String),
    Transport(ureq::Error),
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Challenge {
    /// In lower case.
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl Auth {
    pub fn new(credentials: Option<(String, String)>, loopback: bool) -> Auth {
        Auth {
            credentials,
            loopback,
            header: None,
        }
    }

    /// The value of the Authorization header.
    pub fn header(&self) -> Option<String> {
        self.header.clone()
    }

    /// Finds what satisfies the challenges in `headers`. `own` is the registry's URL.
    pub fn answer(
        &mut self,
        headers: &HeaderMap,
        agent: &Agent,
        own: &Url,
        repository: &str,
        access: Access,
    ) -> Result<(), Failure> {
        let values = headers.get_all(header::WWW_AUTHENTICATE);
        let challenges: Vec<_> = values
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse_challenges)
            .collect();
        if let Some(bearer) = challenges.iter().find(|c| c.scheme == "bearer") {
            self.header = Some(format!(
                "Bearer {}",
                self.token(bearer, agent, own, repository, access)?
            ));
            return Ok(());
        }
        if challenges.iter().any(|c| c.scheme == "basic") {
            let Some(basic) = self.basic() else {
                return Err(Failure::NoCredentials(
                    "no basic auth credentials".to_owned(),
                ));
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
        let (user, password) = self.credentials.as_ref()?;
        Some(format!(
            "Basic {}",
            STANDARD.encode(format!("{user}:{password}"))
        ))
    }

    fn token(
        &self,
        challenge: &Challenge,
        agent: &Agent,
        own: &Url,
        repository: &str,
        access: Access,
    ) -> Result<String, Failure> {
        let realm = challenge.get("realm").unwrap_or("");
        let realm_url = Url::parse(realm)
            .ok_or_else(|| Failure::Refused(format!("its token server {realm:?} is not a URL")))?;
        let scope = match challenge.get("scope") {
            Some(scope) => scope.to_owned(),
            None => format!("repository:{repository}:{}", access.actions()),
        };
        let mut url = realm_url.to_string();
        let mut add = |name: &str, value: &str| {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&format!("{name}={}", percent_encode(value)));
        };
        if let Some(service) = challenge.get("service") {
            add("service", service);
        }
        add("scope", &scope);
        let mut request = agent.get(&url);
        let basic = self.basic();
        if let Some(basic) = &basic {
            if !self.may_see_credentials(&realm_url, own) {
                return Err(Failure::Refused(format!(
                    "its token server {} is another host without encryption, and would see them",
                    realm_url.authority
                )));
            }
            request = request.header(header::AUTHORIZATION, basic);
        }
        let response = request.call().map_err(Failure::Transport)?;
        let status = response.status();
        let mut bytes = Vec::new();
        let mut body = response.into_body().into_reader().take(MAX_TOKEN);
        body.read_to_end(&mut bytes)
            .map_err(|e| Failure::Transport(ureq::Error::Io(e)))?;
        if !status.is_success() {
            let detail = format!(
                "the token server {} answered {}",
                realm_url.authority,
                status.as_u16()
            );
            return Err(match (status.as_u16(), basic) {
                (401 | 403, None) => Failure::NoCredentials(detail),
                _ => Failure::Refused(detail),
            });
        }
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let token = json["token"]
            .as_str()
            .or(json["access_token"].as_str())
            .unwrap_or("");
        // A header of our own must not come of it.
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Failure::Refused(format!(
                "the token server {} sent no token",
                realm_url.authority
            )));
        }
        Ok(token.to_owned())
    }

    /// Encrypted, or the registry's own origin, or nothing leaves this machine either way.
    fn may_see_credentials(&self, realm: &Url, own: &Url) -> bool {
        realm.scheme == "https"
            || realm.same_origin(own)
            || (self.loopback && is_loopback(&realm.authority))
    }
}

#[cfg(fuzzing)]
pub fn challenges(text: &str) -> Vec<(String, Vec<(String, String)>)> {
    let challenges = parse_challenges(text).into_iter();
    challenges.map(|c| (c.scheme, c.parameters)).collect()
}

/// `Bearer realm="...",service="...", Basic realm=...` (RFC 9110, 11.6.1).
fn parse_challenges(text: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',']);
    while !rest.is_empty() {
        let end = rest.find([' ', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if let Some(value) = after.strip_prefix('=') {
            let (value, after) = parameter_value(value);
            if let Some(challenge) = challenges.last_mut() {
                challenge
                    .parameters
                    .push((word.to_ascii_lowercase(), value));
            }
            rest = after;
        } else {
            challenges.push(Challenge {
                scheme: word.to_ascii_lowercase(),
                ..Challenge::default()
            });
            rest = after;
        }
        rest = rest.trim_start_matches([' ', ',']);
    }
    challenges
}

/// A token or a quoted string, and what follows it.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_taken_apart() {
        let text = r#"Bearer realm="https://a/t",service="r, x",scope="repository:x:pull,push", Basic realm=y"#;
        let challenges = parse_challenges(text);
        assert_eq!(challenges.len(), 2);
        assert_eq!(challenges[0].get("realm"), Some("https://a/t"));
        assert_eq!(challenges[0].get("service"), Some("r, x"));
        assert_eq!(challenges[0].get("scope"), Some("repository:x:pull,push"));
        assert_eq!(
            (challenges[1].scheme.as_str(), challenges[1].get("realm")),
            ("basic", Some("y"))
        );
        for hostile in [
            "",
            ",",
            "=",
            "\"",
            "Bearer realm=\"x",
            "a=b",
            "Bearer realm=\"\\",
            "é=\"é\"",
        ] {
            parse_challenges(hostile);
        }
    }

    #[test]
    fn credentials_stay_from_other_hosts_in_the_clear() {
        let own = Url::parse("https://r.io/").unwrap();
        let auth = Auth::new(Some(("u".into(), "p".into())), false);
        let may = |realm: &str| auth.may_see_credentials(&Url::parse(realm).unwrap(), &own);
        assert!(may("https://auth.io/token"));
        assert!(!may("http://auth.io/token"));
        assert!(!may("http://r.io/token"));
        assert!(!may("http://127.0.0.1:1/token"));
    }
}
