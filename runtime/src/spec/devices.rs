//! Device nodes and the rules of the devices cgroup. Pure.

use std::path::PathBuf;

use oci_spec::runtime::{
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType,
};

use super::{ALL_OPTIONAL, Place};
use crate::record::Container;

/// A device node of the host, as `--privileged` shows it in the container.
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
pub fn rules(privileged: bool) -> Vec<LinuxDeviceCgroup> {
    if privileged {
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

/// Nodes beyond the six that every container has (libcontainer makes null, zero, full, random, urandom and tty).
pub fn nodes(container: &Container, place: &Place) -> Vec<LinuxDevice> {
    if !container.request.privileged {
        return Vec::new();
    }
    place.host_devices.iter().map(node).collect()
}

fn node(device: &HostDevice) -> LinuxDevice {
    let kind = match device.kind {
        HostDeviceKind::Block => LinuxDeviceType::B,
        HostDeviceKind::Character => LinuxDeviceType::C,
    };
    LinuxDeviceBuilder::default()
        .path(device.path.clone())
        .typ(kind)
        .major(device.major)
        .minor(device.minor)
        .file_mode(device.mode)
        .uid(device.uid)
        .gid(device.gid)
        .build()
        .expect(ALL_OPTIONAL)
}
