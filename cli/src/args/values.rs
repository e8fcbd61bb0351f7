//! Small option values: environment, labels, extra hosts, DNS, key-value pairs. Pure but for the environment and the
//! env files that are named. Each `parse_` function is a clap value parser; its error text is Docker's.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, bail};

/// `K=V` or `K`: kept as written; see [`resolve_env`].
pub fn parse_env(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('=') {
        return Err(format!("invalid environment variable: {text}"));
    }
    Ok(text.to_owned())
}

pub fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err(format!("invalid label '{text}': empty name"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// `name:ADDRESS` or `name=ADDRESS`; the word `host-gateway` stands for the gateway of the container's network.
pub fn parse_add_host(text: &str) -> Result<(String, String), String> {
    let (name, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| format!("bad format for add-host: {text:?}"))?;
    let bare = address
        .strip_prefix('[')
        .and_then(|inner| inner.strip_suffix(']'))
        .unwrap_or(address);
    if bare == "host-gateway" || bare.parse::<IpAddr>().is_ok() {
        Ok((name.to_owned(), bare.to_owned()))
    } else {
        Err(format!("invalid IP address in add-host: {address:?}"))
    }
}

pub fn parse_dns(text: &str) -> Result<String, String> {
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) => Err(format!("IP address is not correctly formatted: {text}")),
    }
}

/// `--rm=true`: what Go takes for a truth value, and its words for anything else.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!(
            "strconv.ParseBool: parsing {text:?}: invalid syntax"
        )),
    }
}

pub fn parse_integer(text: &str) -> Result<i64, String> {
    text.parse().map_err(|error: std::num::ParseIntError| {
        use std::num::IntErrorKind::{NegOverflow, PosOverflow};
        let why = match error.kind() {
            PosOverflow | NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.ParseInt: parsing {text:?}: {why}")
    })
}

/// Seconds that `stop` waits; a negative number is for ever, which 136 years are.
pub fn parse_stop_timeout(text: &str) -> Result<u32, String> {
    let seconds = parse_integer(text)?;
    Ok(u32::try_from(seconds.clamp(-1, u32::MAX.into())).unwrap_or(FOR_EVER))
}

/// What a stop timeout of -1 becomes.
pub const FOR_EVER: u32 = u32::MAX;

/// A domain, or `.` for no search list at all.
pub fn parse_dns_search(text: &str) -> Result<String, String> {
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let domain = text.strip_suffix('.').unwrap_or(text);
    if text == "." || (domain.len() <= 253 && domain.split('.').all(label_ok)) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text} is not a valid domain"))
    }
}

/// `name=value` of `--filter`.
pub fn parse_filter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.trim().to_lowercase(), value.trim().to_owned())),
        None => Err("bad format of filter (expected name=value)".to_owned()),
    }
}

/// A duration in nanoseconds, with Go's words for anything else.
pub fn parse_go_duration(text: &str) -> Result<i64, String> {
    let (sign, plain) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if plain == "0" {
        return Ok(0);
    }
    let invalid = || format!("time: invalid duration {text:?}");
    let mut rest = plain;
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let digits = rest.find(|c| !is_number(c)).unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let (unit, after) = rest.split_at(rest.find(is_number).unwrap_or(rest.len()));
        nanos += number
            * match unit {
                "h" => 3.6e12,
                "m" => 6e10,
                "s" => 1e9,
                "ms" => 1e6,
                "us" | "µs" | "μs" => 1e3,
                "ns" => 1.0,
                "" => return Err(format!("time: missing unit in duration {text:?}")),
                _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
            };
        rest = after;
    }
    if plain.is_empty() || nanos > i64::MAX as f64 {
        return Err(invalid());
    }
    Ok((sign * nanos).round() as i64)
}

/// `key=value` of `-o`.
pub fn parse_option(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err(format!("invalid option '{text}': empty name"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// The container's environment: files first, then `-e`, each bare `K` taken from `own` or dropped if it is not there.
pub fn resolve_env(
    files: &[impl AsRef<Path>],
    options: &[String],
    own: &HashMap<String, String>,
) -> anyhow::Result<Vec<String>> {
    let mut env = Vec::new();
    for file in files {
        let path = file.as_ref();
        env_file(&path.display().to_string(), &read(path)?, own, &mut env)?;
    }
    env.extend(options.iter().filter_map(|option| bare(option, own)));
    Ok(env)
}

/// Labels from files like those of the environment; as with Docker, a line without a value gives none.
pub fn read_label_files(files: &[impl AsRef<Path>]) -> anyhow::Result<Vec<(String, String)>> {
    let lines = resolve_env(files, &[], &HashMap::new())?;
    Ok(lines
        .iter()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect())
}

/// A text file, or what Docker says of any other.
fn read(path: &Path) -> anyhow::Result<String> {
    let name = path.display();
    let mut file = std::fs::File::open(path).with_context(|| format!("open {name}"))?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut bytes)
        .with_context(|| format!("invalid env file ({name}): read {name}"))?;
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let bytes = error.as_bytes().split(|byte| *byte == b'\n').nth(line - 1);
        let bytes: Vec<String> = bytes
            .unwrap_or_default()
            .iter()
            .map(u8::to_string)
            .collect();
        anyhow::anyhow!(
            "invalid env file ({name}): invalid utf8 bytes at line {line}: [{}]",
            bytes.join(" ")
        )
    })
}

