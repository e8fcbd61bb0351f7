//! What the spec says for a given record; tests/parts_spec.rs runs it.

use oci_spec::runtime::LinuxNamespaceType;
use time::OffsetDateTime;

use super::*;
use crate::record::{Resolved, ResolvedMount, State};
use crate::request::ContainerRequest;

fn container() -> Container {
    Container {
        id: "ab".repeat(32),
        name: "web".to_owned(),
        created: OffsetDateTime::UNIX_EPOCH,
        request: ContainerRequest::default(),
        resolved: Resolved {
            entrypoint: vec!["/bin/sh".to_owned()],
            command: vec!["-c".to_owned(), "true".to_owned()],
            hostname: "web".to_owned(),
            ..Resolved::default()
        },
        image_id: format!("sha256:{}", "0".repeat(64)),
        state: State::Created,
        paused: false,
        health: None,
        restarts: 0,
        stopped_by_user: false,
        attachments: Vec::new(),
    }
}

fn place() -> Place {
    Place {
        rootfs: "/r".into(),
        netns: Some("/run/netns/x".into()),
        hosts: "/b/hosts".into(),
        hostname: "/b/hostname".into(),
        resolv_conf: "/b/resolv.conf".into(),
        cgroup: "/coracle/id".into(),
        cgroup_v1: ["memory", "cpu,cpuacct", "systemd"]
            .map(|name| PathBuf::from("/sys/fs/cgroup").join(name))
            .to_vec(),
        user: User {
            home: "/root".to_owned(),
            ..User::default()
        },
        ..Place::default()
    }
}

fn targets(spec: &Spec) -> Vec<String> {
    let mounts = spec.mounts().as_ref().unwrap();
    mounts
        .iter()
        .map(|m| m.destination().display().to_string())
        .collect()
}

fn options(spec: &Spec, target: &str) -> Vec<String> {
    let mounts = spec.mounts().as_ref().unwrap();
    let mount = mounts
        .iter()
        .find(|m| m.destination() == &PathBuf::from(target));
    mount.unwrap().options().clone().unwrap()
}

#[test]
fn command_line_is_entrypoint_and_command() {
    let spec = spec(&container(), &place());
    let process = spec.process().as_ref().unwrap();
    assert_eq!(process.args().as_ref().unwrap(), &["/bin/sh", "-c", "true"]);
    assert_eq!(process.cwd(), &PathBuf::from("/"));
    assert_eq!(process.rlimits(), &None);
    assert_eq!(process.no_new_privileges(), None);
    assert_eq!(spec.linux().as_ref().unwrap().seccomp(), &None);
}

#[test]
fn environment_is_dockers_with_the_images_over_it() {
    let mut c = container();
    let path = format!("PATH={DEFAULT_PATH}");
    assert_eq!(
        environment(&c, &place()),
        [&path, "HOSTNAME=web", "HOME=/root"]
    );
    c.request.tty = true;
    c.resolved.env = [
        "A=1",
        "PATH=/x",
        "HOME=/h",
        "HOSTNAME",
        "TERM=dumb",
        "A=2",
        "NONE",
    ]
    .map(String::from)
    .to_vec();
    assert_eq!(
        environment(&c, &place()),
        ["PATH=/x", "TERM=dumb", "A=2", "HOME=/h"]
    );
    c.resolved.env = vec!["PATH".to_owned()];
    assert!(
        environment(&c, &place()).contains(&path),
        "without PATH nothing starts"
    );
}

#[test]
fn program_has_the_fourteen_and_the_spec_two_more_for_the_executor() {
    let spec = spec(&container(), &place());
    assert_eq!(capabilities(&container(), &place()).unwrap().len(), 14);
    let sets = spec
        .process()
        .as_ref()
        .unwrap()
        .capabilities()
        .clone()
        .unwrap();
    let json = serde_json::to_value(&sets).unwrap();
    for set in ["bounding", "effective", "permitted"] {
        // CAP_SETPCAP is one of the fourteen already.
        assert_eq!(json[set].as_array().unwrap().len(), 15, "{set}");
    }
    assert!(sets.inheritable().as_ref().is_none_or(|set| set.is_empty()));
    assert!(sets.ambient().as_ref().is_none_or(|set| set.is_empty()));
}

#[test]
fn nothing_is_given_that_we_do_not_have() {
    let mut place = place();
    place.bounding_set = vec!["CAP_CHOWN".to_owned(), "CAP_SYS_TIME".to_owned()];
    assert_eq!(capabilities(&container(), &place).unwrap(), ["CAP_CHOWN"]);
    let mut c = container();
    c.request.privileged = true;
    assert_eq!(
        capabilities(&c, &place).unwrap(),
        ["CAP_CHOWN", "CAP_SYS_TIME"]
    );
}

#[test]
fn primary_group_is_among_the_supplementary_ones() {
    let mut place = place();
    place.user = User {
        uid: 999,
        gid: 998,
        groups: vec![4, 998, 50],
        home: "/".to_owned(),
    };
    let spec = spec(&container(), &place);
    let user = spec.process().as_ref().unwrap().user().clone();
    assert_eq!(user.additional_gids(), &Some(vec![998, 4, 50]));
}

