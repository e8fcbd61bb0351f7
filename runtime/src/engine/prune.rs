//! `container prune`, `image prune` and `system prune`. Volumes and networks are pruned where they are kept.

use image::store::{PrunedImages, Unused};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::space::{is_over, on_disk};
use super::{Engine, finish};
use crate::error::Error;
use crate::events::{self, Subject};
use crate::record::Container;
use crate::store;

/// What is chosen by age and label.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// `None` where nobody knows.
    pub created: Option<OffsetDateTime>,
    pub labels: &'a [(String, String)],
}

/// What `container prune` has removed.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    /// Full IDs.
    pub containers: Vec<String>,
    /// Bytes on disk.
    pub reclaimed: u64,
}

/// What `system prune` is to remove.
pub struct SystemPrune<'a> {
    pub images: Unused,
    /// Volumes without a name, too.
    pub volumes: bool,
    /// `None`: everything that is unused.
    pub wanted: Option<&'a dyn Fn(&Candidate<'_>) -> bool>,
}

/// What `system prune` has removed.
#[derive(Clone, Debug, Default)]
pub struct PrunedSystem {
    /// Full IDs.
    pub containers: Vec<String>,
    /// Names.
    pub networks: Vec<String>,
    /// Names.
    pub volumes: Vec<String>,
    pub images: PrunedImages,
    /// Bytes on disk, of everything.
    pub reclaimed: u64,
}

impl Engine {
    /// Removes the containers that neither run nor wait for a restart and that `wanted` names. Their volumes stay.
    pub fn prune_containers(
        &mut self,
        wanted: impl Fn(&Container) -> bool,
    ) -> Result<Pruned, Error> {
        let mut pruned = Pruned::default();
        for container in self.list()? {
            if !is_over(&container) || !wanted(&container) {
                continue;
            }
            let size = on_disk(&finish::storage(&self.settings.root, &container.id))?;
            match self.remove(&container.id, false, false) {
                Ok(()) => {
                    pruned.containers.push(container.id);
                    pruned.reclaimed += size;
                }
                // Somebody has just started or removed it.
                Err(Error::StillRunning(_) | Error::StillRestarting(_)) => {}
                Err(Error::NoSuchContainer(_)) => {}
                Err(error) => return Err(error),
            }
        }
        events::record_prune(&self.conn, Subject::Container, pruned.reclaimed)?;
        Ok(pruned)
    }

    /// Removes the images that no container has and that `wanted` names; without it, all that are unused, and the layers that no
    /// image has. What killed commands have left goes in any case.
    pub fn prune_images(
        &mut self,
        unused: Unused,
        wanted: Option<&dyn Fn(&Candidate<'_>) -> bool>,
    ) -> Result<PrunedImages, Error> {
        let pruned = self.making_room(|engine| {
            let root = engine.settings.root.clone();
            let is_wanted = |image: &image::store::Candidate| {
                wanted.is_none_or(|wanted| {
                    wanted(&Candidate {
                        created: image.created,
                        labels: &image.labels,
                    })
                })
            };
            let (conn, in_use) = (&mut engine.conn, &store::images_in_use);
            // Before the images, so that a layer that goes with its image is not taken for one without.
            let mut left = PrunedImages::default();
            if wanted.is_none() {
                image::store::prune_layers(conn, &root, &mut left)?;
            }
            let mut pruned = image::store::prune(conn, &root, unused, &is_wanted, in_use)?;
            pruned.layers = left.layers;
            pruned.reclaimed += left.reclaimed;
            Ok(pruned)
        })?;
        for (id, removals) in &pruned.images {
            self.record_removals(id, removals)?;
        }
        events::record_prune(&self.conn, Subject::Image, pruned.reclaimed)?;
        Ok(pruned)
    }

    /// Removes what is unused: containers, networks, volumes, images, in this order, as each holds on to those after it.
    pub fn prune_system(&mut self, request: &SystemPrune<'_>) -> Result<PrunedSystem, Error> {
        let wanted = |candidate: Candidate<'_>| request.wanted.is_none_or(|w| w(&candidate));
        let containers = self.prune_containers(|container| {
            wanted(Candidate {
                created: Some(container.created),
                labels: &container.resolved.labels,
            })
        })?;
        let networks = self.prune_networks(|network| {
            wanted(Candidate {
                created: OffsetDateTime::parse(&network.created, &Rfc3339).ok(),
                labels: &network.labels,
            })
        })?;
        let (volumes, of_volumes) = match request.volumes {
            false => Default::default(),
            true => self.prune_volumes(|volume| {
                volume.anonymous
                    && wanted(Candidate {
                        created: Some(volume.created),
                        labels: &volume.labels,
                    })
            })?,
        };
        let images = self.prune_images(request.images, request.wanted)?;
        Ok(PrunedSystem {
            reclaimed: containers.reclaimed + of_volumes + images.reclaimed,
            containers: containers.containers,
            networks: networks.into_iter().map(|network| network.name).collect(),
            volumes,
            images,
        })
    }
}
