//! The HTTP library as this crate uses it: limits, certificates, and what error bodies say. No policy of registries.

use std::io::Read;
use std::time::Duration;

use ureq::http::{HeaderMap, Response, header};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, DefaultConnector};
use ureq::{Agent, Body};

use super::cut::Cutter;
use crate::error::Error;
use crate::interrupt::Interrupt;

/// The first code, and what the registry says in words, cut to a line.
pub fn registry_errors(response: Response<Body>) -> (String, String) {
    let reason = response
        .status()
        .canonical_reason()
        .unwrap_or("no reason")
        .to_lowercase();
    let mut bytes = Vec::new();
    // A cut answer still has its status.
    let _ = response
        .into_body()
        .into_reader()
        .take(64 << 10)
        .read_to_end(&mut bytes);
    let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let first = &json["errors"][0];
    let clean = |value: &serde_json::Value| -> String {
        let text = value.as_str().unwrap_or("");
        text.chars().filter(|c| !c.is_control()).take(200).collect()
    };
    let (code, message) = (clean(&first["code"]), clean(&first["message"]));
    if code.is_empty() {
        return (code, reason);
    }
    let detail = format!("{}: {message}", code.to_lowercase());
    (code, detail)
}

pub fn header_text(headers: &HeaderMap, name: header::HeaderName) -> String {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or("").to_owned()
}

/// Digests and sizes are those of the bytes as they are sent: a body that something has packed on the way is another one.
pub fn refuse_encoding(headers: &HeaderMap, what: &str) -> Result<(), Error> {
    match header_text(headers, header::CONTENT_ENCODING).as_str() {
        "" | "identity" => Ok(()),
        encoding => {
            let why = format!("the registry sends it with the encoding {encoding:?}");
            Err(Error::untrusted(what, why))
        }
    }
}

/// Requests without redirects of its own, with a limit on every wait, and cut off by `stop`.
pub fn agent(loopback: bool, stop: Interrupt) -> Agent {
    use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(Duration::from_secs(10)))
        .timeout_connect(Some(Duration::from_secs(15)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .timeout_per_read(Some(Duration::from_secs(60)))
        .input_buffer_size(256 << 10);
    if loopback {
        config = config.proxy(None);
    }
    // The host's own list, so that a company's CA counts; Mozilla's, built in, where there is none.
    let bundle = std::env::var_os("SSL_CERT_FILE").map_or_else(
        || "/etc/ssl/certs/ca-certificates.crt".into(),
        std::path::PathBuf::from,
    );
    if let Ok(pem) = std::fs::read(bundle) {
        let certificates = parse_pem(&pem).filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        });
        let certificates: Vec<_> = certificates.collect();
        if !certificates.is_empty() {
            let roots = RootCerts::new_with_certs(&certificates);
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
    }
    let connector = DefaultConnector::default().chain(Cutter(stop));
    Agent::with_parts(config.build(), connector, DefaultResolver::default())
}
