//! `volume create|ls|inspect|rm|prune`, and what volumes have to do with containers: who uses them, when they are mounted,
//! and when those without a name go.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::Engine;
use super::mounts::MountError;
use crate::error::Error;
use crate::events::{self, Subject};
use crate::names;
use crate::record::Container;
use crate::request::MountKind;
use crate::store;
use crate::volume::{self, Volume, Wanted};

/// `volume create`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeRequest {
    /// `None`: a random one, and the volume counts as anonymous.
    pub name: Option<String>,
    /// Only `local`.
    pub driver: String,
    pub labels: Vec<(String, String)>,
    /// `-o`
    pub options: Vec<(String, String)>,
}

/// A volume and who has it.
#[derive(Clone, Debug)]
pub struct ListedVolume {
    pub volume: Volume,
    /// IDs of the containers, whether they run or not.
    pub users: Vec<String>,
}

impl Engine {
    /// `volume create`. One of that name is returned as it is.
    pub fn create_volume(&mut self, request: &VolumeRequest) -> Result<Volume, Error> {
        let root = self.settings.root.clone();
        let name = match &request.name {
            Some(name) => name.clone(),
            None => names::new_id()?,
        };
        check_driver(&name, &request.driver)?;
        let tx = self
            .conn
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let wanted = Wanted {
            name: &name,
            anonymous: request.name.is_none(),
            labels: &request.labels,
            options: &request.options,
        };
        let made = volume::create(&tx, &root, &wanted)?;
        tx.commit()?;
        Ok(made)
    }

    /// All volumes, by name.
    pub fn volumes(&mut self) -> Result<Vec<ListedVolume>, Error> {
        listed(&self.conn, &self.settings.root)
    }

    pub fn find_volume(&mut self, name: &str) -> Result<Volume, Error> {
        volume::find(&self.conn, &self.settings.root, name)?
            .ok_or_else(|| Error::NoSuchVolume(name.to_owned()))
    }

    /// `volume rm`. One that a container has is a conflict, whether that runs or not.
    pub fn remove_volume(&mut self, name: &str) -> Result<(), Error> {
        let root = self.settings.root.clone();
        let tx = self
            .conn
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        if volume::find(&tx, &root, name)?.is_none() {
            return Err(Error::NoSuchVolume(name.to_owned()));
        }
        if let Some(users) = users(&tx)?.remove(name) {
            return Err(MountError::VolumeInUse {
                name: name.to_owned(),
                users: users.join(", "),
            }
            .into());
        }
        volume::remove(&tx, &root, name)?;
        Ok(tx.commit()?)
    }

    /// `volume prune`: removes the volumes that no container has and `wanted` names; their names, and the bytes on disk
    /// that they took.
    pub fn prune_volumes(
        &mut self,
        wanted: impl Fn(&Volume) -> bool,
    ) -> Result<(Vec<String>, u64), Error> {
        let root = self.settings.root.clone();
        let tx = self
            .conn
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let (mut removed, mut bytes) = (Vec::new(), 0);
        for listed in listed(&tx, &root)? {
            let volume = listed.volume;
            if listed.users.is_empty() && wanted(&volume) {
                bytes += super::space::on_disk(&volume::directory(&root, &volume.name))?;
                volume::remove(&tx, &root, &volume.name)?;
                removed.push(volume.name);
            }
        }
        events::record_prune(&tx, Subject::Volume, bytes)?;
        tx.commit()?;
        Ok((removed, bytes))
    }
}

/// There is one driver. Docker would look for a plugin.
pub fn check_driver(volume: &str, driver: &str) -> Result<(), MountError> {
    match driver {
        "" | "local" => Ok(()),
        other => Err(MountError::CreateVolume {
            name: volume.to_owned(),
            reason: format!("error looking up volume plugin {other}: plugin {other:?} not found"),
        }),
    }
}

pub(super) fn listed(conn: &Connection, root: &Path) -> Result<Vec<ListedVolume>, Error> {
    let mut users = users(conn)?;
    let volumes = volume::list(conn, root)?.into_iter();
    Ok(volumes
        .map(|volume| ListedVolume {
            users: users.remove(&volume.name).unwrap_or_default(),
            volume,
        })
        .collect())
}

