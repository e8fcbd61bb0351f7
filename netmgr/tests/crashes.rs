//! Commands killed at random moments: the next one repairs, and nothing leaks.

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Host, container_id, in_own_netns, interfaces, publish, saved};
use netmgr::firewall::iptables::render_save;
use netmgr::firewall::policy::ruleset;
use netmgr::firewall::ruleset::Table;
use netmgr::{Profile, Protocol};

const FOLDER: &str = "CORACLE_TEST_FOLDER";
const LIFE: &str = "CORACLE_TEST_LIFE";
const ROUNDS: u64 = 25;

/// The victim: not a test by itself, started anew by the tests below and killed by them.
#[test]
#[ignore = "runs as a child of the other tests"]
fn victim() {
    let folder = std::env::var(FOLDER).unwrap();
    let life = std::env::var(LIFE).unwrap();
    let mut host = Host::open(Path::new(&folder), Profile::Coracle);
    for round in 0.. {
        let name = format!("v{}-{round}", std::process::id());
        if life == "whole" {
            host.up();
        }
        host.create(&name, "", &[]);
        let port = publish(None, 20_000 + (round % 1000) as u16, 80, Protocol::Tcp);
        let attached = host.attach(&name, &name, &[port]);
        let second = host.attach(&format!("{name}-b"), "bridge", &[]);
        host.detach(&name);
        host.detach(&format!("{name}-b"));
        drop((attached, second));
        host.remove(&name).unwrap();
        if life == "whole" {
            host.down();
        }
    }
}

/// Killed on a random path, even between two lines of the database.
fn kill_one(folder: &Path, life: &str, after: Duration) {
    let mut child: Child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .env(LIFE, life)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(after);
    assert!(
        child.try_wait().unwrap().is_none(),
        "the victim ended by itself"
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Pauses that cover the victim's start (some 10 ms) and several of its rounds.
fn pause(round: u64) -> Duration {
    Duration::from_micros(8_000 + (round * 7_919) % 160_000)
}

fn assert_consistent(host: &Host) {
    let model = host.model();
    let tables = [Table::Raw, Table::Filter, Table::Nat];
    let wanted = render_save(&ruleset(&model, netmgr::Family::V4), &tables, "DROP");
    assert_eq!(saved(&["raw", "filter", "nat"]), wanted);
    assert!(!host.journal().exists());
    let mut bridges: Vec<_> = model.networks.iter().map(|n| n.bridge.clone()).collect();
    bridges.sort();
    let veths: Vec<_> = model
        .endpoints
        .iter()
        .map(|e| e.host_interface.clone())
        .collect();
    eventually(|| {
        let found = interfaces();
        let without_ours: Vec<_> = found
            .iter()
            .filter(|name| *name != "lo" && !veths.contains(name))
            .cloned()
            .collect();
        (without_ours == bridges)
            .then_some(())
            .ok_or(format!("{found:?} for {bridges:?}"))
    });
}

/// The kernel takes down the namespaces of a dead process in its own time.
fn eventually(check: impl Fn() -> Result<(), String>) {
    for _ in 0..200 {
        if check().is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    check().unwrap();
}

fn bury(host: &mut Host) {
    let model = host.model();
    for endpoint in &model.endpoints {
        host.detach(&endpoint.container_name);
        assert_eq!(
            endpoint.container_id,
            container_id(&endpoint.container_name)
        );
    }
    for network in model.networks.iter().filter(|n| n.name != "bridge") {
        host.remove(&network.name).unwrap();
    }
}

#[test]
fn a_killed_change_is_repaired_and_others_are_not_disturbed() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        let bystander = host.attach(
            "bystander",
            "bridge",
            &[publish(None, 8080, 80, Protocol::Tcp)],
        );
        let mut repaired = 0;
        for round in 0..ROUNDS {
            kill_one(host.folder.path(), "changes", pause(round));
            repaired += u32::from(host.journal().exists());
            netmgr::repair(&host.settings, &mut host.conn).unwrap();
            assert_consistent(&host);
            assert!(interfaces().contains(&bystander.attachment.endpoint.host_interface));
            bury_all_but(&mut host, "bystander");
            assert_consistent(&host);
        }
        assert!(
            repaired > 0,
            "no kill hit a change: the test has lost its purpose"
        );
    });
}

fn bury_all_but(host: &mut Host, name: &str) {
    let model = host.model();
    for endpoint in model.endpoints.iter().filter(|e| e.container_name != name) {
        host.detach(&endpoint.container_name);
    }
    for network in model.networks.iter().filter(|n| n.name != "bridge") {
        host.remove(&network.name).unwrap();
    }
}

#[test]
fn a_kill_while_going_up_or_down_leaves_a_host_that_can_be_taken_down() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        for round in 0..ROUNDS {
            kill_one(host.folder.path(), "whole", pause(round));
            host.up();
            assert_consistent(&host);
            bury(&mut host);
            host.down();
            eventually(|| match interfaces() == ["lo"] {
                true => Ok(()),
                false => Err(format!("{:?}", interfaces())),
            });
            let left = saved(&["raw", "filter", "nat"]);
            assert!(
                !left.contains("-A ") && !left.contains("CORACLE") && !left.contains("DROP"),
                "{left}"
            );
            let files: Vec<_> = std::fs::read_dir(&host.settings.run_root)
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .filter(|name| !name.ends_with(".new"))
                .collect();
            assert_eq!(files, ["network.lock"]);
        }
    });
}
