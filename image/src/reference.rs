//! Image references as people write them, and their full form. Pure.
//!
//! The grammar is the registry project's ("distribution, reference"): `[host[:port]/]path[:tag][@digest]`, with Docker's
//! defaults for what is left out.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::error::Error;

const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_NAMESPACE: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// The grammar's limit on the name, registry included.
const MAX_NAME: usize = 255;

/// `redis`, `localhost:5000/x/y:tag`, `name@sha256:...`: parsed once, at the edge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// `docker.io`, or the host and port as written.
    pub registry: String,
    /// `library/redis`.
    pub repository: String,
    /// Set unless there is only a digest; `latest` where nothing was written.
    pub tag: Option<String>,
    /// `sha256:` and 64 hexadecimal digits.
    pub digest: Option<String>,
}

impl Reference {
    /// Parses and fills in the defaults.
    pub fn parse(text: &str) -> Result<Reference, Error> {
        let mut reference = parse_written(text)?;
        if reference.tag.is_none() && reference.digest.is_none() {
            reference.tag = Some(DEFAULT_TAG.to_owned());
        }
        Ok(reference)
    }

    /// Whether `text` has neither tag nor digest, so that `Using default tag: latest` is due.
    pub fn leaves_tag_out(text: &str) -> bool {
        parse_written(text).is_ok_and(|r| r.tag.is_none() && r.digest.is_none())
    }

    /// `redis`, `localhost:5000/x`: the name as `images` shows it in its first column.
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return format!("{}/{}", self.registry, self.repository);
        }
        // `docker.io/host.io/x` would be another registry's without its own.
        if split_registry(&self.repository).0.is_some() {
            return self.full_name();
        }
        match self.repository.strip_prefix(DEFAULT_NAMESPACE) {
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.repository.clone(),
        }
    }

    /// `docker.io/library/redis`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// `docker.io/library/redis:latest`: what `pull` prints last.
    pub fn full(&self) -> String {
        self.with_suffix(self.full_name())
    }

    fn with_suffix(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(digest);
        }
        name
    }
}

/// The familiar form: `redis:latest`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.familiar_name()))
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Reference::parse(text)
    }
}

/// Parses without filling in the tag.
fn parse_written(text: &str) -> Result<Reference, Error> {
    if is_hex_id(text) {
        return Err(Error::HexName(text.to_owned()));
    }
    let (rest, digest) = match text.split_once('@') {
        None => (text, None),
        Some((rest, digest)) => {
            let digest = Digest::parse(digest).ok_or(Error::InvalidReference)?;
            (rest, Some(digest.as_str().to_owned()))
        }
    };
    // A colon before the last slash belongs to the registry's port, not to a tag.
    let last_slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[last_slash..].find(':') {
        None => (rest, None),
        Some(at) => (&rest[..last_slash + at], Some(&rest[last_slash + at + 1..])),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(Error::InvalidReference);
    }
    let (registry, path) = split_registry(name);
    if let Some(registry) = registry
        && !is_registry(registry)
    {
        return Err(Error::InvalidReference);
    }
    if !path.split('/').all(is_component) {
        let lower = path.to_ascii_lowercase();
        if lower != path && lower.split('/').all(is_component) {
            return Err(Error::UppercaseRepository);
        }
        return Err(Error::InvalidReference);
    }
    // `index.docker.io` is the old name of the same registry.
    let registry = match registry {
        None | Some("index.docker.io") => DEFAULT_REGISTRY,
        Some(registry) => registry,
    };
    let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
        format!("{DEFAULT_NAMESPACE}{path}")
    } else {
        path.to_owned()
    };
    if registry.len() + 1 + repository.len() > MAX_NAME {
        return Err(Error::InvalidReference);
    }
    Ok(Reference {
        registry: registry.to_owned(),
        repository,
        tag: tag.map(str::to_owned),
        digest,
    })
}

/// The first part is a registry if it cannot be a path component: it has a dot, a colon or an uppercase letter, or is
/// `localhost`.
fn split_registry(name: &str) -> (Option<&str>, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':', '['])
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (Some(first), rest)
        }
        _ => (None, name),
    }
}

fn is_hex_id(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// `[\w][\w.-]{0,127}`
fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    (1..=128).contains(&bytes.len())
        && word(bytes[0])
        && bytes.iter().all(|&b| word(b) || b == b'.' || b == b'-')
}

/// Lowercase letters and digits, joined by one dot, one or two underscores or any number of hyphens.
fn is_component(component: &str) -> bool {
    let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !component.starts_with(alnum) || !component.ends_with(alnum) {
        return false;
    }
    component
        .split(alnum)
        .filter(|joint| !joint.is_empty())
        .all(|joint| matches!(joint, "." | "_" | "__") || joint.bytes().all(|b| b == b'-'))
}

/// A host name, an IPv4 address or a bracketed IPv6 address, and perhaps a port.
pub(crate) fn is_registry(registry: &str) -> bool {
    let (host_ok, port) = match registry.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            None => return false,
            Some((address, port)) => (address.parse::<std::net::Ipv6Addr>().is_ok(), port),
        },
        None => {
            let (host, port) = match registry.find(':') {
                None => (registry, ""),
                Some(at) => registry.split_at(at),
            };
            (host.split('.').all(is_host_label), port)
        }
    };
    let port_ok = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(digits) => {
            digits.bytes().all(|b| b.is_ascii_digit())
                && digits.parse::<u16>().is_ok_and(|port| port != 0)
        }
    };
    host_ok && port_ok
}

