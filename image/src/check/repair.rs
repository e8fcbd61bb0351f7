//! The repair: a damaged layer is pulled again from where it has been seen, and takes the old one's place by one rename;
//! rubbish goes. Nothing that cannot be had again is deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rusqlite::{Connection, params};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::rows::{LayerFacts, Store};
use super::{Object, Report, Runs, layer};
use crate::Reference;
use crate::digest::Digest;
use crate::error::Error;
use crate::layer::changes;
use crate::layer::recipe::{self, Recorder};
use crate::lock::{LayerLock, Mode};
use crate::pull::{resolve, stream};
use crate::registry::manifest::{Blob, Layer, compression};
use crate::registry::{Access, Client, Registries, Watcher};
use crate::staging::Staging;
use crate::store::{self, ImageToCommit, KnownBlob, layer_path};

const REPAIR: &str = "repair the store's tables";
/// A layer's name in staging.
const STAGED: &str = "0";

pub struct Repair<'a> {
    pub conn: &'a mut Connection,
    pub root: &'a Path,
    pub store: &'a Store,
    pub registries: &'a Registries,
    pub runs: Runs<'a>,
    pub locks: &'a mut BTreeMap<Digest, LayerLock>,
    pub report: &'a mut dyn FnMut(Report),
}

/// Why something stays as it is, for people; or what was done.
type Outcome = Result<String, String>;

/// The end of a repair as far as the user is concerned; the database's errors end everything.
fn told<T>(result: Result<T, Error>) -> Result<T, String> {
    result.map_err(|error| {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text += &format!(": {error}");
            cause = error.source();
        }
        text
    })
}

struct Quiet;

impl Watcher for Quiet {
    fn notice(&self, text: String) {
        tracing::info!("{text}");
    }

    fn cancelled(&self) -> bool {
        false
    }
}

