//! From what is asked to be mounted to what is: `--volumes-from`, `-v`, `--mount`, `--tmpfs` and the image's VOLUMEs, and
//! which of them go together. The texts of refusal are Docker's where it has one.

use std::path::Path;

use oci_spec::image::ImageConfiguration;
use rusqlite::Connection;

use crate::error::{Error, ErrorKind};
use crate::names;
use crate::record::{Container, ResolvedMount};
use crate::request::{ContainerRequest, Mount, MountKind, MountOptions, Propagation};
use crate::spec;
use crate::store;
use crate::volume;

/// Why something cannot be mounted, or a volume be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("invalid specification: destination can't be '/'")]
    RootTarget,
    #[error("invalid mount config for type \"bind\": bind source path does not exist: {0}")]
    MissingSource(String),
    #[error("path {source_path} is mounted on {mount} but it is not a shared{or_slave} mount")]
    NotPropagating {
        source_path: String,
        mount: String,
        or_slave: &'static str,
    },
    #[error(
        "cannot mount on {target}: it is below {above}, whose mounts are {propagation} with the host, so it would be \
         hidden or show there; mount it elsewhere"
    )]
    BelowPropagating {
        target: String,
        above: String,
        propagation: &'static str,
    },
    #[error("invalid tmpfs option {0}")]
    TmpfsOption(String),
    #[error("invalid mode: {0}")]
    Mode(String),
    #[error("volumes-from specification cannot be an empty string")]
    EmptyVolumesFrom,
    #[error("create {name}: {reason}")]
    CreateVolume { name: String, reason: String },
    #[error("remove {name}: volume is in use - [{users}]")]
    VolumeInUse { name: String, users: String },
    #[error(
        "error while mounting volume '{volume}': failed to mount local volume: mount {device}:{volume}: no such file or directory"
    )]
    MissingDevice { volume: String, device: String },
}

impl MountError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            MountError::VolumeInUse { .. } => ErrorKind::Conflict,
            _ => ErrorKind::Invalid,
        }
    }
}

/// The mounts of a new container. Makes the volumes that are not there yet.
pub(super) fn resolve(
    conn: &Connection,
    root: &Path,
    request: &ContainerRequest,
    config: &ImageConfiguration,
) -> Result<Vec<ResolvedMount>, Error> {
    let mut resolved: Vec<ResolvedMount> = Vec::new();
    let (nameless, explicit): (Vec<&Mount>, Vec<&Mount>) = request
        .mounts
        .iter()
        .partition(|m| m.kind == MountKind::Anonymous && !m.options.by_mount_flag);
    for mount in explicit {
        let target = target(mount)?;
        if resolved.iter().any(|m| m.target == target) {
            return Err(Error::DuplicateMount(target));
        }
        resolved.push(one(conn, root, mount, target)?);
    }
    // What is asked for stands over what another container has, and both over a volume without a name.
    for inherited in inherited(conn, &request.volumes_from)? {
        if !resolved.iter().any(|m| m.target == inherited.target) {
            resolved.push(inherited);
        }
    }
    let image = config.config().as_ref();
    let volumes = image.and_then(|c| c.volumes().clone()).unwrap_or_default();
    let mut volumes: Vec<Mount> = volumes
        .into_iter()
        .map(|target| Mount::new(MountKind::Anonymous, target))
        .collect();
    volumes.sort_by(|a, b| a.target.cmp(&b.target));
    for mount in nameless.into_iter().chain(&volumes) {
        let target = target(mount)?;
        if !resolved.iter().any(|m| m.target == target) {
            resolved.push(one(conn, root, mount, target)?);
        }
    }
    check_nesting(&resolved)?;
    Ok(resolved)
}

fn target(mount: &Mount) -> Result<String, Error> {
    let written = mount.target.to_string_lossy();
    if !written.starts_with('/') {
        return Err(Error::RelativeMountTarget(written.into_owned()));
    }
    match clean(&written) {
        root if root == "/" => Err(MountError::RootTarget.into()),
        target => Ok(target),
    }
}

