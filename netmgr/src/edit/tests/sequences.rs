//! Any sequence of edits: what must hold after each.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::*;
use crate::ipam::{self, Subnet};
use crate::model::Network;

const NETWORKS: [&str; 7] = ["bridge", "a", "b", "c", "d", "e", "f"];
const CONTAINERS: [&str; 6] = ["u", "v", "w", "x", "y", "z"];

/// What the tables do not say: which addresses were asked for, and how many ports.
#[derive(Default)]
struct Asked {
    addresses: HashSet<(String, IpAddr)>,
    ports: HashMap<String, usize>,
}

#[test]
fn any_sequence_of_edits_keeps_what_is_unique_unique() {
    let mut done = 0;
    for seed in 0..60 {
        in_memory(&[], |edit| {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut asked = Asked::default();
            edit.default_network().unwrap();
            for _ in 0..80 {
                let before = model(edit);
                match random_edit(edit, &mut rng, &mut asked) {
                    Ok(()) => done += 1,
                    Err(error) => {
                        assert_ne!(error.kind(), ErrorKind::Internal, "{error}");
                        assert_eq!(model(edit), before, "{error} has changed something");
                    }
                }
                check(edit, &asked);
            }
            for container in CONTAINERS {
                edit.detach(container, VethRemoval::Now).unwrap();
            }
            edit.prune_networks(|_| true).unwrap();
            for (table, rows) in [("networks", 1), ("endpoints", 0), ("ports", 0)] {
                let count = format!("SELECT count(*) FROM {table}");
                let left: i64 = edit.tx.query_row(&count, [], |row| row.get(0)).unwrap();
                assert_eq!(left, rows, "{table}");
            }
        });
    }
    // Most of what is tried must be possible, or nothing was tested.
    assert!(done > 60 * 80 / 3, "{done}");
}

fn random_edit(edit: &mut Edit<'_>, rng: &mut StdRng, asked: &mut Asked) -> Result<(), Error> {
    let network = *NETWORKS.choose(rng).unwrap();
    let container = *CONTAINERS.choose(rng).unwrap();
    match rng.random_range(0..20) {
        0..4 => edit
            .create_network(&random_network(network, rng))
            .map(|_| ()),
        4..13 => {
            let request = random_attach(edit, container, network, rng);
            edit.attach(&request)?;
            let id = store::find_network(edit.tx, network)?.id;
            let addresses = [
                request.address.map(IpAddr::V4),
                request.address6.map(IpAddr::V6),
            ];
            let addresses = addresses.into_iter().flatten();
            asked.addresses.extend(addresses.map(|a| (id.clone(), a)));
            *asked.ports.entry(container.to_owned()).or_default() += request.ports.len();
            Ok(())
        }
        13..16 => edit
            .detach_from(container, network, VethRemoval::Now)
            .map(|_| ()),
        16..18 => {
            asked.ports.remove(container);
            edit.detach(container, VethRemoval::Now)
        }
        _ => edit.remove_network(network).map(|_| ()),
    }
}

fn random_network(name: &str, rng: &mut StdRng) -> NetworkRequest {
    let n = rng.random_range(0..6_u8);
    let mut request = NetworkRequest {
        internal: rng.random_bool(0.3),
        ipv6: rng.random_bool(0.5),
        ..network(name)
    };
    if rng.random_bool(0.5) {
        let (subnet, range, gateway) = [
            (
                format!("10.1.{n}.0/24"),
                format!("10.1.{n}.248/29"),
                format!("10.1.{n}.250"),
            ),
            (
                format!("10.1.{}.0/23", n & !1),
                format!("10.1.{n}.16/30"),
                format!("10.1.{n}.16"),
            ),
            (
                format!("10.1.{n}.8/29"),
                format!("10.1.{n}.12/30"),
                format!("10.1.{n}.9"),
            ),
            (
                format!("10.1.{n}.2/31"),
                format!("10.1.{n}.3/32"),
                format!("10.1.{n}.2"),
            ),
            (
                format!("192.168.{n}.0/21"),
                format!("192.168.{n}.0/26"),
                format!("192.168.{n}.4"),
            ),
        ]
        .choose(rng)
        .unwrap()
        .clone();
        request.subnet = subnet.parse().ok();
        request.ip_range = rng.random_bool(0.5).then(|| range.parse().unwrap());
        request.gateway = rng.random_bool(0.5).then(|| gateway.parse().unwrap());
        let aux = Ipv4Addr::new(10, 1, n, rng.random_range(1..20));
        request.aux_addresses = match rng.random_bool(0.3) {
            true => vec![("router".into(), aux.into())],
            false => Vec::new(),
        };
    }
    if request.ipv6 && rng.random_bool(0.5) {
        let lengths = [64, 96, 120, 125, 126, 127];
        let subnet = format!("fd00:{n}::/{}", lengths.choose(rng).unwrap());
        request.subnet6 = subnet.parse().ok();
    }
    request
}

