//! What a host's kernel state is, and what of ours is left in it.
//!
//! A [`Snapshot`] is text, so that two of them compare and a difference reads well. [`Leftovers`] looks for what has no place in a
//! snapshot because it is not the namespace's own: processes, mounts, cgroups and files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Cmd, Netns, rules};

/// The firewall, links, addresses, routes, listening sockets and sysctls of one network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    firewall: String,
    network: String,
    listeners: BTreeSet<String>,
    sysctls: BTreeMap<String, String>,
}

impl Snapshot {
    #[track_caller]
    pub fn take(netns: &Netns) -> Snapshot {
        let ask = |program: &str, args: &[&str]| Cmd::new(program).args(args).run_in(netns).ok();
        let mut firewall = rules::save(netns);
        firewall += &rules::comparable(&ask("ip6tables-save", &[]).stdout);
        firewall += &nft_state(&ask("nft", &["-j", "list", "ruleset"]).json());
        let mut network = String::new();
        for link in ask("ip", &["-j", "link"])
            .json()
            .as_array()
            .into_iter()
            .flatten()
        {
            network += &format!("link {} mtu {}\n", link["ifname"], link["mtu"]);
        }
        for (what, args) in [
            ("addr", &["-4", "-o", "addr"][..]),
            ("route", &["-4", "route", "show", "table", "all"]),
            ("rule", &["rule"]),
        ] {
            for line in ask("ip", args).stdout.lines() {
                // Whether a cable is plugged in is no setting.
                let line = line.trim().trim_end_matches(" linkdown");
                network += &format!("{what} {line}\n");
            }
        }
        Snapshot {
            firewall,
            network,
            listeners: netns.enter(listeners),
            sysctls: netns.enter(sysctls),
        }
    }

    /// What is different now; empty if nothing is. A sysctl that has come or gone belongs to a link or a module, not to the host's settings.
    pub fn changes(&self, now: &Snapshot) -> String {
        let mut report = String::new();
        for (what, old, new) in [
            ("firewall", &self.firewall, &now.firewall),
            ("network", &self.network, &now.network),
        ] {
            if old != new {
                report += &format!("{what}:\n{}", rules::difference(old, new));
            }
        }
        for socket in now.listeners.difference(&self.listeners) {
            report += &format!("still listening: {socket}\n");
        }
        for (key, old) in &self.sysctls {
            if let Some(new) = now.sysctls.get(key).filter(|new| *new != old) {
                report += &format!("sysctl {key}: was {old}, is {new}\n");
            }
        }
        report
    }
}

/// The nft ruleset without handles and counters, and without the same idle chains.
fn nft_state(ruleset: &Value) -> String {
    const IPTABLES_TABLES: [&str; 5] = ["filter", "nat", "raw", "mangle", "security"];
    let mut state = String::new();
    for item in ruleset["nftables"].as_array().into_iter().flatten() {
        let Some((kind, body)) = item.as_object().and_then(|object| object.iter().next()) else {
            continue;
        };
        let table = if kind == "table" {
            &body["name"]
        } else {
            &body["table"]
        };
        let of_iptables = IPTABLES_TABLES.contains(&table.as_str().unwrap_or_default());
        let idle = match kind.as_str() {
            "metainfo" => true,
            "table" => of_iptables,
            "chain" => of_iptables && body["policy"] == "accept",
            _ => false,
        };
        if !idle {
            let mut body = body.clone();
            forget_counters(&mut body);
            state += &format!("nft {kind} {body}\n");
        }
    }
    state
}

fn forget_counters(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for key in ["handle", "packets", "bytes"] {
                object.remove(key);
            }
            object.values_mut().for_each(forget_counters);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_counters),
        _ => {}
    }
}

/// Listening TCP and unconnected UDP sockets, from /proc/net (see proc_net(5); state 0A is LISTEN, 07 is an unconnected UDP socket).
fn listeners() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (protocol, state) in [("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")] {
        let table = fs::read_to_string(format!("/proc/thread-self/net/{protocol}"));
        for line in table.unwrap_or_default().lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            if fields.get(3) == Some(&state) {
                let (address, port) = fields[1].split_once(':').unwrap_or((fields[1], "0"));
                let port = u16::from_str_radix(port, 16).unwrap_or(0);
                found.insert(format!("{protocol} port {port} (address {address})"));
            }
        }
    }
    found
}

/// Every readable network setting of the calling thread's namespace (/proc/sys/net shows that of who reads it).
fn sysctls() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![PathBuf::from("/proc/sys/net")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(value) = fs::read_to_string(&path)
                && !path.ends_with("nf_conntrack_count")
            {
                let name = path.strip_prefix("/proc/sys").unwrap_or(&path);
                found.insert(name.display().to_string(), value.trim().to_owned());
            }
        }
    }
    found
}

/// Where to look for what a host of ours may have left on the machine.
#[derive(Clone, Debug)]
pub struct Leftovers<'a> {
    /// The host's own folder, in which the program's root and run-root are.
    pub folder: &'a Path,
    pub run_root: &'a Path,
    /// [`Netns::id`] of the host's own namespace: only what its commands have left runs in it.
    pub netns: u64,
    /// `NAME=VALUE` in the environment of every command that the host ran, and so of what those left running.
    pub marker: &'a str,
    /// Every container ID that was ever seen.
    pub containers: &'a BTreeSet<String>,
}

