//! `create`: from a request and an image to a record. Nothing runs, nothing is mounted.

use time::OffsetDateTime;

use super::{Engine, confinement, files, mounts, network_options};
use crate::error::Error;
use crate::events;
use crate::health;
use crate::names;
use crate::record::{self, Container, Resolved, State};
use crate::request::{ContainerRequest, NamespaceMode, NetworkMode};
use crate::store;

pub(super) fn create(engine: &mut Engine, request: &ContainerRequest) -> Result<Container, Error> {
    let root = engine.settings.root.clone();
    let request = &engine.with_checked_limits(request)?.0;
    let tx = engine
        .conn
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    // Here, where nobody can remove the image before the container holds it.
    let image = find_image(&tx, &root, request)?;
    let mut container = draft(&tx, &image, request)?;
    container.resolved.mounts = mounts::resolve(&tx, &root, request, &image.config)?;
    store::insert(&tx, &container)?;
    events::record_container(&tx, &container, "create", &[])?;
    tx.commit()?;
    Ok(container)
}

pub(super) fn find_image(
    conn: &rusqlite::Connection,
    root: &std::path::Path,
    request: &ContainerRequest,
) -> Result<image::Image, Error> {
    image::store::find(conn, root, &request.image)?
        .ok_or_else(|| Error::NoSuchImage(full_name(&request.image)))
}

/// The record, but for its mounts, which make volumes. Enters nothing.
pub(super) fn draft(
    conn: &rusqlite::Connection,
    image: &image::Image,
    request: &ContainerRequest,
) -> Result<Container, Error> {
    let id = names::new_id()?;
    let resolved = resolve(request, image, &id)?;
    if let Some(name) = &request.name {
        names::validate(name)?;
    }
    let name = match &request.name {
        Some(name) => name.clone(),
        None => free_name(conn)?,
    };
    let mut container = Container {
        id,
        name,
        created: OffsetDateTime::now_utc(),
        request: request.clone(),
        resolved,
        image_id: image.id.clone(),
        state: State::Created,
        paused: false,
        health: None,
        restarts: 0,
        stopped_by_user: false,
        attachments: Vec::new(),
    };
    confinement::name_by_id(conn, &mut container.request)?;
    for connection in &mut container.resolved.connections {
        // An ID is kept as the name, by which people will disconnect it; what is not there yet may be at the start.
        if let Ok(network) = netmgr::store::find_network(conn, &connection.network) {
            connection.network = network.name;
        }
    }
    Ok(container)
}

/// With the tag that was meant.
fn full_name(image: &str) -> String {
    image::Reference::parse(image).map_or_else(|_| image.to_owned(), |name| name.to_string())
}

fn free_name(conn: &rusqlite::Connection) -> Result<String, Error> {
    loop {
        let name = names::generate(&mut rand::rng());
        match store::find(conn, &name) {
            Err(Error::NoSuchContainer(_)) => return Ok(name),
            Err(e) => return Err(e),
            Ok(_) => {}
        }
    }
}

/// What the image's config makes of the request; mounts apart, which need the database.
fn resolve(request: &ContainerRequest, image: &image::Image, id: &str) -> Result<Resolved, Error> {
    let config = image.config.config().clone().unwrap_or_default();
    let image_entrypoint = config.entrypoint().clone().unwrap_or_default();
    let image_command = config.cmd().clone().unwrap_or_default();
    let (entrypoint, command) = match &request.entrypoint {
        Some(program) if program.is_empty() => (Vec::new(), request.command.clone()),
        Some(program) => (vec![program.clone()], request.command.clone()),
        None if request.command.is_empty() => (image_entrypoint, image_command),
        None => (image_entrypoint, request.command.clone()),
    };
    if entrypoint.is_empty() && command.is_empty() {
        return Err(Error::NoCommand);
    }
    let workdir = request
        .workdir
        .clone()
        .or_else(|| config.working_dir().clone())
        .unwrap_or_default();
    let workdir = match workdir.as_str() {
        "" => workdir,
        path if path.starts_with('/') => files::clean(path),
        _ => return Err(Error::RelativeWorkdir(workdir)),
    };
    if let Some(signal) = &request.stop_signal {
        super::end::signal_number(signal)?;
    }
    network_options::check(request)?;
    confinement::check(request)?;
    crate::logs::check(&request.log)?;
    Ok(Resolved {
        entrypoint,
        command,
        env: merge_env(config.env().clone().unwrap_or_default(), &request.env),
        workdir,
        user: request
            .user
            .clone()
            .or_else(|| config.user().clone())
            .unwrap_or_default(),
        hostname: match (&request.hostname, &request.network) {
            (Some(name), _) => name.clone(),
            // With the host's network goes the name that it has there.
            (None, NetworkMode::Host) => host_name(),
            (None, _) if request.namespaces.uts == NamespaceMode::Host => host_name(),
            (None, _) => id[..12].to_owned(),
        },
        labels: merge_labels(config.labels().clone().unwrap_or_default(), &request.labels),
        exposed_ports: exposed(config.exposed_ports().clone().unwrap_or_default(), request)?,
        connections: network_options::connections(request),
        stop_signal: request
            .stop_signal
            .clone()
            .or_else(|| config.stop_signal().clone())
            .unwrap_or_else(|| "SIGTERM".into()),
        mounts: Vec::new(),
        health: health::resolve(&request.health, image.healthcheck.as_ref())?,
    })
}

fn host_name() -> String {
    let host = rustix::system::uname();
    host.nodename().to_string_lossy().into_owned()
}

fn merge_env(mut env: Vec<String>, asked: &[String]) -> Vec<String> {
    let key = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    for entry in asked {
        match env.iter().position(|e| key(e) == key(entry)) {
            Some(place) => env[place] = entry.clone(),
            None => env.push(entry.clone()),
        }
    }
    env
}

fn merge_labels(
    image: std::collections::HashMap<String, String>,
    asked: &[(String, String)],
) -> Vec<(String, String)> {
    let mut labels: std::collections::BTreeMap<String, String> = image.into_iter().collect();
    labels.extend(asked.iter().cloned());
    labels.into_iter().collect()
}

fn exposed(mut exposed: Vec<String>, request: &ContainerRequest) -> Result<Vec<String>, Error> {
    for port in &request.expose {
        record::parse_port(port).ok_or_else(|| Error::ExposedPort(port.clone()))?;
        exposed.push(port.clone());
    }
    for port in exposed.iter_mut().filter(|p| !p.contains('/')) {
        port.push_str("/tcp");
    }
    for ports in &request.ports {
        let (first, protocol) = (ports.container_port, ports.protocol.as_str());
        if ports.count > netmgr::ports::LONGEST_BOUND {
            // Tens of thousands of entries would be read by every command that reads the record.
            let last = first.saturating_add(ports.count - 1);
            exposed.push(format!("{first}-{last}/{protocol}"));
            continue;
        }
        for offset in 0..ports.count {
            exposed.push(format!(
                "{}/{}",
                ports.container_port.saturating_add(offset),
                ports.protocol.as_str()
            ));
        }
    }
    exposed.sort_unstable();
    exposed.dedup();
    Ok(exposed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_overrides_the_image_variable_by_variable() {
        let image = vec!["PATH=/bin".to_owned(), "A=1".to_owned()];
        let merged = merge_env(image, &["A=2".to_owned(), "B=3".to_owned()]);
        assert_eq!(merged, ["PATH=/bin", "A=2", "B=3"]);
    }
}
