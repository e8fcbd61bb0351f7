//! A record as Docker's json-file has it: `{"log":"text\n","stream":"stdout","attrs":{...},"time":"RFC 3339"}` and a newline.
//!
//! Escaped and read by hand: a container may write a gigabyte. Docker puts U+FFFD in place of bytes that are not UTF-8; so
//! does `log` here, and a field `bytes` that Docker's readers pass over has the piece as it was, in hexadecimal.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Entry, Found, Stamp, Stream, Time, scan};

const OPENING: &[u8] = b"{\"log\":\"";
const STDOUT: &[u8] = b"\",\"stream\":\"stdout\"";
const STDERR: &[u8] = b"\",\"stream\":\"stderr\"";
const TIME: &[u8] = b",\"time\":\"";
const CLOSING: &[u8] = b"\"}\n";

/// The field with what every record of a container carries; empty without any.
pub(super) fn suffix(attributes: &[(String, String)]) -> Vec<u8> {
    if attributes.is_empty() {
        return Vec::new();
    }
    let map: BTreeMap<&String, &String> = attributes.iter().map(|(k, v)| (k, v)).collect();
    // Of strings only: there is nothing that could fail.
    let json = serde_json::to_string(&map).unwrap_or_default();
    format!(",\"attrs\":{json}").into_bytes()
}

pub(super) fn append(to: &mut Vec<u8>, stream: Stream, time: &str, suffix: &[u8], bytes: &[u8]) {
    to.extend_from_slice(OPENING);
    let valid = std::str::from_utf8(bytes).is_ok();
    if valid {
        escape(to, bytes);
    } else {
        escape(to, String::from_utf8_lossy(bytes).as_bytes());
    }
    to.extend_from_slice(match stream {
        Stream::Stdout => STDOUT,
        Stream::Stderr => STDERR,
    });
    if !valid {
        to.extend_from_slice(b",\"bytes\":\"");
        for byte in bytes {
            to.push(HEX[usize::from(byte >> 4)]);
            to.push(HEX[usize::from(byte & 15)]);
        }
        to.push(b'"');
    }
    to.extend_from_slice(suffix);
    to.extend_from_slice(TIME);
    to.extend_from_slice(time.as_bytes());
    to.extend_from_slice(CLOSING);
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn escape(to: &mut Vec<u8>, bytes: &[u8]) {
    let mut from = 0;
    loop {
        let at = scan::special(bytes, from);
        if at > from {
            to.extend_from_slice(&bytes[from..at]);
        }
        if at == bytes.len() {
            return;
        }
        let byte = bytes[at];
        match byte {
            b'\n' => to.extend_from_slice(b"\\n"),
            b'\r' => to.extend_from_slice(b"\\r"),
            b'\t' => to.extend_from_slice(b"\\t"),
            b'"' => to.extend_from_slice(b"\\\""),
            b'\\' => to.extend_from_slice(b"\\\\"),
            _ => to.extend_from_slice(&[
                b'\\',
                b'u',
                b'0',
                b'0',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]),
        }
        from = at + 1;
    }
}

pub(super) fn whole(written: &[u8]) -> usize {
    written
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1)
}

pub(super) fn first(buffer: &[u8]) -> Found<'_> {
    // A record has no control character but the newline at its end.
    let at = scan::newline(buffer, 0);
    if at == buffer.len() {
        return Found::Part;
    }
    let line = &buffer[..at + 1];
    Found::Record(line.len(), as_written(line).or_else(|| any(line)))
}

/// A record just as [`append`] writes it where there is nothing special about it.
fn as_written(line: &[u8]) -> Option<Entry<'_>> {
    let text = line.strip_prefix(OPENING)?;
    let mut unescaped: Option<Vec<u8>> = None;
    let (mut from, mut end);
    from = 0;
    loop {
        end = scan::special(text, from);
        if let Some(unescaped) = &mut unescaped {
            unescaped.extend_from_slice(&text[from..end]);
        }
        if *text.get(end)? == b'"' {
            break;
        }
        let so_far = unescaped.get_or_insert_with(|| text[..end].to_vec());
        from = end + 2;
        match *text.get(end + 1)? {
            b'n' => so_far.push(b'\n'),
            b'r' => so_far.push(b'\r'),
            b't' => so_far.push(b'\t'),
            b'"' => so_far.push(b'"'),
            b'\\' => so_far.push(b'\\'),
            b'u' => {
                let digits = text.get(end + 2..end + 6)?;
                let number = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16);
                // Others are characters of several bytes, which Docker escapes and we do not.
                so_far.push(number.ok().filter(u8::is_ascii)?);
                from = end + 6;
            }
            _ => return None,
        }
    }
    let rest = &text[end..];
    let (stream, rest) = match rest.strip_prefix(STDOUT) {
        Some(rest) => (Stream::Stdout, rest),
        None => (Stream::Stderr, rest.strip_prefix(STDERR)?),
    };
    let time = rest.strip_prefix(TIME)?.strip_suffix(CLOSING)?;
    Some(Entry {
        stream,
        time: Time::Written(time),
        bytes: match unescaped {
            Some(bytes) => Cow::Owned(bytes),
            None => Cow::Borrowed(&text[..end]),
        },
        attributes: Vec::new(),
    })
}

#[derive(Deserialize)]
struct Any {
    log: String,
    stream: String,
    #[serde(default)]
    bytes: Option<String>,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
    time: String,
}

fn any(line: &[u8]) -> Option<Entry<'static>> {
    let any: Any = serde_json::from_slice(line).ok()?;
    let bytes = match any.bytes {
        Some(digits) => from_hex(digits.as_bytes())?,
        None => any.log.into_bytes(),
    };
    Some(Entry {
        stream: match any.stream.as_str() {
            "stderr" => Stream::Stderr,
            _ => Stream::Stdout,
        },
        time: Time::Read(Stamp::parse(&any.time)?),
        bytes: Cow::Owned(bytes),
        attributes: any.attrs.into_iter().collect(),
    })
}

fn from_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let value = |digit: u8| char::from(digit).to_digit(16);
    digits
        .chunks(2)
        .map(|pair| {
            let [high, low] = *pair else { return None };
            u8::try_from(value(high)? * 16 + value(low)?).ok()
        })
        .collect()
}
