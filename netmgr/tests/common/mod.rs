//! Shared by the tests: models to start from, and network namespaces to try them in.
#![allow(dead_code)]

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ipnet::Ipv4Net;
use netmgr::{
    AttachRequest, Attachment, Endpoint, Error, Firewall, Model, Netns, Network, NetworkRequest,
    PortMap, PortRequest, Profile, Protocol, Settings, VethRemoval, store,
};
use nix::sched::{CloneFlags, unshare};
use rusqlite::Connection;

/// Runs a test in a network namespace of its own, with forwarding off, as on a host that has never had an engine.
pub fn in_own_netns(test: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("tests of the kernel's side need root");
        fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        command("ip", &["link", "set", "lo", "up"]);
        test();
    })
    .join()
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

pub fn command(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(name)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{name} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

pub fn iptables(line: &str) {
    command("iptables", &line.split_whitespace().collect::<Vec<_>>());
}

/// `iptables-save` of some tables without dates and counters; nothing for a table that is not in use.
pub fn saved(tables: &[&str]) -> String {
    tables.iter().map(|table| saved_table(table)).collect()
}

fn saved_table(table: &str) -> String {
    let text = command("iptables-save", &["-t", table]);
    let lines = text.lines().filter(|l| !l.starts_with('#'));
    let plain: Vec<String> = lines
        .map(|line| match line.rfind(" [") {
            Some(at) if line.starts_with(':') => format!("{} [0:0]", &line[..at]),
            _ => line.to_owned(),
        })
        .collect();
    plain.iter().map(|line| format!("{line}\n")).collect()
}

pub fn interfaces() -> Vec<String> {
    let text = command("ip", &["-o", "link"]);
    let mut names: Vec<String> = text
        .lines()
        .filter_map(|line| line.split(": ").nth(1))
        .map(|name| name.split('@').next().unwrap_or(name).to_owned())
        .filter(|name| !name.contains("tunl") && !name.starts_with("sit") && !name.contains("gre"))
        .collect();
    names.sort();
    names
}

/// The text of a capture or of a golden file.
pub fn golden(path: &str) -> String {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(path);
    fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// An engine's network side: settings and a database in a temporary folder.
pub struct Host {
    pub settings: Settings,
    pub conn: Connection,
    pub folder: Folder,
}

/// Removed with its owner.
pub enum Folder {
    Owned(tempfile::TempDir),
    Others(PathBuf),
}

impl Folder {
    pub fn path(&self) -> &Path {
        match self {
            Folder::Owned(folder) => folder.path(),
            Folder::Others(path) => path,
        }
    }
}

impl Host {
    pub fn new(profile: Profile) -> Host {
        let folder = tempfile::tempdir().unwrap();
        let mut host = Host::open(folder.path(), profile);
        host.folder = Folder::Owned(folder);
        host
    }

    /// Another command on the same host.
    pub fn open(folder: &Path, profile: Profile) -> Host {
        let settings = Settings {
            pools: Vec::new(),
            namespace_of: None,
            root: folder.join("root"),
            run_root: folder.join("run"),
            firewall: Firewall::Iptables,
            profile,
        };
        let conn = Connection::open(folder.join("coracle.db")).unwrap();
        conn.pragma_update(None, "journal_mode", "WAL").unwrap();
        store::create_tables(&conn).unwrap();
        Host {
            settings,
            conn,
            folder: Folder::Others(folder.to_owned()),
        }
    }

    pub fn up(&mut self) {
        netmgr::up(&self.settings, &mut self.conn).unwrap();
    }

    pub fn reload(&mut self) {
        netmgr::reload(&self.settings, &mut self.conn, &|_| None).unwrap();
    }

    pub fn down(&mut self) -> Vec<String> {
        netmgr::down(&self.settings, &mut self.conn).unwrap()
    }

    pub fn create(&mut self, name: &str, subnet: &str, options: &[(&str, &str)]) -> Network {
        self.try_create(&request(name, subnet, options)).unwrap()
    }

    pub fn try_create(&mut self, request: &NetworkRequest) -> Result<Network, Error> {
        netmgr::change(&self.settings, &mut self.conn, |edit| {
            edit.create_network(request)
        })
    }

    pub fn remove(&mut self, name: &str) -> Result<Network, Error> {
        netmgr::change(&self.settings, &mut self.conn, |edit| {
            edit.remove_network(name)
        })
    }

    pub fn attach(&mut self, name: &str, network: &str, ports: &[PortRequest]) -> Attached {
        self.try_attach(name, network, ports).unwrap()
    }

    pub fn try_attach(
        &mut self,
        name: &str,
        network: &str,
        ports: &[PortRequest],
    ) -> Result<Attached, Error> {
        let netns = netmgr::kernel::netns::create().unwrap();
        let request = attach_request(name, network, ports, &netns);
        let attachment =
            netmgr::change(&self.settings, &mut self.conn, |edit| edit.attach(&request))?;
        Ok(Attached { attachment, netns })
    }

    pub fn detach(&mut self, name: &str) {
        netmgr::change(&self.settings, &mut self.conn, |edit| {
            edit.detach(&container_id(name), VethRemoval::Now)
        })
        .unwrap();
    }

    pub fn model(&self) -> Model {
        store::load_model(&self.conn, self.settings.profile).unwrap()
    }

    pub fn journal(&self) -> PathBuf {
        self.settings.run_root.join("network.journal")
    }
}

pub struct Attached {
    pub attachment: Attachment,
    pub netns: Netns,
}

pub fn attach_request(
    name: &str,
    network: &str,
    ports: &[PortRequest],
    netns: &Netns,
) -> AttachRequest {
    AttachRequest {
        address: None,
        address6: None,
        aliases: Vec::new(),
        mac: None,
        container_id: container_id(name),
        container_name: name.to_owned(),
        network: network.to_owned(),
        netns: netns.clone(),
        ports: ports.to_vec(),
    }
}

/// 64 digits that depend on the name.
pub fn container_id(name: &str) -> String {
    let mut digits: String = name.bytes().map(|b| format!("{b:02x}")).collect();
    digits.extend(std::iter::repeat_n('0', 64));
    digits.truncate(64);
    digits
}

pub fn request(name: &str, subnet: &str, options: &[(&str, &str)]) -> NetworkRequest {
    NetworkRequest {
        name: name.to_owned(),
        subnet: (!subnet.is_empty()).then(|| subnet.parse().unwrap()),
        internal: options.iter().any(|(key, _)| *key == "internal"),
        options: options
            .iter()
            .filter(|(key, _)| *key != "internal")
            .map(|(key, value)| {
                (
                    format!("com.docker.network.bridge.{key}"),
                    (*value).to_owned(),
                )
            })
            .collect(),
        ..NetworkRequest::default()
    }
}

pub fn publish(
    host_ip: Option<&str>,
    host: u16,
    container: u16,
    protocol: Protocol,
) -> PortRequest {
    PortRequest {
        host_port_last: None,
        protocol,
        host_ip: host_ip.map(|ip| ip.parse::<IpAddr>().unwrap()),
        host_port: Some(host),
        container_port: container,
        count: 1,
    }
}

// Models without a host.

pub fn model(profile: Profile) -> Model {
    let mut model = Model {
        profile,
        ..Model::default()
    };
    let subnet = match profile {
        Profile::Docker => "172.17.0.0/16",
        Profile::Coracle => "10.200.0.0/16",
    };
    add_network(&mut model, "bridge", subnet, profile.default_bridge());
    model
}

pub fn add_network<'a>(
    model: &'a mut Model,
    name: &str,
    subnet: &str,
    bridge: &str,
) -> &'a mut Network {
    let subnet: Ipv4Net = subnet.parse().unwrap();
    model.networks.push(Network {
        aux_addresses: Vec::new(),
        ip_range: None,
        v6: None,
        id: container_id(name),
        name: name.to_owned(),
        bridge: bridge.to_owned(),
        subnet,
        gateway: subnet.hosts().next().unwrap(),
        internal: false,
        icc: true,
        created: "2026-01-01T00:00:00Z".to_owned(),
        labels: Vec::new(),
        options: Vec::new(),
    });
    model.networks.last_mut().unwrap()
}

pub fn add_endpoint(model: &mut Model, name: &str, network: &str, ports: &[PortMap]) {
    let network = model.networks.iter().find(|n| n.name == network).unwrap();
    let there = model
        .endpoints
        .iter()
        .filter(|e| e.network_id == network.id);
    let taken = there.map(|e| e.address).chain([network.gateway]).collect();
    let address = netmgr::ipam::lowest_free(network.subnet, network.ip_range, &taken).unwrap();
    let id = container_id(&format!("{name}@{}", network.name));
    model.endpoints.push(Endpoint {
        address6: None,
        aliases: Vec::new(),
        host_interface: netmgr::plan::host_interface(&id),
        id,
        network_id: network.id.clone(),
        container_id: container_id(name),
        container_name: name.to_owned(),
        address,
        mac: netmgr::ipam::mac(address),
        interface: "eth0".to_owned(),
        ports: ports.to_vec(),
    });
}

pub fn map(
    host_ip: Option<&str>,
    host: u16,
    container: u16,
    count: u16,
    protocol: Protocol,
) -> PortMap {
    PortMap {
        listener: None,
        protocol,
        host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        host_port: host,
        container_port: container,
        count,
    }
}