fn is_host_label(label: &str) -> bool {
    !label.is_empty()
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest() -> String {
        format!("sha256:{}", "ab".repeat(32))
    }

    #[track_caller]
    fn check(text: &str, full: &str, familiar: &str) {
        let reference = Reference::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(reference.full(), full, "{text}");
        assert_eq!(reference.to_string(), familiar, "{text}");
        // What is printed parses to the same value again.
        assert_eq!(Reference::parse(full).expect("full form"), reference);
        assert_eq!(Reference::parse(familiar).expect("familiar"), reference);
    }

    #[test]
    fn defaults_are_dockers() {
        check("redis", "docker.io/library/redis:latest", "redis:latest");
        check("redis:7", "docker.io/library/redis:7", "redis:7");
        check("me/app", "docker.io/me/app:latest", "me/app:latest");
        check(
            "docker.io/redis",
            "docker.io/library/redis:latest",
            "redis:latest",
        );
        check(
            "docker.io/library/redis",
            "docker.io/library/redis:latest",
            "redis:latest",
        );
        check(
            "index.docker.io/redis",
            "docker.io/library/redis:latest",
            "redis:latest",
        );
        check(
            "docker.io/host.io/x",
            "docker.io/host.io/x:latest",
            "docker.io/host.io/x:latest",
        );
        check(
            "library/redis",
            "docker.io/library/redis:latest",
            "redis:latest",
        );
        // Other names of its servers are names of other registries, as with Docker.
        for other in [
            "registry-1.docker.io",
            "registry.hub.docker.com",
            "docker.io:443",
        ] {
            let full = format!("{other}/redis:latest");
            check(&format!("{other}/redis"), &full, &full);
        }
        check(
            "library/a/b",
            "docker.io/library/a/b:latest",
            "library/a/b:latest",
        );
    }

    #[test]
    fn a_first_part_with_dot_colon_or_localhost_is_the_registry() {
        check("localhost/x", "localhost/x:latest", "localhost/x:latest");
        check(
            "localhost:5000/x",
            "localhost:5000/x:latest",
            "localhost:5000/x:latest",
        );
        check(
            "localhost:5000/x/y:t",
            "localhost:5000/x/y:t",
            "localhost:5000/x/y:t",
        );
        check(
            "ghcr.io/a/b:v1.2-rc",
            "ghcr.io/a/b:v1.2-rc",
            "ghcr.io/a/b:v1.2-rc",
        );
        check("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest");
        check("[::1]/x:t", "[::1]/x:t", "[::1]/x:t");
        check(
            "127.0.0.1:5000/x",
            "127.0.0.1:5000/x:latest",
            "127.0.0.1:5000/x:latest",
        );
        check(
            "a__b/c-d---e/f.g_h",
            "docker.io/a__b/c-d---e/f.g_h:latest",
            "a__b/c-d---e/f.g_h:latest",
        );
    }

    #[test]
    fn digests_take_the_place_of_the_default_tag() {
        let d = digest();
        check(
            &format!("redis@{d}"),
            &format!("docker.io/library/redis@{d}"),
            &format!("redis@{d}"),
        );
        check(
            &format!("localhost:5000/x:t@{d}"),
            &format!("localhost:5000/x:t@{d}"),
            &format!("localhost:5000/x:t@{d}"),
        );
        assert!(
            Reference::parse(&format!("redis@{d}"))
                .unwrap()
                .tag
                .is_none()
        );
    }

    #[test]
    fn malformed_references_are_refused() {
        let long = "a".repeat(256);
        for text in [
            "",
            ":",
            "@",
            "/",
            "a/",
            "/a",
            "a//b",
            "a:",
            ":a",
            "a@",
            "a b",
            "a:b c",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a._b",
            "_a",
            "../a",
            "a/../b",
            "a:.b",
            "a:-b",
            "a@sha256:1",
            "a@md5:00",
            "local host/x",
            "h:99999/x",
            "h:0/x",
            "h:x/y",
            "[::1/x",
            "[x]/y",
            "[::1]5000/x",
            "-h.io/x",
            "http://h.io/x",
            "é",
            "a:t:u",
            "a\n",
            "h.io/",
            &long,
        ] {
            assert!(
                matches!(Reference::parse(text), Err(Error::InvalidReference)),
                "{text:?}: {:?}",
                Reference::parse(text)
            );
        }
        let long_tag = format!("a:{}", "t".repeat(129));
        assert!(Reference::parse(&long_tag).is_err());
        assert!(Reference::parse(&format!("a@{}", digest().to_uppercase())).is_err());
    }

    #[test]
    fn uppercase_names_get_dockers_hint() {
        for text in ["Redis", "me/App:1", "h.io/X"] {
            let error = Reference::parse(text).unwrap_err();
            assert_eq!(
                error.to_string(),
                "invalid reference format: repository name must be lowercase"
            );
        }
    }

    #[test]
    fn a_bare_image_id_is_not_a_name() {
        let id = "ab".repeat(32);
        assert!(matches!(Reference::parse(&id), Err(Error::HexName(_))));
        assert!(Reference::parse(&format!("{id}:t")).is_ok());
        assert!(Reference::parse(&id[1..]).is_ok());
    }

    #[test]
    fn a_left_out_tag_is_noticed() {
        assert!(Reference::leaves_tag_out("redis"));
        assert!(Reference::leaves_tag_out("localhost:5000/redis"));
        assert!(!Reference::leaves_tag_out("redis:latest"));
        assert!(!Reference::leaves_tag_out(&format!("redis@{}", digest())));
    }
}
