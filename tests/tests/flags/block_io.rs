//! How fast a container may use block devices.

use std::fs;
use std::time::{Duration, Instant};

use harness::{Cmd, Host};

use crate::cell;
use crate::cell::Cell;

pub const CELLS: &[Cell] = &[
    cell!(
        a_rate_slows_a_device_down,
        "run --device-read-bps",
        "run --device-write-bps",
        "run --device-read-iops",
        "run --device-write-iops"
    ),
    cell!(
        rates_are_refused_in_dockers_words,
        "run --device-read-bps",
        "run --device-write-bps",
        "run --device-read-iops",
        "run --device-write-iops"
    ),
];

/// A loop device over a file of the host's folder.
struct Disk(String);

impl Disk {
    fn new(host: &Host) -> Disk {
        let file = host.folder().join("disk");
        let made = fs::File::create(&file).and_then(|file| file.set_len(8 << 20));
        made.expect("make a file for the disk");
        let attached = Cmd::new("losetup")
            .args(["--find", "--show"])
            .arg(&file)
            .run()
            .ok();
        Disk(attached.text().to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Cmd::new("losetup").args(["--detach", &self.0]).run();
    }
}

/// A file of the container's cgroup, of either version.
fn limit(host: &Host, name: &str, v1: &str) -> String {
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", host.pid_of(name))).unwrap();
    let path = |controller: &str| {
        let mut fields = groups.lines().map(|line| line.splitn(3, ':'));
        fields.find_map(|mut fields| {
            let controllers = fields.nth(1)?;
            let path = fields.next()?;
            controllers
                .split(',')
                .any(|one| one == controller)
                .then(|| path.to_owned())
        })
    };
    let file = match path("blkio") {
        Some(path) => format!("/sys/fs/cgroup/blkio{path}/{v1}"),
        None => format!("/sys/fs/cgroup{}/io.max", path("").unwrap()),
    };
    fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file}: {e}"))
}

fn a_rate_slows_a_device_down() {
    let host = Host::new();
    let disk = Disk::new(&host);
    let device = &disk.0;
    host.run(&format!(
        "run -d --name c1 --device {device}:/dev/disk:r --device-read-bps {device}:1mb --device-write-bps {device}:2mb \
         --device-read-iops {device}:300 --device-write-iops {device}:400 busybox sleep 1000"
    ));
    for (file, v1, v2) in [
        ("blkio.throttle.read_bps_device", " 1048576", "rbps=1048576"),
        (
            "blkio.throttle.write_bps_device",
            " 2097152",
            "wbps=2097152",
        ),
        ("blkio.throttle.read_iops_device", " 300", "riops=300"),
        ("blkio.throttle.write_iops_device", " 400", "wiops=400"),
    ] {
        let found = limit(&host, "c1", file);
        assert!(
            found.trim_end().ends_with(v1) || found.contains(v2),
            "{file}: {found}"
        );
    }
    let config = host.inspect("c1")["HostConfig"].take();
    let expected = serde_json::json!([{"Path": device, "Rate": 1 << 20}]);
    assert_eq!(config["BlkioDeviceReadBps"], expected);
    assert_eq!(config["BlkioDeviceWriteIOps"][0]["Rate"], 400);
    // A busy machine can only be slower than the limit.
    let begun = Instant::now();
    host.run("exec c1 dd if=/dev/disk of=/dev/null bs=64k count=64 iflag=direct");
    let took = begun.elapsed();
    assert!(
        took > Duration::from_secs(3),
        "4 MB at 1 MB a second took {took:?}"
    );
    // A change of something else leaves it.
    host.run("update --pids-limit 50 c1");
    let file = "blkio.throttle.read_bps_device";
    assert!(limit(&host, "c1", file).contains("1048576"));
    host.run("rm -f c1");
}

fn rates_are_refused_in_dockers_words() {
    let host = Host::new();
    let bytes = "The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb";
    let count = "The correct format is <device-path>:<number>. Number must be a positive integer";
    for (flag, value, text) in [
        ("--device-read-bps", "x", "bad format: x"),
        (
            "--device-write-bps",
            "x:1",
            "bad format for device path: x:1",
        ),
        ("--device-read-bps", "/dev/null:x", bytes),
        ("--device-write-bps", "/dev/null:-1", bytes),
        ("--device-read-iops", "/dev/null:-1", count),
        ("--device-write-iops", "/dev/null:1mb", count),
        (
            "--device-read-iops",
            "/dev/null:1",
            "cannot limit /dev/null: it is no block device",
        ),
        (
            "--device-write-iops",
            "/dev/nosuch:1",
            "cannot limit /dev/nosuch: No such file or directory",
        ),
    ] {
        host.try_run(&format!("run {flag} {value} busybox true"))
            .exits(125)
            .complains(text);
    }
    assert!(host.ids().is_empty());
}
