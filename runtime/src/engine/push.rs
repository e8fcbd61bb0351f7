//! `push` and `tag`, and their events.

use image::push::{PushEvent, PushOptions};

use super::Engine;
use crate::error::Error;
use crate::events;

impl Engine {
    pub fn push(
        &mut self,
        reference: &image::Reference,
        options: &PushOptions,
        progress: &mut dyn FnMut(PushEvent),
    ) -> Result<(), Error> {
        let root = self.settings.root.clone();
        image::push::push(&mut self.conn, &root, reference, options, progress)?;
        let name = reference.familiar_name();
        let pushed = match options.all_tags {
            true => name.clone(),
            false => reference.to_string(),
        };
        events::record_image(&self.conn, "push", &pushed, &name)
    }

    /// Gives the image `source` the name `target` too.
    pub fn tag_image(&mut self, source: &str, target: &str) -> Result<(), Error> {
        let (id, name) = image::store::name_again(&mut self.conn, source, target)?;
        events::record_image(&self.conn, "tag", &id, &name.to_string())
    }
}
