//! How registries are reached, as the configuration and the command line say it: which are insecure, which mirrors there are,
//! where certificates lie. Parsed once, at the edge.

use std::fmt;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;

use super::url::Url;
use crate::error::Error;

/// How registries are reached.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    /// Those to which plain HTTP, or TLS without a known certificate, is allowed. Loopback addresses always are.
    pub insecure: Vec<Insecure>,
    /// Asked in this order before docker.io itself, for pulls.
    pub mirrors: Vec<Mirror>,
    /// Folders of folders named as registries, which hold `*.crt` (CAs), `*.cert` and `*.key` (the client's own):
    /// `/etc/coracle/certs.d`. The first that has one for a registry counts.
    pub certificates: Vec<PathBuf>,
    /// User and password; `None`: `~/.docker/config.json` is asked.
    pub credentials: Option<(String, String)>,
}

impl Registries {
    /// Whether `authority` (`host[:port]`) was listed as insecure. A name is looked up where a network is listed.
    pub fn lists_as_insecure(&self, authority: &str) -> bool {
        let named = |entry: &Insecure| match entry {
            Insecure::Host(host) => host.eq_ignore_ascii_case(authority),
            Insecure::Network(_) => false,
        };
        if self.insecure.iter().any(named) {
            return true;
        }
        let networks: Vec<IpNet> = self
            .insecure
            .iter()
            .filter_map(|entry| match entry {
                Insecure::Network(network) => Some(*network),
                Insecure::Host(_) => None,
            })
            .collect();
        !networks.is_empty()
            && addresses(authority)
                .iter()
                .any(|ip| networks.iter().any(|network| network.contains(ip)))
    }
}

/// What stands before the port, as addresses; a name that is not known has none.
fn addresses(authority: &str) -> Vec<IpAddr> {
    let host = super::url::host(authority);
    if let Ok(ip) = host.parse() {
        return vec![ip];
    }
    let found = (host, 0_u16).to_socket_addrs();
    found.map_or_else(|_| Vec::new(), |all| all.map(|it| it.ip()).collect())
}

/// A registry (`host[:port]`) or all in a network, which may be spoken to without verified TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Insecure {
    Host(String),
    Network(IpNet),
}

impl FromStr for Insecure {
    type Err = Error;

    /// `http://` and `https://` in front are left out, as Docker does.
    fn from_str(text: &str) -> Result<Insecure, Error> {
        let refuse = |why: &str| Error::InvalidArgument {
            what: "insecure registry",
            value: text.to_owned(),
            why: why.to_owned(),
        };
        if let Ok(network) = text.parse::<IpNet>() {
            return Ok(Insecure::Network(network.trunc()));
        }
        let lower = text.to_ascii_lowercase();
        let host = ["http://", "https://"]
            .iter()
            .find_map(|scheme| lower.strip_prefix(scheme))
            .unwrap_or(&lower);
        if host.contains('/') {
            return Err(refuse(
                "it should be HOST, HOST:PORT or a network such as 10.0.0.0/8",
            ));
        }
        if !crate::reference::is_registry(host) {
            return Err(refuse(
                "it should be HOST, HOST:PORT (1 to 65535) or a network such as 10.0.0.0/8",
            ));
        }
        Ok(Insecure::Host(host.to_owned()))
    }
}

/// A server that has copies of what docker.io has: `https://host[:port][/path]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    pub(super) url: Url,
}

impl FromStr for Mirror {
    type Err = Error;

    /// With Docker's reasons to refuse one.
    fn from_str(text: &str) -> Result<Mirror, Error> {
        let refuse = |why: &str| Error::InvalidArgument {
            what: "mirror",
            // A password must not be shown again.
            value: match text.rsplit_once('@') {
                Some((_, rest)) => format!("...@{rest}"),
                None => text.to_owned(),
            },
            why: why.to_owned(),
        };
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        if !scheme.is_some_and(|s| matches!(&*s.to_ascii_lowercase(), "http" | "https")) {
            return Err(refuse(
                "unsupported scheme: it must use https:// or http://",
            ));
        }
        if text.contains('@') {
            return Err(refuse("username/password not allowed in URI"));
        }
        if text.contains(['?', '#']) {
            return Err(refuse("query or fragment at end of the URI"));
        }
        let url = Url::parse(text).filter(|url| crate::reference::is_registry(&url.authority));
        let mut url = url.ok_or_else(|| refuse("it should be https://HOST[:PORT]"))?;
        url.path = url.path.trim_end_matches('/').to_owned();
        Ok(Mirror { url })
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insecure_registries_are_hosts_and_networks() {
        let registries = Registries {
            insecure: ["r.io:5000", "http://plain.io", "10.0.0.0/8", "fd00::/8"]
                .map(|text| text.parse().unwrap())
                .to_vec(),
            ..Registries::default()
        };
        for listed in [
            "r.io:5000",
            "R.io:5000",
            "plain.io",
            "10.2.3.4:5000",
            "[fd00::1]:5000",
        ] {
            assert!(registries.lists_as_insecure(listed), "{listed}");
        }
        for other in [
            "r.io",
            "r.io:5001",
            "11.0.0.1",
            "[fe80::1]",
            "10.0.0.1.invalid",
        ] {
            assert!(!registries.lists_as_insecure(other), "{other}");
        }
        for bad in [
            "",
            "r.io/x",
            "https://r.io/v2/",
            "10.0.0.0/33",
            "r.io:0",
            "a b",
            "ftp://r.io",
        ] {
            assert!(bad.parse::<Insecure>().is_err(), "{bad}");
        }
    }

    #[test]
    fn mirrors_are_urls_without_secrets() {
        let check = |text: &str, expect: Result<&str, &str>| match (text.parse::<Mirror>(), expect)
        {
            (Ok(mirror), Ok(shown)) => assert_eq!(mirror.to_string(), shown),
            (Err(error), Err(why)) => assert!(error.to_string().contains(why), "{text}: {error}"),
            (other, _) => panic!("{text}: {other:?}"),
        };
        check("https://m.io", Ok("https://m.io"));
        check("http://m.io:5000/", Ok("http://m.io:5000"));
        check("https://m.io/hub/", Ok("https://m.io/hub"));
        check("m.io", Err("unsupported scheme"));
        check("ftp://m.io", Err("unsupported scheme"));
        check(
            "https://u:geheim@m.io",
            Err("username/password not allowed"),
        );
        check("https://m.io/?a", Err("query or fragment"));
        check("https://", Err("HOST[:PORT]"));
        check("https://m.io:x", Err("HOST[:PORT]"));
        let error = "https://u:geheim@m.io".parse::<Mirror>().unwrap_err();
        assert!(!error.to_string().contains("geheim"), "{error}");
    }
}
