//! What is mounted where, and in which order. Pure.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, MountBuilder};

use super::{ALL_OPTIONAL, Place};
use crate::record::Container;

/// The cgroup v1 controllers that libcontainer makes a directory in; a bind of any other would have no source.
const V1_CONTROLLERS: &[&str] = &[
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
];

/// The kernel's own file systems first, then binds by the depth of their target, so that none hides one made before.
/// A bind on the target of a default replaces it.
pub fn mounts(container: &Container, place: &Place) -> Vec<Mount> {
    let binds = binds(container, place);
    let replaced = |mount: &Mount| {
        let target = mount.destination();
        binds.iter().any(|bind| {
            let over = bind.destination();
            over == target || (over == Path::new("/dev") && target.starts_with("/dev"))
        })
    };
    let mut all = defaults(container.request.privileged, place);
    all.retain(|mount| !replaced(mount));
    all.extend(binds);
    all
}

fn defaults(privileged: bool, place: &Place) -> Vec<Mount> {
    let access = if privileged { "rw" } else { "ro" };
    let quiet = ["nosuid", "noexec", "nodev"];
    let mut all = vec![
        mount("/proc", "proc", "proc", &quiet),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount(
            "/sys",
            "sysfs",
            "sysfs",
            &["nosuid", "noexec", "nodev", access],
        ),
    ];
    all.extend(cgroups(access, place));
    all.push(mount("/dev/mqueue", "mqueue", "mqueue", &quiet));
    all.push(mount(
        "/dev/shm",
        "tmpfs",
        "shm",
        &["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"],
    ));
    all
}

/// libcontainer's own mount of cgroup v1 ignores `ro`, so a container could change its limits. Hence binds of its own
/// directories, one for each hierarchy, and for each name of one that has several (`cpu,cpuacct`).
pub(crate) fn cgroups(access: &str, place: &Place) -> Vec<Mount> {
    let options = ["nosuid", "noexec", "nodev", access];
    let below = Path::new("/sys/fs/cgroup");
    if place.cgroup_v2 {
        return vec![mount(below, "cgroup", "cgroup", &options)];
    }
    let mut all = vec![mount(
        below,
        "tmpfs",
        "tmpfs",
        &["nosuid", "noexec", "nodev", "mode=755"],
    )];
    for hierarchy in &place.cgroup_v1 {
        let Some(name) = hierarchy.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if !name.split(',').all(|part| V1_CONTROLLERS.contains(&part)) {
            continue;
        }
        let source = hierarchy.join(place.cgroup.strip_prefix("/").unwrap_or(&place.cgroup));
        let mut names = vec![name];
        if name.contains(',') {
            names.extend(name.split(','));
        }
        for name in names {
            all.push(bind(
                &source,
                &below.join(name),
                &["bind", "nosuid", "noexec", "nodev", "relatime", access],
            ));
        }
    }
    all
}

/// The user's mounts and our files in /etc, unless the user has mounted something there.
fn binds(container: &Container, place: &Place) -> Vec<Mount> {
    let mut all: Vec<Mount> = container
        .resolved
        .mounts
        .iter()
        .map(|wanted| {
            let options: &[&str] = if wanted.read_only {
                // `ro` is the mount itself; `rro` those below it too, which Docker 20.10 leaves writable.
                &["rbind", "rprivate", "ro", "rro"]
            } else {
                &["rbind", "rprivate"]
            };
            bind(
                Path::new(&wanted.source),
                Path::new(&wanted.target),
                options,
            )
        })
        .collect();
    let files = [
        (&place.resolv_conf, "/etc/resolv.conf"),
        (&place.hostname, "/etc/hostname"),
        (&place.hosts, "/etc/hosts"),
    ];
    for (source, target) in files {
        let target = Path::new(target);
        if !all.iter().any(|mount| mount.destination() == target) {
            all.push(bind(source, target, &["rbind", "rprivate"]));
        }
    }
    all.sort_by_key(|mount| depth(mount.destination()));
    all
}

fn depth(path: &Path) -> usize {
    path.components().count()
}

fn bind(source: &Path, target: &Path, options: &[&str]) -> Mount {
    mount(target, "bind", source, options)
}

fn mount(
    target: impl Into<PathBuf>,
    kind: &str,
    source: impl Into<PathBuf>,
    options: &[&str],
) -> Mount {
    let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
    MountBuilder::default()
        .destination(target.into())
        .typ(kind.to_owned())
        .source(source.into())
        .options(options)
        .build()
        .expect(ALL_OPTIONAL)
}
