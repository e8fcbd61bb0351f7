//! What a change of the rules costs at 0 and at 200 networks, each with a container that publishes a port. Prints a table:
//! `cargo test -p coracle-netmgr --test rule_times -- --ignored --nocapture`. What CI holds on to is in rule_properties: the
//! number of lines, and that what comes is only appended or inserted at the top.

mod common;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{add_endpoint, add_network, in_own_netns, map, model};
use netmgr::firewall::diff::delta;
use netmgr::firewall::iptables::{Script, render_save};
use netmgr::firewall::policy::ruleset;
use netmgr::firewall::ruleset::Table;
use netmgr::{Family, Model, Profile, Protocol, V6};

fn restore(tool: &str, input: &str) -> Duration {
    let start = Instant::now();
    let mut child = Command::new(format!("{tool}-restore"))
        .args(["--noflush", "-w"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success(), "{tool}\n{input}");
    start.elapsed()
}

fn with_network(model: &Model, n: u8, internal: bool) -> Model {
    let mut model = model.clone();
    let (name, subnet) = (format!("n{n}"), format!("10.99.{n}.0/24"));
    let network = add_network(&mut model, &name, &subnet, &format!("cr-{n:012x}"));
    network.internal = internal;
    network.v6 = Some(V6 {
        subnet: format!("fd00:{n}::/64").parse().unwrap(),
        gateway: format!("fd00:{n}::1").parse().unwrap(),
        ip_range: None,
    });
    model
}

fn with_container(model: &Model, n: u8, host_ip: Option<&str>) -> Model {
    let mut model = model.clone();
    let port = map(host_ip, 10_000 + u16::from(n), 80, 1, Protocol::Tcp);
    add_endpoint(&mut model, &format!("c{n}"), &format!("n{n}"), &[port]);
    let address = format!("fd00:{n}::2").parse().unwrap();
    model.endpoints.last_mut().unwrap().address6 = Some(address);
    model
}

const ROUNDS: usize = 21;

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

/// Runs a change forth and back, again and again: the medians in milliseconds.
fn measure(tool: &str, forth: &Script, back: &Script) -> [f64; 2] {
    let (forth, back) = (forth.render(), back.render());
    let times: Vec<_> = (0..ROUNDS)
        .map(|_| (restore(tool, &forth), restore(tool, &back)))
        .collect();
    let (forth, back) = times.into_iter().unzip();
    [median(forth), median(back)]
}

#[test]
#[ignore = "prints times; run with --ignored --nocapture"]
fn times_of_a_change_at_0_and_at_200() {
    let tools = [
        ("iptables-nft", Family::V4),
        ("ip6tables-nft", Family::V6),
        ("iptables-legacy", Family::V4),
    ];
    println!("ms, median of {ROUNDS}: change, at 0 (add, remove), at 200 (add, remove), ratios");
    for (tool, family) in tools {
        in_own_netns(move || {
            let mut rows: Vec<(&str, Vec<[f64; 2]>)> = Vec::new();
            for others in [0, 200] {
                let mut base = model(Profile::Coracle);
                for n in 0..others {
                    base = with_container(&with_network(&base, n, false), n, None);
                }
                let network = with_network(&base, 250, false);
                let changes = [
                    ("network", base.clone(), network.clone()),
                    (
                        "internal network",
                        base.clone(),
                        with_network(&base, 250, true),
                    ),
                    ("port", network.clone(), with_container(&network, 250, None)),
                    (
                        "port on loopback",
                        network.clone(),
                        with_container(
                            &network,
                            250,
                            Some(match family {
                                Family::V4 => "127.0.0.1",
                                Family::V6 => "::1",
                            }),
                        ),
                    ),
                ];
                for (name, before, after) in changes {
                    let (old, new) = (ruleset(&before, family), ruleset(&after, family));
                    let whole = render_save(&old, &Table::ALL, "ACCEPT");
                    let input = whole.as_bytes();
                    let mut child = Command::new(format!("{tool}-restore"))
                        .stdin(Stdio::piped())
                        .spawn()
                        .unwrap();
                    child.stdin.take().unwrap().write_all(input).unwrap();
                    assert!(child.wait().unwrap().success());
                    let times = measure(tool, &delta(&old, &new), &delta(&new, &old));
                    match rows.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, all)) => all.push(times),
                        None => rows.push((name, vec![times])),
                    }
                }
            }
            for (name, all) in rows {
                let [few, many] = [all[0], all[1]];
                println!(
                    "{tool:16} {name:17} {:6.1} {:6.1}   {:6.1} {:6.1}   {:.2} {:.2}",
                    few[0],
                    few[1],
                    many[0],
                    many[1],
                    many[0] / few[0],
                    many[1] / few[1]
                );
            }
        });
    }
}
