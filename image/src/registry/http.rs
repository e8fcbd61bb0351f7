//! The HTTP library as this crate uses it: headers, and what error bodies say. No policy of registries.

use std::io::Read;

use ureq::Body;
use ureq::http::{HeaderMap, Response, header};

use crate::error::Error;

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
    // `NAME_UNKNOWN` is "name unknown", as Docker says it.
    let detail = format!("{}: {message}", code.to_lowercase().replace('_', " "));
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
