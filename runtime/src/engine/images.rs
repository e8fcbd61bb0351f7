//! Images: image's own calls with this engine's database, and their events.

use super::Engine;
use crate::error::Error;
use crate::{events, store};

/// An image, with all that its config says.
#[derive(Clone, Debug)]
pub struct InspectedImage {
    pub image: image::Image,
    /// The config as it was pulled.
    pub config: serde_json::Value,
    /// Bytes of the files of all layers.
    pub size: u64,
    /// `repository@sha256:...`
    pub digests: Vec<String>,
}

impl Engine {
    pub fn pull(
        &mut self,
        reference: &image::Reference,
        options: &image::pull::PullOptions,
        progress: &mut dyn FnMut(image::pull::PullEvent),
    ) -> Result<image::Image, Error> {
        let image = image::pull::pull(
            &mut self.conn,
            &self.settings.root,
            reference,
            options,
            progress,
        )?;
        let (full, name) = (reference.to_string(), reference.familiar_name());
        events::record_image(&self.conn, "pull", &full, &name)?;
        Ok(image)
    }

    /// A repository under each tag that its registry has for it: `pull` of each is `pull --all-tags`.
    pub fn tags_of_repository(
        &self,
        repository: &image::Reference,
        options: &image::pull::PullOptions,
        progress: &mut dyn FnMut(image::pull::PullEvent),
    ) -> Result<Vec<image::Reference>, Error> {
        Ok(image::pull::tags(repository, options, progress)?)
    }

    /// `None` if there is no such image.
    pub fn find_image(&mut self, name: &str) -> Result<Option<image::Image>, Error> {
        Ok(image::store::find(&self.conn, &self.settings.root, name)?)
    }

    /// The check that the store is whole and unharmed, and its repair.
    pub fn check_images(
        &mut self,
        options: &image::check::CheckOptions,
        report: &mut dyn FnMut(image::check::Report),
    ) -> Result<image::check::Summary, Error> {
        let root = self.settings.root.clone();
        let checked = image::check::check(
            &mut self.conn,
            &root,
            options,
            &|conn, image| store::runs_on(conn, image),
            report,
        );
        Ok(checked?)
    }

    pub fn images(&mut self) -> Result<Vec<image::ImageSummary>, Error> {
        Ok(image::store::list(&self.conn)?)
    }

    pub fn remove_image(&mut self, name: &str, force: bool) -> Result<Vec<image::Removal>, Error> {
        // Not looked at further: one that is broken goes too.
        let id = image::store::id_of(&self.conn, name)?;
        let removed = self.making_room(|engine| {
            let root = engine.settings.root.clone();
            let in_use = &store::images_in_use;
            let removed = image::store::remove(&mut engine.conn, &root, name, force, in_use);
            Ok(removed?)
        })?;
        if let Some(id) = id {
            self.record_removals(&id, &removed)?;
        }
        Ok(removed)
    }

    pub(super) fn record_removals(
        &self,
        id: &str,
        removals: &[image::Removal],
    ) -> Result<(), Error> {
        for removal in removals {
            let action = match removal {
                image::Removal::Untagged(_) => "untag",
                image::Removal::Deleted(deleted) if deleted == id => "delete",
                image::Removal::Deleted(_) => continue,
            };
            events::record_image(&self.conn, action, id, id)?;
        }
        Ok(())
    }

    /// What `image inspect` tells. `None` if there is no such image.
    pub fn inspect_image(&mut self, name: &str) -> Result<Option<InspectedImage>, Error> {
        let Some(image) = self.find_image(name)? else {
            return Ok(None);
        };
        Ok(Some(InspectedImage {
            config: image::store::raw_config(&self.settings.root, &image.id)?,
            size: image::store::size(&self.conn, &image.id)?,
            digests: image::store::digests(&self.conn, &image.id)?,
            image,
        }))
    }

    /// Of its config; none where there is no such image.
    pub fn labels_of_image(&self, id: &str) -> Vec<(String, String)> {
        image::store::labels(&self.settings.root, id)
    }
}
