//! The check that the store is whole and unharmed, and its repair.
//!
//! First the rows against what is on disk (`rows.rs`), then each layer against its recipe (`layer.rs`); `repair.rs` mends what
//! can be pulled again or is rubbish. The layers are held, shared, for as long as they are looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use rusqlite::Connection;

use crate::digest::Digest;
use crate::error::Error;
use crate::lock::{LayerLock, Mode};
use crate::registry::Registries;
use crate::staging::Staging;

mod layer;
mod repair;
mod rows;

use rows::{LayerFacts, Store};

/// Layers that are checked at once.
const THREADS: usize = 2;

#[derive(Clone, Debug, Default)]
pub struct CheckOptions {
    /// Only rows and directories, not what is in the layers.
    pub quick: bool,
    pub repair: bool,
    pub registries: Registries,
}

/// What something is the matter with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    Layer(Digest),
    Image(Digest),
    Name(String),
    /// Of no row: its path.
    Rubbish(String),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Object::Layer(id) => write!(f, "layer {}", id.short()),
            Object::Image(id) => write!(f, "image {}", id.short()),
            Object::Name(name) => write!(f, "name {name}"),
            Object::Rubbish(path) => write!(f, "{path}"),
        }
    }
}

/// What a check says, in the order in which things happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    Problem {
        object: Object,
        /// Images that have the layer, by name or ID.
        images: Vec<String>,
        /// Within the layer.
        path: Option<String>,
        why: String,
    },
    Repaired {
        object: Object,
        how: String,
    },
    Unrepaired {
        object: Object,
        why: String,
    },
    /// A line for a person who waits.
    Notice(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub images: usize,
    pub layers: usize,
    pub problems: u64,
    /// Objects that are as they were: there was no repair, or it failed.
    pub unrepaired: usize,
}

/// The short ID of a container that runs on an image, if one does: its layers must stay where they are.
pub type Runs<'a> = &'a dyn Fn(&Connection, &str) -> Option<String>;

struct Problem {
    object: Object,
    path: Option<String>,
    why: String,
}

impl Problem {
    fn new(object: Object, why: impl Into<String>) -> Problem {
        Problem {
            object,
            path: None,
            why: why.into(),
        }
    }
}

/// Checks everything, and repairs it if that is asked for.
pub fn check(
    conn: &mut Connection,
    root: &Path,
    options: &CheckOptions,
    runs: Runs<'_>,
    report: &mut dyn FnMut(Report),
) -> Result<Summary, Error> {
    let layers = root.join("layers");
    std::fs::create_dir_all(&layers).map_err(Error::io("create", &layers))?;
    let mut locks = hold(root, &Store::read(conn, root)?, report)?;
    // What has come meanwhile is not held, and is left to the next check.
    let mut store = Store::read(conn, root)?;
    store.layers.retain(|id, _| locks.contains_key(id));
    let mut problems = rows::problems(conn, root, &store)?;
    if !options.quick {
        problems.extend(deep(root, &store)?);
    }
    for problem in &problems {
        report(Report::Problem {
            images: match &problem.object {
                Object::Layer(id) => store.images_of(id),
                Object::Image(id) => store.names_of(id),
                _ => Vec::new(),
            },
            object: problem.object.clone(),
            path: problem.path.clone(),
            why: problem.why.clone(),
        });
    }
    let objects: BTreeSet<Object> = problems.iter().map(|p| p.object.clone()).collect();
    let unrepaired = match options.repair {
        false => objects.len(),
        true => {
            let registries = &options.registries;
            repair::Repair {
                conn,
                root,
                store: &store,
                registries,
                runs,
                locks: &mut locks,
                report,
            }
            .all(&objects)?
        }
    };
    Ok(Summary {
        images: store.images.len(),
        layers: store.layers.len(),
        problems: problems.len() as u64,
        unrepaired,
    })
}

/// Takes all layers, the lowest of all chains first: the order in which everybody takes them.
fn hold(
    root: &Path,
    store: &Store,
    report: &mut dyn FnMut(Report),
) -> Result<BTreeMap<Digest, LayerLock>, Error> {
    let mut locks = BTreeMap::new();
    for (id, _) in store.lowest_first() {
        let lock = match LayerLock::try_take(root, id, Mode::Shared)? {
            Some(lock) => lock,
            None => {
                let layer = id.short();
                let text = format!("waiting for another process that has layer {layer} in hand");
                report(Report::Notice(text));
                LayerLock::take(root, id, Mode::Shared)?
            }
        };
        locks.insert(id.clone(), lock);
    }
    Ok(locks)
}

/// Looks into the layers that are there.
fn deep(root: &Path, store: &Store) -> Result<Vec<Problem>, Error> {
    let staging = Staging::create(root)?;
    let todo: Vec<(&Digest, &LayerFacts)> = store.lowest_first();
    let next = Mutex::new(todo.into_iter());
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let (sender, next, staging) = (sender.clone(), &next, &staging);
            scope.spawn(move || {
                loop {
                    let job = next.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((id, facts)) = job else { return };
                    let found = layer::problems(root, staging, id, facts);
                    // The receiver lives as long as the threads do.
                    let _ = sender.send(found.map(|problems| (facts.depth(), id, problems)));
                }
            });
        }
    });
    drop(sender);
    let mut all = receiver.into_iter().collect::<Result<Vec<_>, Error>>()?;
    all.sort_by_key(|(depth, id, _)| (*depth, *id));
    Ok(all
        .into_iter()
        .flat_map(|(_, _, problems)| problems)
        .collect())
}
