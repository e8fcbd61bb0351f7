//! The database against the directories: what the rows say there is, and what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::Connection;

use super::{Object, Problem};
use crate::digest::{Digest, chain_ids};
use crate::error::Error;
use crate::layer::recipe;
use crate::lock::{LayerLock, Mode};
use crate::staging;
use crate::store::{self, image_path, layer_path};

const READ: &str = "read the store's tables";

/// A layer that some image has.
pub struct LayerFacts {
    pub diff_id: Digest,
    /// Lowest first.
    pub below: Vec<Digest>,
}

impl LayerFacts {
    pub fn depth(&self) -> usize {
        self.below.len()
    }
}

/// An image that has a row.
pub struct ImageFacts {
    /// Diff IDs, lowest first; `None` if the config is not what the ID says.
    pub diff_ids: Option<Vec<Digest>>,
    /// As the rows have it.
    pub chain: Vec<Digest>,
}

impl ImageFacts {
    /// As it should be: the config is the truth, where it is there.
    pub fn wanted(&self) -> Vec<Digest> {
        match &self.diff_ids {
            Some(diff_ids) => chain_ids(diff_ids),
            None => self.chain.clone(),
        }
    }
}

pub struct Store {
    pub images: BTreeMap<Digest, ImageFacts>,
    pub layers: BTreeMap<Digest, LayerFacts>,
    /// Name and image ID.
    names: Vec<(String, String)>,
    /// Chain and diff IDs.
    rows: BTreeMap<String, String>,
}

impl Store {
    pub fn read(conn: &Connection, root: &Path) -> Result<Store, Error> {
        let transaction = conn.unchecked_transaction().map_err(Error::db(READ))?;
        let rows: BTreeMap<_, _> = pairs(&transaction, "SELECT chain_id, diff_id FROM layers")?
            .into_iter()
            .collect();
        let names = pairs(
            &transaction,
            "SELECT name, image_id FROM image_names ORDER BY name",
        )?;
        let mut images = BTreeMap::new();
        for (id, _) in pairs(&transaction, "SELECT id, '' FROM images")? {
            let id = Digest::expect(&id, "an image's row")?;
            let chain = pairs(
                &transaction,
                &format!(
                    "SELECT chain_id, '' FROM image_layers WHERE image_id = '{id}' ORDER BY position"
                ),
            )?;
            let chain = chain
                .iter()
                .map(|(layer, _)| Digest::expect(layer, "a layer's row"))
                .collect::<Result<_, _>>()?;
            let diff_ids = diff_ids(root, &id);
            images.insert(id, ImageFacts { diff_ids, chain });
        }
        let layers = layers(&images, &rows);
        Ok(Store {
            images,
            layers,
            names,
            rows,
        })
    }

    /// Those of which others depend come first.
    pub fn lowest_first(&self) -> Vec<(&Digest, &LayerFacts)> {
        let mut all: Vec<_> = self.layers.iter().collect();
        all.sort_by_key(|(id, facts)| (facts.depth(), *id));
        all
    }

    /// The names of an image; its short ID where it has none.
    pub fn names_of(&self, id: &Digest) -> Vec<String> {
        let names: Vec<String> = self
            .names
            .iter()
            .filter(|(_, image)| image == id.as_str())
            .filter_map(|(name, _)| crate::Reference::parse(name).ok())
            .filter(|name| name.digest.is_none())
            .map(|name| name.to_string())
            .collect();
        match names.is_empty() {
            true => vec![id.short().to_owned()],
            false => names,
        }
    }

    /// The images that have a layer.
    pub fn users(&self, layer: &Digest) -> Vec<&Digest> {
        let has = |facts: &&ImageFacts| facts.wanted().contains(layer);
        let users = self.images.iter().filter(|(_, facts)| has(facts));
        users.map(|(id, _)| id).collect()
    }

    pub fn images_of(&self, layer: &Digest) -> Vec<String> {
        let users = self.users(layer).into_iter();
        users.flat_map(|id| self.names_of(id)).collect()
    }

    /// Names of images that are not there.
    pub fn lost_names(&self) -> Vec<&str> {
        let lost = |id: &str| Digest::parse(id).is_none_or(|id| !self.images.contains_key(&id));
        let names = self.names.iter().filter(|(_, id)| lost(id));
        names.map(|(name, _)| name.as_str()).collect()
    }
}

fn pairs(conn: &Connection, sql: &str) -> Result<Vec<(String, String)>, Error> {
    conn.prepare(sql)
        .and_then(|mut statement| {
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })
        .map_err(Error::db(READ))
}

