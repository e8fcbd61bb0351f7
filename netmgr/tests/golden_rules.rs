//! The rules of known situations, line for line: Docker's own captures in the docker profile, and ours.

mod common;
mod situations;

use std::path::{Path, PathBuf};

use common::{add_endpoint, add_network, golden, map, model};
use netmgr::firewall::iptables::render_save;
use netmgr::firewall::policy::ruleset;
use netmgr::firewall::ruleset::Table;
use netmgr::{Family, Model, Profile, Protocol};

/// The situations of the captures, by the number in their names.
fn situation(profile: Profile, number: u32) -> Model {
    let mut m = model(profile);
    let tcp = |ip, host, container| map(ip, host, container, 1, Protocol::Tcp);
    match number {
        1 | 9 => {}
        2 => {
            add_network(&mut m, "moelove", "172.18.0.0/16", "br-moelove");
        }
        3 => add_endpoint(&mut m, "c1", "bridge", &[tcp(None, 6379, 6379)]),
        4 => add_endpoint(&mut m, "c1", "bridge", &[tcp(Some("127.0.0.1"), 8080, 80)]),
        5 => {
            let ports = [8000, 8001, 8002].map(|p| map(None, p, p, 1, Protocol::Udp));
            add_endpoint(&mut m, "c1", "bridge", &ports);
        }
        6 => {
            m = situation(profile, 2);
            add_endpoint(&mut m, "c1", "moelove", &[tcp(None, 8080, 80)]);
        }
        7 => {
            m = situation(profile, 2);
            add_network(&mut m, "int", "172.19.0.0/16", "br-int").internal = true;
        }
        8 => {
            m = situation(profile, 2);
            add_network(&mut m, "noicc", "172.20.0.0/16", "br-noicc").icc = false;
        }
        10 => {
            for (n, subnet) in [
                (1, "172.31.0.0/16"),
                (2, "172.32.0.0/16"),
                (3, "172.33.0.0/16"),
            ] {
                add_network(&mut m, &format!("n{n}"), subnet, &format!("br-n{n}"));
            }
        }
        other => panic!("no situation {other}"),
    }
    m
}

fn rendered(model: &Model) -> String {
    render_save(
        &ruleset(model, Family::V4),
        &[Table::Filter, Table::Nat],
        "DROP",
    )
}

const CAPTURES: [(u32, &str); 9] = [
    (1, "01-empty"),
    (2, "02-network-create"),
    (3, "03-publish-tcp"),
    (4, "04-publish-loopback"),
    (5, "05-publish-udp-range"),
    (6, "06-publish-on-user-network"),
    (7, "07-internal-network"),
    (8, "08-icc-false"),
    (9, "09-after-removal"),
];

#[test]
fn docker_profile_equals_every_capture() {
    for (number, name) in CAPTURES.into_iter().chain([(10, "10-three-networks")]) {
        let model = situation(Profile::Docker, number);
        assert_eq!(
            rendered(&model),
            golden(&format!("docker/{name}.rules")),
            "{name}"
        );
    }
}

/// 11 and 12 differ from 01 by the administrator's rule only, which is no part of the model.
#[test]
fn captures_with_a_users_rule_are_the_empty_one_and_that_rule() {
    for name in ["11-user-rule", "12-user-rule-after-restart"] {
        let text = golden(&format!("docker/{name}.rules"));
        let without: String = text
            .lines()
            .filter(|l| !l.contains("100.84.94.62"))
            .map(|l| format!("{l}\n"))
            .collect();
        assert_eq!(without, rendered(&situation(Profile::Docker, 1)), "{name}");
    }
}

#[test]
fn a_range_is_one_rule_in_each_place() {
    let mut m = model(Profile::Docker);
    add_endpoint(
        &mut m,
        "c1",
        "bridge",
        &[map(None, 8000, 8000, 3, Protocol::Udp)],
    );
    assert_eq!(
        rendered(&m),
        golden("docker/05-publish-udp-range.folded.rules")
    );
}

