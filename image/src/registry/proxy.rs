//! Which proxy a request goes through: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` as Docker reads them (Go's
//! `golang.org/x/net/http/httpproxy`). Pure but for `from_env`.

use std::net::IpAddr;

use ipnet::IpNet;
use ureq::Proxy;

use super::url::{self, Url};

#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Option<Setting>,
    https: Option<Setting>,
    exceptions: Vec<Exception>,
}

#[derive(Clone, Debug)]
struct Setting {
    variable: &'static str,
    value: String,
}

/// A proxy, and how to call it in a message: without its password.
#[derive(Clone, Debug)]
pub struct Via {
    pub proxy: Proxy,
    pub name: String,
}

/// What `NO_PROXY` lists.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    All,
    Address(IpAddr, Option<u16>),
    Network(IpNet),
    /// A domain with all below it; without itself if `below_only`.
    Domain {
        name: String,
        below_only: bool,
        port: Option<u16>,
    },
}

impl Proxies {
    pub fn from_env() -> Proxies {
        Proxies::from(|name| std::env::var(name).ok())
    }

    fn from(variable: impl Fn(&str) -> Option<String>) -> Proxies {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let first = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| {
                Some(Setting {
                    variable: name,
                    value: set(name)?.trim().to_owned(),
                })
            })
        };
        let exceptions = set("NO_PROXY").or_else(|| set("no_proxy"));
        Proxies {
            http: first(["HTTP_PROXY", "http_proxy"]),
            https: first(["HTTPS_PROXY", "https_proxy"]),
            exceptions: exceptions
                .as_deref()
                .unwrap_or("")
                .split(',')
                .filter_map(|entry| Exception::parse(entry.trim()))
                .collect(),
        }
    }

    /// The proxy for a request, if it goes through one. What is set and cannot be used is an error text.
    pub fn of(&self, url: &Url) -> Result<Option<Via>, String> {
        let setting = match url.scheme.as_str() {
            "https" => &self.https,
            _ => &self.http,
        };
        let Some(setting) = setting else {
            return Ok(None);
        };
        if url::is_loopback(&url.authority) || self.excepts(url) {
            return Ok(None);
        }
        let shown = without_password(&setting.value);
        let refuse = |why: &str| format!("{}: {shown}: {why}", setting.variable);
        if let Some((scheme, _)) = setting.value.split_once("://")
            && !matches!(&*scheme.to_ascii_lowercase(), "http" | "https")
        {
            return Err(refuse("only http:// and https:// proxies are supported"));
        }
        let proxy =
            Proxy::new(&setting.value).map_err(|_| refuse("it is not the URL of a proxy"))?;
        let name = format!("{shown} (from {})", setting.variable);
        Ok(Some(Via { proxy, name }))
    }

    fn excepts(&self, url: &Url) -> bool {
        let (host, port) = url.host_and_port();
        let host = url::host(&host).trim_end_matches('.').to_owned();
        let ip: Option<IpAddr> = host.parse().ok();
        self.exceptions.iter().any(|exception| match exception {
            Exception::All => true,
            Exception::Address(address, wanted) => {
                ip == Some(*address) && wanted.is_none_or(|wanted| wanted == port)
            }
            Exception::Network(network) => ip.is_some_and(|ip| network.contains(&ip)),
            Exception::Domain {
                name,
                below_only,
                port: wanted,
            } => {
                let below = host
                    .strip_suffix(name.as_str())
                    .is_some_and(|rest| rest.ends_with('.'));
                (below || (!below_only && host == *name)) && wanted.is_none_or(|w| w == port)
            }
        })
    }
}

impl Exception {
    fn parse(entry: &str) -> Option<Exception> {
        let entry = entry.to_ascii_lowercase();
        if entry.is_empty() {
            return None;
        }
        if entry == "*" {
            return Some(Exception::All);
        }
        if let Ok(network) = entry.parse() {
            return Some(Exception::Network(network));
        }
        if let Ok(address) = entry.parse() {
            return Some(Exception::Address(address, None));
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().ok()?)),
            _ => (entry.as_str(), None),
        };
        if let Ok(address) = url::host(host).parse() {
            return Some(Exception::Address(address, port));
        }
        let host = host.strip_prefix('*').unwrap_or(host);
        let name = host.strip_prefix('.').unwrap_or(host);
        (!name.is_empty()).then(|| Exception::Domain {
            name: name.to_owned(),
            below_only: name.len() != host.len(),
            port,
        })
    }
}

