//! Containers, networks and images for the tests of this crate.

use std::net::Ipv4Addr;

use netmgr::{Endpoint, Network, PortMap, PortRequest, Protocol};
use runtime::record::{Resolved, ResolvedMount};
use runtime::volume::Volume;
use runtime::{Container, ContainerRequest, Mount, MountKind, NetworkMode, State};
use time::OffsetDateTime;
use time::macros::datetime;

pub const NOW: OffsetDateTime = datetime!(2026-11-23 09:00:00 UTC);

pub fn id(digit: char) -> String {
    std::iter::repeat_n(digit, 64).collect()
}

pub fn network() -> Network {
    Network {
        aux_addresses: Vec::new(),
        ip_range: None,
        v6: None,
        id: id('b'),
        name: "bridge".into(),
        bridge: "coracle0".into(),
        subnet: "172.18.0.0/16".parse().unwrap(),
        gateway: Ipv4Addr::new(172, 18, 0, 1),
        internal: false,
        icc: true,
        created: "2026-11-23T08:00:00Z".into(),
        labels: vec![("a".into(), "b".into())],
        options: vec![],
    }
}

pub fn endpoint() -> Endpoint {
    Endpoint {
        address6: None,
        aliases: Vec::new(),
        id: id('e'),
        network_id: id('b'),
        container_id: id('c'),
        container_name: "web1".into(),
        address: Ipv4Addr::new(172, 18, 0, 2),
        mac: [0x02, 0x42, 0xac, 0x12, 0x00, 0x02],
        host_interface: "veth1".into(),
        interface: "eth0".into(),
        ports: vec![PortMap {
            listener: None,
            protocol: Protocol::Tcp,
            host_ip: None,
            host_port: 8080,
            container_port: 80,
            count: 1,
        }],
    }
}

/// A volume of the container below.
pub fn volume() -> Volume {
    Volume {
        name: "data".into(),
        anonymous: false,
        created: datetime!(2026-11-23 08:50:00.5 UTC),
        labels: vec![("tier".into(), "front".into())],
        options: vec![],
        path: "/root/volumes/data/_data".into(),
    }
}

/// `run -d --name web1 -p 8080:80 -v /tmp:/x:ro -l tier=front bb sh -c 'sleep 1000 # "quoted"'`, up for nine minutes.
pub fn running() -> Container {
    Container {
        id: id('c'),
        name: "web1".into(),
        created: datetime!(2026-11-23 08:50:00 UTC),
        request: ContainerRequest {
            name: Some("web1".into()),
            image: "bb".into(),
            command: vec!["sh".into(), "-c".into(), "sleep 1000 # \"quoted\"".into()],
            network: NetworkMode::Bridge,
            mounts: vec![Mount {
                read_only: true,
                ..Mount::new(MountKind::Bind("/tmp".into()), "/x")
            }],
            ports: vec![PortRequest {
                host_port_last: None,
                protocol: Protocol::Tcp,
                host_ip: None,
                host_port: Some(8080),
                container_port: 80,
                count: 1,
            }],
            ..ContainerRequest::default()
        },
        resolved: Resolved {
            command: vec!["sh".into(), "-c".into(), "sleep 1000 # \"quoted\"".into()],
            env: vec!["PATH=/bin".into()],
            workdir: "/".into(),
            hostname: "cccccccccccc".into(),
            labels: vec![("tier".into(), "front".into())],
            exposed_ports: vec!["80/tcp".into()],
            stop_signal: "SIGTERM".into(),
            connections: NetworkMode::Bridge.connections(),
            mounts: vec![
                ResolvedMount {
                    source: "/tmp".into(),
                    target: "/x".into(),
                    volume: None,
                    read_only: true,
                    tmpfs: None,
                    options: Default::default(),
                },
                ResolvedMount {
                    source: "/var/lib/coracle/volumes/data/_data".into(),
                    target: "/y".into(),
                    volume: Some("data".into()),
                    read_only: false,
                    tmpfs: None,
                    options: Default::default(),
                },
            ],
            ..Resolved::default()
        },
        image_id: format!("sha256:{}", id('a')),
        state: State::Running {
            pid: 4242,
            started: datetime!(2026-11-23 08:51:00 UTC),
        },
        paused: false,
        health: None,
        restarts: 0,
        stopped_by_user: false,
        attachments: vec![(network(), endpoint())],
    }
}

/// Killed two seconds ago.
pub fn exited() -> Container {
    let mut container = running();
    container.id = id('d');
    container.name = "dead_end".into();
    container.request.image = "registry.test:5000/long/name:tag".into();
    container.state = State::Exited {
        code: 137,
        started: Some(datetime!(2026-11-23 08:51:00 UTC)),
        finished: datetime!(2026-11-23 08:59:58 UTC),
        oom_killed: false,
        error: String::new(),
    };
    container.attachments.clear();
    container
}

pub fn created() -> Container {
    let mut container = exited();
    container.id = id('f');
    container.name = "fresh".into();
    container.request.image = format!("sha256:{}", id('a'));
    container.resolved.command = vec!["true".into()];
    container.state = State::Created;
    container
}
