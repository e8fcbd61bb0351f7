//! Why a server could not be reached, and what to do about it, in words.

use std::io::ErrorKind as Kind;

use rustls::{AlertDescription, CertificateError, InvalidMessage};

use crate::error::Error;

/// Whom a request was for.
pub struct Contact<'a> {
    /// As the user names it.
    pub registry: &'a str,
    /// Another server that the registry has named: its token server, say.
    pub other: Option<&'a str>,
    pub via: Option<&'a str>,
    /// The registry's folder of certificates.
    pub folder: Option<String>,
}

impl Contact<'_> {
    pub fn unreachable(&self, error: &ureq::Error) -> Error {
        let (mut detail, hint) = self.describe(error);
        if let Some(other) = self.other {
            detail = format!("it leads to {other}: {detail}");
        }
        if let Some(via) = self.via {
            detail = format!("{detail}, through the proxy {via}");
        }
        Error::Unreachable {
            registry: self.registry.to_owned(),
            detail,
            hint,
        }
    }

    fn describe(&self, error: &ureq::Error) -> (String, String) {
        if let Some(error) = tls_error(error) {
            return self.describe_tls(error);
        }
        let (detail, hint) = match error {
            ureq::Error::HostNotFound if self.via.is_some() => (
                "no such host".to_owned(),
                "check the proxy's name and this host's DNS",
            ),
            ureq::Error::HostNotFound => (
                "no such host".to_owned(),
                "check the name and this host's DNS",
            ),
            ureq::Error::ConnectProxyFailed(reason) => (reason.clone(), proxy_hint(reason)),
            ureq::Error::Io(e) if e.kind() == Kind::ConnectionRefused => (
                "connection refused".to_owned(),
                match self.via {
                    None => "nothing listens there: check the port and that the registry runs",
                    Some(_) => "nothing listens there: check the proxy's address",
                },
            ),
            ureq::Error::Io(e) => (e.to_string(), NETWORK),
            ureq::Error::Timeout(_) => ("it does not answer in time".to_owned(), NETWORK),
            // Without what it was: that is the server's to choose.
            ureq::Error::Protocol(_) => (
                "its answer is not HTTP".to_owned(),
                "check that the port is the registry's, and what stands in between",
            ),
            other => (other.to_string(), NETWORK),
        };
        (detail, hint.to_owned())
    }

    fn describe_tls(&self, error: &rustls::Error) -> (String, String) {
        use CertificateError as Bad;
        let folder = self
            .folder
            .as_deref()
            .unwrap_or("its folder of certificates");
        let insecure = "list it as an insecure registry";
        match error {
            rustls::Error::InvalidCertificate(Bad::UnknownIssuer) => (
                "its certificate is signed by an unknown authority".to_owned(),
                format!("put the certificate of its CA into {folder}/ca.crt, or {insecure}"),
            ),
            rustls::Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => (
                "its certificate has expired".to_owned(),
                "it must be renewed; check this host's clock, too".to_owned(),
            ),
            rustls::Error::InvalidCertificate(
                Bad::NotValidYet | Bad::NotValidYetContext { .. },
            ) => (
                "its certificate is not valid yet".to_owned(),
                "check this host's clock".to_owned(),
            ),
            rustls::Error::InvalidCertificate(
                Bad::NotValidForName | Bad::NotValidForNameContext { .. },
            ) => (
                format!("its certificate is for another name than this one ({error})"),
                "use the name that the certificate has, or have one made for this name".to_owned(),
            ),
            rustls::Error::InvalidCertificate(bad) => (
                format!("its certificate is refused: {bad}"),
                format!("have a better one made, or {insecure}"),
            ),
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => (
                "it does not speak TLS".to_owned(),
                format!("if it speaks plain HTTP, {insecure}"),
            ),
            rustls::Error::AlertReceived(
                AlertDescription::CertificateRequired | AlertDescription::NoCertificate,
            ) => (
                "it wants a client certificate".to_owned(),
                format!("put yours into {folder} as client.cert and client.key"),
            ),
            rustls::Error::AlertReceived(
                alert @ (AlertDescription::BadCertificate
                | AlertDescription::UnknownCA
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::HandshakeFailure
                | AlertDescription::AccessDenied),
            ) => (
                format!("it refused the connection ({alert:?})"),
                format!(
                    "if it wants a client certificate, put yours into {folder} as client.cert and client.key"
                ),
            ),
            other => (
                format!("TLS: {other}"),
                "check that the port is the registry's".to_owned(),
            ),
        }
    }
}

const NETWORK: &str = "check the network, the firewall and the proxy settings";

fn proxy_hint(reason: &str) -> &'static str {
    match reason.contains("407") {
        true => "it wants a user and a password: http://USER:PASSWORD@HOST:PORT",
        false => "check what the proxy allows, or list the registry in NO_PROXY",
    }
}

/// What rustls says, wherever the HTTP library has put it.
fn tls_error(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}
