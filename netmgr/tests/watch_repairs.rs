//! `network watch`: what others take away comes back by itself, and nothing else does.

mod common;

use std::fs;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use common::{Host, command, in_own_netns, iptables, publish, saved};
use netmgr::firewall::iptables::render_save;
use netmgr::firewall::policy::ruleset;
use netmgr::firewall::ruleset::Table;
use netmgr::watch::{self, Event, What};
use netmgr::{Profile, Protocol, store};
use rusqlite::Connection;

/// A second on an idle machine; this one may be busy.
const PATIENCE: Duration = Duration::from_secs(20);

fn wanted(host: &Host) -> String {
    let tables = [Table::Raw, Table::Filter, Table::Nat];
    render_save(&ruleset(&host.model(), netmgr::Family::V4), &tables, "DROP")
}

fn found() -> String {
    saved(&["raw", "filter", "nat"])
}

/// Runs `test` beside a watch in the same namespace.
fn beside_a_watch(host: &mut Host, test: impl FnOnce(&mut Host, &Receiver<Event>)) {
    let (stop, theirs) = UnixStream::pair().unwrap();
    let (tell, events) = channel();
    let settings = host.settings.clone();
    let database = host.folder.path().join("coracle.db");
    // A thread is born into the namespace of the one that makes it.
    let watch = std::thread::spawn(move || {
        let open = || {
            let conn = Connection::open(&database).unwrap();
            store::create_tables(&conn)?;
            Ok(conn)
        };
        let nowhere = |_: &Connection, _: &str| None;
        watch::run(&settings, open, &nowhere, theirs.into(), &mut |event| {
            let _ = tell.send(event);
        })
    });
    assert_eq!(next(&events).what, What::Started);
    assert_eq!(next(&events).what, What::Compared);
    test(host, &events);
    drop(stop);
    watch.join().unwrap().unwrap();
}

fn next(events: &Receiver<Event>) -> Event {
    events.recv_timeout(PATIENCE).expect("the watch is silent")
}

fn next_mending(events: &Receiver<Event>) -> Event {
    loop {
        let event = next(events);
        match &event.what {
            What::Mended { .. } => return event,
            What::Compared => {}
            other => panic!("{other}"),
        }
    }
}

fn until(what: &str, holds: impl Fn() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}\nnow\n{}", found());
        std::thread::sleep(Duration::from_millis(10));
    }
    begun.elapsed()
}

fn bridge_of(veth: &str) -> String {
    let text = command("ip", &["-o", "link", "show", veth]);
    let after = text.split(" master ").nth(1).unwrap_or_default();
    after.split(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn each_damage_is_repaired() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        host.up();
        host.create("net", "10.77.0.0/24", &[("name", "cr-net")]);
        let port = publish(None, 18080, 80, Protocol::Tcp);
        let attached = host.attach("c1", "net", &[port]);
        let veth = attached.attachment.endpoint.host_interface.clone();
        let wanted = wanted(&host);
        assert_eq!(found(), wanted);
        beside_a_watch(&mut host, |_, events| {
            let whole = || {
                found() == wanted
                    && bridge_of(&veth) == "cr-net"
                    && command("ip", &["-o", "address"]).contains("10.77.0.1/24")
                    && command("ip", &["-o", "link", "show", "cr-net"]).contains(",UP")
                    && fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap() == "1\n"
            };
            let damages = [
                "iptables -F",
                "iptables -t nat -F",
                "nft flush ruleset",
                // As firewalld does: all goes, and its own comes.
                "nft -f /dev/stdin",
                "ip link del cr-net",
                "ip link set cr-net down",
                "ip address del 10.77.0.1/24 dev cr-net",
                "sysctl -q -w net.ipv4.ip_forward=0",
            ];
            for damage in damages {
                if damage == "nft -f /dev/stdin" {
                    let rules = host_path("reload.nft");
                    fs::write(
                        &rules,
                        "flush ruleset\ntable inet other {\n chain input {\n type filter hook input priority 10; policy accept;\n }\n}\n",
                    )
                    .unwrap();
                    command("nft", &["-f", rules.to_str().unwrap()]);
                    fs::remove_file(&rules).unwrap();
                } else {
                    let mut words = damage.split(' ');
                    let name = words.next().unwrap();
                    command(name, &words.collect::<Vec<_>>());
                }
                assert!(!whole(), "{damage} did no damage");
                let took = until(&format!("{damage}\n{}\nnot\n{wanted}", found()), whole);
                println!("{damage}: whole again after {} ms", took.as_millis());
                println!("  {}", next_mending(events));
            }
            assert!(command("nft", &["list", "ruleset"]).contains("table inet other"));
            quiet_after_at_most(events, 2);
        });
        assert!(!host.journal().exists());
        drop(attached);
    });
}

fn host_path(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("doctor-{}-{name}", std::process::id()))
}