/// Lines `K=V` or `K`; blank lines and lines that start with `#` are skipped; nothing is quoted or expanded.
fn env_file(
    name: &str,
    text: &str,
    own: &HashMap<String, String>,
    env: &mut Vec<String>,
) -> anyhow::Result<()> {
    for line in text.trim_start_matches('\u{feff}').lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key = line.split_once('=').map_or(line, |(key, _)| key);
        if key.is_empty() {
            bail!("invalid env file ({name}): no variable name on line '{line}'");
        }
        if key.contains(char::is_whitespace) {
            bail!("invalid env file ({name}): variable '{key}' contains whitespaces");
        }
        env.extend(bare(line, own));
    }
    Ok(())
}

fn bare(option: &str, own: &HashMap<String, String>) -> Option<String> {
    if option.contains('=') {
        return Some(option.to_owned());
    }
    own.get(option).map(|value| format!("{option}={value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> HashMap<String, String> {
        HashMap::from([("HERE".to_owned(), "yes".to_owned())])
    }

    #[test]
    fn numbers_and_truth_values_are_gos() {
        assert_eq!(parse_bool("T"), Ok(true));
        assert_eq!(parse_bool("FALSE"), Ok(false));
        assert!(parse_bool("yes").unwrap_err().ends_with("invalid syntax"));
        assert_eq!(parse_integer("-5"), Ok(-5));
        assert_eq!(
            parse_integer("x").unwrap_err(),
            "strconv.ParseInt: parsing \"x\": invalid syntax"
        );
        assert_eq!(
            parse_integer("99999999999999999999").unwrap_err(),
            "strconv.ParseInt: parsing \"99999999999999999999\": value out of range"
        );
        assert_eq!(parse_stop_timeout("7"), Ok(7));
        assert_eq!(parse_stop_timeout("-1"), Ok(FOR_EVER));
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        assert_eq!(parse_go_duration("1m30s"), Ok(90_000_000_000));
        assert_eq!(parse_go_duration("-1.5h"), Ok(-5_400_000_000_000));
        assert_eq!(parse_go_duration("10us"), Ok(10_000));
        assert_eq!(parse_go_duration("0"), Ok(0));
        for (text, why) in [
            ("x", "time: invalid duration \"x\""),
            ("", "time: invalid duration \"\""),
            ("10", "time: missing unit in duration \"10\""),
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
        ] {
            assert_eq!(parse_go_duration(text).unwrap_err(), why);
        }
    }

    #[test]
    fn a_bare_variable_is_taken_from_the_environment_or_dropped() {
        let options = ["A=B", "HERE", "GONE", "EMPTY="].map(str::to_owned);
        let env = resolve_env(&[] as &[&Path], &options, &own()).unwrap();
        assert_eq!(env, ["A=B", "HERE=yes", "EMPTY="]);
    }

    #[test]
    fn an_env_file_has_comments_and_bare_names_and_no_quoting() {
        let mut env = Vec::new();
        let text = "\u{feff}A=1\n# comment\n\nGONE\nHERE\n  C=\"2 3\" # no comment\n";
        env_file("f", text, &own(), &mut env).unwrap();
        assert_eq!(env, ["A=1", "HERE=yes", "C=\"2 3\" # no comment"]);
    }

    #[test]
    fn a_bad_env_file_is_refused_in_dockers_words() {
        let mut env = Vec::new();
        let error = env_file("/f", "=1\n", &own(), &mut env).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid env file (/f): no variable name on line '=1'"
        );
        let error = env_file("/f", "A B=1\n", &own(), &mut env).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid env file (/f): variable 'A B' contains whitespaces"
        );
        assert!(env.is_empty());
    }

    #[test]
    fn an_env_file_comes_before_the_options() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "A=file\n").unwrap();
        let env = resolve_env(&[file.path()], &["A=option".to_owned()], &own()).unwrap();
        assert_eq!(env, ["A=file", "A=option"]);
        let missing = resolve_env(&["/nonexistent/env"], &[], &own()).unwrap_err();
        assert!(format!("{missing:#}").starts_with("open /nonexistent/env: No such file"));
    }

    #[test]
    fn values_without_a_name_are_refused() {
        assert_eq!(
            parse_env("=x").unwrap_err(),
            "invalid environment variable: =x"
        );
        assert_eq!(parse_env("").unwrap_err(), "invalid environment variable: ");
        assert_eq!(
            parse_label("=c").unwrap_err(),
            "invalid label '=c': empty name"
        );
        assert_eq!(parse_label("a").unwrap(), ("a".into(), String::new()));
        assert_eq!(parse_label("a=b=c").unwrap(), ("a".into(), "b=c".into()));
    }

    #[test]
    fn extra_hosts_take_either_separator_and_brackets() {
        let pair = |name: &str, address: &str| Ok((name.to_owned(), address.to_owned()));
        assert_eq!(parse_add_host("foo:1.2.3.4"), pair("foo", "1.2.3.4"));
        assert_eq!(parse_add_host("foo=1.2.3.4"), pair("foo", "1.2.3.4"));
        assert_eq!(parse_add_host("v6:::1"), pair("v6", "::1"));
        assert_eq!(parse_add_host("v6=[::1]"), pair("v6", "::1"));
        assert_eq!(parse_add_host("h:host-gateway"), pair("h", "host-gateway"));
        assert_eq!(
            parse_add_host("foo").unwrap_err(),
            "bad format for add-host: \"foo\""
        );
        assert_eq!(
            parse_add_host("foo:bar").unwrap_err(),
            "invalid IP address in add-host: \"bar\""
        );
    }

    #[test]
    fn dns_values_are_checked() {
        assert_eq!(parse_dns("1.1.1.1").unwrap(), "1.1.1.1");
        assert!(parse_dns("x").is_err());
        assert!(parse_dns_search("example.com").is_ok());
        assert!(parse_dns_search(".").is_ok());
        assert_eq!(
            parse_dns_search("a_b!").unwrap_err(),
            "a_b! is not a valid domain"
        );
    }
}
