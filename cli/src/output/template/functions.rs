//! The functions of templates: Go's own and those that Docker adds. Pure.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::printf::{kind, printf};

const NAMES: &[&str] = &[
    "json", "upper", "lower", "title", "join", "split", "pad", "truncate", "println", "print",
    "printf", "html", "js", "urlquery", "len", "index", "slice", "eq", "ne", "lt", "le", "gt",
    "ge", "not", "and", "or",
];

/// The method `.Label "key"` of rows; no function of this name can be called otherwise. A row holds the map that it
/// looks into under the same name.
pub const LABEL: &str = "Label";

pub fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

pub fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    match (name, arguments) {
        ("json", [Value::Object(row)]) if is_row(row) => Ok(row_json(row).into()),
        ("json", [value]) => serde_json::to_string(value)
            .map(Value::from)
            .map_err(|e| e.to_string()),
        ("upper", [text]) => Ok(string(text)?.to_uppercase().into()),
        ("lower", [text]) => Ok(string(text)?.to_lowercase().into()),
        ("title", [text]) => Ok(title(string(text)?).into()),
        ("join", [list, separator]) => {
            let words: Vec<String> = elements(list)?.iter().map(words).collect();
            Ok(words.join(string(separator)?).into())
        }
        ("split", [text, separator]) => {
            let parts = string(text)?.split(string(separator)?);
            Ok(parts.collect::<Vec<&str>>().into())
        }
        ("pad", [text, before, after]) => {
            let (text, before, after) = (string(text)?, width(before)?, width(after)?);
            match text {
                "" => Ok(text.into()),
                _ => Ok(format!("{}{text}{}", " ".repeat(before), " ".repeat(after)).into()),
            }
        }
        ("truncate", [text, length]) => {
            let kept = string(text)?.chars().take(width(length)?);
            Ok(kept.collect::<String>().into())
        }
        ("print", values) => Ok(print(values).into()),
        ("html", values) => Ok(html(&print(values)).into()),
        ("js", values) => Ok(js(&print(values)).into()),
        ("urlquery", values) => Ok(urlquery(&print(values)).into()),
        ("println", values) => {
            let words: Vec<String> = values.iter().map(words).collect();
            Ok(format!("{}\n", words.join(" ")).into())
        }
        ("printf", [format, values @ ..]) => Ok(printf(string(format)?, values).into()),
        ("len", [value]) => length(value).map(Value::from),
        ("index", [value, keys @ ..]) => {
            let mut found = value;
            for key in keys {
                found = element(found, key)?;
            }
            Ok(found.clone())
        }
        ("slice", [value, ends @ ..]) if ends.len() <= 2 => slice(value, ends),
        (LABEL, [of, key]) => label(of, string(key)?),
        ("eq", [value, others @ ..]) if !others.is_empty() => {
            for other in others {
                if equal(value, other)? {
                    return Ok(true.into());
                }
            }
            Ok(false.into())
        }
        ("ne", [a, b]) => Ok((!equal(a, b)?).into()),
        ("lt", [a, b]) => Ok((order(a, b)? == Ordering::Less).into()),
        ("le", [a, b]) => Ok((order(a, b)? != Ordering::Greater).into()),
        ("gt", [a, b]) => Ok((order(a, b)? == Ordering::Greater).into()),
        ("ge", [a, b]) => Ok((order(a, b)? != Ordering::Less).into()),
        ("not", [value]) => Ok((!truth(value)).into()),
        ("and", [.., last]) => Ok(pick(arguments, last, |value| !truth(value))),
        ("or", [.., last]) => Ok(pick(arguments, last, truth)),
        _ => Err(format!("wrong number of arguments: {}", arguments.len())),
    }
}

fn is_row(map: &Map<String, Value>) -> bool {
    map.get(LABEL).is_some_and(Value::is_object)
}

/// A row as Docker writes it: keys in order, and `<`, `>`, `&` escaped.
pub fn row_json(row: &Map<String, Value>) -> String {
    let mut pairs: Vec<(&String, &Value)> = row.iter().filter(|(key, _)| *key != LABEL).collect();
    pairs.sort_by_key(|(key, _)| *key);
    let sorted: Map<String, Value> = pairs
        .into_iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Value::Object(sorted)
        .to_string()
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

/// One label of a row; in the row of headings, the heading that Docker makes of its key.
fn label(of: &Value, key: &str) -> Result<Value, String> {
    match of {
        Value::Object(labels) => Ok(labels.get(key).cloned().unwrap_or_else(|| "".into())),
        _ => {
            let last = key.rsplit('.').next().unwrap_or_default();
            Ok(last.replace(['-', '_'], " ").into())
        }
    }
}

/// `slice VALUE [FROM [TO]]` of a text (in bytes, as Go counts) or of a list.
fn slice(value: &Value, ends: &[Value]) -> Result<Value, String> {
    let from = ends.first().map_or(Ok(0), width)?;
    let length = match value {
        Value::String(text) => text.len(),
        other => elements(other)?.len(),
    };
    let to = ends.get(1).map_or(Ok(length), width)?;
    let out_of_range = || format!("slice index out of range: {from}:{to}");
    let part = match value {
        Value::String(text) => text.get(from..to).map(Value::from),
        other => elements(other)?
            .get(from..to)
            .map(|part| part.to_vec().into()),
    };
    part.ok_or_else(out_of_range)
}

/// The first argument that decides, else the last.
fn pick(arguments: &[Value], last: &Value, decides: impl Fn(&Value) -> bool) -> Value {
    let found = arguments.iter().find(|value| decides(value));
    found.unwrap_or(last).clone()
}

/// Go's truth: not the zero value of its type.
pub fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// A value as Go prints it: `[a b]`, `map[k:v]` in the keys' order.
pub fn words(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let elements: Vec<String> = list.iter().map(words).collect();
            format!("[{}]", elements.join(" "))
        }
        Value::Object(map) => {
            let mut pairs: Vec<(&String, &Value)> = map.iter().collect();
            pairs.sort_by_key(|(key, _)| *key);
            let pairs: Vec<String> = pairs
                .iter()
                .map(|(key, value)| format!("{key}:{}", words(value)))
                .collect();
            format!("map[{}]", pairs.join(" "))
        }
    }
}

