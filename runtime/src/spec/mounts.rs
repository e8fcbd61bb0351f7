//! What is mounted where, and in which order. Pure.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Mount, MountBuilder};

use super::{ALL_OPTIONAL, INIT, Place};
use crate::record::{Container, ResolvedMount};
use crate::request::NamespaceMode;

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

/// Bytes of /dev/shm.
const SHM_SIZE: u64 = 64 << 20;

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
    let mut all = defaults(container, place);
    shared_memory(container, place, &mut all);
    all.retain(|mount| !replaced(mount));
    all.extend(binds);
    all
}

fn defaults(container: &Container, place: &Place) -> Vec<Mount> {
    let access = if container.request.privileged {
        "rw"
    } else {
        "ro"
    };
    let shm = container.request.shm_size.unwrap_or(SHM_SIZE);
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
        &[
            "nosuid",
            "noexec",
            "nodev",
            "mode=1777",
            &format!("size={shm}"),
        ],
    ));
    all
}

/// With whom /dev/shm is shared goes with the IPC namespace; `none` has it not at all.
fn shared_memory(container: &Container, place: &Place, all: &mut Vec<Mount>) {
    let at = Path::new("/dev/shm");
    let source = match (&container.request.namespaces.ipc, &place.joined.shm) {
        (NamespaceMode::Host, _) => Some(at),
        (NamespaceMode::Container(_), Some(shm)) => Some(shm.as_path()),
        (NamespaceMode::None, _) => None,
        _ => return,
    };
    all.retain(|mount| mount.destination() != at);
    all.extend(source.map(|source| bind(source, at, &["rbind", "rprivate"])));
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
    let mounts = &container.resolved.mounts;
    // Another runtime has no last step of ours.
    let is_late =
        |mount: &ResolvedMount| container.request.runtime.is_none() && mount.late().is_some();
    let mut all: Vec<Mount> = mounts
        .iter()
        // Those that propagate are put in place by other means (`bundle::Late`).
        .filter(|wanted| !is_late(wanted))
        .map(|wanted| user_mount(wanted, place))
        .collect();
    let late: Vec<&ResolvedMount> = mounts.iter().filter(|mount| is_late(mount)).collect();
    let etc: &[&str] = match container.request.read_only {
        true => &["rbind", "rprivate", "ro"],
        false => &["rbind", "rprivate"],
    };
    let files = [
        (&place.resolv_conf, "/etc/resolv.conf"),
        (&place.hostname, "/etc/hostname"),
        (&place.hosts, "/etc/hosts"),
    ];
    for (source, target) in files {
        let target = Path::new(target);
        let is_taken = all.iter().any(|mount| mount.destination() == target)
            || late.iter().any(|m| Path::new(&m.target) == target);
        if !is_taken {
            all.push(bind(source, target, etc));
        }
    }
    if let Some(program) = &place.init {
        all.push(bind(program, Path::new(INIT), &["bind", "rprivate", "ro"]));
    }
    all.sort_by_key(|mount| depth(mount.destination()));
    all
}

