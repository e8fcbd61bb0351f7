//! Which network options of a request go together, and what a container is connected to by them. Pure. The texts of refusal
//! are Docker's.

use std::collections::HashSet;

use netmgr::Network;

use crate::error::Error;
use crate::request::{Connection, ContainerRequest, NO_NETWORK, NetworkMode};

/// Refuses what would have no effect, or none that was meant.
pub(super) fn check(request: &ContainerRequest) -> Result<(), Error> {
    check_words(request)?;
    match &request.network {
        NetworkMode::Container(name) if name.is_empty() => Err(Error::NamelessContainerMode),
        NetworkMode::Container(_) => check_joining(request),
        NetworkMode::None if publishes(request) => Err(Error::PortsNeedNetwork(NO_NETWORK)),
        // As in Docker, published ports mean nothing with the host's own network.
        _ => Ok(()),
    }?;
    let wishes = &request.connections;
    let has_namespace_of_others = matches!(
        request.network,
        NetworkMode::Host | NetworkMode::Container(_)
    );
    if has_namespace_of_others && wishes.iter().any(|c| c.mac.is_some()) {
        return Err(Error::ConflictsWithMode("mac-address"));
    }
    wishes.iter().try_for_each(check_connection)?;
    let mut names = HashSet::new();
    match wishes.iter().find(|c| !names.insert(&c.network)) {
        Some(twice) => Err(Error::NetworkGivenTwice(twice.network.clone())),
        None if has_namespace_of_others && wishes.len() > 1 => Err(Error::SharesNamespace),
        None if wishes.len() > 1 && names.iter().any(|name| *name == NO_NETWORK) => {
            Err(Error::NoneIsAlone)
        }
        None => Ok(()),
    }
}

/// What goes into /etc/hosts and /etc/resolv.conf must not bring further lines, nor further names.
fn check_words(request: &ContainerRequest) -> Result<(), Error> {
    let hosts = request.extra_hosts.iter().map(|(name, _)| name);
    let all = (request.hostname.iter().map(|name| ("hostname", name)))
        .chain(request.domainname.iter().map(|name| ("domainname", name)))
        .chain(hosts.map(|name| ("add-host", name)))
        .chain(request.dns_search.iter().map(|name| ("dns-search", name)))
        .chain(request.dns_options.iter().map(|name| ("dns-option", name)));
    for (option, value) in all {
        check_word(option, value)?;
    }
    // sethostname(2), setdomainname(2)
    let names = [
        ("hostname", &request.hostname),
        ("domainname", &request.domainname),
    ];
    for (option, name) in names {
        if let Some(value) = name.as_ref().filter(|name| name.len() > LONGEST_NAME) {
            return Err(Error::NameTooLong {
                option,
                value: value.clone(),
            });
        }
    }
    Ok(())
}

/// `__NEW_UTS_LEN`
const LONGEST_NAME: usize = 64;

fn check_word(option: &'static str, value: &str) -> Result<(), Error> {
    match value.contains(|c: char| c.is_whitespace() || c.is_control()) {
        true => Err(Error::NotOneWord {
            option,
            value: value.to_owned(),
        }),
        false => Ok(()),
    }
}

fn publishes(request: &ContainerRequest) -> bool {
    !request.ports.is_empty() || request.publish_all
}

/// The other container has a host name, ports and a resolver already.
fn check_joining(request: &ContainerRequest) -> Result<(), Error> {
    if request.hostname.is_some() {
        return Err(Error::ConflictsWithMode("hostname"));
    }
    let resolver = [&request.dns, &request.dns_search, &request.dns_options];
    if resolver.iter().any(|list| !list.is_empty()) {
        return Err(Error::ConflictsWithMode("dns"));
    }
    if !request.extra_hosts.is_empty() {
        return Err(Error::ConflictsWithMode("custom host-to-IP mapping"));
    }
    if publishes(request) {
        return Err(Error::PortsNeedNetwork("container type"));
    }
    if !request.expose.is_empty() {
        return Err(Error::ExposeNeedsNetwork);
    }
    Ok(())
}

