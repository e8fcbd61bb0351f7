//! What may be done to the model inside [`crate::change`]: create and remove networks, attach and detach containers.
//!
//! Writes to the tables and holds host ports; the kernel's links and rules follow afterwards, from the difference. Each
//! edit checks everything before it writes anything: one that fails has changed nothing but what any first edit enters (the
//! default network, this host's IPv6 prefix).

use std::collections::{HashMap, HashSet};

use rusqlite::Transaction;

use crate::change::{Netns, Settings};
use crate::error::Error;
use crate::store;

mod attach;
mod host;
mod network;
mod options;
mod publish;
mod subnets;

use host::Host;

/// An edit of the model under way: the lock is held and a transaction is open.
pub struct Edit<'a> {
    settings: &'a Settings,
    tx: &'a Transaction<'a>,
    host: Host,
    pub(crate) effects: Effects,
}

/// What an edit leaves for the plan besides the tables.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// By container ID: of every container whose links change and whose namespace lives.
    pub(crate) netns: HashMap<String, Netns>,
    /// IDs of endpoints whose veth goes with its namespace.
    pub(crate) by_kernel: HashSet<String>,
    /// The edit is of no use unless bridges and rules are in place.
    pub(crate) needs_kernel: bool,
}

impl<'a> Edit<'a> {
    pub(crate) fn new(settings: &'a Settings, tx: &'a Transaction<'a>) -> Edit<'a> {
        Edit::on(Host::THIS, settings, tx)
    }

    fn on(host: Host, settings: &'a Settings, tx: &'a Transaction<'a>) -> Edit<'a> {
        Edit {
            settings,
            tx,
            host,
            effects: Effects::default(),
        }
    }

    /// The open transaction, for the caller's own tables: they commit together with ours.
    pub fn transaction(&self) -> &Transaction<'a> {
        self.tx
    }

    /// A container goes by another name from now on, in the answers of responders and in the reasons of rules.
    pub fn rename_container(&mut self, container_id: &str, name: &str) -> Result<(), Error> {
        store::rename_container(self.tx, container_id, name)
    }

    /// The namespace of a container that runs on while its networks change: its default routes may have to move.
    pub fn known_netns(&mut self, container_id: &str, netns: Netns) {
        self.effects.netns.insert(container_id.to_owned(), netns);
    }
}

fn random_id() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests;
