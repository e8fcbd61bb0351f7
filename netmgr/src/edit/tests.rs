//! Edits on tables in memory and a host that is made up: what they may be asked, in any order.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rusqlite::Connection;

use super::*;
use crate::change::{AttachRequest, Firewall, NetworkRequest, Pool, VethRemoval};
use crate::error::{Error, ErrorKind};
use crate::ipam::Subnet;
use crate::model::{Model, Network, PortMap, PortRequest, Profile, Protocol};
use crate::{kernel, store};

thread_local! {
    /// Host ports that other programs have.
    static BUSY: RefCell<HashSet<u16>> = RefCell::default();
    static NEXT_PORT: Cell<u16> = const { Cell::new(32768) };
}

/// `eth0` with 192.168.7.0/24, and a VPN that takes everything.
const MADE_UP: Host = Host {
    interfaces: || Ok(vec!["lo".into(), "eth0".into()]),
    routes: || Ok(vec![lan(), "0.0.0.0/1".parse().expect("a subnet")]),
    overlapping: |subnet| {
        let mine = crate::ipam::overlaps_route(subnet, IpNet::V4(lan()));
        Ok(mine.then(|| "interface eth0".to_owned()))
    },
    hold: |request| {
        let next = || NEXT_PORT.replace(NEXT_PORT.get() + 1);
        let host_port = request.host_port.unwrap_or_else(next);
        if BUSY.with_borrow(|busy| busy.contains(&host_port)) {
            return Err(Error::Kernel(kernel::Error::PortTaken {
                ip: Ipv4Addr::UNSPECIFIED.into(),
                port: host_port,
            }));
        }
        let map = PortMap {
            protocol: request.protocol,
            host_ip: request.host_ip,
            host_port,
            container_port: request.container_port,
            count: request.count,
            listener: None,
        };
        Ok((map, Vec::new()))
    },
};

fn lan() -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 7, 0), 24)
}

fn settings(pools: &[Pool]) -> Settings {
    Settings {
        root: PathBuf::new(),
        run_root: PathBuf::new(),
        firewall: Firewall::None,
        profile: Profile::Coracle,
        pools: pools.to_vec(),
    }
}

/// Runs edits on empty tables, all in one transaction.
fn in_memory(pools: &[Pool], edits: impl FnOnce(&mut Edit<'_>)) {
    let mut conn = Connection::open_in_memory().unwrap();
    conn.pragma_update(None, "foreign_keys", true).unwrap();
    store::create_tables(&conn).unwrap();
    let settings = settings(pools);
    let tx = conn.transaction().unwrap();
    edits(&mut Edit::on(MADE_UP, &settings, &tx));
}

fn no_netns() -> Netns {
    Netns(Arc::new(std::fs::File::open("/dev/null").unwrap().into()))
}

fn network(name: &str) -> NetworkRequest {
    NetworkRequest {
        name: name.to_owned(),
        ..NetworkRequest::default()
    }
}

fn joining(container: &str, network: &str) -> AttachRequest {
    AttachRequest {
        container_id: container.to_owned(),
        container_name: container.to_owned(),
        network: network.to_owned(),
        netns: no_netns(),
        address: None,
        address6: None,
        mac: None,
        aliases: Vec::new(),
        ports: Vec::new(),
    }
}

fn tcp(host_port: Option<u16>) -> PortRequest {
    PortRequest {
        protocol: Protocol::Tcp,
        host_ip: None,
        host_port,
        host_port_last: None,
        container_port: 80,
        count: 1,
    }
}

fn model(edit: &Edit<'_>) -> Model {
    store::load_model(edit.tx, Profile::Coracle).unwrap()
}

#[test]
fn four_thousand_networks_get_subnets_of_their_own_in_time() {
    in_memory(&[], |edit| {
        let mut subnets = HashSet::new();
        let mut created = 0;
        let mut batch = || {
            let start = Instant::now();
            for _ in 0..500 {
                let made = edit.create_network(&network(&format!("n{created}"))).unwrap();
                assert!(subnets.insert(made.subnet), "{} twice", made.subnet);
                created += 1;
            }
            start.elapsed()
        };
        let times: Vec<Duration> = (0..8).map(|_| batch()).collect();
        // Each looks at all that there are, once: eight times as many cost eight times as much, not sixty-four.
        let (early, late) = (times[1], times[7]);
        assert!(late < early * 12, "{times:?}");
        let mut all: Vec<Ipv4Net> = subnets.into_iter().collect();
        all.sort();
        assert_eq!(all.len(), 4000);
        assert!(all.windows(2).all(|two| two[0].broadcast() < two[1].network()));
        let widest: Ipv4Net = "10.200.0.0/12".parse().unwrap();
        assert!(all.iter().all(|subnet| widest.supernet().is_some_and(|w| w.supernet().is_some_and(|w| w.supernet().is_some_and(|w| w.contains(subnet))))));
    });
}
