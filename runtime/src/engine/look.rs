//! Containers as they are: the record, corrected by what the kernel says, and where its files are.

use std::path::PathBuf;

use time::OffsetDateTime;

use super::{Engine, finish, limits};
use crate::error::Error;
use crate::process::Identity;
use crate::record::{Container, State};
use crate::store::{self, End, Stored};

impl Engine {
    /// All containers, newest first.
    pub fn list(&mut self) -> Result<Vec<Container>, Error> {
        let stored = store::list(&self.conn)?;
        let mut containers: Vec<Container> = stored.into_iter().map(|s| self.seen(s)).collect();
        let model = self.model()?;
        for container in &mut containers {
            container.attachments = attachments(&model, &container.id);
            container.paused = limits::is_paused(container);
        }
        Ok(containers)
    }

    pub fn find(&mut self, name: &str) -> Result<Container, Error> {
        let stored = store::find(&self.conn, name)?;
        let mut container = self.seen(stored);
        container.attachments = attachments(&self.model()?, &container.id);
        container.paused = limits::is_paused(&container);
        Ok(container)
    }

    /// Where a container's files are on this host.
    pub fn paths(&self, id: &str) -> ContainerPaths {
        let storage = finish::storage(&self.settings.root, id);
        ContainerPaths {
            log: storage.join(crate::logs::Format::Json.file_name()),
            hosts: storage.join("hosts"),
            hostname: storage.join("hostname"),
            resolv_conf: storage.join("resolv.conf"),
            upper: storage.join("diff"),
            work: storage.join("work"),
        }
    }

    /// The record, corrected by what the kernel says: what could not be repaired, as the disk cannot be written, has ended
    /// all the same.
    pub(super) fn seen(&self, stored: Stored) -> Container {
        let mut container = stored.container;
        let Some(owner) = &stored.owner else {
            return container;
        };
        if let State::Restarting {
            code,
            started,
            finished,
        } = container.state
        {
            let run_root = &self.settings.run_root;
            // Called off, and its row does not say so yet.
            if finish::read_stopped(run_root, &container.id, owner.process).is_some() {
                container.state = State::Exited {
                    code,
                    started,
                    finished,
                    oom_killed: false,
                    error: String::new(),
                };
            }
            return container;
        }
        let State::Running { started, .. } = &container.state else {
            return container;
        };
        let init_lives = stored.init.is_some_and(Identity::is_alive);
        if !init_lives && !owner.process.is_alive() {
            let noted = finish::read_note(&self.settings.run_root, &container.id, owner.process);
            let end = noted.unwrap_or(End {
                code: finish::UNKNOWN,
                ..End::default()
            });
            container.state = State::Exited {
                code: end.code,
                started: Some(*started),
                finished: end.finished.unwrap_or_else(OffsetDateTime::now_utc),
                oom_killed: end.oom_killed,
                error: end.error,
            };
        }
        container
    }
}

/// Where a container's files are on this host; they exist once it has been started.
#[derive(Clone, Debug)]
pub struct ContainerPaths {
    pub log: PathBuf,
    pub hosts: PathBuf,
    pub hostname: PathBuf,
    pub resolv_conf: PathBuf,
    /// The container's own layer, and overlayfs's working directory.
    pub upper: PathBuf,
    pub work: PathBuf,
}

fn attachments(model: &netmgr::Model, id: &str) -> Vec<(netmgr::Network, netmgr::Endpoint)> {
    let mine = model.endpoints.iter().filter(|e| e.container_id == id);
    mine.filter_map(|e| {
        let network = model.network(&e.network_id)?;
        Some((network.clone(), e.clone()))
    })
    .collect()
}
