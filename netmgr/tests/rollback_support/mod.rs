//! What is compared before and after a change that fails, and the means to make it fail.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use netmgr::Netns;
use netmgr::kernel::netns::run_in;
use rusqlite::Connection;
use rusqlite::types::Value;

use crate::common::Host;

pub const STUBS: &str = "CORACLE_TEST_STUBS";

/// Commands that stand before the real ones in PATH. Where the file `refuse-NAME` is, NAME refuses all input; where
/// `half-NAME` is, it commits the first of several tables and then fails.
pub fn write_stubs(folder: &Path) {
    for (name, marks_input) in [
        ("iptables-restore", "true"),
        ("ip6tables-restore", "true"),
        ("nft", "[ \"$1\" = -f ]"),
    ] {
        let real = netmgr::kernel::commands::path(name).unwrap();
        let real = real.display();
        let text = format!(
            "#!/bin/sh\n\
             if {marks_input}; then\n\
             if [ -e \"${STUBS}/refuse-{name}\" ]; then echo refused >&2; exit 1; fi\n\
             if [ -e \"${STUBS}/half-{name}\" ]; then\n\
             input=$(cat)\n\
             if [ \"$(echo \"$input\" | grep -c ^COMMIT)\" -gt 1 ]; then\n\
             echo \"$input\" | sed /^COMMIT/q | {real} \"$@\"; echo half >&2; exit 1\n\
             fi\n\
             echo \"$input\" | {real} \"$@\"; exit\n\
             fi\n\
             fi\n\
             exec {real} \"$@\"\n"
        );
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// No write reaches the file, for this mount namespace.
pub fn make_read_only(path: &str) {
    output("mount", &["--bind", path, path]);
    output("mount", &["-o", "remount,ro,bind", path]);
}

pub fn make_writable(path: &str) {
    output("umount", &[path]);
}

pub fn output(name: &str, arguments: &[&str]) -> String {
    crate::common::command(name, arguments)
}

/// Kernel, files and database, a line for each thing.
pub fn snapshot(host: &Host, containers: &[Netns]) -> Vec<String> {
    let mut lines = network();
    for (n, netns) in containers.iter().enumerate() {
        let inside = run_in(netns, network).unwrap();
        lines.extend(
            inside
                .into_iter()
                .map(|line| format!("container {n}: {line}")),
        );
    }
    for tool in ["iptables-save", "ip6tables-save"] {
        let text = output(tool, &[]);
        let plain = text.lines().filter(|line| !line.starts_with('#'));
        let plain = plain.map(|line| line.split(" [").next().unwrap_or(line));
        lines.extend(plain.map(|line| format!("{tool}: {line}")));
    }
    let table = Command::new("nft")
        .args(["list", "table", "inet", "coracle"])
        .output()
        .unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    lines.extend(table.lines().map(|line| format!("nft: {line}")));
    for name in [
        "ipv4/ip_forward",
        "ipv6/conf/all/forwarding",
        "ipv6/conf/lo/accept_ra",
        "ipv4/ip_local_reserved_ports",
    ] {
        // One of an interface that a case has renamed is not there.
        let value = fs::read_to_string(Path::new("/proc/sys/net").join(name)).unwrap_or_default();
        lines.push(format!("{name} = {}", value.trim()));
    }
    for name in [
        "network.live",
        "network.journal",
        "host.json",
        "reserved-ports.json",
    ] {
        let content = fs::read_to_string(host.settings.run_root.join(name));
        lines.push(format!("{name}: {}", content.unwrap_or_default()));
    }
    lines.extend(tables(&host.conn));
    lines
}

/// Links with their settings, addresses and routes of the calling thread's namespace. Without what is new with every link
/// (its index) and what comes and goes by itself (carrier, timers).
fn network() -> Vec<String> {
    let mut lines = Vec::new();
    let links: serde_json::Value =
        serde_json::from_str(&output("ip", &["-d", "-j", "link"])).unwrap();
    for link in links.as_array().unwrap() {
        let mut link = link.clone();
        // The host's end of a veth has a random one.
        let name = link["ifname"].as_str().unwrap().to_owned();
        if let Some(members) = link.as_object_mut().filter(|_| name.starts_with("cv")) {
            members.remove("address");
        }
        forget(&mut link);
        lines.push(format!("link {link}"));
    }
    for line in output("ip", &["-o", "address"]).lines() {
        let words: Vec<&str> = line.split_whitespace().skip(1).take(3).collect();
        lines.push(format!("address {}", words.join(" ")));
    }
    for family in ["-4", "-6"] {
        let text = output("ip", &[family, "route", "show", "table", "all"]);
        let plain = text
            .lines()
            .map(|line| line.replace(" linkdown", "").replace(" dead", ""));
        // The kernel's own link-local addresses are tested for duplicates first, for a second or two.
        let plain = plain.filter(|line| !line.starts_with("local fe80::"));
        lines.extend(plain.map(|line| format!("route {}", line.trim())));
    }
    lines.sort();
    lines
}

fn forget(value: &mut serde_json::Value) {
    if let Some(members) = value.as_object_mut() {
        members.retain(|name, _| {
            let volatile = [
                "ifindex",
                "link_index",
                "link_netnsid",
                "operstate",
                "flags",
                "no",
                "port_id",
            ];
            let also = ["id", "bridge_id", "root_id", "root_port", "designated_port"];
            let names = [&volatile[..], &also[..]].concat();
            !names.contains(&name.as_str()) && !name.contains("timer") && !name.contains("detected")
        });
        members.values_mut().for_each(forget);
    }
}

/// Every row of every table.
fn tables(conn: &Connection) -> Vec<String> {
    let names = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name";
    let mut statement = conn.prepare(names).unwrap();
    let names: Vec<String> = statement
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let mut lines = Vec::new();
    for name in names {
        let mut statement = conn.prepare(&format!("SELECT * FROM {name}")).unwrap();
        let width = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values: Vec<Value> = (0..width).map(|n| row.get(n).unwrap()).collect();
            lines.push(format!("table {name}: {values:?}"));
        }
    }
    lines
}