/// No mending any more, and no endless row of comparisons.
fn quiet_after_at_most(events: &Receiver<Event>, mut comparisons: usize) {
    loop {
        match events.recv_timeout(Duration::from_millis(2500)) {
            Err(RecvTimeoutError::Timeout) => return,
            Err(error) => panic!("{error}"),
            Ok(event) => {
                assert_eq!(event.what, What::Compared, "{event}");
                assert!(comparisons > 0, "the watch wakes itself");
                comparisons -= 1;
            }
        }
    }
}

#[test]
fn commands_of_ours_are_no_damage_and_nothing_is_written() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        host.up();
        beside_a_watch(&mut host, |host, events| {
            let live = host.settings.run_root.join("network.live");
            host.create("net", "10.77.0.0/24", &[]);
            let written = fs::metadata(&live).unwrap().modified().unwrap();
            // Any transaction and any link that changes would be announced, and compared: there is none.
            quiet_after_at_most(events, 3);
            for round in 0..3 {
                let name = format!("c{round}");
                let port = publish(None, 18100 + round, 80, Protocol::Tcp);
                let attached = host.attach(&name, "net", &[port]);
                host.detach(&name);
                drop(attached);
            }
            quiet_after_at_most(events, 12);
            assert_eq!(found(), wanted(host));
            let after = fs::metadata(&live).unwrap().modified().unwrap();
            assert_eq!(written, after, "the watch has written");
        });
    });
}

#[test]
fn a_port_that_was_removed_while_rules_were_flushed_does_not_return() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        host.up();
        let kept = host.attach("kept", "bridge", &[publish(None, 18201, 80, Protocol::Tcp)]);
        let gone = host.attach("gone", "bridge", &[publish(None, 18202, 80, Protocol::Tcp)]);
        beside_a_watch(&mut host, |host, events| {
            for table in ["filter", "nat", "raw"] {
                iptables(&format!("-t {table} -F"));
            }
            host.detach("gone");
            drop(gone);
            let wanted = wanted(host);
            until("the rules are back", || found() == wanted);
            assert!(wanted.contains("18201") && !wanted.contains("18202"));
            quiet_after(events);
            assert_eq!(found(), wanted);
        });
        drop(kept);
    });
}

fn quiet_after(events: &Receiver<Event>) {
    while events.recv_timeout(Duration::from_millis(1500)).is_ok() {}
}

#[test]
fn it_gives_way_to_a_program_that_keeps_undoing() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        host.up();
        beside_a_watch(&mut host, |host, events| {
            let wanted = wanted(host);
            let begun = Instant::now();
            let backed_off = loop {
                assert!(begun.elapsed() < 3 * PATIENCE, "it fights on");
                if found() == wanted {
                    iptables("-F CORACLE-ISOLATION-STAGE-1");
                }
                match events.recv_timeout(Duration::from_millis(20)) {
                    Ok(event) if matches!(event.what, What::BackedOff { .. }) => break event,
                    _ => {}
                }
            };
            println!("{backed_off}");
            let What::BackedOff { what, by, .. } = &backed_off.what else {
                unreachable!()
            };
            assert!(what[0].starts_with("rules (iptables)"), "{what:?}");
            assert!(by.iter().any(|p| p.starts_with("iptables")), "{by:?}");
            // Peace: in its own time all is as it should be.
            until("the rules are back", || found() == wanted);
        });
    });
}

/// Legacy xtables announce nothing: found by looking once a second. A process of its own, because PATH is the process's.
#[test]
fn rules_of_legacy_iptables_are_repaired_too() {
    let folder = tempfile::tempdir().unwrap();
    let multi = fs::canonicalize("/usr/sbin/iptables-legacy").unwrap();
    for name in ["iptables", "iptables-save", "iptables-restore"] {
        std::os::unix::fs::symlink(&multi, folder.path().join(name)).unwrap();
    }
    let path = format!(
        "{}:{}",
        folder.path().display(),
        std::env::var("PATH").unwrap()
    );
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "on_legacy_iptables", "--ignored", "--nocapture"])
        .env("PATH", path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
#[ignore = "runs as a child of the test above"]
fn on_legacy_iptables() {
    in_own_netns(|| {
        let mut host = Host::new(Profile::Coracle);
        host.up();
        assert!(command("iptables", &["--version"]).contains("legacy"));
        let wanted = found();
        assert!(
            wanted.contains("-A CORACLE-FORWARD -o coracle0"),
            "{wanted}"
        );
        beside_a_watch(&mut host, |_, events| {
            for damage in ["-F", "-t nat -F"] {
                iptables(damage);
                assert!(found() != wanted);
                let took = until(damage, || found() == wanted);
                println!("legacy {damage}: whole again after {} ms", took.as_millis());
                println!("  {}", next_mending(events));
            }
            quiet_after_at_most(events, 2);
        });
    });
}
