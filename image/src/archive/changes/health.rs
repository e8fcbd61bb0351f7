//! `HEALTHCHECK [--interval=30s ...] CMD ...` as an image's `Healthcheck`. Pure.

use serde_json::{Value, json};

/// What follows the word HEALTHCHECK.
pub fn check(text: &str) -> Result<Value, String> {
    let mut check = json!({});
    let mut rest = text.trim();
    while let Some(option) = rest.strip_prefix("--") {
        let (word, after) = option
            .split_once(char::is_whitespace)
            .unwrap_or((option, ""));
        let (name, value) = word
            .split_once('=')
            .ok_or_else(|| format!("--{word} has no value"))?;
        let key = match name {
            "interval" => "Interval",
            "timeout" => "Timeout",
            "start-period" => "StartPeriod",
            "start-interval" => "StartInterval",
            "retries" => "Retries",
            _ => return Err(format!("unknown flag: {name}")),
        };
        check[key] = match key {
            "Retries" => value
                .parse::<u32>()
                .map_err(|_| format!("{value} is no number of retries"))?
                .into(),
            _ => match nanoseconds(value) {
                Some(length) if length == 0 || length >= 1_000_000 => length.into(),
                Some(_) => return Err(format!("{name} {value} is less than 1ms")),
                None => return Err(format!("time: invalid duration {value:?}")),
            },
        };
        rest = after.trim_start();
    }
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command = command.trim();
    check["Test"] = match kind.to_ascii_uppercase().as_str() {
        "NONE" if command.is_empty() => json!(["NONE"]),
        "CMD" if command.is_empty() => return Err("missing command after HEALTHCHECK CMD".into()),
        "CMD" => match super::json_strings(command) {
            Some(words) => [vec!["CMD".to_owned()], words].concat().into(),
            None => json!(["CMD-SHELL", command]),
        },
        _ => return Err(format!("unknown type {kind:?} in HEALTHCHECK (try CMD)")),
    };
    Ok(check)
}

/// `1m30s`, `500ms`, `1.5h`: Go's way to write a duration.
fn nanoseconds(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ns" => 1.0,
            "us" | "\u{b5}s" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[letters..];
    }
    (!text.is_empty()).then_some(total as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_command_have_their_places() {
        for (text, expected) in [
            ("NONE", json!({"Test": ["NONE"]})),
            ("CMD a b", json!({"Test": ["CMD-SHELL", "a b"]})),
            ("cmd [\"a\", \"b\"]", json!({"Test": ["CMD", "a", "b"]})),
            (
                "--interval=1m30s --timeout=500ms --retries=3 CMD x",
                json!({"Test": ["CMD-SHELL", "x"], "Interval": 90_000_000_000_u64, "Timeout": 500_000_000, "Retries": 3}),
            ),
        ] {
            assert_eq!(check(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "RUN x",
            "CMD",
            "--interval=x CMD a",
            "--bogus=1 CMD a",
            "--retries=-1 CMD a",
            "--interval=1 CMD a",
        ] {
            assert!(check(text).is_err(), "{text}");
        }
    }
}