impl Leftovers<'_> {
    /// One line for each thing that is left; empty if nothing is.
    pub fn find(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (pid, why) in self.processes() {
            found.push(format!("process {pid} ({}): {why}", command_line(pid)));
        }
        found.extend(
            self.mounts()
                .iter()
                .map(|at| format!("mount {}", at.display())),
        );
        found.extend(
            self.cgroups()
                .iter()
                .map(|at| format!("cgroup {}", at.display())),
        );
        found.extend(
            sockets(self.run_root)
                .iter()
                .map(|at| format!("socket {}", at.display())),
        );
        found
    }

    /// Processes of the host's commands and containers, each with how it was recognised.
    pub fn processes(&self) -> Vec<(u32, &'static str)> {
        let mut found = Vec::new();
        let folder = self.folder.to_string_lossy();
        // Field 5 of mountinfo is the mount point: only a container's own process has one of ours at `/`.
        let is_root_from =
            |line: &str| line.split(' ').nth(4) == Some("/") && line.contains(&*folder);
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            if pid == std::process::id() {
                continue;
            }
            let read = |name: &str| {
                let bytes = fs::read(entry.path().join(name)).unwrap_or_default();
                String::from_utf8_lossy(&bytes).into_owned()
            };
            let names_a_container =
                |text: &str| self.containers.iter().any(|id| text.contains(id.as_str()));
            if read("environ").contains(self.marker) {
                found.push((pid, "it has the environment of this host's commands"));
            } else if fs::metadata(entry.path().join("ns/net"))
                .is_ok_and(|it| it.ino() == self.netns)
            {
                found.push((pid, "it is in this host's network namespace"));
            } else if names_a_container(&read("cmdline")) {
                found.push((pid, "its command line names a container"));
            } else if names_a_container(&read("cgroup")) {
                found.push((pid, "it is in a container's cgroup"));
            } else if read("mountinfo").lines().any(is_root_from) {
                found.push((pid, "its root filesystem is in this host's folder"));
            }
        }
        found
    }

    pub fn mounts(&self) -> Vec<PathBuf> {
        let folder = self.folder.to_string_lossy();
        fs::read_to_string("/proc/self/mountinfo")
            .unwrap_or_default()
            .lines()
            .filter(|line| line.contains(&*folder))
            .filter_map(|line| line.split(' ').nth(4).map(PathBuf::from))
            .collect()
    }

    /// Cgroups named after a container, under any controller.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for parent in cgroup_parents() {
            for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
                if self
                    .containers
                    .contains(&*entry.file_name().to_string_lossy())
                {
                    found.push(entry.path());
                }
            }
        }
        found
    }
}

/// The folder of our containers under each controller (version 1) and in the unified hierarchy (version 2).
fn cgroup_parents() -> Vec<PathBuf> {
    let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
    roots.extend(
        fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path()),
    );
    roots.retain(|root| root.join("cgroup.procs").exists());
    roots.iter().map(|root| root.join("coracle")).collect()
}

fn sockets(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(sockets(&entry.path())),
            Ok(kind) if kind.is_socket() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

/// The words of a process's command line.
pub fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .replace('\0', " ")
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_listener_link_rule_and_setting_are_all_seen() {
        let netns = Netns::new();
        let before = Snapshot::take(&netns);
        assert_eq!(before.changes(&Snapshot::take(&netns)), "");
        let _socket = netns
            .enter(|| std::net::TcpListener::bind("0.0.0.0:4711"))
            .unwrap();
        netns.ip("link add left0 type bridge\n");
        Cmd::new("iptables")
            .args(["-t", "raw", "-A", "OUTPUT", "-p", "udp"])
            .run_in(&netns)
            .ok();
        netns
            .enter(|| fs::write("/proc/sys/net/ipv4/conf/lo/route_localnet", "1"))
            .unwrap();
        let changes = before.changes(&Snapshot::take(&netns));
        for trace in [
            "port 4711",
            "left0",
            "-p udp",
            "route_localnet: was 0, is 1",
        ] {
            assert!(changes.contains(trace), "{trace} is missing:\n{changes}");
        }
    }

    #[test]
    fn a_process_with_the_marker_is_found() {
        let marker = format!("HARNESS_SELF_TEST={}", std::process::id());
        let (name, value) = marker.split_once('=').unwrap();
        let netns = Netns::new();
        let sleeper = Cmd::new("sleep")
            .arg("60")
            .env(name, value)
            .spawn_in(&netns);
        let none = BTreeSet::new();
        let elsewhere = Netns::new();
        let leftovers = Leftovers {
            folder: Path::new("/nonexistent-folder-of-a-test"),
            run_root: Path::new("/nonexistent-folder-of-a-test"),
            netns: elsewhere.id(),
            marker: &marker,
            containers: &none,
        };
        crate::eventually("the process is found", || {
            let found = leftovers.processes();
            if found.iter().any(|(pid, _)| *pid == sleeper.pid()) {
                Ok(())
            } else {
                Err("not found")
            }
        });
        drop(sleeper);
        assert_eq!(leftovers.find(), Vec::<String>::new());
    }
}
