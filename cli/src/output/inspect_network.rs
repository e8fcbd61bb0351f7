//! Networks in the shape of `docker network inspect` and as rows of `network ls`. Pure.

use netmgr::{Endpoint, Network};
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
    ],
};

pub fn row(network: &Network, length: container::Length) -> Map<String, Value> {
    let id = match length {
        container::Length::Cut => short_id(&network.id),
        container::Length::Full => &network.id,
    };
    let created = super::words::parse_rfc3339(&network.created);
    let value = json!({
        "ID": id,
        "Name": network.name,
        "Driver": "bridge",
        "Scope": "local",
        "CreatedAt": created.map(super::words::timestamp).unwrap_or_default(),
        "IPv4": "true",
        "IPv6": "false",
        "Internal": network.internal.to_string(),
        "Labels": container::labels(&network.labels),
    });
    match value {
        Value::Object(row) => row,
        _ => Map::new(),
    }
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
                "IPv6Address": "",
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
        "EnableIPv6": false,
        "IPAM": {
            "Driver": "default",
            "Options": {},
            "Config": [{
                "Subnet": network.subnet.to_string(),
                "Gateway": network.gateway.to_string(),
            }],
        },
        "Internal": network.internal,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": attached,
        "Options": pairs(&network.options),
        "Labels": pairs(&network.labels),
    })
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
    fn the_table_is_the_one_docker_prints() {
        let rows = [row(&sample::network(), container::Length::Cut)];
        assert_eq!(
            listing::render(&COLUMNS, "", &rows).unwrap(),
            "NETWORK ID     NAME      DRIVER    SCOPE\nbbbbbbbbbbbb   bridge    bridge    local"
        );
    }
}
