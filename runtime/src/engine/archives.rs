//! Images as files: image's own calls with this engine's database, and their events.

use std::fs::File;
use std::io::{Read, Write};

use image::archive::ImportOptions;
use image::archive::load::{LoadEvent, LoadOptions};
use image::archive::save::SaveOptions;

use super::Engine;
use crate::error::Error;
use crate::events;

impl Engine {
    pub fn import(
        &mut self,
        tar: &mut dyn Read,
        options: &ImportOptions<'_>,
    ) -> Result<image::Image, Error> {
        let root = &self.settings.root;
        let image = image::archive::import(&mut self.conn, root, tar, options)?;
        if let Some(name) = options.name {
            events::record_image(&self.conn, "tag", &image.id, &name.to_string())?;
        }
        events::record_image(&self.conn, "import", &image.id, &image.id)?;
        Ok(image)
    }

    /// Loads all images of an archive, from where the file stands; a pipe will do.
    pub fn load(
        &mut self,
        input: File,
        options: &LoadOptions,
        progress: &mut dyn FnMut(LoadEvent),
    ) -> Result<(), Error> {
        // Of two images in one archive the second may be refused; the first is there then, and has its event.
        let mut loaded: Vec<String> = Vec::new();
        let root = &self.settings.root;
        let result =
            image::archive::load::load(&mut self.conn, root, input, options, &mut |event| {
                if let LoadEvent::Loaded { id, .. } | LoadEvent::LoadedNameless { id } = &event
                    && loaded.last() != Some(id)
                {
                    loaded.push(id.clone());
                }
                progress(event);
            });
        for id in &loaded {
            events::record_image(&self.conn, "load", id, id)?;
        }
        Ok(result?)
    }

    /// Writes images to an archive; an error leaves a part of it.
    pub fn save(
        &mut self,
        names: &[String],
        options: &SaveOptions,
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        let root = &self.settings.root;
        let saved = image::archive::save::save(&self.conn, root, names, options, out)?;
        for id in &saved {
            events::record_image(&self.conn, "save", id, id)?;
        }
        Ok(())
    }

    /// The image's steps, the newest first.
    pub fn image_history(
        &mut self,
        name: &str,
        platform: Option<&str>,
    ) -> Result<Vec<image::store::Step>, Error> {
        let root = &self.settings.root;
        Ok(image::store::history(&self.conn, root, name, platform)?)
    }
}
