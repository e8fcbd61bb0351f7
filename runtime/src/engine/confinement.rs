//! What a container may do, and whose namespaces it joins: what is refused at `create`, and what is looked up at `start`.
//! The texts of refusal are Docker's.

use rusqlite::Connection as Database;

use super::{Engine, end};
use crate::error::Error;
use crate::monitor::Joined;
use crate::process::Identity;
use crate::record::Container;
use crate::request::{ContainerRequest, NamespaceMode, NetworkMode};
use crate::seccomp;
use crate::spec;
use crate::store::{self, Stored};

/// Refuses what cannot be, before there is anything to clean up.
pub(super) fn check(request: &ContainerRequest) -> Result<(), Error> {
    let security = &request.security;
    spec::check_capabilities(security)?;
    seccomp::check(&security.seccomp)?;
    if request.namespaces.uts == NamespaceMode::Host && request.hostname.is_some() {
        return Err(Error::ConflictsWithUts("hostname"));
    }
    for (name, _) in &security.sysctls {
        if name.starts_with("net.") {
            if request.network == NetworkMode::Host {
                return Err(Error::SysctlOfHostNetwork(name.clone()));
            }
        } else if request.namespaces.ipc == NamespaceMode::Host {
            return Err(Error::SysctlOfHostIpc(name.clone()));
        }
    }
    Ok(())
}

/// Containers to join are kept by ID: a name may be another's by the time of the start.
pub(super) fn name_by_id(conn: &Database, request: &mut ContainerRequest) -> Result<(), Error> {
    let namespaces = &mut request.namespaces;
    for mode in [&mut namespaces.pid, &mut namespaces.ipc] {
        if let NamespaceMode::Container(name) = mode {
            *name = store::find(conn, name)?.container.id;
        }
    }
    // One whose network is joined may be made later, as with Docker: the start looks for it.
    if let NetworkMode::Container(name) = &mut request.network
        && let Ok(found) = store::find(conn, name)
    {
        *name = found.container.id;
    }
    Ok(())
}

/// The containers whose namespaces are joined: they must run, and share.
pub(super) fn joined(engine: &mut Engine, container: &Container) -> Result<Joined, Error> {
    let namespaces = &container.request.namespaces;
    let mut joined = Joined::default();
    if let NamespaceMode::Container(id) = &namespaces.pid {
        let other = end::settled(engine, id)?;
        joined.pid = Some(running(&other).ok_or_else(|| Error::JoinPidNotRunning(id.clone()))?);
    }
    if let NamespaceMode::Container(id) = &namespaces.ipc {
        let other = end::settled(engine, id)?;
        let refused = |why| Error::JoinIpc {
            container: id.clone(),
            why,
        };
        let init =
            running(&other).ok_or_else(|| refused(format!("container {id} is not running")))?;
        let shares = matches!(
            other.container.request.namespaces.ipc,
            NamespaceMode::Shareable | NamespaceMode::Host | NamespaceMode::Container(_)
        );
        if !shares {
            return Err(refused(
                "non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
                    .to_owned(),
            ));
        }
        joined.ipc = Some(init);
    }
    Ok(joined)
}

fn running(other: &Stored) -> Option<Identity> {
    other.init.filter(|init| init.is_alive())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Namespaces;

    #[test]
    fn sysctls_need_a_namespace_of_their_own() {
        let check_one = |name: &str, network, ipc| {
            let mut request = ContainerRequest {
                network,
                namespaces: Namespaces {
                    ipc,
                    ..Namespaces::default()
                },
                ..ContainerRequest::default()
            };
            request
                .security
                .sysctls
                .push((name.to_owned(), "1".to_owned()));
            check(&request)
                .map_err(|error| error.to_string())
                .err()
                .unwrap_or_default()
        };
        use NamespaceMode::{Default, Host};
        assert_eq!(check_one("net.x", NetworkMode::Bridge, Host), "");
        assert_eq!(check_one("kernel.sem", NetworkMode::Host, Default), "");
        assert_eq!(
            check_one("net.x", NetworkMode::Host, Default),
            "sysctl \"net.x\" not allowed in host network namespace"
        );
        assert_eq!(
            check_one("fs.mqueue.x", NetworkMode::Bridge, Host),
            "sysctl \"fs.mqueue.x\" is not allowed in the hosts ipc namespace"
        );
    }
}
