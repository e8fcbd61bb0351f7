//! What a spec needs to know of the host: where its cgroup v1 hierarchies are, and its device nodes. Reads only.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, ErrorKind};
use crate::request::DeviceRequest;
use crate::spec::{AskedDevice, HostDevice, HostDeviceKind};

/// Mount points of the cgroup v1 hierarchies in this mount namespace, each once. Empty where there is only v2. In a
/// container each is a bind of its own part, which is all that containers in it can have.
pub fn cgroup_v1_hierarchies() -> io::Result<Vec<PathBuf>> {
    Ok(parse_hierarchies(&std::fs::read_to_string(
        "/proc/self/mountinfo",
    )?))
}

/// proc_pid_mountinfo(5): the mount point is the fifth field, the type comes after a lone dash.
fn parse_hierarchies(mountinfo: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for line in mountinfo.lines() {
        let Some((mount, kind)) = line.split_once(" - ") else {
            continue;
        };
        let mut fields = mount.split(' ');
        let (Some(root), Some(point)) = (fields.nth(3), fields.next()) else {
            continue;
        };
        let point = PathBuf::from(point);
        // A bind of a part of a hierarchy somewhere else is not where a container's directory will be.
        let usual = point.parent() == Some(Path::new("/sys/fs/cgroup"));
        let known = |other: &PathBuf| other.file_name() == point.file_name();
        if kind.starts_with("cgroup ") && (root == "/" || usual) && !found.iter().any(known) {
            found.push(point);
        }
    }
    found
}

/// Not devices of the host, or another file system that each container has its own of; as Docker.
const NOT_WALKED: &[&str] = &[
    "pts",
    "shm",
    "fd",
    "mqueue",
    ".lxc",
    ".lxd-mounts",
    ".udev",
    "console",
];

/// All device nodes below /dev, for `--privileged`.
pub fn host_devices() -> io::Result<Vec<HostDevice>> {
    let mut found = Vec::new();
    walk(Path::new("/dev"), &mut found)?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn walk(directory: &Path, found: &mut Vec<HostDevice>) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if NOT_WALKED.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        // Nodes come and go (a plugged stick, a loop device): one that has gone is no failure.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if metadata.is_dir() {
            // The same for a directory, and for a file system that does not let us in.
            if let Err(error) = walk(&entry.path(), found) {
                tracing::debug!(path = %entry.path().display(), %error, "left out");
            }
            continue;
        }
        found.extend(device(&entry.path(), &metadata));
    }
    Ok(())
}

/// `None` for what is no device.
fn device(path: &Path, metadata: &Metadata) -> Option<HostDevice> {
    let kind = metadata.file_type();
    let kind = if kind.is_block_device() {
        HostDeviceKind::Block
    } else if kind.is_char_device() {
        HostDeviceKind::Character
    } else {
        return None;
    };
    let number = metadata.rdev();
    Some(HostDevice {
        path: path.to_owned(),
        kind,
        major: i64::from(rustix::fs::major(number)),
        minor: i64::from(rustix::fs::minor(number)),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}

/// The devices that were asked for, as they are on this host. A folder stands for the devices in it; a link for what it
/// leads to. The texts of refusal are Docker's.
pub fn asked_devices(requests: &[DeviceRequest]) -> Result<Vec<AskedDevice>, Error> {
    let mut all = Vec::new();
    for request in requests {
        let failed = |why, kind| Error::Device {
            path: request.host.display().to_string(),
            why,
            kind,
        };
        let missing = |_| failed("no such file or directory", ErrorKind::CommandNotFound);
        let resolved = std::fs::canonicalize(&request.host).map_err(missing)?;
        let metadata = std::fs::metadata(&resolved).map_err(missing)?;
        let mut found = Vec::new();
        match device(&resolved, &metadata) {
            Some(device) => found.push(device),
            None if metadata.is_dir() => {
                let _ = walk(&resolved, &mut found);
            }
            None => {}
        }
        if found.is_empty() {
            return Err(failed("not a device node", ErrorKind::Invalid));
        }
        // libcontainer makes nodes nowhere else, and would follow the way up.
        let target = &request.container;
        let has_up = target.components().any(|part| part == Component::ParentDir);
        if has_up || target == Path::new("/dev") || !target.starts_with("/dev") {
            return Err(Error::DeviceOutsideDev(target.display().to_string()));
        }
        for mut node in found {
            let below = node.path.strip_prefix(&resolved).unwrap_or(Path::new(""));
            node.path = match below.as_os_str().is_empty() {
                true => request.container.clone(),
                false => request.container.join(below),
            };
            all.push(AskedDevice {
                node,
                permissions: request.permissions.clone(),
            });
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_those_of_v1_and_whole() {
        let text = "\
24 1 0:22 / /sys/fs/cgroup rw,nosuid - tmpfs tmpfs rw,mode=755
25 24 0:23 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
26 24 0:24 / /sys/fs/cgroup/memory rw,nosuid shared:5 - cgroup cgroup rw,memory
27 24 0:25 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
28 24 0:24 /some/part /mnt/memory rw - cgroup cgroup rw,memory
29 24 0:24 / /elsewhere/memory rw - cgroup cgroup rw,memory
garbage
";
        let expect = ["memory", "cpu,cpuacct"].map(|n| Path::new("/sys/fs/cgroup").join(n));
        assert_eq!(parse_hierarchies(text), expect);
    }

    #[test]
    fn devices_that_were_asked_for_are_found_and_stay_below_dev() {
        let ask = |host: &str, container: &str| {
            let request = DeviceRequest {
                host: host.into(),
                container: container.into(),
                permissions: "r".into(),
            };
            match asked_devices(&[request]) {
                Ok(found) => format!("{} {}", found[0].node.path.display(), found[0].node.minor),
                Err(error) => error.to_string(),
            }
        };
        assert_eq!(ask("/dev/null", "/dev/n"), "/dev/n 3");
        assert_eq!(ask("/proc/self/root/dev/zero", "/dev/z"), "/dev/z 5");
        let gathering = "error gathering device information while adding custom device";
        assert_eq!(
            ask("/dev/no-such", "/dev/n"),
            format!("{gathering} \"/dev/no-such\": no such file or directory")
        );
        for path in ["/etc/passwd", "/proc/self"] {
            assert_eq!(
                ask(path, "/dev/n"),
                format!("{gathering} {path:?}: not a device node")
            );
        }
        for path in ["/opt/a", "/dev/../etc/a", "/device", "/dev"] {
            assert!(
                ask("/dev/null", path).contains("must be below /dev"),
                "{path}"
            );
        }
    }

    #[test]
    fn in_a_container_they_are_binds_of_its_own_parts() {
        let text = "\
24 1 0:50 / /sys/fs/cgroup rw,nosuid - tmpfs tmpfs rw,mode=755
25 24 0:24 /coracle/1234 /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory
26 24 0:25 /coracle/1234 /sys/fs/cgroup/pids rw,nosuid - cgroup cgroup rw,pids
";
        let expect = ["memory", "pids"].map(|n| Path::new("/sys/fs/cgroup").join(n));
        assert_eq!(parse_hierarchies(text), expect);
    }

    #[test]
    fn null_is_a_character_device_of_this_host_and_terminals_are_left_out() {
        let all = host_devices().unwrap();
        let null = all
            .iter()
            .find(|d| d.path == Path::new("/dev/null"))
            .unwrap();
        assert_eq!(
            (null.kind, null.major, null.minor),
            (HostDeviceKind::Character, 1, 3)
        );
        assert!(!all.iter().any(|d| d.path.starts_with("/dev/pts")));
    }
}
