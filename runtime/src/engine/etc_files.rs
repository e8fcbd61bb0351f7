//! A container's hosts, hostname and resolv.conf: written at its start, and kept true while it is connected and
//! disconnected. What stands in them is decided in `bundle`.
//!
//! A running container has them bound by inode: once it runs they are only ever changed in place.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use netmgr::{Endpoint, Family, Model, Network};

use super::network_options::is_user_network;
use crate::bundle;
use crate::record::Container;
use crate::request::NetworkMode;

const HOSTS: &str = "hosts";
const HOSTNAME: &str = "hostname";
const RESOLV_CONF: &str = "resolv.conf";

/// Where a container's own resolver listens, inside its namespace (`netmgr::dns`).
pub const OWN_RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The files for a start, of a container with these places in networks.
pub(super) fn write(
    storage: &Path,
    container: &Container,
    attached: &[(Network, Endpoint)],
) -> io::Result<()> {
    let resolved = &container.resolved;
    let on_host = container.request.network == NetworkMode::Host;
    let gateway = match on_host {
        true => Some(Ipv4Addr::LOCALHOST),
        false => gateway(container, attached),
    };
    let extra = extra_hosts(&container.request.extra_hosts, gateway);
    let hosts = match on_host {
        true => {
            bundle::extended_hosts(fs::read_to_string("/etc/hosts").unwrap_or_default(), &extra)
        }
        false => bundle::hosts_file(&full_name(container), &addresses(attached), &extra),
    };
    fs::write(storage.join(HOSTS), hosts)?;
    fs::write(storage.join(HOSTNAME), format!("{}\n", resolved.hostname))?;
    let resolver = match on_host {
        true => bundle::Resolver::SameAsHost,
        false => resolver(attached),
    };
    fs::write(storage.join(RESOLV_CONF), resolv_conf(container, resolver)?)
}

/// The files of a container that joins another one: the same files, by a second name. They outlive the other's removal.
pub(super) fn share(storage: &Path, others: &Path) -> io::Result<()> {
    for name in [HOSTS, HOSTNAME, RESOLV_CONF] {
        let own = storage.join(name);
        match fs::remove_file(&own) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => fs::hard_link(others.join(name), own)?,
        }
    }
    Ok(())
}

/// A running container has come to another network.
pub(super) fn connected(
    storage: &Path,
    container: &Container,
    attached: &(Network, Endpoint),
) -> io::Result<()> {
    let addresses = addresses(std::slice::from_ref(attached));
    edit(&storage.join(HOSTS), |text| {
        bundle::hosts_with(text, &full_name(container), &addresses)
    })?;
    let resolver = resolver(std::slice::from_ref(attached));
    // As in Docker, who has once had a resolver of its own keeps it.
    if matches!(resolver, bundle::Resolver::Own(_)) {
        let text = resolv_conf(container, resolver)?;
        edit(&storage.join(RESOLV_CONF), |_| text)?;
    }
    Ok(())
}

/// A running container has left a network.
pub(super) fn disconnected(
    storage: &Path,
    container: &Container,
    left: &(Network, Endpoint),
) -> io::Result<()> {
    let addresses = addresses(std::slice::from_ref(left));
    edit(&storage.join(HOSTS), |text| {
        bundle::hosts_without(&text, &full_name(container), &addresses)
    })
}

/// A running container's networks have changed, and nobody has told its files: the container's own lines are written anew.
pub(super) fn write_again(
    storage: &Path,
    container: &Container,
    attached: &[(Network, Endpoint)],
) -> io::Result<()> {
    let hostname = &full_name(container);
    edit(&storage.join(HOSTS), |text| {
        let others = bundle::hosts_of_others(&text, hostname);
        bundle::hosts_with(others, hostname, &addresses(attached))
    })?;
    let resolver = resolver(attached);
    if matches!(resolver, bundle::Resolver::Own(_)) {
        let text = resolv_conf(container, resolver)?;
        edit(&storage.join(RESOLV_CONF), |_| text)?;
    }
    Ok(())
}

