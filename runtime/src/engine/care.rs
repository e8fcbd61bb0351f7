//! Networks kept in order: reload, doctor, watch.
//!
//! netmgr does the work; from here comes what it does not know: which process lives in which namespace.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use netmgr::Netns;

use super::{Engine, network};
use crate::error::Error;
use crate::store;

impl Engine {
    /// Returns what the user is to be told.
    pub fn system_reload(&mut self) -> Result<Vec<String>, Error> {
        let namespaces = namespaces(self)?;
        let of = |id: &str| namespaces.get(id).cloned();
        Ok(netmgr::reload(&self.settings.network, &mut self.conn, &of)?)
    }

    /// `network reload`: compares the kernel with what should be there and mends every difference. All networks share
    /// their rules, so a name only has to be one.
    pub fn reload_networks(&mut self, name: Option<&str>) -> Result<Vec<String>, Error> {
        if let Some(name) = name {
            self.find_network(name)?;
        }
        self.system_reload()
    }

    /// What is amiss with the networks, the worst first; with `fix`, what remains after mending.
    pub fn network_doctor(&mut self, fix: bool) -> Result<Vec<netmgr::doctor::Finding>, Error> {
        let namespaces = namespaces(self)?;
        let of = |id: &str| namespaces.get(id).cloned();
        let settings = &self.settings.network;
        Ok(match fix {
            true => netmgr::doctor::fix(settings, &mut self.conn, &of)?,
            false => netmgr::doctor::examine(settings, &self.conn, &of)?,
        })
    }

    /// Watches the kernel and mends until `stop` is readable.
    pub fn network_watch(
        &self,
        stop: OwnedFd,
        report: &mut dyn FnMut(netmgr::watch::Event),
    ) -> Result<(), Error> {
        let root = self.settings.root.clone();
        let open = || {
            store::open(&root).map_err(|error| match error {
                Error::Database(source) | Error::OpenDatabase { source, .. } => {
                    netmgr::Error::Database {
                        operation: "open the networks",
                        source,
                    }
                }
                other => netmgr::Error::Malformed {
                    what: "database",
                    value: other.to_string(),
                },
            })
        };
        Ok(netmgr::watch::run(
            &self.settings.network,
            open,
            &|conn, id| netns_in(conn, id),
            stop,
            report,
        )?)
    }
}

/// The namespaces of the containers that run, by their ID. One that ends meanwhile is left out.
pub(super) fn namespaces(engine: &Engine) -> Result<HashMap<String, Netns>, Error> {
    let mut found = HashMap::new();
    for stored in store::owned(&engine.conn)? {
        if let Some(init) = stored.init
            && let Ok(Some(netns)) = network::namespace_of(init)
        {
            found.insert(stored.container.id, netns);
        }
    }
    Ok(found)
}

/// The namespace of one container, if it runs.
fn netns_in(conn: &rusqlite::Connection, id: &str) -> Option<Netns> {
    let stored = store::find(conn, id).ok()?;
    network::namespace_of(stored.init?).ok()?
}
