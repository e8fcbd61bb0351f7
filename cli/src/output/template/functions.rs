//! The functions of templates: Go's own and those that Docker adds. Pure.

use std::cmp::Ordering;

use serde_json::{Map, Value};

const NAMES: &[&str] = &[
    "json", "upper", "lower", "title", "join", "split", "pad", "truncate", "println", "print",
    "printf", "len", "index", "slice", "eq", "ne", "lt", "le", "gt", "ge", "not", "and", "or",
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
        ("print", values) => Ok(values.iter().map(words).collect::<String>().into()),
        ("println", values) => {
            let words: Vec<String> = values.iter().map(words).collect();
            Ok(format!("{}\n", words.join(" ")).into())
        }
        ("printf", [format, values @ ..]) => printf(string(format)?, values).map(Value::from),
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
            Ok(others.iter().any(|other| value == other).into())
        }
        ("ne", [a, b]) => Ok((a != b).into()),
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

fn element<'a>(value: &'a Value, key: &Value) -> Result<&'a Value, String> {
    match (value, key) {
        (Value::Object(map), Value::String(name)) => Ok(map.get(name).unwrap_or(&Value::Null)),
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

fn title(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// `%s`, `%v`, `%d`, `%q`, `%t` and `%%`.
fn printf(format: &str, values: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('%') => out.push('%'),
            Some(verb @ ('s' | 'v' | 'd' | 'q' | 't')) => {
                let value = values.next().ok_or("too few values for the format")?;
                out.push_str(&match verb {
                    'q' => crate::output::words::quote(&words(value)),
                    _ => words(value),
                });
            }
            verb => return Err(format!("unknown verb {verb:?}")),
        }
    }
    Ok(out)
}
