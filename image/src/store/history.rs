//! How an image came about, as its config tells it.

use std::path::Path;

use rusqlite::Connection;

use super::{load, resolve};
use crate::error::Error;
use crate::pull::resolve::check_platform;
use crate::registry::platform::Platform;

/// One step of an image's making.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Of the image as it is after this step, where that is an image of its own here.
    pub id: Option<String>,
    /// RFC 3339.
    pub created: Option<String>,
    pub created_by: String,
    pub comment: String,
    /// Bytes of the layer's files; 0 for a step that made none.
    pub size: u64,
}

/// The steps, the newest first. Layers that the config's history leaves out are steps without words.
/// `platform` is one that the image must have.
pub fn history(
    conn: &Connection,
    root: &Path,
    name: &str,
    platform: Option<&str>,
) -> Result<Vec<Step>, Error> {
    let asked = platform.map(Platform::parse).transpose()?;
    let found = resolve(conn, name)?.ok_or_else(|| super::not_found(name))?;
    let image = load(conn, root, &found.id)?;
    if asked.is_some() {
        check_platform(&image.config, asked.as_ref(), name)?;
    }
    let sizes: Vec<u64> = conn
        .prepare_cached(
            "SELECT size FROM image_layers JOIN layers USING (chain_id) WHERE image_id = ?1 ORDER BY position",
        )
        .and_then(|mut statement| statement.query_map([&found.id], |row| row.get(0))?.collect())
        .map_err(Error::db("look up the layers of an image"))?;
    let mut sizes = sizes.into_iter();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let told = image.config.history().as_deref().unwrap_or_default();
    let mut steps: Vec<Step> = told
        .iter()
        .map(|step| Step {
            id: None,
            created: step.created().clone(),
            created_by: text(step.created_by()),
            comment: text(step.comment()),
            size: match step.empty_layer() {
                Some(true) => 0,
                _ => sizes.next().unwrap_or(0),
            },
        })
        .collect();
    steps.extend(sizes.map(|size| Step {
        size,
        ..Step::default()
    }));
    if let Some(last) = steps.last_mut() {
        last.id = Some(found.id);
    }
    steps.reverse();
    Ok(steps)
}