fn string(value: &Value) -> Result<&str, String> {
    value
        .as_str()
        .ok_or_else(|| format!("expected a string, got {}", words(value)))
}

fn elements(value: &Value) -> Result<&[Value], String> {
    match value {
        Value::Array(list) => Ok(list),
        Value::Null => Ok(&[]),
        other => Err(format!("expected a list, got {}", words(other))),
    }
}

/// A number of characters; a bound keeps a typing error from filling the memory.
fn width(value: &Value) -> Result<usize, String> {
    let number = value.as_u64().filter(|number| *number <= 10_000);
    number
        .and_then(|number| usize::try_from(number).ok())
        .ok_or_else(|| format!("not a width: {}", words(value)))
}

fn length(value: &Value) -> Result<usize, String> {
    match value {
        Value::Null => Ok(0),
        Value::String(text) => Ok(text.len()),
        Value::Array(list) => Ok(list.len()),
        Value::Object(map) => Ok(map.len()),
        other => Err(format!("len of {}", words(other))),
    }
}

/// What a key gives that is not there: in a map of texts, as labels are, the empty text.
fn zero(map: &serde_json::Map<String, Value>) -> &'static Value {
    static EMPTY: Value = Value::String(String::new());
    match map.values().all(Value::is_string) {
        true => &EMPTY,
        false => &Value::Null,
    }
}

fn element<'a>(value: &'a Value, key: &Value) -> Result<&'a Value, String> {
    match (value, key) {
        (Value::Object(map), Value::String(name)) => Ok(map.get(name).unwrap_or_else(|| zero(map))),
        (Value::Array(list), Value::Number(number)) => number
            .as_u64()
            .and_then(|index| usize::try_from(index).ok())
            .and_then(|index| list.get(index))
            .ok_or_else(|| format!("index out of range: {number}")),
        (Value::Null, _) => Err("index of untyped nil".to_owned()),
        _ => Err(format!("can't index item of {}", words(value))),
    }
}

fn order(a: &Value, b: &Value) -> Result<Ordering, String> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        _ => None,
    }
    .ok_or_else(|| "incompatible types for comparison".to_owned())
}

/// What is compared must be of one kind; nothing equals nothing.
fn equal(a: &Value, b: &Value) -> Result<bool, String> {
    match (a, b) {
        (Value::Null, _) | (_, Value::Null) => Ok(a == b),
        _ if kind(a) == kind(b) => Ok(a == b),
        _ => Err("incompatible types for comparison".to_owned()),
    }
}

/// The first letter of each word.
fn title(text: &str) -> String {
    let mut before = ' ';
    let mut out = String::new();
    for c in text.chars() {
        match before.is_alphanumeric() || before == '_' || before == '\'' {
            true => out.push(c),
            false => out.extend(c.to_uppercase()),
        }
        before = c;
    }
    out
}

/// Go's Sprint: a space between two values of which neither is a text.
fn print(values: &[Value]) -> String {
    let mut out = String::new();
    for (at, value) in values.iter().enumerate() {
        if at > 0 && !value.is_string() && !values[at - 1].is_string() {
            out.push(' ');
        }
        out.push_str(&words(value));
    }
    out
}

fn html(text: &str) -> String {
    let escaped = |c: char| match c {
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '&' => "&amp;".to_owned(),
        '"' => "&#34;".to_owned(),
        '\'' => "&#39;".to_owned(),
        c => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

fn js(text: &str) -> String {
    let escaped = |c: char| match c {
        '\\' | '\'' | '"' => format!("\\{c}"),
        '<' | '>' | '&' | '=' => format!("\\u{:04X}", u32::from(c)),
        c if u32::from(c) < 32 => format!("\\u{:04X}", u32::from(c)),
        c => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

fn urlquery(text: &str) -> String {
    let escaped = |b: u8| match b {
        b' ' => "+".to_owned(),
        b if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(escaped).collect()
}
