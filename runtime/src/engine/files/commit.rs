//! `commit`: a container's changes as an image of one more layer.

use std::os::fd::OwnedFd;

use serde_json::{Map, Value, json};

use super::changes_of;
use crate::cgroup::{self, Frozen, Group};
use crate::engine::Engine;
use crate::engine::mark::{self, Mark};
use crate::error::Error;
use crate::events;
use crate::record::{Container, State};
use crate::request::MountKind;
use crate::store;

/// What `commit` is asked for.
#[derive(Clone, Debug, Default)]
pub struct CommitRequest {
    pub container: String,
    pub name: Option<image::Reference>,
    pub author: String,
    pub message: String,
    /// Dockerfile lines.
    pub changes: Vec<String>,
    /// Freeze the container meanwhile, so that the layer is of one moment.
    pub pause: bool,
}

impl Engine {
    /// Makes an image of a container as it is now.
    pub fn commit(&mut self, request: &CommitRequest) -> Result<image::Image, Error> {
        let container = self.find(&request.container)?;
        let base = self.image_of(&container)?;
        let frozen = match request.pause {
            true => self.freeze(&container)?,
            false => None,
        };
        let (upper, _empty) = match self.upper(&container.id)? {
            Some(upper) => (upper, None),
            // It was never started: its layer is an empty one.
            None => empty()?,
        };
        let changes = changes_of(&upper, &base)?;
        let command = container.resolved.entrypoint.iter();
        let words: Vec<&str> = command
            .chain(&container.resolved.command)
            .map(String::as_str)
            .collect();
        let made = image::archive::commit(
            &mut self.conn,
            &self.settings.root,
            &image::archive::Commit {
                base: &base,
                upper: &upper,
                changes: &changes,
                config: config(&container),
                lines: &request.changes,
                author: &request.author,
                message: &request.message,
                created_by: &words.join(" "),
                name: request.name.as_ref(),
            },
        );
        drop(frozen);
        let made = made?;
        let name = request.name.as_ref().map(image::Reference::to_string);
        let attributes = [
            ("comment", request.message.as_str()),
            ("imageID", made.id.as_str()),
            ("imageRef", name.as_deref().unwrap_or_default()),
        ];
        events::record_container(&self.conn, &container, "commit", &attributes)?;
        Ok(made)
    }
}

/// A container that stands still until this is dropped, and the mark that it does so for a command's sake: should the command be
/// killed, the next one lets the container go on.
struct Freeze {
    // In this order: while it stands still, the mark stands.
    _frozen: Frozen,
    _mark: Mark,
}

/// In RUN_ROOT: marks of containers that a command has frozen.
const FREEZES: &str = "frozen";

impl Engine {
    fn freeze(&self, container: &Container) -> Result<Option<Freeze>, Error> {
        let group = Group::of(container);
        // The user has paused it, or it does not run.
        if cgroup::is_frozen(&group) || !matches!(container.state, State::Running { .. }) {
            return Ok(None);
        }
        let mark = Mark::set(&self.settings.run_root, FREEZES, &container.id);
        let mark = mark.map_err(|source| Error::Io {
            step: "mark it as paused for this",
            container: container.id.clone(),
            source,
        })?;
        Ok(Frozen::freeze(group).map(|frozen| Freeze {
            _frozen: frozen,
            _mark: mark,
        }))
    }
}

/// Thaws what was frozen by a commit that was killed. Cheap when there was none.
pub(in crate::engine) fn repair(engine: &Engine) {
    for (mark, id) in mark::take_orphaned(&engine.settings.run_root, FREEZES) {
        let stored = store::get(&engine.conn, &id).ok().flatten();
        let thawed = stored.map(|stored| cgroup::thaw(&Group::of(&stored.container)));
        if let Some(Err(e)) = thawed {
            tracing::warn!(container = id, "cannot unpause it: {e}");
        }
        drop(mark);
    }
}

/// Whoever pauses a container for good takes it from a commit that was killed.
pub(in crate::engine) fn forget_freeze(engine: &Engine, id: &str) {
    mark::forget(&engine.settings.run_root, FREEZES, id);
}

fn empty() -> Result<(OwnedFd, Option<tempfile::TempDir>), Error> {
    let failed = |source| Error::Host {
        step: "make an empty directory",
        source,
    };
    let dir = tempfile::tempdir().map_err(failed)?;
    let upper = std::fs::File::open(dir.path()).map_err(failed)?;
    Ok((upper.into(), Some(dir)))
}

/// The container's settings in the form of an image's `config`.
fn config(container: &Container) -> Value {
    let (request, resolved) = (&container.request, &container.resolved);
    let list = |words: &[String]| match words.is_empty() {
        true => Value::Null,
        false => words.into(),
    };
    let labels: Map<String, Value> = resolved
        .labels
        .iter()
        .map(|(key, value)| (key.clone(), value.as_str().into()))
        .collect();
    let mut config = json!({
        "Hostname": resolved.hostname,
        "Domainname": request.domainname.as_deref().unwrap_or_default(),
        "User": resolved.user,
        "AttachStdin": false,
        "AttachStdout": false,
        "AttachStderr": false,
        "Tty": request.tty,
        "OpenStdin": request.open_stdin,
        "StdinOnce": false,
        "Env": list(&resolved.env),
        "Cmd": list(&resolved.command),
        "Image": request.image,
        "Volumes": volumes(container),
        "WorkingDir": resolved.workdir,
        "Entrypoint": list(&resolved.entrypoint),
        "OnBuild": null,
        "Labels": labels,
    });
    if !resolved.exposed_ports.is_empty() {
        let ports = resolved.exposed_ports.iter();
        config["ExposedPorts"] = ports
            .map(|port| (port.clone(), json!({})))
            .collect::<Map<_, _>>()
            .into();
    }
    if !resolved.stop_signal.is_empty() {
        config["StopSignal"] = resolved.stop_signal.as_str().into();
    }
    if let Some(check) = &resolved.health {
        config["Healthcheck"] = json!({
            "Test": check.test,
            "Interval": check.interval.as_nanos() as u64,
            "Timeout": check.timeout.as_nanos() as u64,
            "StartPeriod": check.start_period.as_nanos() as u64,
            "Retries": check.retries,
        });
    }
    config
}

/// Where the image or the request asks for a volume without a name.
fn volumes(container: &Container) -> Value {
    let named: Vec<&std::path::Path> = container
        .request
        .mounts
        .iter()
        .filter(|mount| mount.kind != MountKind::Anonymous)
        .map(|mount| mount.target.as_path())
        .collect();
    let targets = container.resolved.mounts.iter().map(|mount| &mount.target);
    let map: Map<String, Value> = targets
        .filter(|target| !named.iter().any(|path| path.as_os_str() == target.as_str()))
        .map(|target| (target.clone(), json!({})))
        .collect();
    match map.is_empty() {
        true => Value::Null,
        false => map.into(),
    }
}
