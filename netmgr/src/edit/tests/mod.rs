//! Edits on tables in memory and a host that is made up: what they may be asked, in any order.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use rusqlite::Connection;

use super::*;
use crate::change::{AttachRequest, Firewall, NetworkRequest, Pool, VethRemoval};
use crate::error::{Error, ErrorKind};
use crate::model::{Model, PortMap, PortRequest, Profile, Protocol};
use crate::{kernel, store};

mod sequences;

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
    hold: |request, holding| {
        let map = |host_port| PortMap {
            protocol: request.protocol,
            host_ip: request.host_ip,
            host_port,
            container_port: request.container_port,
            count: request.count,
            listener: None,
        };
        let taken = |port| kernel::Error::PortTaken {
            ip: Ipv4Addr::UNSPECIFIED.into(),
            port,
        };
        let candidates = match (request.host_port, request.host_port_last) {
            (Some(first), last) => first..=last.unwrap_or(first),
            (None, _) => {
                let next = NEXT_PORT.replace(NEXT_PORT.get() + 1);
                next..=next + 1000
            }
        };
        let mut refused = taken(0);
        for port in candidates.clone() {
            let busy = BUSY.with_borrow(|busy| busy.contains(&port));
            match (busy, (holding.allocated)(&map(port))?) {
                (false, None) => return Ok((map(port), Vec::new())),
                _ => refused = taken(port),
            }
        }
        Err(Error::Kernel(match request.host_port_last {
            None => refused,
            Some(last) => kernel::Error::AllPortsTaken {
                ip: Ipv4Addr::UNSPECIFIED.into(),
                first: *candidates.start(),
                last,
            },
        }))
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
        namespace_of: None,
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
            let start = cpu_time();
            for _ in 0..500 {
                let made = edit
                    .create_network(&network(&format!("n{created}")))
                    .unwrap();
                assert!(subnets.insert(made.subnet), "{} twice", made.subnet);
                created += 1;
            }
            cpu_time() - start
        };
        let times: Vec<Duration> = (0..8).map(|_| batch()).collect();
        // Each looks at all that there are, once: eight times as many cost eight times as much, not sixty-four.
        let (early, late) = (times[1], times[7]);
        assert!(late < early * 12, "{times:?}");
        let mut all: Vec<Ipv4Net> = subnets.into_iter().collect();
        all.sort();
        assert_eq!(all.len(), 4000);
        assert!(
            all.windows(2)
                .all(|two| two[0].broadcast() < two[1].network())
        );
        let wide: Ipv4Net = "10.192.0.0/10".parse().unwrap();
        assert!(all.iter().all(|subnet| wide.contains(subnet)));
    });
}

/// Of this thread alone: whatever else runs on the machine.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

#[test]
fn wide_networks_are_avoided_and_wide_routes_are_not() {
    in_memory(&[], |edit| {
        // The made-up host has a route to 0.0.0.0/1.
        let first = edit.create_network(&network("first")).unwrap();
        assert_eq!(first.subnet.to_string(), "10.201.0.0/24");
        let wide = NetworkRequest {
            ipv6: true,
            subnet6: "8000::/1".parse().ok(),
            ..network("wide")
        };
        edit.create_network(&wide).unwrap();
        let local = NetworkRequest {
            ipv6: true,
            ..network("local")
        };
        let error = edit.create_network(&local).unwrap_err();
        assert!(matches!(error, Error::UniqueLocalExhausted(_)), "{error}");
        edit.remove_network("wide").unwrap();
        edit.create_network(&local).unwrap();
    });
}