/// `http://user:secret@host` as `http://user:xxxxx@host`.
fn without_password(value: &str) -> String {
    let Some((before, host)) = value.rsplit_once('@') else {
        return value.to_owned();
    };
    let start = before.find("://").map_or(0, |at| at + 3);
    match before[start..].split_once(':') {
        Some((user, _)) => format!("{}{user}:xxxxx@{host}", &before[..start]),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::from(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn via(proxies: &Proxies, url: &str) -> Option<String> {
        let via = proxies.of(&Url::parse(url).unwrap()).unwrap();
        via.map(|via| via.proxy.host().to_owned())
    }

    #[test]
    fn each_scheme_has_its_own_proxy_and_loopback_none() {
        let both = proxies(&[
            ("HTTPS_PROXY", "http://secure:3128"),
            ("https_proxy", "http://other:1"),
            ("http_proxy", "plain:3128"),
        ]);
        assert_eq!(via(&both, "https://r.io/"), Some("secure".into()));
        assert_eq!(via(&both, "http://r.io/"), Some("plain".into()));
        for local in [
            "http://localhost:5000/",
            "https://127.0.0.1/",
            "http://[::1]:5000/",
        ] {
            assert_eq!(via(&both, local), None, "{local}");
        }
        assert_eq!(
            via(&proxies(&[("HTTPS_PROXY", " ")]), "https://r.io/"),
            None
        );
    }

    #[test]
    fn exceptions_are_hosts_domains_networks_and_ports() {
        let check = |list: &str, url: &str, direct: bool| {
            let proxies = proxies(&[
                ("HTTPS_PROXY", "http://p:1"),
                ("HTTP_PROXY", "http://p:1"),
                ("no_proxy", list),
            ]);
            assert_eq!(via(&proxies, url).is_none(), direct, "{list}: {url}");
        };
        check("*", "https://r.io/", true);
        check("r.io", "https://r.io/", true);
        check("a.io, R.io ,", "https://x.r.io/", true);
        check("r.io", "https://xr.io/", false);
        check(".r.io", "https://r.io/", false);
        check(".r.io", "https://x.r.io/", true);
        check("*.r.io", "https://x.r.io/", true);
        check("r.io:5000", "https://r.io:5000/", true);
        check("r.io:5000", "https://r.io/", false);
        check("r.io:443", "https://r.io/", true);
        check("10.0.0.0/8", "http://10.1.2.3:5000/", true);
        check("10.0.0.0/8", "http://11.1.2.3:5000/", false);
        check("10.1.2.3", "http://10.1.2.3:5000/", true);
        check("10.1.2.3:80", "http://10.1.2.3:5000/", false);
        check("fd00::/8", "http://[fd00::1]:5000/", true);
        check("[fd00::1]:5000", "http://[fd00::1]:5000/", true);
        check("fd00::1", "http://[fd00::2]/", false);
    }

    #[test]
    fn a_proxy_is_named_without_its_password() {
        let url = Url::parse("https://r.io/").unwrap();
        let proxies_of = |value| proxies(&[("HTTPS_PROXY", value)]);
        let via = proxies_of("http://me:s%40crt@p:3128")
            .of(&url)
            .unwrap()
            .unwrap();
        assert_eq!(via.proxy.password(), Some("s@crt"));
        assert_eq!(via.name, "http://me:xxxxx@p:3128 (from HTTPS_PROXY)");
        for bad in ["socks5://me:geheim@p:1", "http://"] {
            let error = proxies_of(bad).of(&url).unwrap_err();
            assert!(error.starts_with("HTTPS_PROXY: "), "{error}");
            assert!(!error.contains("geheim"), "{error}");
        }
    }
}
