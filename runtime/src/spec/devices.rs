//! Device nodes and the rules of the devices cgroup. Pure.

use std::path::PathBuf;

use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};

use super::{ALL_OPTIONAL, Place};
use crate::record::Container;

/// A device node of the host, as `--privileged` and `--device` show it in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDevice {
    pub path: PathBuf,
    pub kind: HostDeviceKind,
    pub major: i64,
    pub minor: i64,
    /// The permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// A device that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedDevice {
    /// Its path is that in the container.
    pub node: HostDevice,
    /// Of `r`, `w` and `m`.
    pub permissions: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostDeviceKind {
    Block,
    Character,
}

/// (major, minor) of character devices; `None` is any.
const ALLOWED: &[(i64, Option<i64>)] = &[
    (1, Some(3)), // null
    (1, Some(5)), // zero
    (1, Some(7)), // full
    (1, Some(8)), // random
    (1, Some(9)), // urandom
    (5, Some(0)), // tty
    (5, Some(1)), // console
    (5, Some(2)), // ptmx
    (136, None),  // pts/*
];

/// All denied, then the harmless ones allowed. Making a node of any device is allowed, opening it is not: images have
/// nodes in their layers, and package managers make them.
pub fn rules(container: &Container, place: &Place) -> Vec<LinuxDeviceCgroup> {
    if container.request.privileged {
        return vec![rule(true, LinuxDeviceType::A, None, None, "rwm")];
    }
    let mut all = vec![
        rule(false, LinuxDeviceType::A, None, None, "rwm"),
        rule(true, LinuxDeviceType::C, None, None, "m"),
        rule(true, LinuxDeviceType::B, None, None, "m"),
    ];
    all.extend(
        ALLOWED
            .iter()
            .map(|&(major, minor)| rule(true, LinuxDeviceType::C, Some(major), minor, "rwm")),
    );
    for AskedDevice {
        node: device,
        permissions,
    } in &place.asked_devices
    {
        let numbers = (Some(device.major), Some(device.minor));
        all.push(rule(
            true,
            spec_kind(device.kind),
            numbers.0,
            numbers.1,
            permissions,
        ));
    }
    for asked in &container.request.security.device_rules {
        let kind = match asked.kind {
            'b' => LinuxDeviceType::B,
            'c' => LinuxDeviceType::C,
            _ => LinuxDeviceType::A,
        };
        all.push(rule(
            true,
            kind,
            asked.major,
            asked.minor,
            &asked.permissions,
        ));
    }
    merged(all)
}

/// What is allowed of one device becomes one rule. An access is allowed by a rule that holds all of it: `r` and `w` in two rules
/// would not allow O_RDWR on cgroup v2, while on v1 the kernel itself merges what is said of the same device.
fn merged(rules: Vec<LinuxDeviceCgroup>) -> Vec<LinuxDeviceCgroup> {
    let mut all: Vec<LinuxDeviceCgroup> = Vec::new();
    for rule in rules {
        let device = |rule: &LinuxDeviceCgroup| (rule.typ(), rule.major(), rule.minor());
        let same = all
            .iter_mut()
            .filter(|_| rule.allow() && rule.typ() != Some(LinuxDeviceType::A))
            .find(|earlier| earlier.allow() && device(earlier) == device(&rule));
        let Some(same) = same else {
            all.push(rule);
            continue;
        };
        let mut access = same.access().clone().unwrap_or_default();
        for one in rule.access().iter().flat_map(|more| more.chars()) {
            if !access.contains(one) {
                access.push(one);
            }
        }
        same.set_access(Some(access));
    }
    all
}

fn rule(
    allow: bool,
    kind: LinuxDeviceType,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> LinuxDeviceCgroup {
    let mut builder = LinuxDeviceCgroupBuilder::default()
        .allow(allow)
        .typ(kind)
        .access(access.to_owned());
    if let Some(major) = major {
        builder = builder.major(major);
    }
    if let Some(minor) = minor {
        builder = builder.minor(minor);
    }
    builder.build().expect(ALL_OPTIONAL)
}

/// Nodes beyond the six that every container has (libcontainer makes null, zero, full, random, urandom and tty, and leaves
/// out those that are listed here). What was asked for by name comes before what all privileged containers have.
pub fn nodes(container: &Container, place: &Place) -> Vec<LinuxDevice> {
    let mut all: Vec<&HostDevice> = place
        .asked_devices
        .iter()
        .map(|asked| &asked.node)
        .collect();
    if container.request.privileged {
        let is_asked = |path: &PathBuf| place.asked_devices.iter().any(|a| a.node.path == *path);
        let others = place.host_devices.iter();
        all.extend(others.filter(|device| !is_asked(&device.path)));
    }
    let mut seen = std::collections::HashSet::new();
    all.retain(|device| seen.insert(&device.path));
    all.into_iter().map(node).collect()
}

fn spec_kind(kind: HostDeviceKind) -> LinuxDeviceType {
    match kind {
        HostDeviceKind::Block => LinuxDeviceType::B,
        HostDeviceKind::Character => LinuxDeviceType::C,
    }
}

fn node(device: &HostDevice) -> LinuxDevice {
    LinuxDeviceBuilder::default()
        .path(device.path.clone())
        .typ(spec_kind(device.kind))
        .major(device.major)
        .minor(device.minor)
        .file_mode(device.mode)
        .uid(device.uid)
        .gid(device.gid)
        .build()
        .expect(ALL_OPTIONAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_of_one_device_is_one_rule() {
        use LinuxDeviceType::{A, B, C};
        let rules = merged(vec![
            rule(false, A, None, None, "rwm"),
            rule(true, C, None, None, "m"),
            rule(true, C, Some(42), None, "r"),
            rule(true, B, Some(42), None, "r"),
            rule(true, C, Some(42), Some(0), "w"),
            rule(true, C, Some(42), None, "rw"),
            rule(true, A, None, None, "rwm"),
        ]);
        let told: Vec<_> = rules
            .iter()
            .map(|r| format!("{:?} {}", r.typ().unwrap(), r.access().as_deref().unwrap()))
            .collect();
        assert_eq!(told, ["A rwm", "C m", "C rw", "B r", "C w", "A rwm"]);
    }
}