#[test]
fn pools_of_the_configuration_run_out_with_advice() {
    let pools = [Pool {
        base: "10.7.0.0/22".parse().unwrap(),
        size: 24,
    }];
    in_memory(&pools, |edit| {
        for n in 0..3 {
            let made = edit.create_network(&network(&format!("n{n}"))).unwrap();
            assert_eq!(made.subnet.to_string(), format!("10.7.{}.0/24", n + 1));
        }
        let error = edit.create_network(&network("more")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        let text = error.to_string();
        for words in [
            "could not find an available, non-overlapping IPv4 address pool among the defaults",
            "network prune",
            "default-address-pools",
            "--subnet",
        ] {
            assert!(text.contains(words), "{text}");
        }
        edit.remove_network("n1").unwrap();
        let again = edit.create_network(&network("again")).unwrap();
        assert_eq!(again.subnet.to_string(), "10.7.2.0/24");
    });
    let wrong = [Pool {
        base: "10.7.0.0/22".parse().unwrap(),
        size: 16,
    }];
    in_memory(&wrong, |edit| {
        let error = edit.create_network(&network("n")).unwrap_err();
        assert!(matches!(error, Error::Pool { .. }), "{error}");
    });
}

#[test]
fn ports_move_with_the_primary_network_and_wait_while_there_is_none() {
    in_memory(&[], |edit| {
        for name in ["beta", "alpha"] {
            edit.create_network(&network(name)).unwrap();
        }
        edit.create_network(&NetworkRequest {
            internal: true,
            ..network("inner")
        })
        .unwrap();
        let publishing = |network: &str, port| AttachRequest {
            ports: vec![tcp(Some(port))],
            ..joining("c", network)
        };
        let error = edit.attach(&publishing("inner", 80)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "network inner is internal: its containers cannot publish ports"
        );
        edit.attach(&joining("c", "inner")).unwrap();
        let beta = edit.attach(&publishing("beta", 80)).unwrap();
        assert_eq!(beta.endpoint.ports.len(), 1);
        let holder = |edit: &Edit<'_>| -> Option<String> {
            let model = model(edit);
            let with = model.endpoints.iter().find(|e| !e.ports.is_empty())?;
            assert_eq!(edit.primary("c").unwrap().unwrap().1, *with);
            Some(model.network(&with.network_id)?.name.clone())
        };
        assert_eq!(holder(edit).as_deref(), Some("beta"));
        // One that comes first takes over; what is published with a later one goes there too.
        edit.attach(&joining("c", "alpha")).unwrap();
        assert_eq!(holder(edit).as_deref(), Some("alpha"));
        edit.create_network(&network("gamma")).unwrap();
        let gamma = edit.attach(&publishing("gamma", 81)).unwrap();
        assert!(gamma.endpoint.ports.is_empty());
        assert_eq!(edit.primary("c").unwrap().unwrap().1.ports.len(), 2);
        let leave = |edit: &mut Edit<'_>, network: &str| {
            edit.detach_from("c", network, VethRemoval::Now).unwrap();
        };
        leave(edit, "alpha");
        assert_eq!(holder(edit).as_deref(), Some("beta"));
        leave(edit, "beta");
        leave(edit, "gamma");
        // Only the internal network is left: nothing is published there, and nobody else gets the ports.
        assert_eq!(holder(edit), None);
        assert_eq!(store::ports_of(edit.tx, "c").unwrap().len(), 2);
        let thief = AttachRequest {
            ports: vec![tcp(Some(81))],
            ..joining("d", "alpha")
        };
        assert_eq!(
            edit.attach(&thief).unwrap_err().to_string(),
            "Bind for 0.0.0.0:81 failed: port is already allocated"
        );
        leave(edit, "inner");
        let back = edit.attach(&joining("c", "gamma")).unwrap();
        assert_eq!(back.endpoint.ports.len(), 2);
        assert_eq!(back.endpoint.interface, "eth0");
        edit.detach("c", VethRemoval::Now).unwrap();
        edit.attach(&thief).unwrap();
    });
}

