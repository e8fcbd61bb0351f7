//! One HTTP client (ureq's agent) for each origin that is asked: with the proxy for it, the certificates that count there, and a limit on
//! every wait.
//!
//! A registry names others: its token server, the storage behind a redirect. They are trusted by the registry's own CAs too, since it
//! is its business that they do; its client certificate, and leave to do without verification, are for the registry alone.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ureq::Agent;
use ureq::config::Config;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::DefaultResolver;

use super::certificates::{self, Certificates};
use super::cut::Cutter;
use super::hops;
use super::proxy::Proxies;
use super::settings::Registries;
use super::url::{Url, is_loopback};
use crate::error::Error;
use crate::interrupt::Interrupt;

/// Bytes.
const INPUT_BUFFER: usize = 256 << 10;

/// How one server is spoken to.
#[derive(Clone)]
pub struct Route {
    pub agent: Agent,
    /// The proxy, for messages.
    pub via: Option<String>,
}

/// What counts as proof of a server's identity.
#[derive(Clone, Debug)]
pub struct Trust {
    pub certificates: Certificates,
    /// Plain HTTP, and TLS with any certificate, is allowed: it was listed.
    pub listed: bool,
    /// Certificates are verified.
    pub verify: bool,
}

impl Trust {
    /// A server on this machine needs no proof, unless there are CAs of its own: who puts them there wants them to count.
    pub fn of(authority: &str, name: &str, registries: &Registries) -> Result<Trust, Error> {
        let certificates = certificates::of(&registries.certificates, &[name, authority])?;
        let listed = registries.lists_as_insecure(name) || registries.lists_as_insecure(authority);
        let local = is_loopback(authority) && certificates.authorities.is_empty();
        Ok(Trust {
            verify: !listed && !local,
            listed,
            certificates,
        })
    }
}

pub struct Agents {
    /// The registry itself.
    authority: String,
    trust: Trust,
    registries: Registries,
    proxies: Proxies,
    known: Mutex<Vec<(String, Route)>>,
    /// What the host trusts; `None`: it has no list.
    host: OnceLock<Option<Vec<Certificate<'static>>>>,
    /// Cuts every connection off.
    stop: Interrupt,
}

impl Agents {
    pub fn new(authority: &str, trust: Trust, registries: &Registries, stop: &Interrupt) -> Agents {
        Agents {
            authority: authority.to_owned(),
            trust,
            registries: registries.clone(),
            proxies: Proxies::from_env(),
            known: Mutex::default(),
            host: OnceLock::new(),
            stop: stop.clone(),
        }
    }

    /// The way to a URL's server.
    pub fn route(&self, url: &Url) -> Result<Route, Error> {
        let origin = format!("{}://{}", url.scheme, url.authority);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, route)) = known.iter().find(|(known, _)| *known == origin) {
            return Ok(route.clone());
        }
        let route = self.make(url)?;
        known.push((origin, route.clone()));
        Ok(route)
    }

    fn make(&self, url: &Url) -> Result<Route, Error> {
        let via = self.proxies.of(url).map_err(Error::Proxy)?;
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(Duration::from_secs(10)))
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .input_buffer_size(INPUT_BUFFER)
            // The library's own reading of the environment is not Docker's.
            .proxy(via.as_ref().map(|via| via.proxy.clone()));
        if url.scheme == "https" {
            config = config.tls_config(self.tls(&url.authority)?);
        }
        let config = config.build();
        let connector = hops::connector(self.to_proxy(&config)?, Cutter(self.stop.clone()));
        Ok(Route {
            agent: Agent::with_parts(config, connector, DefaultResolver::default()),
            via: via.map(|via| via.name),
        })
    }

    /// The settings for connecting to the proxy of `config`, where that is spoken to by TLS.
    fn to_proxy(&self, config: &Config) -> Result<Option<Config>, Error> {
        let proxy = config.proxy().map(|proxy| proxy.uri());
        let Some(proxy) = proxy.filter(|uri| uri.scheme_str() == Some("https")) else {
            return Ok(None);
        };
        let authority = proxy.authority().map_or("", |it| it.as_str());
        // Without user and password.
        let authority = authority.rsplit('@').next().unwrap_or("");
        let trust = Trust::of(authority, authority, &self.registries)?;
        let authorities = trust.certificates.authorities.clone();
        let tls = self.tls_by(&trust, authorities);
        let config = Agent::config_builder().input_buffer_size(INPUT_BUFFER);
        Ok(Some(config.tls_config(tls).build()))
    }

    fn tls(&self, authority: &str) -> Result<TlsConfig, Error> {
        let other;
        let trust = if authority.eq_ignore_ascii_case(&self.authority) {
            &self.trust
        } else {
            other = Trust::of(authority, authority, &self.registries)?;
            &other
        };
        let mut own = trust.certificates.authorities.clone();
        own.extend(self.trust.certificates.authorities.iter().cloned());
        Ok(self.tls_by(trust, own))
    }

    /// `own`: the CAs that count beside the host's.
    fn tls_by(&self, trust: &Trust, mut own: Vec<Certificate<'static>>) -> TlsConfig {
        let mut config = TlsConfig::builder()
            .disable_verification(!trust.verify)
            .client_cert(trust.certificates.client.clone());
        if trust.verify {
            let host = self.host.get_or_init(host_certificates);
            // Mozilla's, built in, where the host has no list; then a CA of one's own stands alone.
            if let Some(host) = host {
                own.extend(host.iter().cloned());
            }
            if !own.is_empty() {
                config = config.root_certs(RootCerts::new_with_certs(&own));
            }
        }
        config.build()
    }
}

/// The host's own list, so that a company's CA counts.
fn host_certificates() -> Option<Vec<Certificate<'static>>> {
    let bundle = std::env::var_os("SSL_CERT_FILE").map_or_else(
        || PathBuf::from("/etc/ssl/certs/ca-certificates.crt"),
        PathBuf::from,
    );
    let pem = std::fs::read(bundle).ok()?;
    let certificates = parse_pem(&pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let certificates: Vec<_> = certificates.collect();
    (!certificates.is_empty()).then_some(certificates)
}
