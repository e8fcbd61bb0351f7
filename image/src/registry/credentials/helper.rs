//! Programs that keep credentials: `docker-credential-NAME get|store|erase`, by the protocol of docker-credential-helpers.

use std::io::{Seek, Write};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::output::{self, Ended};
use super::{Credentials, Secret};
use crate::error::Error;
use crate::registry::Watcher;

/// What they print, with a code other than 0, for a server that they do not know.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The user name that says that the secret is an identity token.
const TOKEN: &str = "<token>";

pub struct Helper<'a> {
    program: String,
    watcher: &'a dyn Watcher,
}

impl<'a> Helper<'a> {
    /// The name is a word, which is looked for in PATH: no path leads out of it.
    pub fn named(name: &str, watcher: &'a dyn Watcher) -> Result<Helper<'a>, Error> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let program = format!("docker-credential-{name}");
        match !name.is_empty() && name.bytes().all(plain) {
            true => Ok(Helper { program, watcher }),
            false => Err(Error::CredentialHelper {
                program,
                detail: format!("{name:?} in config.json is not the name of a helper"),
            }),
        }
    }

    pub fn get(&self, server: &str) -> Result<Option<Credentials>, Error> {
        let Some(out) = self.run("get", server.as_bytes())? else {
            return Ok(None);
        };
        let json: Value = serde_json::from_slice(&out)
            .map_err(|_| self.failed("what it printed for `get` is not JSON"))?;
        let text = |name: &str| json[name].as_str().unwrap_or("").to_owned();
        let (user, secret) = (text("Username"), text("Secret"));
        if user.is_empty() && secret.is_empty() {
            return Ok(None);
        }
        let secret = match user == TOKEN {
            true => Secret::IdentityToken(secret),
            false => Secret::Password(secret),
        };
        Ok(Some(Credentials { user, secret }))
    }

    pub fn store(&self, server: &str, credentials: &Credentials) -> Result<(), Error> {
        let (user, secret) = match &credentials.secret {
            Secret::Password(password) => (credentials.user.as_str(), password),
            Secret::IdentityToken(token) => (TOKEN, token),
        };
        let entry = json!({"ServerURL": server, "Username": user, "Secret": secret});
        self.run("store", entry.to_string().as_bytes()).map(drop)
    }

    /// What was not there is as good as erased.
    pub fn erase(&self, server: &str) -> Result<(), Error> {
        self.run("erase", server.as_bytes()).map(drop)
    }

    /// What it has printed; `None` if it knows nothing of the server.
    fn run(&self, action: &str, input: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let failed = |e: &dyn std::fmt::Display| self.failed(&format!("`{action}`: {e}"));
        // Not a pipe: a program that does not read would end us by SIGPIPE. The secret stays in memory.
        let stdin = rustix::fs::memfd_create("credentials", rustix::fs::MemfdFlags::CLOEXEC);
        let mut stdin = std::fs::File::from(stdin.map_err(|e| failed(&e))?);
        let written = stdin.write_all(input).and_then(|()| stdin.rewind());
        written.map_err(|e| failed(&e))?;
        let mut command = Command::new(&self.program);
        command.arg(action).stdin(Stdio::from(stdin));
        let what = format!("{} {action}", self.program);
        let ended = output::of(&mut command, &what, self.watcher);
        let output = match ended.map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                self.failed("config.json names it, and it is not in PATH")
            }
            _ => failed(&e),
        })? {
            Ended::Itself(output) => output,
            Ended::Cancelled => return Err(Error::Cancelled),
            Ended::TooSlow => {
                let minutes = output::PATIENCE.as_secs() / 60;
                let why = format!("it has not ended after {minutes} minutes and was killed");
                return Err(failed(&why));
            }
        };
        if output.status.success() {
            return Ok(Some(output.stdout));
        }
        let said = [&output.stdout[..], &output.stderr[..]]
            .map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned())
            .into_iter()
            .find(|text| !text.is_empty())
            .unwrap_or_default();
        if said.contains(NOT_FOUND) {
            return Ok(None);
        }
        let first: String = said
            .lines()
            .next()
            .unwrap_or("")
            .chars()
            .take(200)
            .collect();
        Err(failed(&format_args!("{}: {first}", output.status)))
    }

    fn failed(&self, detail: &str) -> Error {
        Error::CredentialHelper {
            program: self.program.clone(),
            detail: detail.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Watcher for Nobody {
        fn notice(&self, _: String) {}

        fn cancelled(&self) -> bool {
            false
        }
    }

    #[test]
    fn a_helpers_name_is_a_plain_word() {
        assert!(Helper::named("osx-keychain_2.exe", &Nobody).is_ok());
        for bad in ["", "../x", "a/b", "a b", "a\0", "é"] {
            assert!(Helper::named(bad, &Nobody).is_err(), "{bad:?}");
        }
    }
}
