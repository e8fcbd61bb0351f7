//! Networks in the shape of `docker network inspect` and as rows of `network ls`. Pure.

use netmgr::model::{
    OPTION_BRIDGE, OPTION_HOST_BINDING, OPTION_ICC, OPTION_MASQUERADE, OPTION_MTU,
};
use netmgr::{Endpoint, Family, Network};
use serde_json::{Map, Value, json};

use super::listing::Columns;
use super::{container, short_id};

pub const COLUMNS: Columns = Columns {
    table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
    headings: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("CreatedAt", "CREATED AT"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("Label", "LABEL"),
    ],
};

/// Docker's two networks without a bridge: `--network host` and `--network none`. They are in no table; their IDs are the
/// same on every host, for scripts that remember them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bridgeless {
    pub name: &'static str,
    pub driver: &'static str,
    /// The SHA-256 of `coracle network NAME`.
    pub id: &'static str,
}

const OPTION_DEFAULT: &str = "com.docker.network.bridge.default_bridge";

pub const BRIDGELESS: [Bridgeless; 2] = [
    Bridgeless {
        name: "host",
        driver: "host",
        id: "4dbf42b2c32a19648a973ed93e7b43425fe551e1e6267a4f772d7284964d0902",
    },
    Bridgeless {
        name: "none",
        driver: "null",
        id: "969cc54ea64d282a8e4e448d8b8bc31b51d3d3c8a585549ab35b44c394c55803",
    },
];

impl Bridgeless {
    /// By name, ID or the beginning of an ID.
    pub fn find(name: &str) -> Option<&'static Bridgeless> {
        let exact = BRIDGELESS.iter().find(|network| network.name == name);
        // Two digits may be the beginning of somebody else's ID as well; scripts give twelve.
        let by_id = |network: &&Bridgeless| name.len() >= 12 && network.id.starts_with(name);
        exact.or_else(|| BRIDGELESS.iter().find(by_id))
    }

    pub fn row(&self, length: container::Length) -> Map<String, Value> {
        to_row(json!({
            "ID": cut(self.id, length),
            "Name": self.name,
            "Driver": self.driver,
            "Scope": "local",
            "CreatedAt": super::words::NEVER,
            "IPv4": "true",
            "IPv6": "false",
            "Internal": "false",
            "Labels": "",
            "Label": {},
        }))
    }

    /// `containers` are those that run in it.
    pub fn inspect(&self, containers: &[&runtime::Container]) -> Value {
        let attached: Map<String, Value> = containers
            .iter()
            .map(|container| {
                let value = json!({
                    "Name": container.name,
                    "EndpointID": "",
                    "MacAddress": "",
                    "IPv4Address": "",
                    "IPv6Address": "",
                });
                (container.id.clone(), value)
            })
            .collect();
        json!({
            "Name": self.name,
            "Id": self.id,
            "Created": super::words::NEVER,
            "Scope": "local",
            "Driver": self.driver,
            "EnableIPv6": false,
            "IPAM": {"Driver": "default", "Options": null, "Config": []},
            "Internal": false,
            "Attachable": false,
            "Ingress": false,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": false,
            "Containers": attached,
            "Options": {},
            "Labels": {},
        })
    }
}

fn cut(id: &str, length: container::Length) -> &str {
    match length {
        container::Length::Cut => short_id(id),
        container::Length::Full => id,
    }
}

fn to_row(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(row) => row,
        _ => Map::new(),
    }
}

pub fn row(network: &Network, length: container::Length) -> Map<String, Value> {
    let created = super::words::parse_rfc3339(&network.created);
    to_row(json!({
        "ID": cut(&network.id, length),
        "Name": network.name,
        "Driver": "bridge",
        "Scope": "local",
        "CreatedAt": created.map(super::words::timestamp).unwrap_or_default(),
        "IPv4": "true",
        "IPv6": network.v6.is_some().to_string(),
        "Internal": network.internal.to_string(),
        "Labels": container::labels(&network.labels),
        "Label": pairs(&network.labels),
    }))
}

pub fn network(network: &Network, endpoints: &[Endpoint]) -> Value {
    let attached: Map<String, Value> = endpoints
        .iter()
        .map(|endpoint| {
            let value = json!({
                "Name": endpoint.container_name,
                "EndpointID": endpoint.id,
                "MacAddress": mac(&endpoint.mac),
                "IPv4Address": format!("{}/{}", endpoint.address, network.subnet.prefix_len()),
                "IPv6Address": match (network.v6, endpoint.address6) {
                    (Some(v6), Some(address)) => format!("{address}/{}", v6.subnet.prefix_len()),
                    _ => String::new(),
                },
            });
            (endpoint.container_id.clone(), value)
        })
        .collect();
    json!({
        "Name": network.name,
        "Id": network.id,
        "Created": network.created,
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv6": network.v6.is_some(),
        "IPAM": {
            "Driver": "default",
            "Options": {},
            "Config": ipam_config(network),
        },
        "Internal": network.internal,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": attached,
        "Options": options(network),
        "Labels": pairs(&network.labels),
    })
}