fn user_mount(wanted: &ResolvedMount, place: &Place) -> Mount {
    let target = Path::new(&wanted.target);
    if let Some(text) = &wanted.tmpfs {
        // Checked when the container was created.
        let mut options = tmpfs_options(text).unwrap_or_default();
        if wanted.read_only {
            options.push("ro".to_owned());
        }
        let mode = place.tmpfs_modes.get(&wanted.target);
        if let Some(mode) = mode.filter(|_| !options.iter().any(|o| o.starts_with("mode="))) {
            options.push(format!("mode={mode:o}"));
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        return mount(target, "tmpfs", "tmpfs", &options);
    }
    let mut options = match wanted.options.non_recursive {
        true => vec!["bind", "private"],
        false => vec!["rbind", "rprivate"],
    };
    if wanted.read_only {
        // `ro` is the mount itself; `rro` those below it too, which Docker 20.10 leaves writable.
        options.extend(["ro", "rro"]);
    }
    bind(Path::new(&wanted.source), target, &options)
}

/// What Docker adds to `--tmpfs`.
const TMPFS_DEFAULTS: [&str; 3] = ["noexec", "nosuid", "nodev"];

/// Switches of mount(8) that a tmpfs may have: of those on one line the last counts.
const TMPFS_SWITCHES: &[&[&str]] = &[
    &["ro", "rw"],
    &["suid", "nosuid"],
    &["dev", "nodev"],
    &["exec", "noexec"],
    &["sync", "async"],
    &["dirsync"],
    &["mand", "nomand"],
    &["atime", "noatime"],
    &["diratime", "nodiratime"],
    &["relatime", "norelatime"],
    &["strictatime", "nostrictatime"],
];

const TMPFS_VALUES: &[&str] = &[
    "size",
    "mode",
    "uid",
    "gid",
    "nr_inodes",
    "nr_blocks",
    "mpol",
];

/// The options of a tmpfs: Docker's defaults and what was asked for over them. An error is the bad option as Docker shows it.
pub fn tmpfs_options(text: &str) -> Result<Vec<String>, String> {
    let mut all: Vec<(&str, &str)> = TMPFS_DEFAULTS
        .iter()
        .map(|option| (subject(option).unwrap_or(option), *option))
        .collect();
    let asked = text
        .split(',')
        .filter(|o| !text.is_empty() && *o != "defaults");
    for option in asked {
        let subject = subject(option).ok_or_else(|| {
            let parts: Vec<String> = option.splitn(2, '=').map(|p| format!("{p:?}")).collect();
            format!("[{}]", parts.join(" "))
        })?;
        all.retain(|(other, _)| *other != subject);
        all.push((subject, option));
    }
    Ok(all.into_iter().map(|(_, o)| o.to_owned()).collect())
}

/// What the kernel would refuse at the start, without a word of why (tmpfs(5)).
fn is_tmpfs_value(name: &str, value: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match name {
        "mode" => u32::from_str_radix(value, 8).is_ok_and(|mode| mode <= 0o7777),
        "uid" | "gid" => value.parse::<u32>().is_ok(),
        "mpol" => true,
        _ => is_number(
            value
                .strip_suffix(['k', 'K', 'm', 'M', 'g', 'G', '%'])
                .unwrap_or(value),
        ),
    }
}

/// What an option is about; `None`: it is unknown.
fn subject(option: &str) -> Option<&str> {
    match option.split_once('=') {
        Some((name, value)) => {
            let is_known = TMPFS_VALUES.contains(&name) && is_tmpfs_value(name, value);
            is_known.then_some(name)
        }
        None => TMPFS_SWITCHES
            .iter()
            .find(|line| line.contains(&option))
            .map(|line| line[0]),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tmpfs_options_are_merged_as_docker_does() {
        for (text, expected) in [
            ("", "noexec,nosuid,nodev"),
            ("exec", "nosuid,nodev,exec"),
            (
                "size=1m,mode=700,size=2m",
                "noexec,nosuid,nodev,mode=700,size=2m",
            ),
            ("defaults,ro", "noexec,nosuid,nodev,ro"),
        ] {
            assert_eq!(tmpfs_options(text).unwrap().join(","), expected, "{text}");
        }
        assert_eq!(tmpfs_options("foo").unwrap_err(), "[\"foo\"]");
        assert_eq!(tmpfs_options("a=b=c").unwrap_err(), "[\"a\" \"b=c\"]");
        for bad in ["size=x", "size=", "mode=9", "uid=me", "nr_inodes=-1"] {
            assert!(tmpfs_options(bad).is_err(), "{bad}");
        }
        assert!(tmpfs_options("size=50%,uid=7,nr_inodes=10k").is_ok());
    }
}
