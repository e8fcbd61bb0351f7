//! Between columns and values. What cannot be read names the column and its value.

use rusqlite::Row;

use crate::error::Error;

pub(super) fn optional<T: std::str::FromStr>(
    row: &Row<'_>,
    column: &'static str,
) -> Result<Option<T>, Error> {
    let text: Option<String> = row.get(column).map_err(failed("read a column"))?;
    text.map(|text| parse(column, &text)).transpose()
}

pub(super) fn to_json(value: &impl serde::Serialize, of: &str) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|_| malformed("value", of))
}

pub(super) fn from_json<T: serde::de::DeserializeOwned>(
    what: &'static str,
    json: &str,
) -> Result<T, Error> {
    serde_json::from_str(json).map_err(|_| malformed(what, json))
}

pub(super) fn parse<T: std::str::FromStr>(what: &'static str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| malformed(what, text))
}

pub(super) fn mac_to_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

pub(super) fn mac_from_text(text: &str) -> Result<[u8; 6], Error> {
    let bytes: Vec<u8> = text
        .split(':')
        .filter_map(|b| u8::from_str_radix(b, 16).ok())
        .collect();
    bytes.try_into().map_err(|_| malformed("mac", text))
}

pub(super) fn malformed(what: &'static str, value: &str) -> Error {
    Error::Malformed {
        what,
        value: value.to_owned(),
    }
}

pub(crate) fn failed(operation: &'static str) -> impl Fn(rusqlite::Error) -> Error + Copy {
    move |source| Error::Database { operation, source }
}
