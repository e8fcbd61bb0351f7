//! How answers are written: tables, words, templates, JSON. Text in, text out; only [`print`] touches stdout.

pub mod container;
pub mod disk_usage;
pub mod event;
pub mod image_history;
pub mod inspect;
pub mod inspect_image;
pub mod inspect_network;
pub mod inspect_volume;
pub mod listing;
pub mod loading;
pub mod ports;
pub mod progress;
pub mod push_progress;
pub mod stats;
pub mod table;
pub mod template;
pub mod words;

#[cfg(test)]
pub mod sample;

use std::io::Write;

use anyhow::Context;

/// Writes a whole answer to stdout, with a line end.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush())
        .context("write to stdout")
}

/// A heading, lines and an empty line; nothing where there are no lines.
pub fn section(heading: &str, lines: &[impl AsRef<str>]) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(line.as_ref());
        text.push('\n');
    }
    match text.is_empty() {
        true => text,
        false => format!("{heading}\n{text}\n"),
    }
}

/// JSON as `inspect` writes it: four spaces.
pub fn pretty_json(value: &serde_json::Value) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    serde::Serialize::serialize(value, &mut serializer).context("write JSON")?;
    String::from_utf8(bytes).context("write JSON")
}

/// The first 12 digits, without the `sha256:` of an image.
pub fn short_id(id: &str) -> &str {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.get(..12).unwrap_or(digits)
}
