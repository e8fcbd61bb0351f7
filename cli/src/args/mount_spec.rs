//! `--mount`: `type=bind,source=/a,target=/b,readonly`. Pure but for the current directory, which the caller hands in. What
//! cannot be read is an error of the option; what makes no sense together is one of the mount, in Docker's words each.

use std::path::Path;

use runtime::request::{MountOptions, Propagation};
use runtime::{Mount, MountKind};

use super::sizes::parse_size;
use super::values::parse_bool;
use super::volumes::{self, MountConfigError, MountProblem, VolumeSpecError};

/// As written, field by field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountSpec {
    /// Any word.
    kind: String,
    source: String,
    target: String,
    read_only: bool,
    consistency: Option<String>,
    propagation: Option<String>,
    non_recursive: bool,
    no_copy: bool,
    labels: Vec<(String, String)>,
    driver: Option<String>,
    driver_options: Vec<(String, String)>,
    tmpfs_size: Option<u64>,
    tmpfs_mode: Option<u32>,
}

/// The value parser of the option.
pub fn parse(text: &str) -> Result<MountSpec, String> {
    if text.trim().is_empty() {
        return Err("EOF".to_owned());
    }
    let mut spec = MountSpec {
        kind: "volume".to_owned(),
        source: String::new(),
        target: String::new(),
        read_only: false,
        consistency: None,
        propagation: None,
        non_recursive: false,
        no_copy: false,
        labels: Vec::new(),
        driver: None,
        driver_options: Vec::new(),
        tmpfs_size: None,
        tmpfs_mode: None,
    };
    // Which groups of options were used, for the check at the end.
    let mut groups = [("bind", false), ("volume", false), ("tmpfs", false)];
    for field in fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        for (group, used) in &mut groups {
            *used |= key.starts_with(&format!("{group}-"));
        }
        spec.enter(&key, value, &field)?;
    }
    if spec.target.is_empty() {
        return Err("target is required".to_owned());
    }
    for (group, used) in groups {
        if used && spec.kind != group {
            return Err(format!(
                "cannot mix '{group}-*' options with mount type '{}'",
                spec.kind
            ));
        }
    }
    Ok(spec)
}

impl MountSpec {
    fn enter(&mut self, key: &str, value: Option<&str>, field: &str) -> Result<(), String> {
        let switch = |value: Option<&str>| match value {
            None => Ok(true),
            Some(text) => parse_bool(text).map_err(|_| format!("invalid value for {key}: {text}")),
        };
        match key {
            "readonly" | "ro" => self.read_only = switch(value)?,
            "volume-nocopy" => self.no_copy = switch(value)?,
            "bind-nonrecursive" => self.non_recursive = switch(value)?,
            _ => {
                let value = value
                    .ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
                self.enter_value(key, value, field)?;
            }
        }
        Ok(())
    }

