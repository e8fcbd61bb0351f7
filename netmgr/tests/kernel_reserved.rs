//! Host ports kept from ephemeral use, beside those of the administrator.

mod kernel_support;

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::net::UdpSocket;

use kernel_support::*;
use netmgr::plan::{Op, ReservePorts};
use netmgr::{Settings, apply};

const LIST: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

fn list() -> String {
    // Not `fs::read_to_string`, which would get the first few bytes: the kernel answers only one read.
    let mut text = vec![0; 1 << 20];
    let length = fs::File::open(LIST).unwrap().read(&mut text).unwrap();
    String::from_utf8_lossy(&text[..length]).trim().to_owned()
}

fn change(before: &[(u16, u16)], after: &[(u16, u16)]) -> Op {
    Op::ReservePorts(ReservePorts {
        before: before.to_vec(),
        after: after.to_vec(),
    })
}

fn apply(settings: &Settings, op: Op) {
    apply::run(settings, &[op], &HashMap::new()).unwrap();
}

fn roll_back(settings: &Settings, op: Op) {
    apply::roll_back(settings, &[op], &HashMap::new()).unwrap();
}

#[test]
fn entries_of_others_stay_even_where_ours_overlap() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(&root);
        fs::write(LIST, "8080,9000-9010,50000\n").unwrap();
        let (one, two) = ([(8000, 8100)], [(8000, 8100), (9005, 9020)]);
        apply(&settings, change(&[], &one));
        assert_eq!(list(), "8000-8100,9000-9010,50000");
        apply(&settings, change(&one, &two));
        assert_eq!(list(), "8000-8100,9000-9020,50000");
        // Run again: no difference.
        apply(&settings, change(&one, &two));
        assert_eq!(list(), "8000-8100,9000-9020,50000");
        apply(&settings, change(&two, &one));
        assert_eq!(list(), "8000-8100,9000-9010,50000");
        apply(&settings, change(&one, &[]));
        assert_eq!(list(), "8080,9000-9010,50000");
        apply(&settings, change(&one, &[]));
        assert_eq!(list(), "8080,9000-9010,50000");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    });
}

#[test]
fn roll_back_takes_nothing_that_was_not_ours() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(&root);
        fs::write(LIST, "8080\n").unwrap();
        let (none, one, two) = ([], [(8000, 8100)], [(8050, 8200)]);
        // Killed before it ran, and after.
        roll_back(&settings, change(&none, &one));
        assert_eq!(list(), "8080");
        apply(&settings, change(&none, &one));
        roll_back(&settings, change(&none, &one));
        assert_eq!(list(), "8080");

        apply(&settings, change(&none, &one));
        roll_back(&settings, change(&one, &two));
        assert_eq!(list(), "8000-8100");
        apply(&settings, change(&one, &two));
        assert_eq!(list(), "8050-8200");
        roll_back(&settings, change(&one, &two));
        assert_eq!(list(), "8000-8100");
        apply(&settings, change(&one, &none));
        assert_eq!(list(), "8080");
    });
}

/// The memory is written before the list, so the list can be behind it.
#[test]
fn change_killed_half_way_is_made_good_by_the_next() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(&root);
        fs::write(LIST, "8080\n").unwrap();
        apply(&settings, change(&[], &[(8000, 8100)]));
        // As it was before the list was written.
        fs::write(LIST, "8080\n").unwrap();
        apply(&settings, change(&[], &[(8000, 8100)]));
        assert_eq!(list(), "8000-8100");
        apply(&settings, change(&[(8000, 8100)], &[(7000, 7000)]));
        assert_eq!(list(), "7000,8080");
        // The administrator's word since then is the last one.
        fs::write(LIST, "9999\n").unwrap();
        apply(&settings, change(&[(7000, 7000)], &[(7000, 7001)]));
        assert_eq!(list(), "7000-7001,9999");
        apply(&settings, change(&[(7000, 7001)], &[]));
        assert_eq!(list(), "9999");
    });
}

#[test]
fn list_of_any_length_is_read_and_written_whole() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(&root);
        // Twenty pages of text: every other port.
        let theirs: Vec<String> = (10001..30000)
            .step_by(2)
            .map(|port| port.to_string())
            .collect();
        let theirs = theirs.join(",");
        fs::write(LIST, format!("{theirs}\n")).unwrap();
        assert_eq!(list(), theirs);
        let ours: Vec<(u16, u16)> = (30001..60000).step_by(2).map(|port| (port, port)).collect();
        apply(&settings, change(&[], &ours));
        let all = list();
        assert!(all.starts_with(&theirs), "an entry of others was lost");
        assert_eq!(all.split(',').count(), 10000 + 15000);
        apply(&settings, change(&ours, &[]));
        assert_eq!(list(), theirs);
    });
}

#[test]
fn kernel_gives_no_reserved_port_to_a_client() {
    on_a_host(|| {
        let root = tempfile::tempdir().unwrap();
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40099").unwrap();
        apply(&settings(&root), change(&[], &[(40000, 40089)]));
        let clients: Vec<UdpSocket> = (0..10)
            .map(|_| UdpSocket::bind("0.0.0.0:0").unwrap())
            .collect();
        for client in &clients {
            assert!(client.local_addr().unwrap().port() >= 40090);
        }
        // Asked for by number it can be had.
        UdpSocket::bind("0.0.0.0:40000").unwrap();
    });
}
