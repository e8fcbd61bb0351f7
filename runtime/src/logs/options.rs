//! `--log-driver` and `--log-opt`: what they mean, with Docker's checks and texts. Pure.

use super::Format;
use super::files::Limits;
use crate::error::Error;
use crate::record::Container;
use crate::request::{LogDriver, LogRequest};

/// How a container is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `None`: not at all.
    pub format: Option<Format>,
    pub(super) limits: Limits,
}

const JSON: &[&str] = &[
    "max-size",
    "max-file",
    "compress",
    "labels",
    "labels-regex",
    "env",
    "env-regex",
    "tag",
];
const LOCAL: &[&str] = &["max-size", "max-file", "compress"];
/// Of every driver.
const COMMON: &[&str] = &["mode", "max-buffer-size"];

/// Checks what `create` is asked for; what it means.
pub fn check(request: &LogRequest) -> Result<Options, Error> {
    let (known, name) = match request.driver {
        LogDriver::JsonFile => (JSON, "json-file log driver"),
        LogDriver::Local => (LOCAL, "log driver local"),
        LogDriver::None if request.options.is_empty() => (&[] as &[&str], ""),
        LogDriver::None => return refused("invalid logging opts for driver none"),
    };
    for (key, _) in &request.options {
        let key = key.as_str();
        if !known.contains(&key) && !COMMON.contains(&key) {
            return refused(format!("unknown log opt '{key}' for {name}"));
        }
    }
    check_mode(request)?;
    let failed =
        |text: String| Error::LogOption(format!("failed to initialize logging driver: {text}"));
    let (format, limits) = match request.driver {
        LogDriver::JsonFile => (Some(Format::Json), json_limits(request).map_err(failed)?),
        LogDriver::Local => (Some(Format::Local), local_limits(request).map_err(failed)?),
        LogDriver::None => (None, UNLIMITED),
    };
    for key in ["labels-regex", "env-regex"] {
        pattern(request, key).map_err(failed)?;
    }
    if let Some(tag) = option(request, "tag") {
        expand(tag, &|_| String::new()).map_err(failed)?;
    }
    Ok(Options { format, limits })
}

const UNLIMITED: Limits = Limits {
    max_size: None,
    max_files: 1,
    compress: false,
};

/// What each record carries, of what was asked for; sorted by name.
pub fn attributes(container: &Container) -> Vec<(String, String)> {
    let log = &container.request.log;
    let mut found = std::collections::BTreeMap::new();
    let labels = container.resolved.labels.iter();
    let labels = labels.map(|(name, value)| (name.as_str(), value.as_str()));
    pick(log, "labels", labels, &mut found);
    let env = container.resolved.env.iter();
    let env = env.map(|entry| entry.split_once('=').unwrap_or((entry, "")));
    pick(log, "env", env, &mut found);
    if let Some(tag) = option(log, "tag").filter(|tag| !tag.is_empty()) {
        let field = |name: &str| field(container, name).unwrap_or_default();
        found.insert("tag".to_owned(), expand(tag, &field).unwrap_or_default());
    }
    found.into_iter().collect()
}

fn pick<'a>(
    log: &LogRequest,
    key: &str,
    from: impl Iterator<Item = (&'a str, &'a str)>,
    to: &mut std::collections::BTreeMap<String, String>,
) {
    let names: Vec<&str> = option(log, key).map_or_else(Vec::new, |all| all.split(',').collect());
    let matching = pattern(log, &format!("{key}-regex")).unwrap_or_default();
    for (name, value) in from {
        if names.contains(&name) || matching.as_ref().is_some_and(|it| it.is_match(name)) {
            to.insert(name.to_owned(), value.to_owned());
        }
    }
}

fn refused<T>(text: impl Into<String>) -> Result<T, Error> {
    Err(Error::LogOption(text.into()))
}

/// The last one counts.
fn option<'a>(request: &'a LogRequest, key: &str) -> Option<&'a str> {
    let mut all = request.options.iter().rev();
    all.find(|(name, _)| name == key)
        .map(|(_, value)| value.as_str())
}

/// Our writer waits for nothing but the disk, in either mode; what is checked is what Docker checks.
fn check_mode(request: &LogRequest) -> Result<(), Error> {
    let mode = option(request, "mode").unwrap_or_default();
    if !["", "blocking", "non-blocking"].contains(&mode) {
        return refused(format!("logger: logging mode not supported: {mode}"));
    }
    match option(request, "max-buffer-size") {
        Some(_) if mode != "non-blocking" => {
            refused("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        }
        Some(size) => match self::size(size, 1024) {
            Ok(_) => Ok(()),
            Err(text) => refused(format!("error parsing option max-buffer-size: {text}")),
        },
        None => Ok(()),
    }
}

fn json_limits(request: &LogRequest) -> Result<Limits, String> {
    let max_size = option(request, "max-size")
        .map(|text| size(text, 1000))
        .transpose()?;
    if max_size == Some(0) {
        return Err("max-size must be a positive number".to_owned());
    }
    let max_files = option(request, "max-file")
        .map(number)
        .transpose()?
        .unwrap_or(1);
    if max_files < 1 {
        return Err("max-file cannot be less than 1".to_owned());
    }
    let compress = option(request, "compress")
        .map(boolean)
        .transpose()?
        .unwrap_or(false);
    if compress && (max_files < 2 || max_size.is_none()) {
        return Err(
            "compress cannot be true when max-file is less than 2 or max-size is not set"
                .to_owned(),
        );
    }
    Ok(Limits {
        max_size,
        max_files: usize::try_from(max_files).unwrap_or(1),
        compress,
    })
}

/// Docker's defaults: five files of 20 MB, compressed.
fn local_limits(request: &LogRequest) -> Result<Limits, String> {
    let invalid =
        |key: &str, text: &str, why: String| format!("invalid value for {key}: {text}: {why}");
    let max_size = match option(request, "max-size") {
        Some(text) => size(text, 1000).map_err(|why| invalid("max-size", text, why))?,
        None => 20_000_000,
    };
    let max_files = match option(request, "max-file") {
        Some(text) => number(text).map_err(|why| invalid("max-file", text, why))?,
        None => 5,
    };
    let compress = match option(request, "compress") {
        Some(text) => {
            boolean(text).map_err(|why| format!("error reading compress log option: {why}"))?
        }
        None => true,
    };
    if max_size == 0 {
        return Err("max size should be a positive number".to_owned());
    }
    if max_files < 0 {
        return Err("max file count cannot be less than 0".to_owned());
    }
    if compress && max_files <= 1 {
        return Err("compression cannot be enabled when max file count is 1".to_owned());
    }
    Ok(Limits {
        max_size: Some(max_size),
        max_files: usize::try_from(max_files).unwrap_or(0).max(1),
        compress,
    })
}

fn number(text: &str) -> Result<i64, String> {
    text.parse()
        .map_err(|_| format!("strconv.Atoi: parsing {text:?}: invalid syntax"))
}

fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!(
            "strconv.ParseBool: parsing {text:?}: invalid syntax"
        )),
    }
}

