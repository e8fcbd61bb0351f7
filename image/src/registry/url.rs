//! The little that a registry client needs of URLs: joining redirects, comparing origins, loopback hosts. Pure.

use std::fmt;
use std::net::IpAddr;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    pub scheme: String,
    /// Host and port, without user information.
    pub authority: String,
    /// Path and query, with the leading slash.
    pub path: String,
}

impl Url {
    pub fn new(scheme: &str, authority: &str, path: &str) -> Url {
        Url {
            scheme: scheme.to_owned(),
            authority: authority.to_owned(),
            path: path.to_owned(),
        }
    }

    /// An absolute http or https URL. One with user information is refused: its host is not what it seems.
    pub fn parse(text: &str) -> Option<Url> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let rest = rest.split('#').next()?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let clean = !authority.is_empty() && !authority.contains(['@', '\\', ' ']);
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        (clean && matches!(scheme.as_str(), "http" | "https")).then(|| Url {
            scheme,
            authority: authority.to_ascii_lowercase(),
            path,
        })
    }

    /// Where a `Location` leads (RFC 3986, 5.2, as far as servers use it).
    pub fn join(&self, location: &str) -> Option<Url> {
        if location.is_empty() {
            return None;
        }
        if location.contains("://") && !location.starts_with(['/', '?']) {
            return Url::parse(location);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return Url::parse(&format!("{}://{rest}", self.scheme));
        }
        let path = if location.starts_with('/') {
            location.to_owned()
        } else {
            let path = self.path.split('?').next()?;
            let directory = &path[..=path.rfind('/')?];
            format!("{directory}{location}")
        };
        Some(Url::new(&self.scheme, &self.authority, &path))
    }

    pub fn same_origin(&self, other: &Url) -> bool {
        self.scheme == other.scheme && self.host_and_port() == other.host_and_port()
    }

    /// In lower case, with the scheme's port where none is written.
    pub fn host_and_port(&self) -> (String, u16) {
        let default = if self.scheme == "https" { 443 } else { 80 };
        let authority = self.authority.to_ascii_lowercase();
        match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host.to_owned(), port.parse().unwrap_or(0))
            }
            _ => (authority, default),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)
    }
}

/// Without the port, and without the brackets of an IPv6 address.
pub fn host(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => authority.split(':').next().unwrap_or(""),
    }
}

/// Whether a host is this machine, so that nobody on the wire can listen.
pub fn is_loopback(authority: &str) -> bool {
    let host = host(authority);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A value of a query.
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_joined() {
        let base = Url::new("https", "h:5000", "/v2/x/blobs/y?a=b");
        let check = |location: &str, expect: Option<&str>| {
            assert_eq!(
                base.join(location).map(|u| u.to_string()).as_deref(),
                expect,
                "{location}"
            );
        };
        check("https://o/p?q", Some("https://o/p?q"));
        check("//o/p", Some("https://o/p"));
        check("/p", Some("https://h:5000/p"));
        check("z", Some("https://h:5000/v2/x/blobs/z"));
        check("/p?to=http://o", Some("https://h:5000/p?to=http://o"));
        check("ftp://o/p", None);
        check("https://h:5000@evil/p", None);
        check("", None);
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |a: &str, b: &str| Url::parse(a).unwrap().same_origin(&Url::parse(b).unwrap());
        assert!(same("https://h/x", "https://H:443/y"));
        assert!(!same("https://h/x", "http://h/x"));
        assert!(!same("http://h:1/x", "http://h:2/x"));
        assert!(!same("http://h.io/x", "http://h.io.evil/x"));
        assert!(same("http://[::1]/x", "http://[::1]:80/x"));
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:5000",
            "[::1]",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.evil.io",
            "128.0.0.1",
            "10.0.0.1:5000",
            "[::2]:1",
            "127.0.0.1.evil.io",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
