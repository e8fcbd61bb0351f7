//! `--device-read-bps` and its siblings as the files of a cgroup. libcontainer knows them on v2 only; so they are written by our own hand,
//! before the program runs. No `update` changes them.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::{Group, hierarchy, is_v2};
use crate::request::{Resources, Throttle, ThrottleKind};

/// Whether this host can slow down block devices.
pub fn can_throttle() -> bool {
    let Some(root) = hierarchy(controller()) else {
        return false;
    };
    match is_v2() {
        true => fs::read_to_string(root.join("cgroup.controllers"))
            .is_ok_and(|all| all.split_whitespace().any(|one| one == "io")),
        false => root.join(file_v1(ThrottleKind::ReadBytes)).exists(),
    }
}

/// Major and minor number of a block device.
pub fn block_device(path: &Path) -> io::Result<(u32, u32)> {
    let metadata = fs::metadata(path)?;
    if !metadata.file_type().is_block_device() {
        return Err(io::Error::other("it is no block device"));
    }
    let number = metadata.rdev();
    Ok((rustix::fs::major(number), rustix::fs::minor(number)))
}

/// Writes them for a container that is about to start. An error names the device or the file.
pub fn throttle(group: &Group, resources: &Resources) -> io::Result<()> {
    for throttle in &resources.throttles {
        let number = block_device(&throttle.device)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", throttle.device.display())))?;
        let directory = group
            .directory(controller())
            .ok_or_else(|| io::Error::other(format!("this host has no {} cgroup", controller())))?;
        let (file, value) = line(throttle, number, is_v2());
        let path = directory.join(file);
        fs::write(&path, &value).map_err(|e| {
            io::Error::new(
                e.kind(),
                format!("write {value:?} to {}: {e}", path.display()),
            )
        })?;
    }
    Ok(())
}

fn controller() -> &'static str {
    match is_v2() {
        true => "io",
        false => "blkio",
    }
}

/// The file, and what is written to it: the kernel changes this device's line alone (cgroup-v2.rst, io.max; blkio-controller.rst).
fn line(throttle: &Throttle, (major, minor): (u32, u32), v2: bool) -> (&'static str, String) {
    let rate = throttle.rate;
    if !v2 {
        return (file_v1(throttle.kind), format!("{major}:{minor} {rate}"));
    }
    let key = match throttle.kind {
        ThrottleKind::ReadBytes => "rbps",
        ThrottleKind::WriteBytes => "wbps",
        ThrottleKind::ReadOperations => "riops",
        ThrottleKind::WriteOperations => "wiops",
    };
    // 0 is Docker's and v1's word for no limit.
    let rate = match rate {
        0 => "max".to_owned(),
        _ => rate.to_string(),
    };
    ("io.max", format!("{major}:{minor} {key}={rate}"))
}

fn file_v1(kind: ThrottleKind) -> &'static str {
    match kind {
        ThrottleKind::ReadBytes => "blkio.throttle.read_bps_device",
        ThrottleKind::WriteBytes => "blkio.throttle.write_bps_device",
        ThrottleKind::ReadOperations => "blkio.throttle.read_iops_device",
        ThrottleKind::WriteOperations => "blkio.throttle.write_iops_device",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_line_of_the_devices_file() {
        let check = |kind, rate, v1: (&str, &str), v2: &str| {
            let throttle = Throttle {
                kind,
                device: "/dev/vda".into(),
                rate,
            };
            let (file, value) = line(&throttle, (254, 0), false);
            assert_eq!((file, value.as_str()), v1);
            assert_eq!(line(&throttle, (254, 0), true), ("io.max", v2.to_owned()));
        };
        check(
            ThrottleKind::ReadBytes,
            1 << 20,
            ("blkio.throttle.read_bps_device", "254:0 1048576"),
            "254:0 rbps=1048576",
        );
        check(
            ThrottleKind::WriteOperations,
            0,
            ("blkio.throttle.write_iops_device", "254:0 0"),
            "254:0 wiops=max",
        );
    }

    #[test]
    fn what_is_no_block_device_is_refused() {
        let why = block_device(Path::new("/dev/null")).unwrap_err();
        assert_eq!(why.to_string(), "it is no block device");
        assert!(block_device(Path::new("/dev/nosuch")).is_err());
    }
}