/// Writes over what is there and cuts off the rest, so that nobody finds the file empty.
fn edit(path: &Path, change: impl FnOnce(String) -> String) -> io::Result<()> {
    let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
    let text = change(text);
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

/// With its domain, as it stands in /etc/hosts.
fn full_name(container: &Container) -> String {
    let hostname = &container.resolved.hostname;
    match &container.request.domainname {
        Some(domain) => format!("{hostname}.{domain}"),
        None => hostname.clone(),
    }
}

fn addresses(attached: &[(Network, Endpoint)]) -> Vec<IpAddr> {
    let both =
        |(_, endpoint): &(Network, Endpoint)| Family::ALL.map(|family| endpoint.address_of(family));
    attached.iter().flat_map(both).flatten().collect()
}

/// Of the network that has the default route.
fn gateway(container: &Container, attached: &[(Network, Endpoint)]) -> Option<Ipv4Addr> {
    let model = Model {
        networks: attached
            .iter()
            .map(|(network, _)| network.clone())
            .collect(),
        endpoints: attached.iter().map(|(_, end)| end.clone()).collect(),
        ..Model::default()
    };
    let primary = model.primary(&container.id)?;
    Some(model.network(&primary.network_id)?.gateway)
}

fn resolver(attached: &[(Network, Endpoint)]) -> bundle::Resolver {
    match attached.iter().any(|(n, _)| is_user_network(&n.name)) {
        true => bundle::Resolver::Own(OWN_RESOLVER),
        false => bundle::Resolver::HostsServers,
    }
}

fn resolv_conf(container: &Container, resolver: bundle::Resolver) -> io::Result<String> {
    let request = &container.request;
    let asked = bundle::Asked {
        servers: &request.dns,
        search: &request.dns_search,
        options: &request.dns_options,
    };
    let host_text = bundle::host_resolv_conf(resolver)?;
    Ok(bundle::resolv_conf(&host_text, asked, resolver))
}

/// `--add-host NAME:host-gateway` is the address at which the container reaches the host: the gateway of its network, or
/// loopback in the host's own. Without any network there is none, and no line.
fn extra_hosts(asked: &[(String, String)], gateway: Option<Ipv4Addr>) -> Vec<(String, String)> {
    let resolve = |(name, address): &(String, String)| match address.as_str() {
        "host-gateway" => gateway.map(|address| (name.clone(), address.to_string())),
        _ => Some((name.clone(), address.clone())),
    };
    asked.iter().filter_map(resolve).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_host_goes_by_the_gateways_address() {
        let pair = |name: &str, address: &str| (name.to_owned(), address.to_owned());
        let asked = [pair("me", "host-gateway"), pair("db", "10.0.0.1")];
        let gateway = Some(Ipv4Addr::new(172, 17, 0, 1));
        assert_eq!(
            extra_hosts(&asked, gateway),
            [pair("me", "172.17.0.1"), pair("db", "10.0.0.1")]
        );
        assert_eq!(extra_hosts(&asked, None), [pair("db", "10.0.0.1")]);
    }

    #[test]
    fn a_file_is_edited_in_place_and_shared_by_inode() {
        let folder = tempfile::tempdir().unwrap();
        let (own, other) = (folder.path().join("a"), folder.path().join("b"));
        for directory in [&own, &other] {
            fs::create_dir(directory).unwrap();
            for name in [HOSTS, HOSTNAME, RESOLV_CONF] {
                fs::write(directory.join(name), "long text of old\n").unwrap();
            }
        }
        share(&own, &other).unwrap();
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        assert_eq!(inode(&own.join(HOSTS)), inode(&other.join(HOSTS)));
        edit(&other.join(HOSTS), |text| text.replace("long text of ", "")).unwrap();
        assert_eq!(fs::read_to_string(own.join(HOSTS)).unwrap(), "old\n");
    }
}
