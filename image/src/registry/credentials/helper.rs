//! Programs that keep credentials: `docker-credential-NAME get|store|erase`, by the protocol of docker-credential-helpers.

use std::io::{Read, Seek, Write};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::{Credentials, Secret};
use crate::error::Error;

/// What they print, with a code other than 0, for a server that they do not know.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// Credentials are shorter by far.
const MAX_OUTPUT: u64 = 1 << 20;
/// The user name that says that the secret is an identity token.
const TOKEN: &str = "<token>";

#[derive(Debug)]
pub struct Helper {
    program: String,
}

impl Helper {
    /// The name is a word, which is looked for in PATH: no path leads out of it.
    pub fn named(name: &str) -> Result<Helper, Error> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let program = format!("docker-credential-{name}");
        match !name.is_empty() && name.bytes().all(plain) {
            true => Ok(Helper { program }),
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
        let output = limited(
            Command::new(&self.program)
                .arg(action)
                .stdin(Stdio::from(stdin)),
        )
        .map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                self.failed("config.json names it, and it is not in PATH")
            }
            _ => failed(&e),
        })?;
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

/// Runs a program whose standard output and error go to memory, up to [`MAX_OUTPUT`] of each: one that prints for ever is ended by
/// the pipe that nobody reads any more.
fn limited(command: &mut Command) -> std::io::Result<Output> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (stdout, stderr) = std::thread::scope(|scope| {
        let stderr = scope.spawn(|| beginning(stderr));
        (beginning(stdout), stderr.join().unwrap_or_default())
    });
    Ok(Output {
        status: child.wait()?,
        stdout,
        stderr,
    })
}

fn beginning(stream: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        // What was read before an error is what it has said.
        let _ = stream.take(MAX_OUTPUT).read_to_end(&mut bytes);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_that_prints_for_ever_is_cut_off() {
        let output = limited(Command::new("sh").args(["-c", "yes & exec yes >&2"])).unwrap();
        assert!(!output.status.success());
        assert_eq!(output.stdout.len() as u64, MAX_OUTPUT);
        assert_eq!(output.stderr.len() as u64, MAX_OUTPUT);
    }

    #[test]
    fn a_helpers_name_is_a_plain_word() {
        assert!(Helper::named("osx-keychain_2.exe").is_ok());
        for bad in ["", "../x", "a/b", "a b", "a\0", "é"] {
            assert!(Helper::named(bad).is_err(), "{bad:?}");
        }
    }
}
