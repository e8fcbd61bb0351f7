//! `--dry-run`: says what a change would do, and does nothing.

mod common;

use std::fs;
use std::net::TcpListener;

use common::{Host, attach_request, command, in_own_netns, iptables, publish, request};
use netmgr::kernel::netns;
use netmgr::plan::Op;
use netmgr::{Edit, Error, Firewall, Profile, Protocol, VethRemoval, preview};

/// Everything that a preview must leave alone: links, addresses, rules of both kinds, sysctl, the database's bytes and
/// rows, and the files of `run_root` with their contents.
fn state(host: &Host) -> String {
    let mut out = String::new();
    for arguments in [
        &["-o", "-d", "link"][..],
        &["-o", "-4", "address"],
        &["-4", "route", "show", "table", "all"],
    ] {
        for line in command("ip", arguments).lines() {
            // Timers of a bridge run on, and a carrier goes in its own time: neither is configuration.
            let words: Vec<&str> = line.split_whitespace().collect();
            let steady = words.iter().enumerate().filter(|(at, word)| {
                let is_running = word.starts_with('<')
                    || **word == "linkdown"
                    || (word.contains('.') && !word.contains('/'))
                    || (*at > 0 && words[at - 1] == "state");
                !is_running
            });
            for (_, word) in steady {
                out.push_str(word);
                out.push(' ');
            }
            out.push('\n');
        }
    }
    out.push_str(&common::saved(&["raw", "filter", "nat"]));
    out.push_str(&command("nft", &["--stateless", "list", "ruleset"]));
    out.push_str(&fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap());
    for file in ["coracle.db", "coracle.db-wal"] {
        let bytes = fs::read(host.folder.path().join(file)).unwrap_or_default();
        out.push_str(&format!("{file} {} {bytes:?}\n", bytes.len()));
    }
    out.push_str(&format!("{:?}", host.model()));
    let mut files: Vec<String> = fs::read_dir(&host.settings.run_root)
        .map(|entries| {
            let file = |entry: fs::DirEntry| {
                let bytes = fs::read(entry.path()).unwrap();
                let changed = entry.metadata().unwrap().modified().unwrap();
                format!("{:?} {bytes:?} {changed:?}\n", entry.file_name())
            };
            entries.map(|entry| file(entry.unwrap())).collect()
        })
        .unwrap_or_default();
    files.sort();
    out + &files.concat()
}

fn unchanged<T>(host: &mut Host, act: impl FnOnce(&mut Host) -> T) -> T {
    let before = state(host);
    let value = act(host);
    let after = state(host);
    let differing = before
        .lines()
        .zip(after.lines())
        .find(|(old, new)| old != new);
    assert!(before == after, "{differing:#?}");
    value
}

fn change<T>(
    host: &mut Host,
    edit: impl FnOnce(&mut Edit<'_>) -> Result<T, Error>,
) -> preview::Preview<T> {
    preview::change(&host.settings, &mut host.conn, edit).unwrap()
}

#[test]
fn a_new_network_is_told_and_not_made() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        host.up();
        let asked = request("net", "10.77.0.0/24", &[("name", "cr-net")]);
        let preview = unchanged(&mut host, |host| {
            change(host, |edit| edit.create_network(&asked))
        });
        let text = preview.to_string();
        assert!(
            text.starts_with(
                "create bridge cr-net 10.77.0.1/24 mtu of the default route\nrules (iptables):\n"
            ),
            "{text}"
        );
        assert!(text.contains("  + nat: -I POSTROUTING -s 10.77.0.0/24 ! -o cr-net -m comment --comment \"coracle: network net"));
        // What comes is what was told.
        host.create("net", "10.77.0.0/24", &[("name", "cr-net")]);
        let rules = preview.ops.iter().find_map(|op| match op {
            Op::Rules(batch) => Some(batch.forward.clone()),
            _ => None,
        });
        let saved = common::saved(&["raw", "filter", "nat"]);
        let rules = rules.unwrap();
        let added: Vec<String> = rules
            .lines()
            .filter(|line| line.starts_with("-A ") || line.starts_with("-I "))
            .map(|line| {
                let words = line.split(' ').skip(1);
                let is_position = |word: &str| word.parse::<usize>().is_ok();
                let (chain, rest): (Vec<&str>, Vec<&str>) =
                    (words.clone().take(1).collect(), words.skip(1).collect());
                let rest = match is_position(rest[0]) {
                    true => &rest[1..],
                    false => &rest[..],
                };
                format!("-A {} {}", chain[0], rest.join(" "))
            })
            .collect();
        assert!(added.len() >= 6, "{rules}");
        for line in added {
            assert!(saved.contains(&line), "{line}");
        }
        let preview = unchanged(&mut host, |host| {
            change(host, |edit| edit.remove_network("net"))
        });
        let text = preview.to_string();
        assert!(text.contains("\nremove bridge cr-net\n"), "{text}");
        assert!(
            text.contains("  - filter: -D CORACLE-FORWARD -o cr-net "),
            "{text}"
        );
    });
}

