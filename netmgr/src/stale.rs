//! Which connections a change of the published ports makes stale: the kernel would go on sending their packets where the
//! port led before. Pure.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::kernel::conntrack::{Leads, Stale};
use crate::model::{Family, Model, PortMap};

/// Of every port that is published in one model and not, or to another address, in the other.
pub(crate) fn stale(before: &Model, after: &Model) -> Vec<Stale> {
    let (old, new) = (translated(before, after), translated(after, before));
    let gone = old.difference(&new).map(|p| describe(p, Leads::To));
    let come = new.difference(&old).map(|p| describe(p, Leads::NotTo));
    gone.chain(come).collect()
}

/// The addresses of endpoints that are gone, or have moved: whoever gets them next has nothing to do with what was.
pub(crate) fn vacated(before: &Model, after: &Model) -> Vec<IpAddr> {
    let kept: HashSet<(&str, IpAddr)> = addresses(after).collect();
    let gone = addresses(before).filter(|one| !kept.contains(one));
    gone.map(|(_, address)| address).collect()
}

fn addresses(model: &Model) -> impl Iterator<Item = (&str, IpAddr)> {
    model.endpoints.iter().flat_map(|endpoint| {
        let both = Family::ALL.map(|family| endpoint.address_of(family));
        both.into_iter()
            .flatten()
            .map(|address| (endpoint.id.as_str(), address))
    })
}

/// A published port, and the container's address of one family to which the firewall translates it.
type Translated = (PortMap, IpAddr);

/// Of the containers that are not the same in both models.
fn translated(model: &Model, other: &Model) -> HashSet<Translated> {
    let same: HashSet<&str> = other.endpoints.iter().map(|e| e.id.as_str()).collect();
    let mut found = HashSet::new();
    for endpoint in model.endpoints.iter().filter(|e| !e.ports.is_empty()) {
        let unchanged = same.contains(endpoint.id.as_str())
            && other.endpoints.iter().any(|other| other == endpoint);
        if unchanged {
            continue;
        }
        for map in &endpoint.ports {
            let families = Family::ALL.into_iter().filter(|family| match map.host_ip {
                None => true,
                Some(address) => address.is_ipv4() == (*family == Family::V4),
            });
            let addresses = families.filter_map(|family| endpoint.address_of(family));
            found.extend(addresses.map(|address| (*map, address)));
        }
    }
    found
}

fn describe((map, address): &Translated, leads: fn(IpAddr) -> Leads) -> Stale {
    Stale {
        protocol: map.protocol,
        // A wildcard is no destination that a client ever addresses.
        host_ip: map.host_ip.filter(|address| !address.is_unspecified()),
        first: map.host_port,
        last: map.host_port + (map.count - 1),
        leads: leads(*address),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::model::{Endpoint, Profile, Protocol};

    fn model(ports: &[(u16, u8)]) -> Model {
        let endpoint = |(host_port, last): &(u16, u8)| Endpoint {
            id: format!("{host_port}-{last}"),
            network_id: "n".into(),
            container_id: format!("c{last}"),
            container_name: format!("c{last}"),
            address: Ipv4Addr::new(10, 0, 0, *last),
            address6: None,
            mac: [0; 6],
            host_interface: String::new(),
            interface: "eth0".into(),
            aliases: Vec::new(),
            ports: vec![PortMap {
                protocol: Protocol::Udp,
                host_ip: None,
                host_port: *host_port,
                container_port: 53,
                count: 2,
                listener: None,
            }],
        };
        Model {
            profile: Profile::Coracle,
            networks: Vec::new(),
            endpoints: ports.iter().map(endpoint).collect(),
        }
    }

    #[test]
    fn only_what_changed_is_stale() {
        let to = |last: u8| IpAddr::from(Ipv4Addr::new(10, 0, 0, last));
        let of = |first, leads| Stale {
            protocol: Protocol::Udp,
            host_ip: None,
            first,
            last: first + 1,
            leads,
        };
        let (one, both) = (model(&[(5300, 2)]), model(&[(5300, 2), (5400, 3)]));
        assert_eq!(stale(&one, &one), []);
        assert_eq!(stale(&one, &both), [of(5400, Leads::NotTo(to(3)))]);
        assert_eq!(stale(&both, &one), [of(5400, Leads::To(to(3)))]);
        let moved = model(&[(5300, 9)]);
        assert_eq!(
            stale(&one, &moved),
            [of(5300, Leads::To(to(2))), of(5300, Leads::NotTo(to(9)))]
        );
    }

    #[test]
    fn addresses_of_who_has_gone_are_vacated() {
        let to = |last: u8| IpAddr::from(Ipv4Addr::new(10, 0, 0, last));
        let (one, both) = (model(&[(5300, 2)]), model(&[(5300, 2), (5400, 3)]));
        assert!(vacated(&one, &both).is_empty());
        assert_eq!(vacated(&both, &one), [to(3)]);
        // Another container has the address already.
        assert_eq!(vacated(&one, &model(&[(5301, 2)])), [to(2)]);
        assert!(vacated(&both, &both).is_empty());
    }
}
