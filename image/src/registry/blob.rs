//! Blobs, whole or a part of one ("OCI distribution-spec, Pulling blobs"; RFC 9110, 14): what comes back is what was asked for, or
//! an error.

use std::io::Read;
use std::ops::Range;

use ureq::http::{Method, StatusCode, header};

use super::http::{header_text, refuse_encoding};
use super::manifest::Blob;
use super::{Call, Client};
use crate::error::Error;

/// The body of an answer, and which bytes of the blob it promises.
pub struct BlobBody {
    pub reader: Box<dyn Read + Send>,
    /// Where it begins: not where it was asked to, if the registry knows no ranges.
    pub start: u64,
    /// Where it ends, exclusively: a registry may send less than it was asked for.
    pub end: u64,
    /// For asking for more of the same.
    pub etag: Option<String>,
    /// Whether the registry says that it knows ranges, or shows it.
    pub takes_ranges: bool,
}

impl Client<'_> {
    /// Begins the download of these bytes of a blob. With an `etag` of an earlier answer, a blob that has changed since comes whole.
    pub fn blob(
        &self,
        blob: &Blob,
        range: Range<u64>,
        etag: Option<&str>,
    ) -> Result<BlobBody, Error> {
        let what = format!("blob {}", blob.digest);
        let path = format!("/v2/{}/blobs/{}", self.repository, blob.digest);
        let is_whole = range == (0..blob.size);
        let bytes = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        let mut headers = vec![
            (header::ACCEPT, "*/*"),
            (header::ACCEPT_ENCODING, "identity"),
        ];
        let mut expected = vec![StatusCode::OK];
        if !is_whole {
            headers.push((header::RANGE, bytes.as_str()));
            expected.push(StatusCode::PARTIAL_CONTENT);
            headers.extend(etag.map(|etag| (header::IF_RANGE, etag)));
        }
        let response = self
            .send(&Call {
                method: Method::GET,
                path: &path,
                headers: &headers,
                body: None,
                what: &what,
                expected: &expected,
            })
            .map_err(|error| match error {
                Error::RegistryStatus { status: 416, .. } => {
                    let (start, size) = (range.start, blob.size);
                    let why = format!(
                        "the registry has no bytes from {start} on and the manifest says {size}"
                    );
                    Error::untrusted(&what, why)
                }
                other => other,
            })?;
        refuse_encoding(response.headers(), &what)?;
        let part = response.status() == StatusCode::PARTIAL_CONTENT;
        let promised = match part {
            true => {
                let text = header_text(response.headers(), header::CONTENT_RANGE);
                content_range(&text, blob.size)
                    .filter(|got| got.start == range.start && got.end <= range.end)
                    .ok_or_else(|| {
                        let why = format!("asked for {bytes}, the registry sent {text:?}");
                        Error::untrusted(&what, why)
                    })?
            }
            false => 0..blob.size,
        };
        if let Some(length) = response.body().content_length()
            && length != promised.end - promised.start
        {
            let why = match part {
                true => format!("{bytes} are announced with a length of {length}"),
                false => format!(
                    "the registry sends {length} bytes and the manifest says {}",
                    blob.size
                ),
            };
            return Err(Error::untrusted(what, why));
        }
        let etag = header_text(response.headers(), header::ETAG);
        let accepts = header_text(response.headers(), header::ACCEPT_RANGES);
        Ok(BlobBody {
            start: promised.start,
            end: promised.end,
            // Only a strong one may be used with If-Range.
            etag: etag.starts_with('"').then_some(etag),
            takes_ranges: part || accepts.eq_ignore_ascii_case("bytes"),
            reader: Box::new(response.into_body().into_reader()),
        })
    }
}

/// `bytes 0-99/1000` (or `/*`) of something of this size.
fn content_range(text: &str, size: u64) -> Option<Range<u64>> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let fits = first <= last && last < size && (total == "*" || total.parse() == Ok(size));
    fits.then(|| first..last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_is_inside_of_the_blob_and_of_its_size() {
        assert_eq!(content_range("bytes 10-99/100", 100), Some(10..100));
        assert_eq!(content_range("bytes 0-0/*", 100), Some(0..1));
        for bad in [
            "",
            "bytes",
            "bytes 10-99/101",
            "bytes 10-100/100",
            "bytes 11-10/100",
            "bytes -5-10/100",
            "bytes 0-18446744073709551615/100",
            "bytes */100",
            "items 0-9/100",
        ] {
            assert_eq!(content_range(bad, 100), None, "{bad}");
        }
    }
}
