//! From nft's JSON of a rule back to words, in the form of [`super::layout`].
//!
//! Knows what our own rules say and the commonest of what an administrator writes. nft versions differ in how they put the
//! same rule (one or several values, `in` or `==`, the protocol of a port once it is known), so those are levelled here.

use serde_json::Value;

/// A rule's statements in words; `None` where one is not known here.
pub(super) fn statements(expr: &Value) -> Option<String> {
    let words: Option<Vec<String>> = expr.as_array()?.iter().map(statement).collect();
    Some(words?.join(" "))
}

fn statement(value: &Value) -> Option<String> {
    let (name, body) = single(value)?;
    Some(match (name, body) {
        ("match", body) => {
            let left = expression(&body["left"])?;
            let right = match left.as_str() {
                // A state is one of several, whether they stand in braces or not.
                "ct state" if body["right"]["set"].is_array() => values(&body["right"]["set"])?,
                _ => values(&body["right"])?,
            };
            match body["op"].as_str()? {
                "==" | "in" => format!("{left} {right}"),
                op => format!("{left} {op} {right}"),
            }
        }
        ("vmap", body) => format!(
            "{} vmap {}",
            expression(&body["key"])?,
            expression(&body["data"])?
        ),
        ("jump" | "goto", body) => format!("{name} {}", body["target"].as_str()?),
        (
            "accept" | "drop" | "return" | "continue" | "masquerade" | "redirect" | "reject"
            | "counter" | "log",
            Value::Null,
        ) => name.to_owned(),
        ("counter", Value::Object(body)) => format!(
            "counter packets {} bytes {}",
            body.get("packets")?,
            body.get("bytes")?
        ),
        ("dnat" | "snat", body) => {
            let family = body["family"].as_str();
            let family = family.map_or_else(String::new, |f| format!("{f} "));
            let address = expression(&body["addr"])?;
            let port = match &body["port"] {
                Value::Null => String::new(),
                port => format!(":{}", expression(port)?),
            };
            format!("{name} {family}to {address}{port}")
        }
        ("redirect", body) => format!("redirect to :{}", expression(&body["port"])?),
        _ => return None,
    })
}

/// The right side of a match: one value, or several of a set without a name.
fn values(value: &Value) -> Option<String> {
    let list = match value {
        Value::Array(list) => list,
        Value::Object(object) if object.contains_key("set") => {
            let inside: Option<Vec<String>> =
                value["set"].as_array()?.iter().map(expression).collect();
            return Some(format!("{{ {} }}", inside?.join(", ")));
        }
        other => return expression(other),
    };
    let mut words: Vec<String> = list.iter().map(expression).collect::<Option<_>>()?;
    words.sort();
    Some(words.join(","))
}

/// A key, a value, or the name of a set.
pub(super) fn expression(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => {
            let plain = |c: char| c.is_ascii_alphanumeric() || "@.:_-/".contains(c);
            // Interface names stand in quotes, as in our rules; only `lo` does among them.
            return Some(match text == "lo" || !text.chars().all(plain) {
                true => format!("\"{text}\""),
                false => text.clone(),
            });
        }
        Value::Number(number) => return Some(number.to_string()),
        _ => {}
    }
    let (name, body) = single(value)?;
    Some(match name {
        "meta" => match body["key"].as_str()? {
            key @ ("nfproto" | "l4proto") => format!("meta {key}"),
            key => key.to_owned(),
        },
        "payload" => {
            let field = body["field"].as_str()?;
            match (body["protocol"].as_str()?, field) {
                ("tcp" | "udp" | "sctp" | "th", "sport" | "dport") => format!("th {field}"),
                (protocol, _) => format!("{protocol} {field}"),
            }
        }
        "ct" => format!("ct {}", body["key"].as_str()?),
        "fib" => {
            let flags: Vec<&str> = match &body["flags"] {
                Value::Array(flags) => flags.iter().filter_map(Value::as_str).collect(),
                flag => vec![flag.as_str()?],
            };
            format!("fib {} {}", flags.join(" . "), body["result"].as_str()?)
        }
        "concat" => {
            let parts: Option<Vec<String>> = body.as_array()?.iter().map(expression).collect();
            parts?.join(" . ")
        }
        "map" => format!(
            "{} map {}",
            expression(&body["key"])?,
            expression(&body["data"])?
        ),
        "prefix" => format!("{}/{}", body["addr"].as_str()?, body["len"]),
        "range" => format!("{}-{}", expression(&body[0])?, expression(&body[1])?),
        "jump" | "goto" | "accept" | "drop" | "return" | "continue" => return statement(value),
        _ => return None,
    })
}

/// An object with one member, as nft writes every expression and statement.
fn single(value: &Value) -> Option<(&str, &Value)> {
    let object = value.as_object()?;
    let (name, body) = object.iter().next()?;
    (object.len() == 1).then_some((name.as_str(), body))
}

/// Every chain that a rule jumps to, and every set that it looks into, wherever they stand in it.
pub(super) fn references(value: &Value, chains: &mut Vec<String>, sets: &mut Vec<String>) {
    match value {
        Value::String(text) => sets.extend(text.strip_prefix('@').map(str::to_owned)),
        Value::Array(list) => list.iter().for_each(|v| references(v, chains, sets)),
        Value::Object(object) => {
            for (name, body) in object {
                if let ("jump" | "goto", Some(target)) = (name.as_str(), body["target"].as_str()) {
                    chains.push(target.to_owned());
                }
                references(body, chains, sets);
            }
        }
        _ => {}
    }
}