/// As they were given. The default network, which nobody has created, shows what holds for it, as scripts look for its bridge.
fn options(network: &Network) -> Map<String, Value> {
    let mut options = Map::new();
    if network.name == Network::DEFAULT {
        for (name, value) in [
            (OPTION_DEFAULT, "true".to_owned()),
            (OPTION_ICC, network.icc.to_string()),
            (OPTION_MASQUERADE, network.masquerade().to_string()),
            (OPTION_HOST_BINDING, "0.0.0.0".to_owned()),
            (OPTION_BRIDGE, network.bridge.clone()),
            (OPTION_MTU, network.mtu().unwrap_or(1500).to_string()),
        ] {
            options.insert(name.to_owned(), value.into());
        }
    }
    options.extend(pairs(&network.options));
    options
}

/// One entry for each family.
fn ipam_config(network: &Network) -> Vec<Value> {
    let of = |family| {
        let range = match family {
            Family::V4 => network.ip_range.map(|range| range.to_string()),
            Family::V6 => network
                .v6
                .and_then(|v6| v6.ip_range)
                .map(|range| range.to_string()),
        };
        let reserved = network.aux_addresses.iter();
        let reserved: Map<String, Value> = reserved
            .filter(|(_, address)| address.is_ipv4() == (family == Family::V4))
            .map(|(name, address)| (name.clone(), address.to_string().into()))
            .collect();
        let mut config = Map::new();
        config.insert(
            "Subnet".into(),
            network.subnet_of(family)?.to_string().into(),
        );
        if let Some(range) = range {
            config.insert("IPRange".into(), range.into());
        }
        config.insert(
            "Gateway".into(),
            network.gateway_of(family)?.to_string().into(),
        );
        if !reserved.is_empty() {
            config.insert("AuxiliaryAddresses".into(), reserved.into());
        }
        Some(Value::from(config))
    };
    Family::ALL.into_iter().filter_map(of).collect()
}

/// `02:42:ac:11:00:02`
pub fn mac(bytes: &[u8; 6]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.join(":")
}

pub fn pairs(pairs: &[(String, String)]) -> Map<String, Value> {
    let pair = |(key, value): &(String, String)| (key.clone(), Value::from(value.as_str()));
    pairs.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{listing, sample};

    #[test]
    fn a_network_has_dockers_shape() {
        let value = network(&sample::network(), &[sample::endpoint()]);
        assert_eq!(value["IPAM"]["Config"][0]["Subnet"], "172.18.0.0/16");
        assert_eq!(value["IPAM"]["Config"][0]["Gateway"], "172.18.0.1");
        assert_eq!(value["Labels"]["a"], "b");
        let attached = &value["Containers"][sample::id('c')];
        assert_eq!(attached["Name"], "web1");
        assert_eq!(attached["IPv4Address"], "172.18.0.2/16");
        assert_eq!(attached["MacAddress"], "02:42:ac:12:00:02");
    }

    #[test]
    fn both_families_have_their_own_addresses() {
        let mut both = sample::network();
        both.ip_range = "172.18.5.0/24".parse().ok();
        both.v6 = Some(netmgr::V6 {
            subnet: "fd00:6::/64".parse().unwrap(),
            gateway: "fd00:6::7".parse().unwrap(),
            ip_range: None,
        });
        both.aux_addresses = vec![("a".into(), "fd00:6::3".parse().unwrap())];
        let mut endpoint = sample::endpoint();
        endpoint.address6 = "fd00:6::55".parse().ok();
        let value = network(&both, &[endpoint]);
        assert_eq!(value["EnableIPv6"], true);
        assert_eq!(
            value["IPAM"]["Config"],
            json!([
                {"Subnet": "172.18.0.0/16", "IPRange": "172.18.5.0/24", "Gateway": "172.18.0.1"},
                {
                    "Subnet": "fd00:6::/64",
                    "Gateway": "fd00:6::7",
                    "AuxiliaryAddresses": {"a": "fd00:6::3"},
                },
            ])
        );
        let attached = &value["Containers"][sample::id('c')];
        assert_eq!(attached["IPv6Address"], "fd00:6::55/64");
    }

    #[test]
    fn networks_without_a_bridge_are_found_by_name_and_by_id() {
        let [host, none] = BRIDGELESS;
        for (name, expected) in [
            ("host", Some(host)),
            ("none", Some(none)),
            (&host.id[..12], Some(host)),
            (none.id, Some(none)),
            ("", None),
            ("bridge", None),
            (&host.id[..2], None),
        ] {
            assert_eq!(Bridgeless::find(name).copied(), expected, "{name}");
        }
        let container = sample::running();
        let value = none.inspect(&[&container]);
        assert_eq!(value["Driver"], "null");
        assert_eq!(value["Containers"][&container.id]["Name"], "web1");
        assert_eq!(host.row(container::Length::Cut)["ID"], host.id[..12]);
    }

    #[test]
    fn the_table_is_the_one_docker_prints() {
        let rows = [row(&sample::network(), container::Length::Cut)];
        assert_eq!(
            listing::render(&COLUMNS, "", &rows).unwrap(),
            "NETWORK ID     NAME      DRIVER    SCOPE\nbbbbbbbbbbbb   bridge    bridge    local"
        );
    }
}
