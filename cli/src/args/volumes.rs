//! `-v`: volume specs as people write them, and Docker's words for what is wrong with them. Pure but for the current
//! directory, which the caller hands in.

use std::path::{Path, PathBuf};

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
    #[error(
        "invalid volume specification: '{spec}': invalid mount config for type \"{kind}\": \
         invalid mount path: '{target}' mount path must be absolute"
    )]
    RelativeTarget {
        spec: String,
        kind: &'static str,
        target: String,
    },
    #[error(
        "invalid volume specification: '{spec}': invalid mount config for type \"{kind}\": \
         invalid specification: destination can't be '/'"
    )]
    RootTarget { spec: String, kind: &'static str },
    #[error("invalid mode: {0}")]
    Mode(String),
    #[error("mount option '{option}' is not built yet: {spec}")]
    NotBuilt { spec: String, option: String },
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
    let type_name = kind.as_str();
    if !target.starts_with('/') {
        return Err(VolumeSpecError::RelativeTarget {
            spec: spec.to_owned(),
            kind: type_name,
            target: target.to_owned(),
        });
    }
    if target.bytes().all(|b| b == b'/') {
        return Err(VolumeSpecError::RootTarget {
            spec: spec.to_owned(),
            kind: type_name,
        });
    }
    let read_only = parse_mode(spec, mode)?;
    if let MountKind::Volume(name) = &kind {
        check_volume_name(name)?;
    }
    Ok(Mount {
        read_only,
        ..Mount::new(kind, target)
    })
}

fn source_kind(source: &str, cwd: &Path) -> MountKind {
    if source.starts_with('/') {
        MountKind::Bind(PathBuf::from(source))
    } else if source == "."
        || source == ".."
        || source.starts_with("./")
        || source.starts_with("../")
    {
        MountKind::Bind(absolute(cwd, source))
    } else {
        MountKind::Volume(source.to_owned())
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

/// Whether the mount is read-only.
fn parse_mode(spec: &str, mode: &str) -> Result<bool, VolumeSpecError> {
    let mut access = None;
    for option in mode.split(',').filter(|_| !mode.is_empty()) {
        match option {
            "ro" | "rw" if access.is_none() => access = Some(option),
            // Labels of SELinux, which this engine does not set, consistency hints for virtual machines, and the
            // default propagation: all without effect here, as with Docker on such a host.
            "z" | "Z" | "cached" | "delegated" | "consistent" | "private" | "rprivate" => {}
            "shared" | "rshared" | "slave" | "rslave" | "nocopy" => {
                return Err(VolumeSpecError::NotBuilt {
                    spec: spec.to_owned(),
                    option: option.to_owned(),
                });
            }
            _ => return Err(VolumeSpecError::Mode(mode.to_owned())),
        }
    }
    Ok(access == Some("ro"))
}

fn check_volume_name(name: &str) -> Result<(), VolumeSpecError> {
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
            assert_eq!(parse(spec, Path::new("/home/me")), Ok(expected), "{spec}");
        }
        let anonymous = parse("/data", Path::new("/")).unwrap();
        assert_eq!(anonymous.kind, MountKind::Anonymous);
        assert_eq!(anonymous.target, Path::new("/data"));
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
            (
                "/a:/b:rslave",
                "mount option 'rslave' is not built yet: /a:/b:rslave",
            ),
        ];
        for (spec, expected) in table {
            let error = parse(spec, Path::new("/home/me")).expect_err(spec);
            assert_eq!(error.to_string(), expected, "{spec}");
        }
    }
}