fn one(
    conn: &Connection,
    root: &Path,
    mount: &Mount,
    target: String,
) -> Result<ResolvedMount, Error> {
    let options = &mount.options;
    let volume = |name: String, anonymous| -> Result<_, Error> {
        let made = volume::create(
            conn,
            root,
            &volume::Wanted {
                name: &name,
                anonymous,
                labels: &options.labels,
                options: &options.driver_options,
            },
        )?;
        let source = made.path.to_string_lossy().into_owned();
        Ok((source, Some(name), None))
    };
    let (source, volume, tmpfs) = match &mount.kind {
        MountKind::Bind(path) => {
            if options.must_exist && !path.exists() {
                return Err(MountError::MissingSource(path.display().to_string()).into());
            }
            (path.to_string_lossy().into_owned(), None, None)
        }
        MountKind::Volume(name) => volume(name.clone(), false)?,
        MountKind::Anonymous => volume(names::new_id()?, true)?,
        MountKind::Tmpfs(text) => {
            spec::tmpfs_options(text).map_err(MountError::TmpfsOption)?;
            (String::new(), None, Some(text.clone()))
        }
    };
    Ok(ResolvedMount {
        source,
        target,
        volume,
        read_only: mount.read_only,
        tmpfs,
        options: options.clone(),
    })
}

/// The mounts of other containers, but for their memory.
fn inherited(conn: &Connection, volumes_from: &[String]) -> Result<Vec<ResolvedMount>, Error> {
    let mut all: Vec<ResolvedMount> = Vec::new();
    for written in volumes_from {
        if written.is_empty() {
            return Err(MountError::EmptyVolumesFrom.into());
        }
        let (name, mode) = written.split_once(':').unwrap_or((written, "rw"));
        if !["ro", "rw", "z", "Z"].contains(&mode) {
            return Err(MountError::Mode(mode.to_owned()).into());
        }
        let other = store::find(conn, name)?.container;
        for mount in other.resolved.mounts {
            if mount.tmpfs.is_some() {
                continue;
            }
            all.retain(|m| m.target != mount.target);
            all.push(ResolvedMount {
                read_only: mount.read_only || mode == "ro",
                options: MountOptions {
                    propagation: mount.options.propagation,
                    non_recursive: mount.options.non_recursive,
                    must_exist: mount.options.must_exist,
                    no_copy: true,
                    inherited: true,
                    ..MountOptions::default()
                },
                ..mount
            });
        }
    }
    Ok(all)
}

/// A mount that receives is put in place last of all (`bundle::Late`), and so it hides what was mounted below before.
fn check_nesting(mounts: &[ResolvedMount]) -> Result<(), MountError> {
    for above in mounts {
        let Some(propagation) = above.late() else {
            continue;
        };
        let is_below = |m: &&ResolvedMount| {
            m.target != above.target && Path::new(&m.target).starts_with(&above.target)
        };
        if let Some(below) = mounts.iter().find(is_below) {
            return Err(MountError::BelowPropagating {
                target: below.target.clone(),
                above: above.target.clone(),
                propagation: propagation.as_str(),
            });
        }
    }
    Ok(())
}

/// A path without `.`, `..` and doubled slashes, as Docker has it in the record: read as text, above the root is the root.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Before a start: makes the host's directories of `-v`, and refuses what `--mount` wants and is not there any more, and
/// binds that cannot propagate.
pub(super) fn prepare_sources(container: &Container) -> Result<(), Error> {
    let binds = container.resolved.mounts.iter();
    for mount in binds.filter(|m| m.tmpfs.is_none()) {
        let missing = std::fs::metadata(&mount.source)
            .is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound);
        if missing && mount.options.must_exist {
            return Err(MountError::MissingSource(mount.source.clone()).into());
        }
        if missing {
            std::fs::create_dir_all(&mount.source).map_err(|source| Error::Io {
                step: "make a host directory for a mount",
                container: container.id.clone(),
                source,
            })?;
        }
        if let Some(propagation) = mount.options.propagation.filter(|p| p.receives()) {
            check_propagation(&mount.source, propagation)?;
        }
    }
    Ok(())
}

