//! The names of the containers on some networks, and what they stand for. Pure: knows no DNS message and no socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// As many digits of a container's ID as `ps` shows are a name of it.
const SHORT_ID: usize = 12;

/// One network's part of a [`Zone`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkNames {
    pub name: String,
    /// Leads nowhere: a container with such networks only has nobody to forward to.
    pub internal: bool,
    /// Whether its containers find each other by name. Not so on the default network, as in Docker.
    pub named: bool,
    pub containers: Vec<Name>,
}

/// A container on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// 64 hexadecimal digits.
    pub container_id: String,
    pub container_name: String,
    pub aliases: Vec<String>,
    pub address: Ipv4Addr,
    pub address6: Option<Ipv6Addr>,
}

impl Name {
    fn is(&self, name: &str) -> bool {
        let mut aliases = self.aliases.iter();
        self.container_name.eq_ignore_ascii_case(name)
            || aliases.any(|alias| alias.eq_ignore_ascii_case(name))
            || short(&self.container_id).eq_ignore_ascii_case(name)
    }
}

fn short(id: &str) -> &str {
    id.get(..SHORT_ID).unwrap_or(id)
}

/// What a name of the zone stands for. It may have no address of a family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    pub v4: Vec<Ipv4Addr>,
    pub v6: Vec<Ipv6Addr>,
}

/// Everything that one container's responder knows by itself.
///
/// Looked through from front to back: a network has at most 1,023 containers, and an index of their names would take
/// more memory than the rest of the responder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    networks: Vec<NetworkNames>,
}

impl Zone {
    /// Of the networks that the asking container is on. Where two know a name, the earlier one has it: the one with the
    /// container's default route should come first.
    pub fn new(networks: Vec<NetworkNames>) -> Zone {
        Zone { networks }
    }

    /// Whether names outside of the zone may be looked up at all: an internal network must not leak by DNS.
    pub fn forwards(&self) -> bool {
        self.networks.iter().any(|network| !network.internal)
    }

    /// By container name, alias or short ID, alone or followed by the network's name: `web`, `web.shop`. `name` has no
    /// final dot. `None`: not a name of this zone.
    pub fn look_up(&self, name: &str) -> Option<Addresses> {
        let mut found: Option<Addresses> = None;
        for network in self.networks.iter().filter(|network| network.named) {
            let qualified = strip_network(name, &network.name);
            let here: Vec<&Name> = network
                .containers
                .iter()
                .filter(|one| one.is(name) || qualified.is_some_and(|name| one.is(name)))
                .collect();
            if here.is_empty() {
                continue;
            }
            let found = found.get_or_insert_default();
            if found.v4.is_empty() {
                found.v4 = here.iter().map(|one| one.address).collect();
            }
            if found.v6.is_empty() {
                found.v6 = here.iter().filter_map(|one| one.address6).collect();
            }
        }
        found
    }

    /// `web.shop` for the address of the container `web` on the network `shop`.
    pub fn reverse(&self, address: IpAddr) -> Option<String> {
        let has = |one: &&Name| match address {
            IpAddr::V4(v4) => one.address == v4,
            IpAddr::V6(v6) => one.address6 == Some(v6),
        };
        let mut named = self.networks.iter().filter(|network| network.named);
        named.find_map(|network| {
            let one = network.containers.iter().find(has)?;
            Some(format!("{}.{}", one.container_name, network.name))
        })
    }
}

fn strip_network<'a>(name: &'a str, network: &str) -> Option<&'a str> {
    let dot = name.len().checked_sub(network.len() + 1)?;
    let (host, rest) = (name.get(..dot)?, name.get(dot..)?);
    let rest = rest.strip_prefix('.')?;
    (!host.is_empty() && rest.eq_ignore_ascii_case(network)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str, aliases: &[&str], last: u8, v6: bool) -> Name {
        Name {
            container_id: format!("{last:02x}").repeat(32),
            container_name: name.into(),
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            address: Ipv4Addr::new(10, 0, 0, last),
            address6: v6.then(|| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into())),
        }
    }

    fn network(name: &str, containers: Vec<Name>) -> NetworkNames {
        NetworkNames {
            name: name.into(),
            internal: false,
            named: true,
            containers,
        }
    }

    fn zone() -> Zone {
        let shop = vec![
            container("Web", &["front", "Shared"], 2, false),
            container("web.two", &["shared"], 3, true),
        ];
        let back = vec![
            container("db", &["front"], 0x12, true),
            container("web", &[], 0x13, true),
        ];
        Zone::new(vec![network("Shop", shop), network("back.end", back)])
    }

    /// The last bytes of the IPv4 addresses, and of the IPv6 ones; `None`: not in the zone.
    fn check(name: &str, expect: Option<(&[u8], &[u8])>) {
        let found = zone().look_up(name);
        let last = found.map(|found| {
            let v4: Vec<u8> = found.v4.iter().map(|a| a.octets()[3]).collect();
            let v6: Vec<u8> = found.v6.iter().map(|a| a.octets()[15]).collect();
            (v4, v6)
        });
        let expect = expect.map(|(v4, v6)| (v4.to_vec(), v6.to_vec()));
        assert_eq!(last, expect, "{name}");
    }

    #[test]
    fn names_aliases_and_short_ids_are_found_in_any_case() {
        check("front", Some((&[2], &[0x12])));
        check("SHARED", Some((&[2, 3], &[3])));
        check("020202020202", Some((&[2], &[])));
        check("02020202020", None);
        check(&"02".repeat(32), None);
        check("db", Some((&[0x12], &[0x12])));
        for other in ["", ".", "we", "web1", "a.web", "web.", ".web", "wéb"] {
            check(other, None);
        }
    }

    #[test]
    fn name_of_a_network_narrows_to_it() {
        check("web", Some((&[2], &[0x13])));
        check("web.shop", Some((&[2], &[])));
        check("WEB.SHOP", Some((&[2], &[])));
        check("web.back.end", Some((&[0x13], &[0x13])));
        check("web.two", Some((&[3], &[3])));
        check("web.two.shop", Some((&[3], &[3])));
        check("121212121212.back.end", Some((&[0x12], &[0x12])));
        check("web.end", None);
        check(".shop", None);
        check("shop", None);
    }

    #[test]
    fn addresses_lead_back_to_name_and_network() {
        let zone = zone();
        let reverse = |address: &str| zone.reverse(address.parse().unwrap());
        assert_eq!(reverse("10.0.0.2").as_deref(), Some("Web.Shop"));
        assert_eq!(reverse("fd00::13").as_deref(), Some("web.back.end"));
        assert_eq!(reverse("10.0.0.9"), None);
        assert_eq!(reverse("::"), None);
    }

    #[test]
    fn default_network_has_no_names_but_a_way_out() {
        let mut bridge = network("bridge", vec![container("web", &[], 2, false)]);
        bridge.named = false;
        let mut inside = network("inside", vec![container("db", &[], 3, false)]);
        inside.internal = true;
        let closed = Zone::new(vec![inside.clone()]);
        assert!(!closed.forwards() && closed.look_up("db").is_some());
        let open = Zone::new(vec![bridge, inside]);
        assert!(open.forwards());
        assert_eq!(open.look_up("web"), None);
        assert_eq!(open.look_up("web.bridge"), None);
        assert_eq!(open.reverse("10.0.0.2".parse().unwrap()), None);
        assert!(!Zone::default().forwards(), "attached to nothing");
    }
}