fn random_attach(
    edit: &Edit<'_>,
    container: &str,
    network: &str,
    rng: &mut StdRng,
) -> AttachRequest {
    let mut request = joining(container, network);
    let found = store::find_network(edit.tx, network).ok();
    if network != "bridge"
        && let Some(found) = found
    {
        if rng.random_bool(0.3) {
            let first = Ipv4Net::number(found.subnet.network());
            request.address = Some(Ipv4Net::address(first + rng.random_range(0..9)));
        }
        if let Some(v6) = found.v6
            && rng.random_bool(0.3)
        {
            let first = v6.subnet.network().to_bits();
            request.address6 = Some(Ipv6Addr::from_bits(first + rng.random_range(0..9)));
        }
    }
    if rng.random_bool(0.2) {
        request.mac = Some([
            rng.random_range(2..4),
            0x42,
            10,
            1,
            0,
            rng.random_range(0..4),
        ]);
    }
    for _ in 0..rng.random_range(0..3) {
        let host_port = rng.random_bool(0.7).then(|| rng.random_range(8000..8020));
        let port = PortRequest {
            count: rng.random_range(1..3),
            ..tcp(host_port)
        };
        request.ports.push(port);
    }
    request
}

fn check(edit: &Edit<'_>, asked: &Asked) {
    let model = model(edit);
    for (at, network) in model.networks.iter().enumerate() {
        assert!(!ipam::overlap(network.subnet, lan()));
        for other in &model.networks[at + 1..] {
            assert!(!ipam::overlap(network.subnet, other.subnet));
            if let (Some(a), Some(b)) = (network.v6, other.v6) {
                assert!(!ipam::overlap(a.subnet, b.subnet));
            }
        }
        check_addresses(&model, network, asked);
    }
    let mut host_ports = HashSet::new();
    for container in CONTAINERS {
        let mine: Vec<_> = model
            .endpoints
            .iter()
            .filter(|e| e.container_id == container)
            .collect();
        let names: HashSet<&str> = mine.iter().map(|e| e.interface.as_str()).collect();
        assert_eq!(names.len(), mine.len());
        let ports = store::ports_of(edit.tx, container).unwrap();
        let wanted = asked.ports.get(container).copied().unwrap_or_default();
        assert_eq!(ports.len(), wanted);
        for map in &ports {
            assert!((0..map.count).all(|i| host_ports.insert(map.host_port + i)));
        }
        let primary = model.primary(container);
        assert_eq!(
            primary,
            edit.primary(container).unwrap().map(|p| p.1).as_ref()
        );
        for endpoint in mine {
            let network = model.network(&endpoint.network_id).unwrap();
            let leads_here = primary == Some(endpoint) && !network.internal;
            let there: &[PortMap] = if leads_here { &ports } else { &[] };
            assert_eq!(endpoint.ports, there);
        }
    }
}

fn check_addresses(model: &Model, network: &Network, asked: &Asked) {
    let mut seen: HashSet<IpAddr> = HashSet::from([network.gateway.into()]);
    seen.extend(network.v6.map(|v6| IpAddr::V6(v6.gateway)));
    seen.extend(network.aux_addresses.iter().map(|(_, address)| *address));
    assert!(network.subnet.is_host(network.gateway));
    let mut macs = HashSet::from([ipam::mac(network.gateway)]);
    for endpoint in model
        .endpoints
        .iter()
        .filter(|e| e.network_id == network.id)
    {
        assert!(macs.insert(endpoint.mac));
        assert!(network.subnet.is_host(endpoint.address));
        assert!(seen.insert(endpoint.address.into()));
        let was_asked = |address| asked.addresses.contains(&(network.id.clone(), address));
        let in_range = network
            .ip_range
            .is_none_or(|r| r.contains(&endpoint.address));
        assert!(in_range || was_asked(endpoint.address.into()));
        assert_eq!(endpoint.address6.is_some(), network.v6.is_some());
        if let (Some(address), Some(v6)) = (endpoint.address6, network.v6) {
            assert!(v6.subnet.is_host(address));
            assert!(seen.insert(address.into()));
        }
    }
}
