//! Credentials that `docker login` has left in `config.json`. Only reads; runs no credential helper.

use std::io;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::error::Error;

/// User and password for a registry as references name it; `None` if there are none.
pub fn for_registry(registry: &str) -> Result<Option<(String, String)>, Error> {
    let Some(path) = config_path() else {
        return Ok(None);
    };
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("read the credentials in", path)(e)),
    };
    let config: Value = serde_json::from_slice(&bytes)
        .map_err(|e| Error::untrusted(path.display().to_string(), e.to_string()))?;
    Ok(look_up(&config, registry))
}

fn config_path() -> Option<PathBuf> {
    let directory = match std::env::var_os("DOCKER_CONFIG") {
        Some(directory) => PathBuf::from(directory),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".docker"),
    };
    Some(directory.join("config.json"))
}

fn look_up(config: &Value, registry: &str) -> Option<(String, String)> {
    let wanted = match registry {
        "docker.io" => "index.docker.io",
        other => other,
    };
    let auths = config["auths"].as_object()?;
    // Keys are hosts, or URLs of them, as the login wrote them.
    let entry = auths.get(registry).or_else(|| {
        let found = auths.iter().find(|(key, _)| {
            let key = key
                .strip_prefix("https://")
                .or(key.strip_prefix("http://"))
                .unwrap_or(key);
            key.split('/').next() == Some(wanted)
        });
        found.map(|(_, entry)| entry)
    })?;
    if let (Some(user), Some(password)) = (entry["username"].as_str(), entry["password"].as_str()) {
        return Some((user.to_owned(), password.to_owned()));
    }
    let decoded = STANDARD.decode(entry["auth"].as_str()?.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.trim_end_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn entries_are_found_under_every_spelling() {
        let auth = STANDARD.encode("me:se:cret");
        let config = json!({"auths": {
            "https://index.docker.io/v1/": {"auth": auth},
            "localhost:5000": {"username": "u", "password": "p"},
            "https://r.io": {"auth": auth},
            "store.io": {},
        }});
        let mine = Some(("me".to_owned(), "se:cret".to_owned()));
        assert_eq!(look_up(&config, "docker.io"), mine);
        assert_eq!(look_up(&config, "r.io"), mine);
        assert_eq!(
            look_up(&config, "localhost:5000"),
            Some(("u".into(), "p".into()))
        );
        assert_eq!(look_up(&config, "localhost:5001"), None);
        assert_eq!(look_up(&config, "store.io"), None);
        assert_eq!(look_up(&json!({}), "r.io"), None);
    }
}