fn check_propagation(source: &str, wanted: Propagation) -> Result<(), Error> {
    let failed = |source| Error::Host {
        step: "read the host's mounts",
        source,
    };
    let table = std::fs::read_to_string("/proc/self/mountinfo").map_err(failed)?;
    let real = std::fs::canonicalize(source).map_err(failed)?;
    let Some((mount, shared, slave)) = mount_of(&table, &real) else {
        return Ok(());
    };
    let or_slave = match wanted.is_shared() {
        true if !shared => "",
        false if !shared && !slave => " or slave",
        _ => return Ok(()),
    };
    Err(MountError::NotPropagating {
        source_path: source.to_owned(),
        mount,
        or_slave,
    }
    .into())
}

/// The mount that a path is on, and whether it is shared, and a slave (proc_pid_mountinfo(5), optional fields). Of several
/// on one directory the last is on top.
fn mount_of(table: &str, path: &Path) -> Option<(String, bool, bool)> {
    let lines = table.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(4);
        let mount = unescape(fields.next()?);
        let optional: Vec<&str> = fields.skip(1).take_while(|field| *field != "-").collect();
        let has = |tag: &str| optional.iter().any(|field| field.starts_with(tag));
        let found = (mount, has("shared:"), has("master:"));
        path.starts_with(&found.0).then_some(found)
    });
    lines.max_by_key(|(mount, ..)| mount.len())
}

/// Blanks in a path are written as `\040`.
fn unescape(text: &str) -> String {
    [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ]
    .iter()
    .fold(text.to_owned(), |text, (code, plain)| {
        text.replace(code, plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_target_is_cleaned_as_text() {
        for (written, meant) in [
            ("/data", "/data"),
            ("/data//x/", "/data/x"),
            ("/m/../../x/./y", "/x/y"),
            ("/..", "/"),
        ] {
            assert_eq!(clean(written), meant);
        }
    }

    #[test]
    fn the_mount_of_a_path_is_the_deepest_and_uppermost() {
        let table = "20 1 8:1 / / rw,relatime - ext4 /dev/vda rw\n\
             21 20 0:5 / /mnt rw shared:7 - tmpfs tmpfs rw\n\
             22 21 0:6 / /mnt/a\\040b rw shared:8 master:3 - tmpfs tmpfs rw\n\
             23 21 0:7 / /mnt rw master:9 - tmpfs tmpfs rw\n";
        let of = |path: &str| mount_of(table, Path::new(path)).unwrap();
        assert_eq!(of("/etc"), ("/".into(), false, false));
        assert_eq!(of("/mnt/a b/c"), ("/mnt/a b".into(), true, true));
        assert_eq!(of("/mnt/x"), ("/mnt".into(), false, true));
        assert_eq!(of("/mntx"), ("/".into(), false, false));
    }

    #[test]
    fn nothing_is_mounted_below_what_propagates() {
        let mount = |target: &str, propagation| ResolvedMount {
            source: "/src".into(),
            target: target.into(),
            volume: None,
            read_only: false,
            tmpfs: None,
            options: MountOptions {
                propagation,
                ..MountOptions::default()
            },
        };
        let slave = mount("/host", Some(Propagation::Rslave));
        let check = |other| check_nesting(&[slave.clone(), other]);
        assert!(check(mount("/hosts", None)).is_ok());
        assert!(check(mount("/", None)).is_ok());
        assert!(check(mount("/host/x", None)).is_err());
        assert!(
            check_nesting(&[mount("/a", Some(Propagation::Private)), mount("/a/b", None)]).is_ok()
        );
    }
}
