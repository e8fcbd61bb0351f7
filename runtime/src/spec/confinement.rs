//! Capabilities, what is hidden, and whose namespaces: what `Security` and `Namespaces` of a request mean. Pure.

use std::collections::HashMap;
use std::str::FromStr;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType};

use super::{ALL_OPTIONAL, DEFAULT_CAPABILITIES, Place};
use crate::error::Error;
use crate::record::Container;
use crate::request::{NamespaceMode, Security};

/// What no container has any business to read: it tells of the host, or of other containers' timing.
pub const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Settings of the host's kernel that root in the container could change otherwise.
pub const READ_ONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

const ALL: &str = "ALL";

/// `net_admin` and `CAP_NET_ADMIN` are the same; `all` stands for every one.
fn normal(option: &'static str, written: &str) -> Result<String, Error> {
    let upper = written.to_uppercase();
    if upper == ALL {
        return Ok(upper);
    }
    let name = match upper.starts_with("CAP_") {
        true => upper,
        false => format!("CAP_{upper}"),
    };
    match caps::Capability::from_str(&name) {
        Ok(_) => Ok(name),
        Err(_) => Err(Error::UnknownCapability { option, name }),
    }
}

/// The capabilities that a request names: to add, to drop. Refuses names that are none.
fn named(security: &Security) -> Result<(Vec<String>, Vec<String>), Error> {
    let list = |option, written: &[String]| {
        let names = written.iter().map(|name| normal(option, name));
        names.collect::<Result<Vec<_>, _>>()
    };
    Ok((
        list("CapAdd", &security.cap_add)?,
        list("CapDrop", &security.cap_drop)?,
    ))
}

/// Refuses names that are no capabilities.
pub fn check_capabilities(security: &Security) -> Result<(), Error> {
    named(security).map(drop)
}

/// Docker's order of things: with `--cap-add ALL` everything but what is dropped, with `--cap-drop ALL` nothing but what is
/// added, else the fourteen without those dropped and with those added. `bounding` is what we have to give; empty: anything.
///
/// What comes by `ALL` or by default and is not ours to give is left out, so that containers run in containers; what was
/// asked for by name is refused then.
pub fn chosen_capabilities(security: &Security, bounding: &[String]) -> Result<Vec<String>, Error> {
    let (add, drop) = named(security)?;
    let ours = |name: &String| bounding.is_empty() || bounding.contains(name);
    let kept = |name: &String| ours(name) && !drop.contains(name);
    let has_all = |list: &[String]| list.iter().any(|name| name == ALL);
    if has_all(&add) {
        let mut all: Vec<_> = caps::all().into_iter().collect();
        all.sort_unstable_by_key(caps::Capability::index);
        let names = all.iter().map(ToString::to_string);
        return Ok(names.filter(kept).collect());
    }
    let mut chosen = Vec::new();
    if !has_all(&drop) {
        let defaults = DEFAULT_CAPABILITIES.iter().map(|&name| name.to_owned());
        chosen.extend(defaults.filter(kept));
    }
    for name in add {
        if !ours(&name) {
            return Err(Error::MissingCapability(name));
        }
        if !chosen.contains(&name) {
            chosen.push(name);
        }
    }
    Ok(chosen)
}

/// Those of the paths that are to be hidden or read-only.
pub(super) fn hidden(container: &Container, paths: &[&str]) -> Vec<String> {
    let request = &container.request;
    match request.privileged || request.security.unmasked {
        true => Vec::new(),
        false => paths.iter().map(|&path| path.to_owned()).collect(),
    }
}

/// In a network namespace of its own any user may take a low port and send an ICMP echo: nobody else is there to
/// protect from it (ip-sysctl: ip_unprivileged_port_start, ping_group_range).
const NETWORK_SYSCTLS: &[(&str, &str)] = &[
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
];

/// Nothing of ours without a network namespace: it would change the host.
pub(super) fn sysctls(container: &Container, place: &Place) -> HashMap<String, String> {
    let own = match place.netns {
        Some(_) => NETWORK_SYSCTLS,
        None => &[],
    };
    let own = own
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()));
    own.chain(container.request.security.sysctls.iter().cloned())
        .collect()
}

pub(super) fn namespaces(container: &Container, place: &Place) -> Vec<LinuxNamespace> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, Uts};
    let wanted = &container.request.namespaces;
    let new = |kind| {
        let built = LinuxNamespaceBuilder::default().typ(kind).build();
        built.expect(ALL_OPTIONAL)
    };
    let joined = |kind, path: &std::path::PathBuf| {
        let built = LinuxNamespaceBuilder::default()
            .typ(kind)
            .path(path.clone())
            .build();
        built.expect(ALL_OPTIONAL)
    };
    let mut all = vec![new(Mount)];
    if wanted.uts != NamespaceMode::Host {
        all.push(new(Uts));
    }
    for (kind, mode, path) in [
        (Pid, &wanted.pid, &place.joined.pid),
        (Ipc, &wanted.ipc, &place.joined.ipc),
    ] {
        match path {
            Some(path) => all.push(joined(kind, path)),
            None if *mode != NamespaceMode::Host => all.push(new(kind)),
            None => {}
        }
    }
    if let Some(netns) = &place.netns {
        all.push(joined(Network, netns));
    }
    let own_cgroups = match wanted.cgroup {
        NamespaceMode::Private => true,
        NamespaceMode::Host => false,
        _ => place.cgroup_v2,
    };
    if own_cgroups {
        all.push(new(Cgroup));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(add: &[&str], drop: &[&str], bounding: &[&str], expect: &str) {
        let list = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        let security = Security {
            cap_add: list(add),
            cap_drop: list(drop),
            ..Security::default()
        };
        let got = match chosen_capabilities(&security, &list(bounding)) {
            Ok(names) => names.join(" ").replace("CAP_", ""),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expect, "{add:?} {drop:?}");
    }

    #[test]
    fn capabilities_are_added_and_dropped_as_docker_does() {
        check(&["net_admin"], &["ALL"], &[], "NET_ADMIN");
        check(&["CAP_Chown"], &["all", "chown"], &[], "CHOWN");
        check(
            &[],
            &["mknod", "CAP_NET_RAW", "setfcap", "Setpcap", "kill"],
            &[],
            "CHOWN DAC_OVERRIDE FSETID FOWNER SETGID SETUID NET_BIND_SERVICE SYS_CHROOT AUDIT_WRITE",
        );
        check(
            &["ALL"],
            &["SYS_ADMIN"],
            &["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_BPF"],
            "CHOWN BPF",
        );
        // As Docker has it: who adds all has all, whatever else is said.
        check(&["ALL"], &["ALL"], &["CAP_CHOWN"], "CHOWN");
        check(&[], &[], &["CAP_CHOWN", "CAP_BPF"], "CHOWN");
    }

    #[test]
    fn what_is_no_capability_or_not_ours_is_refused() {
        check(
            &["bogus"],
            &[],
            &[],
            "invalid CapAdd: unknown capability: \"CAP_BOGUS\"",
        );
        check(
            &[],
            &["CAP_ALL"],
            &[],
            "invalid CapDrop: unknown capability: \"CAP_ALL\"",
        );
        check(
            &["sys_time"],
            &[],
            &["CAP_CHOWN"],
            "CAP_SYS_TIME cannot be given: coracle does not have it itself, nor can a container",
        );
    }
}
