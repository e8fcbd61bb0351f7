//! Docker's `config.json`: read, and changed so that all else in it stays, by a rename that another reader never sees half done.

use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::FlockOperation;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Credentials, Secret, key};
use crate::error::Error;

/// A symlink to a symlink is followed; a ring of them not for ever.
const MAX_LINKS: usize = 8;

#[derive(Clone, Debug, PartialEq)]
pub struct ConfigFile {
    json: Value,
}

/// `$DOCKER_CONFIG/config.json`, or that of the home directory.
pub fn path() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let directory = match set("DOCKER_CONFIG") {
        Some(directory) => PathBuf::from(directory),
        None => PathBuf::from(set("HOME")?).join(".docker"),
    };
    Some(directory.join("config.json"))
}

/// Changes the file. Two who do so at once come one after the other.
pub fn edit(
    path: &Path,
    change: impl FnOnce(&mut ConfigFile) -> Result<(), Error>,
) -> Result<(), Error> {
    let target = follow(path)?;
    let directory = target.parent().unwrap_or(Path::new("."));
    let mut builder = std::fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(directory);
    made.map_err(Error::io("make", directory))?;
    let lock = std::fs::File::open(directory).map_err(Error::io("open", directory))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)
        .map_err(Error::io("lock", directory))?;
    let before = ConfigFile::read(&target)?;
    let mut config = before.clone();
    change(&mut config)?;
    if config == before {
        return Ok(());
    }
    config
        .write(&target, directory)
        .map_err(Error::io("write", target))
}

/// Where the file itself is, whether it is there or not: a rename would replace a symlink.
fn follow(path: &Path) -> Result<PathBuf, Error> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match std::fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new(".")).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(Error::untrusted(
        path.display().to_string(),
        "too many symbolic links",
    ))
}

impl ConfigFile {
    /// A file that is not there is empty.
    pub fn read(path: &Path) -> Result<ConfigFile, Error> {
        let refuse = |why: String| {
            let why = format!("it is not Docker's configuration: {why}: mend or remove it");
            Error::untrusted(path.display().to_string(), why)
        };
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Vec::new()
            }
            Err(e) => return Err(Error::io("read the credentials in", path)(e)),
        };
        if bytes.trim_ascii().is_empty() {
            return Ok(ConfigFile { json: json!({}) });
        }
        let json: Value = serde_json::from_slice(&bytes).map_err(|e| refuse(e.to_string()))?;
        let map = |value: &Value| value.is_object() || value.is_null();
        if !json.is_object() || !map(&json["auths"]) || !map(&json["credHelpers"]) {
            return Err(refuse(
                "it should be an object, and so should auths and credHelpers".to_owned(),
            ));
        }
        Ok(ConfigFile { json })
    }

    /// The name of the program that keeps a registry's credentials.
    pub fn helper_of(&self, registry: &str) -> Option<&str> {
        let own = self.json["credHelpers"].as_object().and_then(|helpers| {
            let found = helpers.iter().find(|(key, _)| is_key_of(key, registry));
            found.and_then(|(_, name)| name.as_str())
        });
        own.or_else(|| self.json["credsStore"].as_str())
            .filter(|name| !name.is_empty())
    }

    pub fn find(&self, registry: &str) -> Option<Credentials> {
        let auths = self.json["auths"].as_object()?;
        let entry = auths.get(key(registry)).or_else(|| {
            let found = auths.iter().find(|(key, _)| is_key_of(key, registry));
            found.map(|(_, entry)| entry)
        })?;
        let text = |name: &str| entry[name].as_str().filter(|text| !text.is_empty());
        let (user, password) = match text("auth") {
            None => (
                text("username")?.to_owned(),
                text("password").map(str::to_owned),
            ),
            Some(auth) => {
                let decoded = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
                let (user, password) = decoded.split_once(':')?;
                let password = password.trim_end_matches('\0').to_owned();
                (user.to_owned(), Some(password))
            }
        };
        let secret = match text("identitytoken") {
            Some(token) => Secret::IdentityToken(token.to_owned()),
            None => Secret::Password(password?),
        };
        Some(Credentials { user, secret })
    }

    /// With `None` an empty entry, which says that a helper has them.
    pub fn put(&mut self, registry: &str, credentials: Option<&Credentials>) {
        let entry = match credentials {
            None => json!({}),
            Some(Credentials { user, secret }) => match secret {
                Secret::Password(password) => {
                    json!({"auth": STANDARD.encode(format!("{user}:{password}"))})
                }
                Secret::IdentityToken(token) => json!({
                    "auth": STANDARD.encode(format!("{user}:")),
                    "identitytoken": token,
                }),
            },
        };
        self.remove(registry);
        if !self.json["auths"].is_object() {
            self.json["auths"] = json!({});
        }
        self.json["auths"][key(registry)] = entry;
    }

    /// Under every spelling.
    pub fn remove(&mut self, registry: &str) {
        if let Some(auths) = self.json["auths"].as_object_mut() {
            let kept = std::mem::take(auths).into_iter();
            *auths = kept
                .filter(|(key, _)| !is_key_of(key, registry))
                .collect::<Map<_, _>>();
        }
    }

    /// Its owner stays; nobody else may read it.
    fn write(&self, path: &Path, directory: &Path) -> io::Result<()> {
        let mut text = Vec::new();
        let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, format);
        self.json.serialize(&mut serializer)?;
        let mut new = tempfile::Builder::new()
            .prefix("config.json.")
            .permissions(std::fs::Permissions::from_mode(0o600))
            .tempfile_in(directory)?;
        new.write_all(&text)?;
        if let Ok(old) = std::fs::metadata(path) {
            std::os::unix::fs::fchown(new.as_file(), Some(old.uid()), Some(old.gid()))?;
        }
        new.as_file().sync_all()?;
        new.persist(path)?;
        Ok(())
    }
}