#[test]
fn leaving_one_network_keeps_the_others_and_is_refused_twice() {
    in_memory(&[], |edit| {
        let request = NetworkRequest {
            options: vec![(
                "com.docker.network.container_iface_prefix".into(),
                "net".into(),
            )],
            ..network("other")
        };
        edit.create_network(&network("web")).unwrap();
        edit.create_network(&request).unwrap();
        let interfaces: Vec<String> = ["bridge", "web", "other"]
            .iter()
            .map(|n| edit.attach(&joining("c", n)).unwrap().endpoint.interface)
            .collect();
        assert_eq!(interfaces, ["eth0", "eth1", "net0"]);
        let gone = edit.detach_from("c", "bridge", VethRemoval::ByKernel);
        assert!(edit.effects.by_kernel.contains(&gone.unwrap().id));
        let error = edit
            .detach_from("c", "bridge", VethRemoval::Now)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "container c is not connected to network bridge"
        );
        assert_eq!(
            edit.detach_from("c", "nonet", VethRemoval::Now)
                .unwrap_err()
                .kind(),
            ErrorKind::NotFound
        );
        assert_eq!(model(edit).endpoints.len(), 2);
        // The lowest number that is free.
        let back = edit.attach(&joining("c", "bridge")).unwrap();
        assert_eq!(back.endpoint.interface, "eth0");
        edit.effects.netns.clear();
        edit.known_netns("c", no_netns());
        assert!(edit.effects.netns.contains_key("c"));
    });
}

#[test]
fn a_choice_of_host_ports_gives_the_first_that_is_free() {
    in_memory(&[], |edit| {
        BUSY.with_borrow_mut(|busy| busy.extend([8001, 8002]));
        let choice = PortRequest {
            host_port_last: Some(8004),
            ..tcp(Some(8000))
        };
        let mut join = |n: u16| {
            let request = AttachRequest {
                ports: vec![choice],
                ..joining(&format!("c{n}"), "bridge")
            };
            let attachment = edit.attach(&request)?;
            Ok::<u16, Error>(attachment.endpoint.ports[0].host_port)
        };
        assert_eq!(
            [join(0), join(1), join(2)].map(Result::unwrap),
            [8000, 8003, 8004]
        );
        assert_eq!(
            join(3).unwrap_err().to_string(),
            "Bind for 0.0.0.0:8000-8004 failed: all ports are allocated"
        );
        for wrong in [
            PortRequest { count: 2, ..choice },
            PortRequest {
                host_port_last: Some(7999),
                ..choice
            },
            PortRequest {
                host_port: None,
                ..choice
            },
        ] {
            let request = AttachRequest {
                ports: vec![wrong],
                ..joining("wrong", "bridge")
            };
            let error = edit.attach(&request).unwrap_err();
            assert!(matches!(error, Error::PortRange { .. }), "{error}");
        }
    });
}

#[test]
fn an_ephemeral_port_is_never_one_of_the_tables() {
    in_memory(&[], |edit| {
        NEXT_PORT.set(40000);
        let long = PortRequest {
            container_port: 40000,
            count: 20,
            ..tcp(Some(40000))
        };
        let publishing = |name: &str, port| AttachRequest {
            ports: vec![port],
            ..joining(name, "bridge")
        };
        edit.attach(&publishing("long", long)).unwrap();
        let one = edit.attach(&publishing("one", tcp(None))).unwrap();
        assert_eq!(one.endpoint.ports[0].host_port, 40020);
    });
}

#[test]
fn pruning_takes_only_networks_without_endpoints_that_are_wanted() {
    in_memory(&[], |edit| {
        for name in ["used", "kept", "old", "older"] {
            edit.create_network(&network(name)).unwrap();
        }
        edit.attach(&joining("c", "used")).unwrap();
        let pruned = edit
            .prune_networks(|network| network.name != "kept")
            .unwrap();
        assert_eq!(pruned, ["old", "older"]);
        let left: Vec<String> = model(edit).networks.into_iter().map(|n| n.name).collect();
        assert_eq!(left, ["bridge", "used", "kept"]);
    });
}