/// Which containers have which volume.
fn users(conn: &Connection) -> Result<HashMap<String, Vec<String>>, Error> {
    let mut users: HashMap<String, Vec<String>> = HashMap::new();
    for stored in store::list(conn)? {
        let container = stored.container;
        for name in container
            .resolved
            .mounts
            .into_iter()
            .filter_map(|m| m.volume)
        {
            let of = users.entry(name).or_default();
            if !of.contains(&container.id) {
                of.push(container.id.clone());
            }
        }
    }
    Ok(users)
}

/// Removes the volumes without a name that a container had, whose row has gone, and that no other has. One that was asked
/// for by its name is somebody's.
pub(super) fn remove_anonymous(
    conn: &Connection,
    root: &Path,
    container: &Container,
) -> Result<(), Error> {
    let by_name = |name: &str| {
        let mut asked = container.request.mounts.iter();
        asked.any(|m| matches!(&m.kind, MountKind::Volume(asked) if asked == name))
    };
    let mine = container.resolved.mounts.iter();
    let names: Vec<&String> = mine.filter_map(|m| m.volume.as_ref()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let users = users(conn)?;
    for name in names {
        let found = volume::find(conn, root, name)?;
        if found.is_some_and(|v| v.anonymous) && !by_name(name) && !users.contains_key(name) {
            volume::remove(conn, root, name)?;
        }
    }
    Ok(())
}

/// The events of a start.
pub(super) fn record_mounts(conn: &Connection, container: &Container) -> Result<(), Error> {
    for mount in &container.resolved.mounts {
        if let Some(name) = &mount.volume {
            let attributes = [
                ("container", container.id.as_str()),
                ("destination", &mount.target),
                volume::DRIVER,
                ("propagation", ""),
                ("read/write", if mount.read_only { "false" } else { "true" }),
            ];
            events::record(conn, Subject::Volume, "mount", name, &attributes)?;
        }
    }
    Ok(())
}

/// The events of an end.
pub(super) fn record_unmounts(conn: &Connection, container: &Container) -> Result<(), Error> {
    let mounts = container.resolved.mounts.iter();
    for name in mounts.filter_map(|m| m.volume.as_ref()) {
        let attributes = [("container", container.id.as_str()), volume::DRIVER];
        events::record(conn, Subject::Volume, "unmount", name, &attributes)?;
    }
    Ok(())
}

/// For the monitor: the volumes that stand for a directory of the host become a bind of that.
pub(super) fn redirect(
    conn: &Connection,
    root: &Path,
    container: &mut Container,
) -> Result<(), Error> {
    for mount in &mut container.resolved.mounts {
        let Some(name) = &mount.volume else { continue };
        let Some(volume) = volume::find(conn, root, name)? else {
            continue;
        };
        if let Some((device, read_only)) = volume::options::device(&volume.options) {
            if !device.exists() {
                return Err(MountError::MissingDevice {
                    volume: volume.path.display().to_string(),
                    device: device.display().to_string(),
                }
                .into());
            }
            mount.source = device.to_string_lossy().into_owned();
            mount.read_only |= read_only;
        }
    }
    Ok(())
}

/// Named volumes that hold nothing yet get what the image has at their place, as in Docker: data directory and target.
pub(super) fn to_fill(root: &Path, container: &Container) -> Vec<(PathBuf, String)> {
    let is_empty =
        |path: &Path| std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
    let mounts = container.resolved.mounts.iter();
    mounts
        .filter(|m| !m.options.no_copy)
        .filter_map(|m| {
            let data = volume::data_path(root, m.volume.as_ref()?);
            // One that stands for a directory of the host is not ours to fill.
            let is_own = Path::new(&m.source) == data;
            let unfilled = is_empty(&data) || volume::is_cut_off(&data);
            (is_own && unfilled).then(|| (data, m.target.clone()))
        })
        .collect()
}