/// `10m`, `1.5k`, `10 MiB`; the letters count in `unit`s.
fn size(text: &str, unit: u32) -> Result<u64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    let number: f64 = match number.starts_with(|c: char| c.is_ascii_digit()) {
        true => number.parse().map_err(|_| invalid())?,
        false => return Err(invalid()),
    };
    let rest = rest.strip_prefix(' ').unwrap_or(rest).to_ascii_lowercase();
    let rest = rest.strip_suffix('b').unwrap_or(&rest);
    let exponent = match rest.strip_suffix('i').unwrap_or(rest) {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(invalid()),
    };
    let bytes = number * f64::from(unit).powi(exponent);
    // Beyond what any disk holds, the nearest is as good.
    Ok(bytes as u64)
}

fn pattern(request: &LogRequest, key: &str) -> Result<Option<regex::Regex>, String> {
    let Some(text) = option(request, key).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let last = |e: regex::Error| e.to_string().lines().last().unwrap_or_default().to_owned();
    regex::Regex::new(text).map(Some).map_err(|e| {
        format!(
            "error parsing regexp: {}: `{text}`",
            last(e).trim_start_matches("error: ")
        )
    })
}

const FIELDS: &[&str] = &[
    "ID",
    "FullID",
    "Name",
    "ImageID",
    "ImageFullID",
    "ImageName",
    "DaemonName",
];

fn field(container: &Container, name: &str) -> Option<String> {
    let short = |id: &str| id.trim_start_matches("sha256:").chars().take(12).collect();
    Some(match name {
        "ID" => short(&container.id),
        "FullID" => container.id.clone(),
        "Name" => container.name.clone(),
        "ImageID" => short(&container.image_id),
        "ImageFullID" => container.image_id.clone(),
        "ImageName" => container.request.image.clone(),
        "DaemonName" => "coracle".to_owned(),
        _ => return None,
    })
}

/// A tag's `{{.Field}}`s; it has no functions.
fn expand(tag: &str, value: &dyn Fn(&str) -> String) -> Result<String, String> {
    let mut text = String::new();
    let mut rest = tag;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, after) = after
            .split_once("}}")
            .ok_or("template: log-tag:1: unclosed action")?;
        let name = action.trim().strip_prefix('.').unwrap_or_default();
        if !FIELDS.contains(&name) {
            return Err(format!(
                "template: log-tag:1: {:?} is no field of a tag: it has {}",
                action.trim(),
                FIELDS.join(", ")
            ));
        }
        text.push_str(before);
        text.push_str(&value(name));
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(driver: LogDriver, options: &[(&str, &str)]) -> Result<Options, String> {
        let options = options
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let request = LogRequest {
            driver,
            options: options.collect(),
        };
        check(&request).map_err(|e| e.to_string())
    }

    #[test]
    fn sizes_are_dockers() {
        for (text, bytes) in [
            ("10", 10),
            ("1.5k", 1500),
            ("10m", 10_000_000),
            ("10MB", 10_000_000),
            ("1 KiB", 1000),
        ] {
            assert_eq!(size(text, 1000), Ok(bytes), "{text}");
        }
        assert_eq!(size("1k", 1024), Ok(1024));
        for text in ["", "x", "-1", "1kk", "k", ".", "1 x"] {
            assert!(size(text, 1000).is_err(), "{text}");
        }
    }

    #[test]
    fn local_has_five_compressed_files_of_20_megabytes() {
        let limits = checked(LogDriver::Local, &[]).unwrap().limits;
        assert_eq!(
            (limits.max_size, limits.max_files, limits.compress),
            (Some(20_000_000), 5, true)
        );
        let limits = checked(LogDriver::JsonFile, &[]).unwrap().limits;
        assert_eq!((limits.max_size, limits.compress), (None, false));
    }

    #[test]
    fn a_tag_has_fields_and_nothing_else() {
        let field = |name: &str| format!("<{name}>");
        assert_eq!(
            expand("a{{.ID}}/{{ .Name }}", &field).unwrap(),
            "a<ID>/<Name>"
        );
        assert!(expand("{{", &field).is_err());
        assert!(expand("{{.Foo}}", &field).is_err());
    }
}
