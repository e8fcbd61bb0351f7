//! A registry's own certificates, in a folder named as it is: `HOST[:PORT]/{*.crt, *.cert with *.key}`, as Docker's `certs.d`.
//!
//! What is there and cannot be used is an error that names the file: TLS without it would fail with a stranger text, or not at all.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, parse_pem};

use crate::error::Error;

/// What a folder holds.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    /// Trusted for this registry beside the host's.
    pub authorities: Vec<Certificate<'static>>,
    /// What the client shows of itself.
    pub client: Option<ClientCert>,
}

/// Reads the first of `folders` that has one for a registry of one of these names.
pub fn of(folders: &[PathBuf], names: &[&str]) -> Result<Certificates, Error> {
    for folder in folders {
        for name in names {
            let path = folder.join(name);
            match std::fs::read_dir(&path) {
                Ok(entries) => {
                    let files: Result<Vec<PathBuf>, _> =
                        entries.map(|entry| entry.map(|it| it.path())).collect();
                    return read(files.map_err(Error::io("list", &path))?);
                }
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
                Err(e) => return Err(Error::io("read the certificates in", path)(e)),
            }
        }
    }
    Ok(Certificates::default())
}

fn read(mut files: Vec<PathBuf>) -> Result<Certificates, Error> {
    files.sort();
    let mut found = Certificates::default();
    for file in &files {
        match file.extension().and_then(|ending| ending.to_str()) {
            Some("crt") => found.authorities.extend(authorities(file)?),
            Some("cert") => {
                let key = file.with_extension("key");
                if !files.contains(&key) {
                    let why = format!(
                        "missing key {} for this client certificate. CA certificates must use the extension .crt",
                        name(&key)
                    );
                    return Err(refuse(file, why));
                }
                if found.client.is_some() {
                    let why =
                        "there is another client certificate beside it, and only one can be shown";
                    return Err(refuse(file, why));
                }
                found.client = Some(client(file, &key)?);
            }
            Some("key") if !files.contains(&file.with_extension("cert")) => {
                let why = format!(
                    "missing client certificate {} for this key",
                    name(&file.with_extension("cert"))
                );
                return Err(refuse(file, why));
            }
            _ => {}
        }
    }
    Ok(found)
}

fn authorities(file: &Path) -> Result<Vec<Certificate<'static>>, Error> {
    let found = certificates(file)?;
    let mut store = rustls::RootCertStore::empty();
    for certificate in &found {
        // The HTTP library leaves out what it cannot read, without a word.
        let added = store.add(certificate.der().to_vec().into());
        added.map_err(|e| refuse(file, format!("it is no CA certificate: {e}")))?;
    }
    Ok(found)
}

fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>, Error> {
    let pem = std::fs::read(file).map_err(Error::io("read", file))?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => {}
            Err(e) => return Err(refuse(file, format!("it is not PEM: {e}"))),
        }
    }
    match found.is_empty() {
        true => Err(refuse(
            file,
            "there is no certificate in it (PEM is expected)",
        )),
        false => Ok(found),
    }
}

fn client(file: &Path, key_file: &Path) -> Result<ClientCert, Error> {
    let chain = certificates(file)?;
    let pem = std::fs::read(key_file).map_err(Error::io("read", key_file))?;
    let key = PrivateKey::from_pem(&pem)
        .map_err(|_| refuse(key_file, "there is no unencrypted private key in it"))?;
    // The HTTP library would panic.
    check_pair(&chain, &pem).map_err(|why| refuse(key_file, why))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

fn check_pair(chain: &[Certificate<'static>], key: &[u8]) -> Result<(), String> {
    use rustls::pki_types::pem::PemObject;
    let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(key)
        .map_err(|e| format!("it is no private key: {e}"))?;
    let chain = chain.iter().map(|it| it.der().to_vec().into()).collect();
    let provider = rustls::crypto::ring::default_provider();
    rustls::sign::CertifiedKey::from_der(chain, key, &provider)
        .map(drop)
        .map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => "it is not the key of its certificate".to_owned(),
            other => format!("it cannot be used with its certificate: {other}"),
        })
}

fn refuse(file: &Path, why: impl Into<String>) -> Error {
    Error::Certificate {
        path: file.to_owned(),
        why: why.into(),
    }
}

fn name(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
