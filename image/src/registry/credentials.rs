//! Credentials as Docker keeps them: in `config.json`, or with a program that `config.json` names (`credsStore`, `credHelpers`).

mod file;
mod helper;
mod output;

use std::fmt;
use std::path::PathBuf;

use super::Watcher;
use crate::error::Error;
use file::ConfigFile;
use helper::Helper;

/// Docker's key for docker.io, from the days of the first protocol.
const DOCKER_IO: &str = "https://index.docker.io/v1/";

#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    pub secret: Secret,
}

#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    Password(String),
    /// A refresh token, which only a token server takes (OAuth2).
    IdentityToken(String),
}

impl Credentials {
    pub fn password(user: &str, password: &str) -> Credentials {
        Credentials {
            user: user.to_owned(),
            secret: Secret::Password(password.to_owned()),
        }
    }
}

/// Without the secret.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials of {:?}", self.user)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Secret::Password(_) => "Password(..)",
            Secret::IdentityToken(_) => "IdentityToken(..)",
        })
    }
}

/// Where credentials were put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Readable, in this file.
    InFile(PathBuf),
    /// They were there already.
    AsBefore,
    WithHelper,
}

/// What `config.json` calls a registry that references name so.
pub fn key(registry: &str) -> &str {
    match registry {
        "docker.io" => DOCKER_IO,
        other => other,
    }
}

/// What is stored for a registry as references name it; `None` if nothing is. A helper is waited for as `watcher` says.
pub fn for_registry(registry: &str, watcher: &dyn Watcher) -> Result<Option<Credentials>, Error> {
    let Some(path) = file::path() else {
        return Ok(None);
    };
    let config = ConfigFile::read(&path)?;
    match config.helper_of(registry) {
        Some(name) => Helper::named(name, watcher)?.get(key(registry)),
        None => Ok(config.find(registry)),
    }
}

/// Keeps them for later commands.
pub fn store(
    registry: &str,
    credentials: &Credentials,
    watcher: &dyn Watcher,
) -> Result<Kept, Error> {
    let path = file::path().ok_or(Error::NoHome)?;
    let mut kept = Kept::AsBefore;
    file::edit(&path, |config| {
        if let Some(name) = config.helper_of(registry) {
            Helper::named(name, watcher)?.store(key(registry), credentials)?;
            kept = Kept::WithHelper;
            config.put(registry, None);
        } else if config.find(registry).as_ref() != Some(credentials) {
            kept = Kept::InFile(path.clone());
            config.put(registry, Some(credentials));
        }
        Ok(())
    })?;
    Ok(kept)
}

/// Forgets what is stored for a registry, if anything is.
pub fn erase(registry: &str, watcher: &dyn Watcher) -> Result<(), Error> {
    let path = file::path().ok_or(Error::NoHome)?;
    if ConfigFile::read(&path)?.is_empty() {
        // No folder is made to forget in.
        return Ok(());
    }
    file::edit(&path, |config| {
        if let Some(name) = config.helper_of(registry) {
            Helper::named(name, watcher)?.erase(key(registry))?;
        }
        config.remove(registry);
        Ok(())
    })
}