/// Addresses and aliases are for user networks.
pub(super) fn check_connection(connection: &Connection) -> Result<(), Error> {
    for alias in &connection.aliases {
        check_word("network-alias", alias)?;
    }
    if is_user_network(&connection.network) {
        return Ok(());
    }
    if connection.address.is_some() || connection.address6.is_some() {
        return Err(Error::AddressNeedsUserNetwork);
    }
    if !connection.aliases.is_empty() {
        return Err(Error::AliasNeedsUserNetwork);
    }
    Ok(())
}

/// Whether a name is that of a network which somebody has created: it has names, aliases and a resolver.
pub(super) fn is_user_network(name: &str) -> bool {
    ![Network::DEFAULT, "host", NO_NETWORK].contains(&name) && !name.starts_with("container:")
}

/// What the container is connected to: as asked for, or what the mode alone means.
pub(super) fn connections(request: &ContainerRequest) -> Vec<Connection> {
    match request.network {
        // Their namespace is not ours to connect.
        NetworkMode::Host | NetworkMode::Container(_) => Vec::new(),
        _ if request.connections.is_empty() => request.network.connections(),
        _ => request.connections.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(network: &str) -> Connection {
        Connection::to(network)
    }

    #[track_caller]
    fn check_says(request: &ContainerRequest, expected: &str) {
        assert_eq!(super::check(request).unwrap_err().to_string(), expected);
    }

    fn joining() -> ContainerRequest {
        ContainerRequest {
            network: NetworkMode::Container("c1".into()),
            ..ContainerRequest::default()
        }
    }

    #[test]
    fn a_joined_container_decides_for_both() {
        assert!(super::check(&joining()).is_ok());
        for (request, expected) in [
            (
                ContainerRequest {
                    hostname: Some("h".into()),
                    ..joining()
                },
                "conflicting options: hostname and the network mode",
            ),
            (
                ContainerRequest {
                    dns: vec!["1.1.1.1".into()],
                    ..joining()
                },
                "conflicting options: dns and the network mode",
            ),
            (
                ContainerRequest {
                    publish_all: true,
                    ..joining()
                },
                "conflicting options: port publishing and the container type network mode",
            ),
            (
                ContainerRequest {
                    expose: vec!["80/tcp".into()],
                    ..joining()
                },
                "conflicting options: port exposing and the container type network mode",
            ),
            (
                ContainerRequest {
                    network: NetworkMode::Container(String::new()),
                    ..joining()
                },
                "Invalid network mode: invalid container format container:<name|id>",
            ),
        ] {
            check_says(&request, expected);
        }
    }

    #[test]
    fn addresses_and_aliases_need_a_user_network() {
        let request = |connection| ContainerRequest {
            connections: vec![connection],
            ..ContainerRequest::default()
        };
        let addressed = Connection {
            address: Some([172, 17, 0, 9].into()),
            ..connection("bridge")
        };
        check_says(
            &request(addressed),
            "user specified IP address is supported on user defined networks only",
        );
        let aliased = Connection {
            aliases: vec!["x".into()],
            ..connection("bridge")
        };
        check_says(
            &request(aliased.clone()),
            "network-scoped alias is supported only for containers in user defined networks",
        );
        let on_user_network = Connection {
            network: "web".into(),
            ..aliased
        };
        assert!(super::check(&request(on_user_network)).is_ok());
    }

    #[test]
    fn without_further_wishes_the_mode_is_the_connection() {
        let of = |network| {
            let request = ContainerRequest {
                network,
                ..ContainerRequest::default()
            };
            connections(&request)
        };
        assert_eq!(of(NetworkMode::Bridge), [connection("bridge")]);
        assert_eq!(of(NetworkMode::None), [connection("none")]);
        assert_eq!(of(NetworkMode::Named("web".into())), [connection("web")]);
        assert_eq!(of(NetworkMode::Host), []);
    }
}