impl Repair<'_> {
    /// Returns how many objects stay as they are.
    pub fn all(mut self, objects: &BTreeSet<Object>) -> Result<usize, Error> {
        let mut failed = 0;
        // The lowest layers first: the others take from them.
        let store = self.store;
        for (id, facts) in store.lowest_first() {
            let object = Object::Layer(id.clone());
            if objects.contains(&object) {
                let outcome = self.layer(id, facts);
                failed += self.tell(object, outcome);
            }
        }
        for object in objects {
            let outcome = match object {
                Object::Image(id) => self.image(id),
                Object::Name(name) => told(self.forget(name)),
                _ => continue,
            };
            failed += self.tell(object.clone(), outcome);
        }
        // A sweep leaves alone what anybody holds.
        self.locks.clear();
        self.orphans()?;
        store::sweep(self.conn, self.root)?;
        for object in objects {
            if let Object::Rubbish(path) = object {
                let path = Path::new(path);
                let gone = !path.exists() && !recipe::path(path).exists();
                let outcome = match gone {
                    true => Ok("deleted".to_owned()),
                    false => Err("look at it, and delete it if nobody wants it".to_owned()),
                };
                failed += self.tell(object.clone(), outcome);
            }
        }
        Ok(failed)
    }

    fn tell(&mut self, object: Object, outcome: Outcome) -> usize {
        let failed = usize::from(outcome.is_err());
        (self.report)(match outcome {
            Ok(how) => Report::Repaired { object, how },
            Err(why) => Report::Unrepaired { object, why },
        });
        failed
    }

    fn layer(&mut self, id: &Digest, facts: &LayerFacts) -> Outcome {
        let path = layer_path(self.root, id);
        let staging = told(Staging::create(self.root))?;
        let is_whole = path.is_dir() && recipe::path(&path).is_file();
        if is_whole && told(layer::problems(self.root, &staging, id, facts))?.is_empty() {
            told(self.write_row(id, facts, None))?;
            return Ok("its row was written again".to_owned());
        }
        if is_whole && let Some(container) = self.running(id) {
            return Err(runs_on(&container));
        }
        let blob = self.fetch(id, facts, &staging)?;
        // Whoever else has it in hand goes before.
        self.locks.remove(id);
        let lock = told(LayerLock::try_take(self.root, id, Mode::Exclusive))?;
        let Some(lock) = lock else {
            return Err("another process has it in hand: repair again later".to_owned());
        };
        let how = self.replace(id, facts, &staging)?;
        told(self.write_row(id, facts, Some(&blob)))?;
        self.locks.insert(id.clone(), lock);
        let KnownBlob {
            registry,
            repository,
            ..
        } = blob;
        Ok(format!("{how} from {registry}/{repository}"))
    }

    /// A container that runs on a layer.
    fn running(&self, id: &Digest) -> Option<String> {
        let mut users = self.store.users(id).into_iter();
        users.find_map(|image| (self.runs)(self.conn, image.as_str()))
    }

    /// Pulls a layer into staging, from the first repository that still has it.
    fn fetch(
        &self,
        id: &Digest,
        facts: &LayerFacts,
        staging: &Staging,
    ) -> Result<KnownBlob, String> {
        let images = self.store.images_of(id).join(", ");
        let blobs = told(store::known_blobs(self.conn, id))?;
        let mut why = "it came from no registry".to_owned();
        for blob in blobs {
            let _ = staging.discard(STAGED);
            match told(self.fetch_from(&blob, facts, staging)) {
                Ok(()) => return Ok(blob),
                Err(error) => why = error,
            }
        }
        Err(format!(
            "{why}: remove {images} and pull, load, import or build it again"
        ))
    }

    fn fetch_from(
        &self,
        blob: &KnownBlob,
        facts: &LayerFacts,
        staging: &Staging,
    ) -> Result<(), Error> {
        let what = format!("blob {}", blob.digest);
        let layer = Layer {
            blob: Blob {
                digest: blob.digest.clone(),
                size: blob.size,
            },
            media_type: blob.media_type.clone(),
            compression: compression(&blob.media_type)
                .ok_or_else(|| Error::untrusted(what, "its media type is unknown"))?,
        };
        let reference = Reference {
            registry: blob.registry.clone(),
            repository: blob.repository.clone(),
            tag: None,
            digest: Some(blob.digest.to_string()),
        };
        let client = Client::new(&reference, self.registries, Access::Pull, &Quiet)?;
        let dir = staging.subdirectory(STAGED)?;
        let failed = |source| Error::Layer {
            layer: blob.digest.short().to_owned(),
            source,
        };
        let recorder = Recorder::create(&staging.path().join(STAGED)).map_err(failed)?;
        let (budget, diff_id) = (stream::Budget::default(), &facts.diff_id);
        let applied = stream::fetch(&client, &budget, &layer, diff_id, &dir, recorder, &|_| {})?;
        let below = facts.below.iter().rev().map(|id| {
            let path = layer_path(self.root, id);
            Ok(File::open(&path).map_err(Error::io("open", path))?.into())
        });
        let below: Vec<OwnedFd> = below.collect::<Result<_, Error>>()?;
        let fds: Vec<_> = below.iter().map(AsFd::as_fd).collect();
        applied.finish(&dir, &fds).map_err(failed)?;
        rustix::fs::syncfs(staging.fd()).map_err(Error::io("write to disk", staging.path()))
    }

    /// Puts the staged layer in the place of the one that is there, if that is worse. Held exclusively.
    fn replace(&self, id: &Digest, facts: &LayerFacts, staging: &Staging) -> Outcome {
        let (from, to) = (staging.path().join(STAGED), layer_path(self.root, id));
        let renamed = |result: std::io::Result<()>| told(result.map_err(Error::io("commit", &to)));
        // It fits either tree: both are of the same tar.
        renamed(fs::rename(recipe::path(&from), recipe::path(&to)))?;
        if !to.is_dir() {
            renamed(fs::rename(&from, &to))?;
            return self.synced("pulled again");
        }
        if told(layer::problems(self.root, staging, id, facts))?.is_empty() {
            return self.synced("its recipe was made again");
        }
        if let Some(container) = self.running(id) {
            return Err(runs_on(&container));
        }
        let exchange = || {
            let result = renameat_with(CWD, &from, CWD, &to, RenameFlags::EXCHANGE);
            renamed(result.map_err(Into::into))
        };
        exchange()?;
        // One that has started meanwhile may have the old tree, which goes with staging.
        if let Some(container) = self.running(id) {
            exchange()?;
            return Err(runs_on(&container));
        }
        self.synced("pulled again")
    }

    fn synced(&self, how: &str) -> Outcome {
        let dir = self.root.join("layers");
        let synced = File::open(&dir).and_then(|dir| dir.sync_all());
        told(synced.map_err(Error::io("write to disk", dir)))?;
        Ok(how.to_owned())
    }

    fn write_row(
        &self,
        id: &Digest,
        facts: &LayerFacts,
        blob: Option<&KnownBlob>,
    ) -> Result<(), Error> {
        let path = layer_path(self.root, id);
        let dir = File::open(&path).map_err(Error::io("open", &path))?.into();
        let size = changes::size(&dir).map_err(|source| Error::Layer {
            layer: id.short().to_owned(),
            source,
        })?;
        self.conn
            .execute(
                "INSERT INTO layers (chain_id, diff_id, size) VALUES (?1, ?2, ?3)
                 ON CONFLICT (chain_id) DO UPDATE SET diff_id = excluded.diff_id",
                params![id.as_str(), facts.diff_id.as_str(), size],
            )
            .map_err(Error::db(REPAIR))?;
        match blob {
            Some(blob) => store::note_blob(self.conn, id, blob),
            None => Ok(()),
        }
    }

    fn image(&mut self, id: &Digest) -> Outcome {
        let facts = &self.store.images[id];
        if facts.diff_ids.is_some() {
            told(self.write_chain(id, &facts.wanted()))?;
            return Ok("its rows were written again".to_owned());
        }
        let mut why = "it came from no registry".to_owned();
        for reference in told(store::references_of(self.conn, id))? {
            match told(self.fetch_image(id, &reference)) {
                Ok(()) => return Ok(format!("its config was pulled again from {reference}")),
                Err(error) => why = error,
            }
        }
        let names = self.store.names_of(id).join(", ");
        Err(format!(
            "{why}: remove {names} and pull, load, import or build it again"
        ))
    }

    fn fetch_image(&mut self, id: &Digest, reference: &Reference) -> Result<(), Error> {
        let client = Client::new(reference, self.registries, Access::Pull, &Quiet)?;
        // For whichever platform it was pulled.
        let resolved = resolve::resolve_id(&client, reference, id)?.ok_or_else(|| {
            let why = "the registry now has another image there";
            Error::untrusted(reference.to_string(), why)
        })?;
        let staging = Staging::create(self.root)?;
        let chain = crate::digest::chain_ids(&resolved.diff_ids);
        let image = ImageToCommit {
            id,
            config: &resolved.config_bytes,
            manifest: Some(&resolved.manifest_bytes),
            created: resolved.config.created().as_deref(),
            chain: &chain,
            names: &[],
        };
        // Its layers may be what comes next.
        store::commit_unseen(self.conn, self.root, &staging, &[], &image)?;
        self.write_chain(id, &chain)
    }

    fn write_chain(&mut self, id: &Digest, chain: &[Digest]) -> Result<(), Error> {
        let transaction = self.conn.transaction().map_err(Error::db(REPAIR))?;
        transaction
            .execute(
                "DELETE FROM image_layers WHERE image_id = ?1",
                [id.as_str()],
            )
            .map_err(Error::db(REPAIR))?;
        for (position, layer) in chain.iter().enumerate() {
            transaction
                .execute(
                    "INSERT INTO image_layers (image_id, position, chain_id) VALUES (?1, ?2, ?3)",
                    params![id.as_str(), position, layer.as_str()],
                )
                .map_err(Error::db(REPAIR))?;
        }
        transaction.commit().map_err(Error::db(REPAIR))
    }

    fn forget(&self, name: &str) -> Result<String, Error> {
        self.conn
            .execute("DELETE FROM image_names WHERE name = ?1", [name])
            .map_err(Error::db(REPAIR))?;
        Ok("the name was deleted: pull it again".to_owned())
    }

    /// Rows that say nothing about anything.
    fn orphans(&self) -> Result<(), Error> {
        self.conn
            .execute_batch(
                "DELETE FROM image_layers WHERE image_id NOT IN (SELECT id FROM images);
                 DELETE FROM layer_blobs WHERE chain_id NOT IN (SELECT chain_id FROM layers)
                     AND chain_id NOT IN (SELECT chain_id FROM image_layers);
                 DELETE FROM kept_layers WHERE chain_id NOT IN (SELECT chain_id FROM layers);",
            )
            .map_err(Error::db(REPAIR))
    }
}

fn runs_on(container: &str) -> String {
    format!("container {container} runs on it: stop the container and repair again")
}
