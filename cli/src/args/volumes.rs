//! `-v`: volume specs as people write them, and Docker's words for what is wrong with them. Pure but for the current
//! directory, which the caller hands in.

use std::path::{Path, PathBuf};

use runtime::request::{MountOptions, Propagation};
use runtime::{Mount, MountKind};

/// Why a `-v` spec was refused. The texts are Docker's, client's and engine's alike.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeSpecError {
    #[error("invalid empty volume spec")]
    Empty,
    #[error("invalid spec: {0}: too many colons")]
    TooManyColons(String),
    #[error("invalid spec: {0}: empty section between colons")]
    EmptySection(String),
    #[error("invalid volume specification: '{spec}': {error}")]
    Config {
        spec: String,
        error: MountConfigError,
    },
    #[error("invalid mode: {0}")]
    Mode(String),
    #[error("invalid volume specification: '{0}'")]
    ModeWithoutSource(String),
    #[error(
        "create {0}: \"{0}\" includes invalid characters for a local volume name, only \
         \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )]
    VolumeName(String),
    #[error(
        "create {0}: volume name is too short, names should be at least two alphanumeric characters"
    )]
    ShortVolumeName(String),
}

/// What makes no mount, however it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid mount config for type \"{kind}\": {problem}")]
pub struct MountConfigError {
    pub kind: String,
    pub problem: MountProblem,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountProblem {
    #[error("mount type unknown")]
    UnknownType,
    #[error("invalid mount path: '{0}' mount path must be absolute")]
    Relative(String),
    #[error("invalid specification: destination can't be '/'")]
    RootTarget,
    #[error("field Source must not be empty")]
    NoSource,
    #[error("field {0} must not be specified")]
    Unexpected(&'static str),
    #[error("must not set ReadOnly mode when using anonymous volumes")]
    ReadOnlyAnonymous,
    #[error("invalid propagation mode: {0}")]
    Propagation(String),
}

pub fn check_target(target: &str) -> Result<(), MountProblem> {
    if !target.starts_with('/') {
        Err(MountProblem::Relative(target.to_owned()))
    } else if target.bytes().all(|b| b == b'/') {
        Err(MountProblem::RootTarget)
    } else {
        Ok(())
    }
}

/// Parses `/host:/ctr[:MODE]`, `name:/ctr[:MODE]` or `/ctr`. A source that starts with a dot is relative to `cwd`.
pub fn parse(spec: &str, cwd: &Path) -> Result<Mount, VolumeSpecError> {
    if spec.is_empty() {
        return Err(VolumeSpecError::Empty);
    }
    let parts: Vec<&str> = spec.split(':').collect();
    if parts.len() > 3 {
        return Err(VolumeSpecError::TooManyColons(spec.to_owned()));
    }
    if parts.iter().any(|part| part.is_empty()) {
        return Err(VolumeSpecError::EmptySection(spec.to_owned()));
    }
    let (kind, target, mode) = match parts[..] {
        [target] => (MountKind::Anonymous, target, ""),
        [source, target] => (source_kind(source, cwd), target, ""),
        [source, target, mode] => (source_kind(source, cwd), target, mode),
        _ => return Err(VolumeSpecError::TooManyColons(spec.to_owned())),
    };
    let config = |problem| VolumeSpecError::Config {
        spec: spec.to_owned(),
        error: MountConfigError {
            kind: kind.as_str().to_owned(),
            problem,
        },
    };
    let mode = Mode::parse(mode).ok_or_else(|| VolumeSpecError::Mode(mode.to_owned()))?;
    if parts.len() == 2 && parts[0].starts_with('/') && Mode::parse(target).is_some() {
        return Err(VolumeSpecError::ModeWithoutSource(spec.to_owned()));
    }
    check_target(target).map_err(config)?;
    if let MountKind::Volume(name) = &kind {
        check_volume_name(name)?;
    }
    let is_bind = matches!(kind, MountKind::Bind(_));
    if mode.propagation.is_some() && !is_bind {
        return Err(config(MountProblem::Unexpected("BindOptions")));
    }
    if mode.no_copy && is_bind {
        return Err(config(MountProblem::Unexpected("VolumeOptions")));
    }
    Ok(Mount {
        read_only: mode.read_only,
        options: MountOptions {
            propagation: mode.propagation,
            no_copy: mode.no_copy,
            written: spec.to_owned(),
            ..MountOptions::default()
        },
        ..Mount::new(kind, target)
    })
}

fn source_kind(source: &str, cwd: &Path) -> MountKind {
    let path = absolute_source(source, cwd);
    match path.is_absolute() {
        true => MountKind::Bind(path),
        false => MountKind::Volume(source.to_owned()),
    }
}

/// A source that starts with a dot is relative to `cwd`; any other stays as it is.
pub fn absolute_source(source: &str, cwd: &Path) -> PathBuf {
    let is_relative =
        [".", ".."].contains(&source) || source.starts_with("./") || source.starts_with("../");
    match is_relative {
        true => absolute(cwd, source),
        false => PathBuf::from(source),
    }
}

/// Lexically, as Docker's client does it: `..` takes away the last component.
fn absolute(cwd: &Path, source: &str) -> PathBuf {
    let mut path = cwd.to_owned();
    for component in Path::new(source).components() {
        match component {
            std::path::Component::ParentDir => {
                path.pop();
            }
            std::path::Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

/// What stands behind the last colon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mode {
    read_only: bool,
    no_copy: bool,
    propagation: Option<Propagation>,
}

impl Mode {
    /// At most one word of each kind.
    fn parse(text: &str) -> Option<Mode> {
        let mut mode = Mode::default();
        let mut kinds = Vec::new();
        for word in text.split(',').filter(|_| !text.is_empty()) {
            let kind = match word {
                "ro" | "rw" => "access",
                // Labels of SELinux, and hints for virtual machines: without effect here, as with Docker on such a host.
                "z" | "Z" => "label",
                "cached" | "delegated" | "consistent" => "consistency",
                "nocopy" => "copy",
                _ => {
                    mode.propagation = Some(Propagation::parse(word)?);
                    "propagation"
                }
            };
            if kinds.contains(&kind) {
                return None;
            }
            kinds.push(kind);
            mode.read_only |= word == "ro";
            mode.no_copy |= word == "nocopy";
        }
        Some(mode)
    }
}

pub fn check_volume_name(name: &str) -> Result<(), VolumeSpecError> {
    let mut bytes = name.bytes();
    let starts_well = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let goes_on_well = bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if !starts_well || !goes_on_well {
        Err(VolumeSpecError::VolumeName(name.to_owned()))
    } else if name.len() < 2 {
        Err(VolumeSpecError::ShortVolumeName(name.to_owned()))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(source: &str, target: &str, read_only: bool) -> Mount {
        Mount {
            read_only,
            options: MountOptions::default(),
            ..Mount::new(MountKind::Bind(source.into()), target)
        }
    }

    fn volume(name: &str, target: &str, read_only: bool) -> Mount {
        Mount {
            read_only,
            ..Mount::new(MountKind::Volume(name.into()), target)
        }
    }

    #[test]
    fn specs_are_read_as_docker_reads_them() {
        let table = [
            ("/a:/b", bind("/a", "/b", false)),
            ("/a:/b:ro", bind("/a", "/b", true)),
            ("/a:/b:rw", bind("/a", "/b", false)),
            ("/a:/b:ro,z", bind("/a", "/b", true)),
            ("/a:/b:Z", bind("/a", "/b", false)),
            ("/a:/b:cached,ro", bind("/a", "/b", true)),
            ("./a:/b", bind("/home/me/a", "/b", false)),
            (".:/b", bind("/home/me", "/b", false)),
            ("../x:/b", bind("/home/x", "/b", false)),
            ("data:/b", volume("data", "/b", false)),
            ("data_1.x-y:/b:ro", volume("data_1.x-y", "/b", true)),
        ];
        for (spec, expected) in table {
            let mut mount = parse(spec, Path::new("/home/me")).unwrap();
            assert_eq!(std::mem::take(&mut mount.options.written), spec);
            assert_eq!(mount, expected, "{spec}");
        }
        let anonymous = parse("/data", Path::new("/")).unwrap();
        assert_eq!(anonymous.kind, MountKind::Anonymous);
        assert_eq!(anonymous.target, Path::new("/data"));
    }

    #[test]
    fn modes_are_options_of_the_mount() {
        let options = |spec: &str| parse(spec, Path::new("/")).unwrap().options;
        assert_eq!(
            options("/a:/b:ro,rslave").propagation,
            Some(Propagation::Rslave)
        );
        assert_eq!(options("/a:/b:ro,rslave").written_mode(), "ro,rslave");
        assert!(options("data:/b:nocopy").no_copy);
        assert_eq!(options("data:/b").propagation, None);
    }

    #[test]
    fn bad_specs_are_refused_in_dockers_words() {
        let table = [
            ("", "invalid empty volume spec"),
            ("/a:/b:ro:x", "invalid spec: /a:/b:ro:x: too many colons"),
            (":/b", "invalid spec: :/b: empty section between colons"),
            ("/a:", "invalid spec: /a:: empty section between colons"),
            (
                "/a:/b:",
                "invalid spec: /a:/b:: empty section between colons",
            ),
            (
                "/a:b",
                "invalid volume specification: '/a:b': invalid mount config for type \"bind\": \
                 invalid mount path: 'b' mount path must be absolute",
            ),
            (
                "data",
                "invalid volume specification: 'data': invalid mount config for type \"volume\": \
                 invalid mount path: 'data' mount path must be absolute",
            ),
            (
                "/a:/",
                "invalid volume specification: '/a:/': invalid mount config for type \"bind\": \
                 invalid specification: destination can't be '/'",
            ),
            ("/a:/b:bogus", "invalid mode: bogus"),
            ("/a:/b:ro,rw", "invalid mode: ro,rw"),
            (
                "a/b:/c",
                "create a/b: \"a/b\" includes invalid characters for a local volume name, only \
                 \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use \
                 absolute path",
            ),
            (
                "~/x:/c",
                "create ~/x: \"~/x\" includes invalid characters for a local volume name, only \
                 \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use \
                 absolute path",
            ),
            (
                "a:/b",
                "create a: volume name is too short, names should be at least two alphanumeric characters",
            ),
            ("/a:/b:z,Z", "invalid mode: z,Z"),
            ("/a:/b:shared,slave", "invalid mode: shared,slave"),
            ("/a:ro", "invalid volume specification: '/a:ro'"),
            (
                "vv:/x:shared",
                "invalid volume specification: 'vv:/x:shared': invalid mount config for type \"volume\": \
                 field BindOptions must not be specified",
            ),
            (
                "/a:/x:nocopy",
                "invalid volume specification: '/a:/x:nocopy': invalid mount config for type \"bind\": \
                 field VolumeOptions must not be specified",
            ),
        ];
        for (spec, expected) in table {
            let error = parse(spec, Path::new("/home/me")).expect_err(spec);
            assert_eq!(error.to_string(), expected, "{spec}");
        }
    }
}