    fn enter_value(&mut self, key: &str, value: &str, field: &str) -> Result<(), String> {
        let invalid = || format!("invalid value for {key}: {value}");
        let pair = || {
            let (key, value) = value.split_once('=').unwrap_or((value, ""));
            (key.to_owned(), value.to_owned())
        };
        match key {
            "type" => self.kind = value.to_lowercase(),
            "source" | "src" => self.source = value.to_owned(),
            "target" | "dst" | "destination" => self.target = value.to_owned(),
            "consistency" => self.consistency = Some(value.to_lowercase()),
            "bind-propagation" => self.propagation = Some(value.to_lowercase()),
            "bind-recursive" => match value {
                // Those below are read-only with the bind itself in any case.
                "enabled" | "readonly" => self.non_recursive = false,
                "disabled" => self.non_recursive = true,
                _ => return Err(invalid()),
            },
            "volume-label" => self.labels.push(pair()),
            "volume-driver" => self.driver = Some(value.to_owned()),
            "volume-opt" => self.driver_options.push(pair()),
            "tmpfs-size" => self.tmpfs_size = Some(parse_size(value).map_err(|_| invalid())?),
            "tmpfs-mode" => {
                self.tmpfs_mode = Some(u32::from_str_radix(value, 8).map_err(|_| invalid())?);
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
        Ok(())
    }

    /// What is mounted. A source that starts with a dot is relative to `cwd`.
    pub fn mount(&self, cwd: &Path) -> Result<Mount, MountSpecError> {
        let problem = |problem| {
            MountSpecError::Config(MountConfigError {
                kind: self.kind.clone(),
                problem,
            })
        };
        if !["bind", "volume", "tmpfs"].contains(&self.kind.as_str()) {
            return Err(problem(MountProblem::UnknownType));
        }
        volumes::check_target(&self.target).map_err(problem)?;
        let kind = match self.kind.as_str() {
            "bind" => {
                if self.source.is_empty() {
                    return Err(problem(MountProblem::NoSource));
                }
                let source = volumes::absolute_source(&self.source, cwd);
                if !source.is_absolute() {
                    return Err(problem(MountProblem::Relative(self.source.clone())));
                }
                MountKind::Bind(source)
            }
            "tmpfs" => {
                if !self.source.is_empty() {
                    return Err(problem(MountProblem::Unexpected("Source")));
                }
                MountKind::Tmpfs(self.tmpfs_options())
            }
            _ if self.source.is_empty() => {
                if self.read_only {
                    return Err(problem(MountProblem::ReadOnlyAnonymous));
                }
                MountKind::Anonymous
            }
            _ => {
                volumes::check_volume_name(&self.source).map_err(MountSpecError::Volume)?;
                MountKind::Volume(self.source.clone())
            }
        };
        let propagation = match &self.propagation {
            None => None,
            Some(word) => Some(
                Propagation::parse(word)
                    .ok_or_else(|| problem(MountProblem::Propagation(word.clone())))?,
            ),
        };
        if let Some(driver) = self.driver.as_deref() {
            runtime::engine::volumes::check_driver(&self.source, driver)
                .map_err(MountSpecError::Driver)?;
        }
        Ok(Mount {
            read_only: self.read_only,
            options: MountOptions {
                propagation,
                non_recursive: self.non_recursive,
                must_exist: true,
                no_copy: self.no_copy,
                labels: self.labels.clone(),
                driver_options: self.driver_options.clone(),
                driver: self.driver.clone(),
                consistency: self.consistency.clone(),
                by_mount_flag: true,
                ..MountOptions::default()
            },
            ..Mount::new(kind, &self.target)
        })
    }

    fn tmpfs_options(&self) -> String {
        let size = self.tmpfs_size.map(|bytes| format!("size={bytes}"));
        let mode = self.tmpfs_mode.map(|mode| format!("mode={mode:o}"));
        let options: Vec<String> = size.into_iter().chain(mode).collect();
        options.join(",")
    }
}

/// Why a `--mount` that could be read was refused.
#[derive(Debug, thiserror::Error)]
pub enum MountSpecError {
    #[error(transparent)]
    Config(MountConfigError),
    #[error(transparent)]
    Volume(VolumeSpecError),
    #[error(transparent)]
    Driver(runtime::engine::mounts::MountError),
}

/// One record of CSV: a field that holds a comma stands in double quotes, and a quote in it is doubled (RFC 4180).
fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let Some(mut inner) = rest.strip_prefix('"') else {
            let (field, after) = rest.split_once(',').unwrap_or((rest, ""));
            if field.contains('"') {
                return Err("parse error on line 1: bare \" in non-quoted-field".to_owned());
            }
            fields.push(field.to_owned());
            if field.len() == rest.len() {
                return Ok(fields);
            }
            rest = after;
            continue;
        };
        let mut field = String::new();
        let after = loop {
            let Some((part, after)) = inner.split_once('"') else {
                return Err(
                    "parse error on line 1: extraneous or missing \" in quoted-field".to_owned(),
                );
            };
            field.push_str(part);
            match after.strip_prefix('"') {
                Some(more) => {
                    field.push('"');
                    inner = more;
                }
                None => break after,
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None if after.is_empty() => return Ok(fields),
            None => {
                return Err(
                    "parse error on line 1: extraneous or missing \" in quoted-field".to_owned(),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(text: &str) -> Mount {
        parse(text).unwrap().mount(Path::new("/home/me")).unwrap()
    }

    #[test]
    fn every_key_is_understood() {
        let bind =
            mount("TYPE=bind,SRC=/a,DST=/b,ro,bind-propagation=rslave,bind-nonrecursive=true");
        assert_eq!(bind.kind, MountKind::Bind("/a".into()));
        assert!(bind.read_only && bind.options.non_recursive && bind.options.must_exist);
        assert_eq!(bind.options.propagation, Some(Propagation::Rslave));
        let volume =
            mount("source=data,target=/b,volume-nocopy,volume-label=a=b,volume-driver=local");
        assert_eq!(volume.kind, MountKind::Volume("data".into()));
        assert!(volume.options.no_copy);
        assert_eq!(volume.options.labels, [("a".to_owned(), "b".to_owned())]);
        let tmpfs = mount("type=tmpfs,destination=/b,tmpfs-size=1m,tmpfs-mode=0700");
        assert_eq!(tmpfs.kind, MountKind::Tmpfs("size=1048576,mode=700".into()));
        assert_eq!(mount("dst=/b").kind, MountKind::Anonymous);
        assert_eq!(
            mount("type=bind,src=./x,dst=/b").kind,
            MountKind::Bind("/home/me/x".into())
        );
    }

    #[test]
    fn a_comma_stands_in_quotes() {
        let comma = mount("type=bind,\"src=/a,b \"\"c\"\"\",dst=/b");
        assert_eq!(comma.kind, MountKind::Bind("/a,b \"c\"".into()));
        assert!(parse("type=bind,\"src=/a,dst=/b").is_err());
    }

    #[test]
    fn what_cannot_be_read_is_refused_in_dockers_words() {
        for (text, expected) in [
            ("", "EOF"),
            ("type=bind", "target is required"),
            ("type=bind,src=/tmp,dst=", "target is required"),
            (
                "type=volume,src=vv,dst=/x,bogus=1",
                "unexpected key 'bogus' in 'bogus=1'",
            ),
            (
                "type=volume,bogus",
                "invalid field 'bogus' must be a key=value pair",
            ),
            (
                "type=tmpfs,dst=/x,tmpfs-size=x",
                "invalid value for tmpfs-size: x",
            ),
            (
                "type=tmpfs,dst=/x,tmpfs-mode=9",
                "invalid value for tmpfs-mode: 9",
            ),
            (
                "type=bind,src=/t,dst=/x,readonly=foo",
                "invalid value for readonly: foo",
            ),
            (
                "type=bind,src=/tmp,dst=/x,tmpfs-size=1",
                "cannot mix 'tmpfs-*' options with mount type 'bind'",
            ),
            (
                "type=volume,dst=/x,bind-propagation=shared",
                "cannot mix 'bind-*' options with mount type 'volume'",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn what_makes_no_mount_is_refused_in_dockers_words() {
        for (text, expected) in [
            (
                "type=bogus,dst=/x",
                "invalid mount config for type \"bogus\": mount type unknown",
            ),
            (
                "type=bind,dst=/x",
                "invalid mount config for type \"bind\": field Source must not be empty",
            ),
            (
                "type=bind,source=rel,target=/x",
                "invalid mount config for type \"bind\": invalid mount path: 'rel' mount path must be absolute",
            ),
            (
                "type=bind,source=/tmp,target=/",
                "invalid mount config for type \"bind\": invalid specification: destination can't be '/'",
            ),
            (
                "type=tmpfs,dst=/x,src=/tmp",
                "invalid mount config for type \"tmpfs\": field Source must not be specified",
            ),
            (
                "type=volume,dst=/x,ro",
                "invalid mount config for type \"volume\": must not set ReadOnly mode when using anonymous volumes",
            ),
            (
                "type=bind,src=/tmp,dst=/x,bind-propagation=foo",
                "invalid mount config for type \"bind\": invalid propagation mode: foo",
            ),
            (
                "type=volume,src=vw,dst=/x,volume-driver=nope",
                "create vw: error looking up volume plugin nope: plugin \"nope\" not found",
            ),
        ] {
            let error = parse(text).unwrap().mount(Path::new("/")).unwrap_err();
            assert_eq!(error.to_string(), expected, "{text}");
        }
    }
}
