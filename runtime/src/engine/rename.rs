//! `rename`: the record, the names by which others find it, and the reasons that rules carry.

use super::{Engine, end};
use crate::error::Error;
use crate::events;
use crate::names;
use crate::store;

impl Engine {
    /// Docker's texts: a name in use is a conflict.
    pub fn rename(&mut self, name: &str, new: &str) -> Result<(), Error> {
        let id = end::settled(self, name)?.container.id;
        let new = new.strip_prefix('/').unwrap_or(new);
        let settings = self.settings.network.clone();
        netmgr::change(&settings, &mut self.conn, |edit| {
            let stored = store::get(edit.transaction(), &id)?
                .ok_or_else(|| Error::NoSuchContainer(name.to_owned()))?;
            let mut container = stored.container;
            if container.name == new {
                return Err(Error::SameName);
            }
            let refused = |error| Error::NewName(Box::new(error));
            names::validate(new).map_err(refused)?;
            store::set_name(edit.transaction(), &id, new).map_err(refused)?;
            // The responders of the other containers read it at the next question.
            edit.rename_container(&id, new)?;
            let old = format!("/{}", container.name);
            container.name = new.to_owned();
            let more = [("oldName", old.as_str())];
            events::record_container(edit.transaction(), &container, "rename", &more)
        })
    }
}
