//! Networks kept in order: reload, doctor, watch, and what a change would do.
//!
//! netmgr does the work; from here comes what it does not know: which process lives in which namespace.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use netmgr::Netns;
use netmgr::preview::Preview;

use super::{Engine, create, network};
use crate::error::Error;
use crate::request::{ContainerRequest, NetworkMode};
use crate::store;

/// The namespaces of the containers that run, by their ID. One that ends meanwhile is left out.
fn namespaces(engine: &Engine) -> Result<HashMap<String, Netns>, Error> {
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

pub(super) fn reload(engine: &mut Engine) -> Result<Vec<String>, Error> {
    let namespaces = namespaces(engine)?;
    let of = |id: &str| namespaces.get(id).cloned();
    let settings = &engine.settings.network;
    Ok(netmgr::reload(settings, &mut engine.conn, &of)?)
}

pub(super) fn doctor(
    engine: &mut Engine,
    fix: bool,
) -> Result<Vec<netmgr::doctor::Finding>, Error> {
    let namespaces = namespaces(engine)?;
    let of = |id: &str| namespaces.get(id).cloned();
    let settings = &engine.settings.network;
    Ok(match fix {
        true => netmgr::doctor::fix(settings, &mut engine.conn, &of)?,
        false => netmgr::doctor::examine(settings, &engine.conn, &of)?,
    })
}

pub(super) fn watch(
    engine: &Engine,
    stop: OwnedFd,
    report: &mut dyn FnMut(netmgr::watch::Event),
) -> Result<(), Error> {
    let root = engine.settings.root.clone();
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
        &engine.settings.network,
        open,
        &|conn, id| netns_in(conn, id),
        stop,
        report,
    )?)
}

/// The namespace of one container, if it runs.
fn netns_in(conn: &rusqlite::Connection, id: &str) -> Option<Netns> {
    let stored = store::find(conn, id).ok()?;
    network::namespace_of(stored.init?).ok()?
}

pub(super) fn preview_reload(engine: &Engine) -> Result<Preview<()>, Error> {
    let namespaces = namespaces(engine)?;
    let of = |id: &str| namespaces.get(id).cloned();
    let settings = &engine.settings.network;
    Ok(netmgr::preview::reload(settings, &engine.conn, &of)?)
}

pub(super) fn preview(
    engine: &mut Engine,
    edit: impl FnOnce(&mut netmgr::Edit<'_>) -> Result<(), Error>,
) -> Result<Preview<()>, Error> {
    netmgr::preview::change(&engine.settings.network, &mut engine.conn, edit)
}

pub(super) fn preview_run(
    engine: &mut Engine,
    request: &ContainerRequest,
) -> Result<Preview<()>, Error> {
    let image = create::find_image(&engine.conn, &engine.settings.root, request)?;
    // No container, no namespace: planning asks nothing of it.
    let netns = netmgr::kernel::netns::current().map_err(netmgr::Error::from)?;
    preview(engine, |edit| {
        let container = create::draft(edit.transaction(), &image, request)?;
        if let Some(name) = &request.name
            && let Ok(other) = store::find(edit.transaction(), name)
            && other.container.name == *name
        {
            return Err(Error::NameInUse {
                name: name.clone(),
                holder: other.container.id,
            });
        }
        match request.network {
            NetworkMode::Host | NetworkMode::None | NetworkMode::Container(_) => {}
            _ => drop(network::attach_all(edit, &container, &netns)?),
        }
        Ok(())
    })
}