/// Keys are hosts, or URLs of them, as logins have written them.
fn is_key_of(key: &str, registry: &str) -> bool {
    let host = key
        .strip_prefix("https://")
        .or(key.strip_prefix("http://"))
        .unwrap_or(key);
    let host = host.split('/').next().unwrap_or("");
    host == registry || (registry == "docker.io" && host == "index.docker.io")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: Value) -> ConfigFile {
        ConfigFile { json }
    }

    #[test]
    fn entries_are_found_under_every_spelling() {
        let auth = STANDARD.encode("me:se:cret");
        let config = config(json!({"auths": {
            "https://index.docker.io/v1/": {"auth": auth},
            "localhost:5000": {"username": "u", "password": "p"},
            "https://r.io": {"auth": auth},
            "token.io": {"auth": STANDARD.encode("me:"), "identitytoken": "abc"},
            "store.io": {},
        }}));
        let mine = Some(Credentials::password("me", "se:cret"));
        assert_eq!(config.find("docker.io"), mine);
        assert_eq!(config.find("r.io"), mine);
        assert_eq!(
            config.find("localhost:5000"),
            Some(Credentials::password("u", "p"))
        );
        assert_eq!(
            config.find("token.io").map(|it| it.secret),
            Some(Secret::IdentityToken("abc".into()))
        );
        for none in ["localhost:5001", "store.io", "index.docker.io.evil"] {
            assert_eq!(config.find(none), None, "{none}");
        }
        assert_eq!(self::config(json!({})).find("r.io"), None);
    }

    #[test]
    fn a_registrys_own_helper_comes_before_the_general_one() {
        let config = config(json!({
            "credsStore": "all", "credHelpers": {"r.io": "own", "index.docker.io": "hub", "none.io": ""},
        }));
        assert_eq!(config.helper_of("r.io"), Some("own"));
        assert_eq!(config.helper_of("docker.io"), Some("hub"));
        assert_eq!(config.helper_of("x.io"), Some("all"));
        assert_eq!(config.helper_of("none.io"), None);
    }

    #[test]
    fn a_change_keeps_the_rest_the_owner_and_the_link() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("real/config.json");
        let link = folder.path().join("config.json");
        std::os::unix::fs::symlink("real/config.json", &link).unwrap();
        let put = |registry: &str, user: &str| {
            edit(&link, |config| {
                config.put(registry, Some(&Credentials::password(user, "p")));
                Ok(())
            })
            .unwrap();
        };
        put("r.io", "first");
        assert_eq!(real.metadata().unwrap().mode() & 0o7777, 0o600);
        let text = "{\n\t\"proxies\": {\"b\": 1, \"a\": [1.5]},\n\t\"auths\": {\"https://r.io/v1/\": {\"auth\": \"eDp5\"}, \"o.io\": {}}}";
        std::fs::write(&real, text).unwrap();
        put("r.io", "second");
        let written = std::fs::read_to_string(&real).unwrap();
        assert_eq!(
            written,
            "{\n\t\"proxies\": {\n\t\t\"b\": 1,\n\t\t\"a\": [\n\t\t\t1.5\n\t\t]\n\t},\n\t\"auths\": {\n\t\t\"o.io\": {},\n\t\t\"r.io\": {\n\t\t\t\"auth\": \"c2Vjb25kOnA=\"\n\t\t}\n\t}\n}"
        );
        assert!(link.is_symlink());
        let names = std::fs::read_dir(folder.path().join("real")).unwrap();
        assert_eq!(names.count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_that_is_something_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        for text in [
            "{\"auths\":",
            "[]",
            "{\"auths\": 5}",
            "{\"credHelpers\": []}",
        ] {
            std::fs::write(&path, text).unwrap();
            let edited = edit(&path, |config| {
                config.put("r.io", None);
                Ok(())
            });
            let error = edited.unwrap_err().to_string();
            assert!(error.contains("config.json: it is not Docker's"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