#[test]
fn a_run_is_told_without_a_namespace_and_its_port_stays_free() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        host.up();
        let nowhere = netns::current().unwrap();
        let ports = [publish(None, 18301, 80, Protocol::Tcp)];
        let asked = attach_request("web", "bridge", &ports, &nowhere);
        let preview = unchanged(&mut host, |host| {
            change(host, |edit| edit.attach(&asked).map(|a| a.endpoint))
        });
        assert_eq!(preview.value.address.to_string(), "10.200.0.2");
        let text = preview.to_string();
        let first = format!(
            "create veth {} on coracle0 to eth0 of container web with 10.200.0.2/16 via 10.200.0.1\n",
            preview.value.host_interface
        );
        assert!(text.starts_with(&first), "{text}");
        assert!(text.contains("--to-destination 10.200.0.2:80"), "{text}");
        // A child of a test beside this one may hold the socket until its exec.
        let free = (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            TcpListener::bind("0.0.0.0:18301").is_ok()
        });
        assert!(free, "the preview holds the port");

        let attached = host.attach("web", "bridge", &ports);
        let refused = unchanged(&mut host, |host| {
            let second = attach_request("web2", "bridge", &ports, &nowhere);
            preview::change(&host.settings, &mut host.conn, |edit| {
                edit.attach(&second).map(drop)
            })
            .unwrap_err()
        });
        assert!(matches!(refused, Error::PortAllocated { .. }), "{refused}");
        let preview = unchanged(&mut host, |host| {
            change(host, |edit| {
                edit.detach(&common::container_id("web"), VethRemoval::Now)
            })
        });
        assert!(preview.to_string().contains("remove veth cv"), "{preview}");
        drop(attached);
    });
}

#[test]
fn the_first_run_on_a_fresh_host_tells_all_of_it() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        // The lock's own file is the one thing that a preview needs.
        fs::create_dir_all(&host.settings.run_root).unwrap();
        fs::write(host.settings.run_root.join("network.lock"), "").unwrap();
        let nowhere = netns::current().unwrap();
        let asked = attach_request("web", "bridge", &[], &nowhere);
        let preview = unchanged(&mut host, |host| {
            change(host, |edit| edit.attach(&asked).map(|a| a.endpoint))
        });
        let text = preview.to_string();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("turn IPv4 forwarding on"));
        assert!(lines.next().unwrap().starts_with("create bridge coracle0 "));
        assert!(lines.next().unwrap().starts_with("create veth cv"));
        assert!(
            text.contains("  + filter: chain CORACLE-USER, empty at first"),
            "{text}"
        );
    });
}

#[test]
fn a_reload_tells_what_it_would_mend() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        host.up();
        let attached = host.attach("web", "bridge", &[]);
        let preview = preview::reload(&host.settings, &host.conn, &|_| None).unwrap();
        assert!(preview.is_empty(), "{preview}");
        iptables("-F CORACLE-ISOLATION-STAGE-1");
        command("ip", &["link", "set", "coracle0", "down"]);
        let preview = unchanged(&mut host, |host| {
            preview::reload(&host.settings, &host.conn, &|_| None).unwrap()
        });
        let text = preview.to_string();
        assert!(
            text.contains("  + filter: -A CORACLE-ISOLATION-STAGE-1 -i coracle0"),
            "{text}"
        );
        assert!(text.ends_with("set coracle0 up\n"), "{text}");
        host.reload();
        assert!(
            preview::reload(&host.settings, &host.conn, &|_| None)
                .unwrap()
                .is_empty()
        );
        // Without a firewall no rule is told, but those that go.
        host.settings.firewall = Firewall::None;
        let preview = unchanged(&mut host, |host| {
            preview::reload(&host.settings, &host.conn, &|_| None).unwrap()
        });
        assert!(preview.to_string().contains("  - "), "{preview}");
        drop(attached);
    });
}
