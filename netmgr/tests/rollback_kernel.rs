//! A real failure at each kind of operation, on a real kernel: kernel, files and database are left as they were, and the
//! same change succeeds once its cause is gone.
//!
//! Each case is a process of its own, because the commands that fail are put before the real ones in PATH.

mod common;
mod rollback_support;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Host, attach_request, container_id, publish, request};
use netmgr::kernel::netns;
use netmgr::{Error, Firewall, Netns, NetworkRequest, PortRequest, Profile, Protocol, VethRemoval};
use nix::sched::{CloneFlags, unshare};
use rollback_support::{STUBS, make_read_only, make_writable, output, snapshot, write_stubs};

const CASE: &str = "CORACLE_TEST_CASE";

/// What is done to a host with the networks `old` (with IPv6) and `spare`, and with the container `one` on `old`.
const ACTIONS: [&str; 5] = ["attach", "detach", "leave", "create", "remove"];

/// By backend: what fails, and during which actions.
fn cases(backend: &str) -> Vec<String> {
    let all = &ACTIONS[..];
    let mut cases: Vec<(&str, &[&str])> = vec![
        ("forwarding", &["first"]),
        ("forwarding6", &["first6"]),
        ("ipv6-off", &["create"]),
        ("interface-taken", &["attach"]),
        ("route", &["leave"]),
        ("reserved", &["attach", "detach"]),
        ("no-link-removal", &["remove"]),
        ("commit", all),
    ];
    match backend {
        "iptables" => cases.extend([
            ("refuse-iptables-restore", all),
            ("refuse-ip6tables-restore", all),
            ("half-iptables-restore", all),
            ("half-ip6tables-restore", all),
            ("bridge-gone+refuse-iptables-restore", &["attach"][..]),
        ]),
        _ => cases.extend([
            ("refuse-nft", all),
            ("bridge-gone+refuse-nft", &["attach"][..]),
        ]),
    }
    let cases = cases.into_iter().flat_map(|(failure, actions)| {
        actions
            .iter()
            .map(move |action| format!("{failure} {action}"))
    });
    cases.map(|case| format!("{backend} {case}")).collect()
}

/// Most of a case is waiting for the kernel to take links away.
const LANES: usize = 4;

fn run_all(backend: &str) {
    let cases = cases(backend);
    let lanes = std::thread::scope(|scope| {
        let start = |lane| {
            let cases = cases.iter().skip(lane).step_by(LANES);
            scope.spawn(move || cases.filter_map(|case| run_one(case).err()).collect())
        };
        let lanes: Vec<_> = (0..LANES).map(start).collect();
        lanes
            .into_iter()
            .map(|lane| lane.join().unwrap())
            .collect::<Vec<Vec<String>>>()
    });
    let failed = lanes.concat();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    println!("{backend}: {} failures on the real kernel", cases.len());
}

fn run_one(case: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    write_stubs(folder.path());
    let path = std::env::var("PATH").unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "one_case", "--ignored", "--nocapture"])
        .env("PATH", format!("{}:{path}", folder.path().display()))
        .env(STUBS, folder.path())
        .env(CASE, case)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{case}:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

#[test]
fn a_failed_change_leaves_kernel_and_database_as_they_were_with_iptables() {
    run_all("iptables");
}

#[test]
fn a_failed_change_leaves_kernel_and_database_as_they_were_with_nftables() {
    run_all("nftables");
}

/// Not a test by itself.
#[test]
#[ignore = "runs as a child of the other tests"]
fn one_case() {
    let case = std::env::var(CASE).unwrap();
    let words: Vec<String> = case.split(' ').map(str::to_owned).collect();
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        output("mount", &["--make-rprivate", "/"]);
        fs::write(FORWARD, "0").unwrap();
        fs::write(FORWARD6, "0").unwrap();
        output("ip", &["link", "set", "lo", "up"]);
        check(&words[0], &words[1], &words[2]);
    })
    .join()
    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
const FORWARD6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";
const IPV6_OFF: &str = "/proc/sys/net/ipv6/conf/default/disable_ipv6";

