//! What follows a change of a running container's networks outside of any transaction: its files in /etc, and its monitor.
//!
//! A mark stands in `RUN_ROOT/untold` until both know. One whose command was killed is for repair.

use std::io;
use std::path::Path;

use netmgr::proxy::Forward;
use netmgr::{Firewall, kernel};
use rusqlite::Connection;

use super::mark::{self, Mark};
use super::{Engine, etc_files, finish, network};
use crate::error::Error;
use crate::monitor::{self, Served};
use crate::process::Identity;
use crate::store;

const FOLDER: &str = "untold";

/// Stands from before the change until its value goes.
pub(super) fn mark(run_root: &Path, container: &str) -> io::Result<Mark> {
    Mark::set(run_root, FOLDER, container)
}

/// Brings the files and the monitors along where a command was killed before it had. Cheap when there is no mark.
pub(super) fn repair(engine: &mut Engine) {
    for (mark, container) in mark::take_orphaned(&engine.settings.run_root, FOLDER) {
        tracing::warn!(
            container,
            "a change of its networks was cut short: telling it"
        );
        if let Err(e) = follow(engine, &container) {
            tracing::warn!(container, "cannot bring it along: {e}");
        }
        drop(mark);
    }
}

fn follow(engine: &mut Engine, id: &str) -> Result<(), Error> {
    let settings = engine.settings.clone();
    let storage = finish::storage(&settings.root, id);
    // Under the lock: nobody changes its networks meanwhile.
    let served = netmgr::change(&settings.network, &mut engine.conn, |edit| {
        let tx = edit.transaction();
        let Some(stored) = store::get(tx, id)? else {
            return Ok(None);
        };
        if !stored.init.is_some_and(Identity::is_alive) {
            return Ok(None);
        }
        let mut places = Vec::new();
        for endpoint in netmgr::store::endpoints_of(tx, id)? {
            let network = netmgr::store::find_network(tx, &endpoint.network_id)?;
            places.push((network, endpoint));
        }
        etc_files::write_again(&storage, &stored.container, &places)
            .map_err(|source| network::write_failed(id, source))?;
        Ok::<_, Error>(Some(Served {
            forwards: forwards_of_nobody(tx, id, settings.network.firewall)?,
            responder: network::responder_again(tx, &stored)?,
        }))
    })?;
    if let Some(served) = served {
        network::tell_monitor(engine, id, &served);
    }
    Ok(())
}

/// Sockets on those of the container's ports that its monitor was not given.
fn forwards_of_nobody(
    conn: &Connection,
    id: &str,
    firewall: Firewall,
) -> Result<Vec<Forward>, Error> {
    let targets = monitor::targets(&netmgr::store::endpoints_of(conn, id)?);
    let mut forwards = Vec::new();
    for map in netmgr::store::ports_of(conn, id)? {
        match netmgr::ports::hold_again(&map, firewall != Firewall::None) {
            Ok(held) => forwards.extend(held.into_iter().map(|held| held.forward(targets))),
            // By the monitor itself.
            Err(netmgr::Error::Kernel(kernel::Error::PortTaken { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(forwards)
}
