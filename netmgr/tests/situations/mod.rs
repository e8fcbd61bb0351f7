//! Situations by name, as models: the golden files of both backends are made from these, so that they can be read side by
//! side. A test that uses them says `mod common; mod situations;`.
#![allow(dead_code)]

use netmgr::model::{
    OPTION_GATEWAY_MODE_V4, OPTION_GATEWAY_MODE_V6, OPTION_MASQUERADE, OPTION_TRUSTED_INTERFACES,
};
use netmgr::{Model, Network, PortMap, Profile, Protocol, V6};

use crate::common::{add_endpoint, add_network, map, model};
use Protocol::{Sctp, Tcp, Udp};

/// A name, which is also the golden file's, and how to make the model.
pub type Situation = (&'static str, fn() -> Model);

pub const ALL: [Situation; 27] = [
    ("default-only", default_only),
    ("one-network", one_network),
    ("publish-tcp", publish_tcp),
    ("publish-udp", publish_udp),
    ("publish-sctp", publish_sctp),
    ("publish-on-address", publish_on_address),
    ("publish-on-loopback", publish_on_loopback),
    ("range-same", range_same),
    ("range-shifted", range_shifted),
    ("range-on-address", range_on_address),
    ("range-listener", range_listener),
    ("internal", internal),
    ("icc-off", icc_off),
    ("two-networks", two_networks),
    ("custom-bridge", custom_bridge),
    ("v6-network", v6_network),
    ("v6-publish", v6_publish),
    ("v6-publish-on-address", v6_publish_on_address),
    ("v6-publish-on-loopback", v6_publish_on_loopback),
    ("v6-host-address", v6_host_address),
    ("routed", routed),
    ("nat-unprotected", nat_unprotected),
    ("trusted-interface", trusted_interface),
    ("no-masquerade", no_masquerade),
    ("several-networks", several_networks),
    ("two-ports-to-one", two_ports_to_one),
    ("after-removal", after_removal),
];

pub fn situation(name: &str) -> Model {
    let found = ALL.iter().find(|(known, _)| *known == name);
    let (_, make) = found.unwrap_or_else(|| panic!("no situation {name}"));
    make()
}

pub fn default_only() -> Model {
    model(Profile::Coracle)
}

fn web(model: &mut Model) -> &mut Network {
    add_network(model, "web", "10.201.0.0/24", "cr-776562000000")
}

fn db(model: &mut Model) -> &mut Network {
    add_network(model, "db", "10.201.1.0/24", "cr-646200000000")
}

fn set(network: &mut Network, key: &str, value: &str) {
    network.options.push((key.to_owned(), value.to_owned()));
}

/// The IPv6 side `fd00:N::/64`.
fn v6(network: &mut Network, n: u8) {
    network.v6 = Some(V6 {
        subnet: format!("fd00:{n}::/64").parse().unwrap(),
        gateway: format!("fd00:{n}::1").parse().unwrap(),
        ip_range: None,
    });
}

/// Gives the newest endpoint an IPv6 address.
fn v6_address(model: &mut Model, address: &str) {
    model.endpoints.last_mut().unwrap().address6 = Some(address.parse().unwrap());
}

fn with_ports(ports: &[PortMap]) -> Model {
    let mut m = default_only();
    add_endpoint(&mut m, "c1", "bridge", ports);
    m
}

pub fn one_network() -> Model {
    let mut m = default_only();
    web(&mut m);
    add_endpoint(&mut m, "c1", "web", &[]);
    m
}

pub fn publish_tcp() -> Model {
    with_ports(&[map(None, 8080, 80, 1, Tcp)])
}

pub fn publish_udp() -> Model {
    with_ports(&[map(None, 53, 5353, 1, Udp)])
}

pub fn publish_sctp() -> Model {
    with_ports(&[map(None, 36412, 36412, 1, Sctp)])
}

/// One port on two addresses of the host, and 0.0.0.0, which is every IPv4 address.
pub fn publish_on_address() -> Model {
    with_ports(&[
        map(Some("192.0.2.1"), 8080, 80, 1, Tcp),
        map(Some("192.0.2.3"), 8080, 81, 1, Tcp),
        map(Some("0.0.0.0"), 9090, 90, 1, Tcp),
    ])
}

pub fn publish_on_loopback() -> Model {
    with_ports(&[
        map(Some("127.0.0.1"), 8080, 80, 1, Tcp),
        map(Some("127.0.0.2"), 8000, 8000, 10, Udp),
    ])
}

pub fn range_same() -> Model {
    with_ports(&[map(None, 8000, 8000, 11, Udp)])
}

pub fn range_shifted() -> Model {
    with_ports(&[map(None, 8000, 9000, 4, Tcp)])
}

pub fn range_on_address() -> Model {
    with_ports(&[
        map(Some("192.0.2.1"), 8000, 8000, 11, Tcp),
        map(Some("192.0.2.1"), 7000, 7100, 2, Tcp),
    ])
}

/// Runs with one listener for clients of the loopback proxy: on all addresses, on one address, and one of UDP without.
pub fn range_listener() -> Model {
    let listening = |map: PortMap, listener| PortMap {
        listener: Some(listener),
        ..map
    };
    with_ports(&[
        listening(map(None, 1024, 1024, 30_000, Tcp), 40_001),
        listening(map(Some("127.0.0.1"), 50_000, 50_000, 1_000, Tcp), 40_002),
        listening(map(None, 1024, 1024, 30_000, Udp), 40_003),
    ])
}

pub fn internal() -> Model {
    let mut m = default_only();
    add_network(&mut m, "vault", "10.201.2.0/24", "cr-7661756c7400").internal = true;
    add_endpoint(&mut m, "safe", "vault", &[map(None, 8080, 80, 1, Tcp)]);
    m
}

pub fn icc_off() -> Model {
    let mut m = default_only();
    web(&mut m).icc = false;
    add_endpoint(&mut m, "c1", "web", &[map(None, 8080, 80, 1, Tcp)]);
    add_endpoint(&mut m, "c2", "web", &[]);
    m
}

pub fn two_networks() -> Model {
    let mut m = default_only();
    web(&mut m);
    db(&mut m);
    add_endpoint(&mut m, "front", "web", &[map(None, 8080, 80, 1, Tcp)]);
    add_endpoint(&mut m, "store", "db", &[map(None, 5432, 5432, 1, Tcp)]);
    m
}

pub fn custom_bridge() -> Model {
    let mut m = default_only();
    add_network(&mut m, "lab", "10.201.3.0/24", "lab0");
    add_endpoint(&mut m, "c1", "lab", &[map(None, 8080, 80, 1, Tcp)]);
    m
}

pub fn v6_network() -> Model {
    let mut m = default_only();
    v6(web(&mut m), 1);
    add_endpoint(&mut m, "c1", "web", &[]);
    v6_address(&mut m, "fd00:1::2");
    m
}

pub fn v6_publish() -> Model {
    let mut m = default_only();
    v6(web(&mut m), 1);
    let ports = [map(None, 8080, 80, 1, Tcp), map(None, 9000, 9000, 10, Udp)];
    add_endpoint(&mut m, "c1", "web", &ports);
    v6_address(&mut m, "fd00:1::2");
    m
}

/// On one IPv6 address of the host, on `[::]`, which is every IPv6 address and none of IPv4, and on 0.0.0.0.
pub fn v6_publish_on_address() -> Model {
    let mut m = default_only();
    v6(web(&mut m), 1);
    let ports = [
        map(Some("2001:db8::1"), 8080, 80, 1, Tcp),
        map(Some("::"), 8081, 81, 1, Tcp),
        map(Some("0.0.0.0"), 8082, 82, 1, Tcp),
        map(Some("2001:db8::1"), 7000, 7000, 5, Tcp),
    ];
    add_endpoint(&mut m, "c1", "web", &ports);
    v6_address(&mut m, "fd00:1::2");
    m
}

pub fn v6_publish_on_loopback() -> Model {
    let mut m = default_only();
    v6(web(&mut m), 1);
    add_endpoint(&mut m, "c1", "web", &[map(Some("::1"), 8080, 80, 1, Tcp)]);
    v6_address(&mut m, "fd00:1::2");
    m
}

/// IPv6 addresses of the host, a container without one: the proxy's business.
pub fn v6_host_address() -> Model {
    with_ports(&[
        map(Some("2001:db8::1"), 8080, 80, 1, Tcp),
        map(Some("::1"), 8081, 81, 1, Tcp),
        map(Some("::"), 8082, 82, 1, Tcp),
    ])
}

/// Routed in both families.
pub fn routed() -> Model {
    let mut m = default_only();
    let network = web(&mut m);
    v6(network, 1);
    set(network, OPTION_GATEWAY_MODE_V4, "routed");
    set(network, OPTION_GATEWAY_MODE_V6, "routed");
    add_endpoint(&mut m, "c1", "web", &[map(None, 8080, 80, 1, Tcp)]);
    v6_address(&mut m, "fd00:1::2");
    m
}

pub fn nat_unprotected() -> Model {
    let mut m = default_only();
    let network = web(&mut m);
    set(network, OPTION_GATEWAY_MODE_V4, "nat-unprotected");
    add_endpoint(&mut m, "c1", "web", &[map(None, 8080, 80, 1, Tcp)]);
    m
}

pub fn trusted_interface() -> Model {
    let mut m = default_only();
    set(web(&mut m), OPTION_TRUSTED_INTERFACES, "wg0:tailscale0");
    add_endpoint(&mut m, "c1", "web", &[map(None, 8080, 80, 1, Tcp)]);
    m
}

pub fn no_masquerade() -> Model {
    let mut m = default_only();
    set(web(&mut m), OPTION_MASQUERADE, "false");
    add_endpoint(&mut m, "c1", "web", &[map(None, 8080, 80, 1, Tcp)]);
    m
}

/// One container on two networks: its ports are at the primary endpoint, on `db`.
pub fn several_networks() -> Model {
    let mut m = default_only();
    web(&mut m);
    db(&mut m);
    add_endpoint(&mut m, "c1", "db", &[map(None, 8080, 80, 1, Tcp)]);
    add_endpoint(&mut m, "c1", "web", &[]);
    m
}

/// Two host ports to one port of the container.
pub fn two_ports_to_one() -> Model {
    with_ports(&[map(None, 8080, 80, 1, Tcp), map(None, 8081, 80, 1, Tcp)])
}

/// Equals `default-only`.
pub fn after_removal() -> Model {
    let mut m = two_networks();
    m.endpoints.clear();
    m.networks.truncate(1);
    m
}