/// What a config that its ID vouches for says.
fn diff_ids(root: &Path, id: &Digest) -> Option<Vec<Digest>> {
    let config = std::fs::read(image_path(root, id).join("config.json")).ok()?;
    if Digest::of(&config) != *id {
        return None;
    }
    let config: serde_json::Value = serde_json::from_slice(&config).ok()?;
    let diff_ids = config["rootfs"]["diff_ids"].as_array()?.iter();
    diff_ids.map(|id| Digest::parse(id.as_str()?)).collect()
}

fn layers(
    images: &BTreeMap<Digest, ImageFacts>,
    rows: &BTreeMap<String, String>,
) -> BTreeMap<Digest, LayerFacts> {
    let mut layers = BTreeMap::new();
    for image in images.values() {
        let chain = image.wanted();
        for (i, id) in chain.iter().enumerate() {
            let row = rows.get(id.as_str());
            let by_config = image.diff_ids.as_ref().map(|ids| ids[i].clone());
            let diff_id = by_config.or_else(|| row.and_then(|row| Digest::parse(row)));
            let Some(diff_id) = diff_id else { continue };
            let facts = LayerFacts {
                diff_id,
                below: chain[..i].to_vec(),
            };
            layers.insert(id.clone(), facts);
        }
    }
    layers
}

pub fn problems(conn: &Connection, root: &Path, store: &Store) -> Result<Vec<Problem>, Error> {
    let mut problems = Vec::new();
    for (id, image) in &store.images {
        if let Some(why) = image_problem(root, id, image) {
            problems.push(Problem::new(Object::Image(id.clone()), why));
        }
    }
    for (id, facts) in store.lowest_first() {
        let path = layer_path(root, id);
        let row = store.rows.get(id.as_str());
        let why = match row {
            None => "it has no row in the database",
            Some(diff_id) if diff_id != facts.diff_id.as_str() => {
                "its row has another digest than the image's config"
            }
            Some(_) if !path.is_dir() => "its directory is missing",
            Some(_) if !recipe::path(&path).is_file() => {
                "its recipe is missing: it can be run, but not checked, pushed or saved"
            }
            Some(_) => continue,
        };
        problems.push(Problem::new(Object::Layer(id.clone()), why));
    }
    for name in store.lost_names() {
        let object = Object::Name(name.to_owned());
        problems.push(Problem::new(object, "its image is not there"));
    }
    problems.extend(rubbish(conn, root)?);
    Ok(problems)
}

fn image_problem(root: &Path, id: &Digest, image: &ImageFacts) -> Option<String> {
    let path = image_path(root, id).join("config.json");
    let Ok(config) = std::fs::read(&path) else {
        return Some("its config is missing".to_owned());
    };
    let digest = Digest::of(&config);
    if digest != *id {
        return Some(format!("its config has changed: its digest is {digest}"));
    }
    if image.diff_ids.is_none() {
        return Some("its config makes no sense".to_owned());
    }
    (image.wanted() != image.chain).then(|| "its rows name other layers than its config".to_owned())
}

/// What a sweep would take.
fn rubbish(conn: &Connection, root: &Path) -> Result<Vec<Problem>, Error> {
    let mut problems = Vec::new();
    let mut tell = |path: String, why: &str| {
        problems.push(Problem::new(Object::Rubbish(path), why));
    };
    for path in staging::abandoned(root)? {
        tell(path.display().to_string(), "a killed process has left it");
    }
    let known = |sql| -> Result<BTreeSet<String>, Error> {
        let rows = pairs(conn, sql)?;
        Ok(rows.into_iter().map(|(name, _)| name).collect())
    };
    for (directory, sql) in [
        // A layer whose row alone is missing is the layer's own trouble.
        (
            "layers",
            "SELECT substr(chain_id, 8, 32), '' FROM layers
             UNION SELECT substr(chain_id, 8, 32), '' FROM image_layers",
        ),
        ("images", "SELECT substr(id, 8), '' FROM images"),
    ] {
        // Read before the rows: what is committed in between is then known.
        let there = store::names_in(&root.join(directory))?;
        for name in there.difference(&known(sql)?) {
            let path = root.join(directory).join(name);
            let Some(id) = Digest::parse(&format!("sha256:{name:0<64}")) else {
                tell(
                    path.display().to_string(),
                    "nothing of that name belongs there",
                );
                continue;
            };
            if LayerLock::try_take(root, &id, Mode::Exclusive)?.is_some() {
                tell(path.display().to_string(), "it has no row in the database");
            }
        }
    }
    let unused = "SELECT chain_id, '' FROM layers
                  WHERE chain_id NOT IN (SELECT chain_id FROM image_layers)";
    for id in known(unused)? {
        let id = Digest::expect(&id, "a layer's row")?;
        if LayerLock::try_take(root, &id, Mode::Exclusive)?.is_some() {
            let path = layer_path(root, &id).display().to_string();
            tell(path, "it is a layer of no image");
        }
    }
    Ok(problems)
}
