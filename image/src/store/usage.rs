//! What images and layers take on disk, from the directories themselves. Changes nothing.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use rusqlite::Connection;

use super::prune;
use super::remove::names_in;
use crate::digest::Digest;
use crate::error::Error;
use crate::layer::recipe;
use crate::lock::{LayerLock, Mode};
use crate::space::{Meter, own_size};
use crate::staging;

const USAGE: &str = "look up what images take";

/// What is below `ROOT/layers` and `ROOT/images`, in bytes on disk.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// Newest first.
    pub images: Vec<ImageUsage>,
    /// Layers that no image has, each by its chain ID: kept of pulls that came to nothing.
    pub unused_layers: Vec<(String, u64)>,
    /// What killed processes have left; the next sweep frees it.
    pub rubbish: u64,
    /// What live processes are making or deleting.
    pub in_hand: u64,
    /// The directories that hold all this, and the locks.
    pub frame: u64,
    /// What is there and not ours.
    pub foreign: u64,
    /// By chain ID.
    layers: BTreeMap<String, u64>,
}

#[derive(Clone, Debug)]
pub struct ImageUsage {
    pub id: String,
    /// All its layers, its config and its manifest.
    pub size: u64,
    /// What of it other images have too.
    pub shared: u64,
    /// Its config and its manifest.
    config: u64,
    layers: Vec<String>,
}

impl Usage {
    /// All that images are the reason for.
    pub fn total(&self) -> u64 {
        let images: u64 = self.images.iter().map(|image| image.config).sum();
        let layers: u64 = self.layers.values().sum();
        let unused: u64 = self.unused_layers.iter().map(|(_, size)| size).sum();
        images + layers + unused + self.rubbish + self.in_hand
    }

    /// What of it would stay if of all images only these did. What live processes have in hand stays in any case.
    pub fn needed_by(&self, is_needed: impl Fn(&ImageUsage) -> bool) -> u64 {
        let mut layers = HashSet::new();
        let mut bytes = self.in_hand;
        for image in self.images.iter().filter(|image| is_needed(image)) {
            bytes += image.config;
            layers.extend(&image.layers);
        }
        let size = |chain_id: &&String| self.layers.get(*chain_id).copied().unwrap_or(0);
        bytes + layers.iter().map(size).sum::<u64>()
    }
}

/// Measures everything. What comes and goes meanwhile may or may not count.
pub fn usage(conn: &Connection, root: &Path) -> Result<Usage, Error> {
    let mut usage = Usage::default();
    let mut meter = Meter::default();
    let [layers, images] = ["layers", "images"].map(|name| root.join(name));
    // Read before the rows: what is committed in between is then known.
    let mut layers_on_disk = names_in(&layers)?;
    let mut images_on_disk = names_in(&images)?;
    let tree =
        |meter: &mut Meter, path: &Path| meter.tree(path).map_err(Error::io("measure", path));
    let with_recipe = |meter: &mut Meter, name: &str| {
        let path = layers.join(name);
        let mine = tree(meter, &path)? + tree(meter, &recipe::path(&path))?;
        Ok::<u64, Error>(mine)
    };
    let has = image_layers(conn)?;
    for (id, _) in &has {
        let digest = Digest::expect(id, "an image's row")?;
        images_on_disk.remove(digest.hex());
    }
    for (_, chain) in &has {
        for chain_id in chain {
            let digest = Digest::expect(chain_id, "a layer's row")?;
            let name = &digest.hex()[..32];
            layers_on_disk.remove(name);
            if !usage.layers.contains_key(chain_id) {
                let size = with_recipe(&mut meter, name)?;
                usage.layers.insert(chain_id.clone(), size);
            }
        }
    }
    for chain_id in prune::unused_layers(conn)? {
        let name = &chain_id.hex()[..32];
        layers_on_disk.remove(name);
        let size = with_recipe(&mut meter, name)?;
        match LayerLock::try_take(root, &chain_id, Mode::Exclusive)? {
            Some(_) => usage.unused_layers.push((chain_id.to_string(), size)),
            None => usage.in_hand += size,
        }
    }
    let rest = layers_on_disk.iter().map(|name| (&layers, name));
    for (directory, name) in rest.chain(images_on_disk.iter().map(|name| (&images, name))) {
        let size = match directory == &layers {
            true => with_recipe(&mut meter, name)?,
            false => tree(&mut meter, &directory.join(name))?,
        };
        // As a sweep judges it.
        let place = match Digest::parse(&format!("sha256:{name:0<64}")) {
            None => &mut usage.foreign,
            Some(digest) => match LayerLock::try_take(root, &digest, Mode::Exclusive)? {
                Some(_) => &mut usage.rubbish,
                None => &mut usage.in_hand,
            },
        };
        *place += size;
    }
    for (id, chain) in has {
        let config = images.join(Digest::expect(&id, "an image's row")?.hex());
        usage.images.push(ImageUsage {
            config: tree(&mut meter, &config)?,
            id,
            size: 0,
            shared: 0,
            layers: chain,
        });
    }
    add_up(&mut usage);
    let (live, dead) = staging::sizes(root)?;
    usage.in_hand += live;
    usage.rubbish += dead;
    usage.frame = frame(&mut meter, &layers)? + frame(&mut meter, &images)?;
    Ok(usage)
}

/// A directory without what is in it, but for the hidden: locks, and the staging directory without what is staged.
fn frame(meter: &mut Meter, directory: &Path) -> Result<u64, Error> {
    let failed = |e| Error::io("measure", directory)(e);
    let mut bytes = own_size(directory).map_err(failed)?;
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        bytes += match path == staging::base(directory.parent().unwrap_or(directory)) {
            true => own_size(&path),
            false => meter.tree(&path),
        }
        .map_err(failed)?;
    }
    Ok(bytes)
}

/// Each image's sizes, from the layers'.
fn add_up(usage: &mut Usage) {
    let mut users: BTreeMap<&str, usize> = BTreeMap::new();
    for image in &usage.images {
        // One layer may be in an image twice.
        for chain_id in image.layers.iter().collect::<HashSet<_>>() {
            *users.entry(chain_id).or_default() += 1;
        }
    }
    let mut sizes = Vec::new();
    for image in &usage.images {
        let (mut size, mut shared) = (image.config, 0);
        for chain_id in image.layers.iter().collect::<HashSet<_>>() {
            let bytes = usage.layers.get(chain_id).copied().unwrap_or(0);
            size += bytes;
            if users.get(chain_id.as_str()).copied().unwrap_or(0) > 1 {
                shared += bytes;
            }
        }
        sizes.push((size, shared));
    }
    for (image, (size, shared)) in usage.images.iter_mut().zip(sizes) {
        (image.size, image.shared) = (size, shared);
    }
}

/// The ID of each image and the chain IDs of its layers, newest image first.
fn image_layers(conn: &Connection) -> Result<Vec<(String, Vec<String>)>, Error> {
    let rows: Vec<(String, Option<String>)> = conn
        .prepare_cached(
            "SELECT images.id, chain_id FROM images LEFT JOIN image_layers ON image_id = images.id
             ORDER BY created DESC, images.id, position",
        )
        .and_then(|mut statement| {
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })
        .map_err(Error::db(USAGE))?;
    let mut images: Vec<(String, Vec<String>)> = Vec::new();
    for (id, chain_id) in rows {
        if images.last().is_none_or(|(last, _)| *last != id) {
            images.push((id, Vec::new()));
        }
        if let Some((_, chain)) = images.last_mut() {
            chain.extend(chain_id);
        }
    }
    Ok(images)
}