struct Case {
    host: Host,
    one: Netns,
    two: Netns,
}

fn check(backend: &str, failure: &str, action: &str) {
    let mut host = Host::new(Profile::Coracle);
    host.settings.firewall = match backend {
        "iptables" => Firewall::Iptables,
        _ => Firewall::Nftables,
    };
    let create = || netns::create().unwrap();
    let mut case = Case {
        host,
        one: create(),
        two: create(),
    };
    case.use_every_table();
    case.prepare(action);
    let containers = [case.one.clone(), case.two.clone()];
    containers
        .iter()
        .for_each(|netns| netns::loopback_up(netns).unwrap());
    if failure == "interface-taken" {
        netns::run_in(&case.two, || {
            output(
                "ip",
                &[
                    "link", "add", "eth0", "type", "veth", "peer", "name", "own1",
                ],
            )
        })
        .unwrap();
    }
    if failure == "route" {
        // The interface that the routes are to move to.
        netns::run_in(&case.one, || output("ip", &["link", "set", "eth1", "down"])).unwrap();
    }
    if failure == "no-link-removal" {
        let bridge = case.bridge("spare");
        output("ip", &["link", "delete", &bridge]);
        output("ip", &["link", "set", "lo", "down"]);
        output("ip", &["link", "set", "lo", "name", &bridge]);
    }
    let before = settled(|| snapshot(&case.host, &containers));
    case.break_it(failure);
    let error = case.run(action, failure == "commit").unwrap_err();
    case.mend_it(failure);
    println!("{}", chain_of(&error));
    assert!(
        !matches!(error, Error::RepairFailed { .. }),
        "{}",
        chain_of(&error)
    );
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let after = snapshot(&case.host, &containers);
        let gone: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
        let come: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
        if gone.is_empty() && come.is_empty() && after.len() == before.len() {
            break;
        }
        // Routes and addresses of IPv6 come and go in the kernel's own time.
        assert!(
            Instant::now() < deadline,
            "gone: {gone:#?}\ncome: {come:#?}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    match failure {
        "interface-taken" => {
            netns::run_in(&case.two, || output("ip", &["link", "delete", "eth0"])).unwrap();
        }
        // What was done by hand is not undone as easily.
        "route" | "no-link-removal" => return,
        _ => {}
    }
    case.run(action, false).unwrap();
}

/// The same twice: the kernel has come to rest.
fn settled(take: impl Fn() -> Vec<String>) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut last = take();
    loop {
        std::thread::sleep(Duration::from_millis(30));
        let next = take();
        if next == last {
            return next;
        }
        assert!(
            Instant::now() < deadline,
            "the kernel does not come to rest"
        );
        last = next;
    }
}