/// Where the captures themselves are at hand, and in CI they must be, our copies are theirs.
#[test]
fn copies_of_the_captures_are_faithful() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let shared = match std::env::var_os("CORACLE_SHARED") {
        Some(path) => PathBuf::from(path),
        None => workspace.join("../shared"),
    };
    let captures = shared.join("oracle/rules");
    let Ok(entries) = captures.read_dir() else {
        let in_ci = std::env::var_os("CI").is_some();
        assert!(!in_ci, "{} is missing", captures.display());
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "rules") {
            let name = path.file_name().unwrap().to_str().unwrap();
            let original = std::fs::read_to_string(&path).unwrap();
            assert_eq!(golden(&format!("docker/{name}")), original, "{name}");
        }
    }
}

/// Our own profile, comments and hardening included, both families side by side with nftables' files of the same names.
/// `UPDATE_GOLDEN=1` writes the files anew; read the difference.
#[test]
fn coracle_profile_equals_its_golden_files() {
    let mut situations = situations::ALL.map(|(name, make)| (name, make())).to_vec();
    situations.push(("everything", everything()));
    for (name, model) in situations {
        for (family, extension) in [(Family::V4, "v4"), (Family::V6, "v6")] {
            let text = render_save(&ruleset(&model, family), &Table::ALL, "DROP");
            let path = format!("iptables/{name}.{extension}");
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
                std::fs::create_dir_all(folder.join("iptables")).unwrap();
                std::fs::write(folder.join(&path), &text).unwrap();
            }
            assert_eq!(text, golden(&path), "{name} {extension}");
        }
    }
}

/// No golden file without its situation: it would be compared with nothing.
#[test]
fn every_golden_file_is_compared() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/iptables");
    let mut files = 0;
    for entry in folder.read_dir().unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let (situation, extension) = name.split_once('.').unwrap();
        let known = situations::ALL.iter().any(|(known, _)| *known == situation);
        assert!(known || situation == "everything", "{name}");
        assert!(["v4", "v6"].contains(&extension), "{name}");
        files += 1;
    }
    assert_eq!(files, 2 * (situations::ALL.len() + 1));
}

/// Networks of several kinds beside each other, and names that must not get into a comment as they are.
fn everything() -> Model {
    let mut all = model(Profile::Coracle);
    add_network(&mut all, "web", "10.201.0.0/24", "cr-776562000000");
    add_network(&mut all, "vault", "10.201.1.0/24", "cr-7661756c7400").internal = true;
    let open = add_network(&mut all, "open", "10.201.2.0/24", "cr-6f70656e0000");
    open.icc = false;
    open.options = vec![(netmgr::model::OPTION_MASQUERADE.into(), "false".into())];
    for (n, network) in all.networks.iter_mut().enumerate() {
        network.v6 = Some(netmgr::V6 {
            subnet: format!("fd00:{n}::/64").parse().unwrap(),
            gateway: format!("fd00:{n}::1").parse().unwrap(),
            ip_range: None,
        });
    }
    let ports = [
        map(None, 8080, 80, 1, Protocol::Tcp),
        map(Some("127.0.0.1"), 9090, 90, 1, Protocol::Tcp),
        map(Some("::1"), 9091, 90, 1, Protocol::Tcp),
        map(Some("0.0.0.0"), 1000, 2000, 60_000, Protocol::Udp),
    ];
    add_endpoint(&mut all, "front", "web", &ports);
    add_endpoint(&mut all, "safe", "vault", &[]);
    let dns = map(None, 53, 53, 1, Protocol::Udp);
    add_endpoint(&mut all, "odd \"name\"\n", "open", &[dns]);
    for (endpoint, n) in all.endpoints.iter_mut().zip(1..) {
        endpoint.address6 = Some(format!("fd00:{n}::2").parse().unwrap());
    }
    all
}

#[test]
fn every_rule_says_for_whom_and_what_for() {
    let mut m = model(Profile::Docker);
    add_endpoint(
        &mut m,
        "c1",
        "bridge",
        &[map(None, 8080, 80, 1, Protocol::Tcp)],
    );
    let explained = netmgr::explain::iptables(&m, Family::V4);
    assert!(explained.iter().all(|e| !e.why.is_empty()));
    let dnat = explained.iter().find(|e| e.rule.contains("DNAT")).unwrap();
    assert_eq!(
        (
            dnat.table.clone(),
            dnat.why.contains("c1"),
            dnat.why.contains("8080/tcp")
        ),
        ("nat".to_owned(), true, true)
    );
    assert_eq!(
        explained.len(),
        rendered(&m).lines().filter(|l| l.starts_with("-A")).count()
    );
}
