//! Images: image's own calls with this engine's database, and their events.

use super::Engine;
use crate::error::Error;
use crate::{events, store};

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
        let mut in_use = store::images_in_use(&self.conn)?;
        // The refusal names the container, as people write it.
        for (_, container) in &mut in_use {
            container.truncate(12);
        }
        let id = self.find_image(name)?.map(|image| image.id);
        let removed = self.making_room(|engine| {
            let root = engine.settings.root.clone();
            let removed = image::store::remove(&mut engine.conn, &root, name, force, &in_use);
            Ok(removed?)
        })?;
        for removal in &removed {
            let (action, id) = match (removal, &id) {
                (image::Removal::Untagged(_), Some(id)) => ("untag", id),
                (image::Removal::Deleted(deleted), Some(id)) if deleted == id => ("delete", id),
                _ => continue,
            };
            events::record_image(&self.conn, action, id, id)?;
        }
        Ok(removed)
    }

    pub fn import(
        &mut self,
        tar: &mut dyn std::io::Read,
        name: Option<&image::Reference>,
        changes: &[String],
        message: Option<&str>,
    ) -> Result<image::Image, Error> {
        let image = image::archive::import(
            &mut self.conn,
            &self.settings.root,
            tar,
            name,
            changes,
            message,
        )?;
        if let Some(name) = name {
            events::record_image(&self.conn, "tag", &image.id, &name.to_string())?;
        }
        events::record_image(&self.conn, "import", &image.id, &image.id)?;
        Ok(image)
    }
}
