//! `system df`: what everything below ROOT takes on disk, and what of it could go. Changes nothing.
//!
//! Sizes are bytes of allocated blocks, as du(1) counts them, from the directories themselves. The parts add up to ROOT.

use std::fs;
use std::path::Path;

use image::space::Meter;
use image::store::Usage;

use super::volumes::ListedVolume;
use super::{Engine, finish, volumes};
use crate::error::Error;
use crate::record::{Container, State};
use crate::{store, volume};

/// What is on disk.
#[derive(Clone, Debug)]
pub struct DiskUsage {
    pub images: Usage,
    /// Newest first.
    pub containers: Vec<ContainerUsage>,
    /// By name.
    pub volumes: Vec<VolumeUsage>,
    /// Directories of containers and volumes without a row: the next command frees what it knows to be rubbish.
    pub left_over: u64,
    /// The database with its log.
    pub database: u64,
    /// Set aside for a full disk.
    pub reserve: u64,
    /// Seccomp profiles as they are loaded: made again when they are wanted.
    pub filters: u64,
    /// The directories that hold all this.
    pub frame: u64,
    /// What else is in ROOT.
    pub foreign: u64,
}

#[derive(Clone, Debug)]
pub struct ContainerUsage {
    pub container: Container,
    /// What it has written, its logs, and the files that are made for it.
    pub size: u64,
}

#[derive(Clone, Debug)]
pub struct VolumeUsage {
    pub volume: ListedVolume,
    pub size: u64,
}

/// A row of `system df`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    pub total: usize,
    /// Images that containers have, containers that are not over, volumes that containers have.
    pub active: usize,
    pub size: u64,
    /// What a prune of all that is not active frees.
    pub reclaimable: u64,
}

impl ContainerUsage {
    /// Whether a prune leaves it.
    pub fn is_active(&self) -> bool {
        !is_over(&self.container)
    }
}

/// Whether a container neither runs nor waits for a restart.
pub(super) fn is_over(container: &Container) -> bool {
    matches!(container.state, State::Created | State::Exited { .. })
}

impl DiskUsage {
    /// How many containers have an image.
    pub fn holders(&self, image_id: &str) -> usize {
        let containers = self.containers.iter();
        containers
            .filter(|usage| usage.container.image_id == image_id)
            .count()
    }

    pub fn of_images(&self) -> Amount {
        let images = &self.images;
        let is_held = |id: &str| self.holders(id) > 0;
        Amount {
            total: images.images.len(),
            active: images.images.iter().filter(|i| is_held(&i.id)).count(),
            size: images.total(),
            reclaimable: images
                .total()
                .saturating_sub(images.needed_by(|image| is_held(&image.id))),
        }
    }

    pub fn of_containers(&self) -> Amount {
        amount(&self.containers, ContainerUsage::is_active, |usage| {
            usage.size
        })
    }

    pub fn of_volumes(&self) -> Amount {
        let is_used = |usage: &VolumeUsage| !usage.volume.users.is_empty();
        amount(&self.volumes, is_used, |usage| usage.size)
    }

    /// All of ROOT.
    pub fn total(&self) -> u64 {
        let parts = [
            self.of_images().size,
            self.images.frame,
            self.images.foreign,
            self.of_containers().size,
            self.of_volumes().size,
            self.left_over,
            self.database,
            self.reserve,
            self.filters,
            self.frame,
            self.foreign,
        ];
        parts.iter().sum()
    }
}

fn amount<T>(all: &[T], is_active: impl Fn(&T) -> bool, size: impl Fn(&T) -> u64) -> Amount {
    let (active, others): (Vec<&T>, Vec<&T>) = all.iter().partition(|it| is_active(it));
    let sum = |of: &[&T]| of.iter().map(|it| size(it)).sum::<u64>();
    Amount {
        total: all.len(),
        active: active.len(),
        size: sum(&active) + sum(&others),
        reclaimable: sum(&others),
    }
}

impl Engine {
    /// `system df`. Reads every directory, which takes its time.
    pub fn disk_usage(&mut self) -> Result<DiskUsage, Error> {
        let root = self.settings.root.clone();
        let mut usage = DiskUsage {
            left_over: 0,
            images: image::store::usage(&self.conn, &root)?,
            containers: Vec::new(),
            volumes: Vec::new(),
            database: 0,
            reserve: 0,
            filters: 0,
            frame: own(&root)?,
            foreign: 0,
        };
        self.measure_containers(&root, &mut usage)?;
        self.measure_volumes(&root, &mut usage)?;
        for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let place = match name.to_string_lossy().as_ref() {
                "layers" | "images" => continue,
                "containers" | "volumes" => {
                    usage.frame += own(&path)?;
                    continue;
                }
                name if name.starts_with("coracle.db") => &mut usage.database,
                "reserve" => &mut usage.reserve,
                "seccomp" => &mut usage.filters,
                _ => &mut usage.foreign,
            };
            *place += on_disk(&path)?;
        }
        Ok(usage)
    }

    fn measure_containers(&mut self, root: &Path, usage: &mut DiskUsage) -> Result<(), Error> {
        // The directories before the rows: a row is always older.
        let directories = names_in(&root.join("containers"));
        for container in self.list()? {
            let size = on_disk(&finish::storage(root, &container.id))?;
            usage.containers.push(ContainerUsage { container, size });
        }
        for name in directories {
            if store::get(&self.conn, &name)?.is_none() {
                usage.left_over += on_disk(&root.join("containers").join(name))?;
            }
        }
        Ok(())
    }

    fn measure_volumes(&mut self, root: &Path, usage: &mut DiskUsage) -> Result<(), Error> {
        let directories = names_in(&root.join("volumes"));
        for volume in volumes::listed(&self.conn, root)? {
            let size = on_disk(&volume::directory(root, &volume.volume.name))?;
            usage.volumes.push(VolumeUsage { volume, size });
        }
        for name in directories {
            if volume::find(&self.conn, root, &name)?.is_none() {
                usage.left_over += on_disk(&root.join("volumes").join(name))?;
            }
        }
        Ok(())
    }
}

/// Bytes on disk of what is at a path; 0 where nothing is.
pub(super) fn on_disk(path: &Path) -> Result<u64, Error> {
    Meter::default().tree(path).map_err(failed(path))
}

fn own(path: &Path) -> Result<u64, Error> {
    image::space::own_size(path).map_err(failed(path))
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::FileSystem {
        operation: "measure",
        path,
        source,
    }
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}