fn chain_of(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

impl Case {
    /// A table that iptables has used once stays listed, with nothing in it.
    fn use_every_table(&self) {
        let input = self.host.folder.path().join("tables");
        let text = "*raw\n:PREROUTING ACCEPT\n:OUTPUT ACCEPT\nCOMMIT\n\
                    *filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\nCOMMIT\n\
                    *nat\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\nCOMMIT\n";
        fs::write(&input, text).unwrap();
        for tool in ["iptables-restore", "ip6tables-restore"] {
            output(tool, &[input.to_str().unwrap()]);
        }
    }

    fn prepare(&mut self, action: &str) {
        if action == "first" {
            return;
        }
        self.host.up();
        if action == "first6" {
            return;
        }
        self.create("old").unwrap();
        self.create("spare").unwrap();
        let one = self.one.clone();
        self.attach("one", "old", &one, &ports(8000)).unwrap();
        if action == "leave" {
            self.create("other").unwrap();
            self.attach("one", "other", &one, &[]).unwrap();
        }
    }

    fn bridge(&self, network: &str) -> String {
        let model = self.host.model();
        let found = model.networks.iter().find(|n| n.name == network);
        found.unwrap().bridge.clone()
    }

    fn marks(&self) -> PathBuf {
        std::env::var(STUBS).unwrap().into()
    }

    fn break_it(&self, failure: &str) {
        match failure {
            "forwarding" => make_read_only(FORWARD),
            "forwarding6" => make_read_only(FORWARD6),
            "reserved" => make_read_only(RESERVED),
            "ipv6-off" => fs::write(IPV6_OFF, "1").unwrap(),
            "interface-taken" | "route" | "no-link-removal" | "commit" => {}
            stubs => {
                for stub in stubs.split('+') {
                    match stub {
                        "bridge-gone" => {
                            output("ip", &["link", "delete", &self.bridge("old")]);
                        }
                        mark => fs::write(self.marks().join(mark), "").unwrap(),
                    }
                }
            }
        }
    }

    fn mend_it(&self, failure: &str) {
        match failure {
            "forwarding" => make_writable(FORWARD),
            "forwarding6" => make_writable(FORWARD6),
            "reserved" => make_writable(RESERVED),
            "ipv6-off" => fs::write(IPV6_OFF, "0").unwrap(),
            "interface-taken" | "route" | "no-link-removal" | "commit" => {}
            stubs => {
                for mark in stubs.split('+').filter(|stub| *stub != "bridge-gone") {
                    fs::remove_file(self.marks().join(mark)).unwrap();
                }
            }
        }
    }

    fn run(&mut self, action: &str, refuse_commit: bool) -> Result<(), Error> {
        let (one, two) = (self.one.clone(), self.two.clone());
        let settings = self.host.settings.clone();
        let id = container_id("one");
        netmgr::change(&settings, &mut self.host.conn, |edit| {
            match action {
                "first" => {
                    edit.attach(&attach_request("two", "bridge", &ports(9000), &two))?;
                }
                "attach" => {
                    edit.attach(&attach_request("two", "old", &ports(9000), &two))?;
                }
                "create" | "first6" => {
                    edit.create_network(&network("new"))?;
                }
                "detach" => {
                    edit.known_netns(&id, one);
                    edit.detach(&id, VethRemoval::Now)?;
                }
                "leave" => {
                    edit.known_netns(&id, one);
                    edit.detach_from(&id, "old", VethRemoval::Now)?;
                }
                "remove" => {
                    edit.remove_network("spare")?;
                }
                other => panic!("{other}"),
            }
            if refuse_commit {
                // Looked at when the transaction commits.
                let broken = "CREATE TABLE refused (id INTEGER PRIMARY KEY, of INTEGER \
                              REFERENCES refused (id) DEFERRABLE INITIALLY DEFERRED);
                              INSERT INTO refused VALUES (1, 2);";
                edit.transaction().execute_batch(broken).unwrap();
            }
            Ok(())
        })
    }

    fn create(&mut self, name: &str) -> Result<(), Error> {
        self.host.try_create(&network(name)).map(|_| ())
    }

    fn attach(
        &mut self,
        name: &str,
        network: &str,
        netns: &Netns,
        ports: &[PortRequest],
    ) -> Result<(), Error> {
        let request = attach_request(name, network, ports, netns);
        let settings = self.host.settings.clone();
        netmgr::change(&settings, &mut self.host.conn, |edit| edit.attach(&request)).map(|_| ())
    }
}

/// With IPv6; in the order of their names `old` is a container's primary network before `other`.
fn network(name: &str) -> NetworkRequest {
    let n = name.len() + usize::from(name.as_bytes()[0]);
    NetworkRequest {
        ipv6: true,
        subnet6: Some(format!("fd00:{n:x}::/64").parse().unwrap()),
        ..request(name, &format!("10.99.{n}.0/24"), &[])
    }
}

/// A port of each kind: for everyone, for this host only, and a run with one listener.
fn ports(first: u16) -> Vec<PortRequest> {
    let long = PortRequest {
        count: 200,
        ..publish(None, first + 100, 7000, Protocol::Tcp)
    };
    vec![
        publish(None, first, 80, Protocol::Tcp),
        publish(Some("127.0.0.1"), first + 1, 81, Protocol::Udp),
        long,
    ]
}