#[test]
fn binds_come_after_the_defaults_and_by_the_depth_of_their_target() {
    let mut c = container();
    c.resolved.mounts = ["/data/deep/er", "/data", "/etc/hosts", "/dev/shm"]
        .map(|target| ResolvedMount {
            source: "/src".to_owned(),
            target: target.to_owned(),
            volume: None,
            read_only: target == "/data",
            tmpfs: None,
            options: Default::default(),
        })
        .to_vec();
    let spec = spec(&c, &place());
    assert_eq!(
        targets(&spec),
        [
            "/proc",
            "/dev",
            "/dev/pts",
            "/sys",
            "/sys/fs/cgroup",
            "/sys/fs/cgroup/memory",
            "/sys/fs/cgroup/cpu,cpuacct",
            "/sys/fs/cgroup/cpu",
            "/sys/fs/cgroup/cpuacct",
            "/dev/mqueue",
            "/data",
            "/etc/hosts",
            "/dev/shm",
            "/etc/resolv.conf",
            "/etc/hostname",
            "/data/deep/er",
        ]
    );
    assert_eq!(options(&spec, "/data"), ["rbind", "rprivate", "ro", "rro"]);
    assert_eq!(options(&spec, "/data/deep/er"), ["rbind", "rprivate"]);
}

#[test]
fn cgroups_are_read_only_and_the_containers_own() {
    let spec = spec(&container(), &place());
    let mounts = spec.mounts().clone().unwrap();
    let memory = mounts
        .iter()
        .find(|m| m.destination().ends_with("memory"))
        .unwrap();
    assert_eq!(
        memory.source().as_deref(),
        Some(std::path::Path::new("/sys/fs/cgroup/memory/coracle/id"))
    );
    assert!(options(&spec, "/sys/fs/cgroup/memory").contains(&"ro".to_owned()));
    assert!(options(&spec, "/sys").contains(&"ro".to_owned()));
}

#[test]
fn pure_v2_gets_a_cgroup_namespace_and_one_mount() {
    let mut place = place();
    place.cgroup_v2 = true;
    place.cgroup_v1.clear();
    let spec = spec(&container(), &place);
    let namespaces = spec.linux().as_ref().unwrap().namespaces().clone().unwrap();
    assert!(
        namespaces
            .iter()
            .any(|n| n.typ() == LinuxNamespaceType::Cgroup)
    );
    assert!(options(&spec, "/sys/fs/cgroup").contains(&"ro".to_owned()));
}

#[test]
fn host_network_changes_no_sysctl_of_the_host() {
    let mut place = place();
    let own = spec(&container(), &place);
    assert_eq!(
        own.linux()
            .as_ref()
            .unwrap()
            .sysctl()
            .clone()
            .unwrap()
            .len(),
        2
    );
    place.netns = None;
    let spec = spec(&container(), &place);
    let linux = spec.linux().as_ref().unwrap();
    assert!(linux.sysctl().as_ref().is_none_or(|all| all.is_empty()));
    let namespaces = linux.namespaces().clone().unwrap();
    assert!(
        !namespaces
            .iter()
            .any(|n| n.typ() == LinuxNamespaceType::Network)
    );
}

#[test]
fn privileged_has_the_hosts_devices_and_nothing_hidden() {
    let mut c = container();
    c.request.privileged = true;
    let mut place = place();
    place.host_devices = vec![HostDevice {
        path: "/dev/vda".into(),
        kind: HostDeviceKind::Block,
        major: 254,
        minor: 0,
        mode: 0o660,
        uid: 0,
        gid: 6,
    }];
    let spec = spec(&c, &place);
    let linux = spec.linux().as_ref().unwrap();
    assert_eq!(linux.devices().as_ref().unwrap().len(), 1);
    assert!(linux.masked_paths().as_ref().is_none_or(|p| p.is_empty()));
    assert!(linux.readonly_paths().as_ref().is_none_or(|p| p.is_empty()));
    let rules = linux
        .resources()
        .as_ref()
        .unwrap()
        .devices()
        .clone()
        .unwrap();
    assert_eq!(rules.len(), 1);
    assert_eq!(rules[0].to_string(), "a *:* rwm");
    assert!(options(&spec, "/sys").contains(&"rw".to_owned()));
    assert!(options(&spec, "/sys/fs/cgroup/memory").contains(&"rw".to_owned()));
}

#[test]
fn devices_are_denied_first() {
    let spec = spec(&container(), &place());
    let linux = spec.linux().as_ref().unwrap();
    let rules = linux
        .resources()
        .as_ref()
        .unwrap()
        .devices()
        .clone()
        .unwrap();
    assert!(!rules[0].allow());
    assert_eq!(rules[0].to_string(), "a *:* rwm");
    assert!(rules[1..].iter().all(|rule| rule.allow()));
    assert!(
        rules.iter().all(|rule| rule.major() != Some(10)),
        "no tun, no fuse"
    );
}
