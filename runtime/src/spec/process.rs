//! The program: who runs it, with what environment and capabilities. Pure.

use std::path::PathBuf;

use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, LinuxCapabilitiesBuilder, Process, ProcessBuilder,
    User as SpecUser, UserBuilder,
};

use super::confinement::chosen_capabilities;
use super::{ALL_OPTIONAL, Place, resources};
use crate::error::Error;
use crate::record::Container;

/// Where a container with `--init` has its first process; Docker's is `/sbin/docker-init`.
pub const INIT: &str = "/sbin/coracle-init";

pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Docker's fourteen.
pub const DEFAULT_CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// What the executor needs between libcontainer's last step and the program: CAP_SYS_ADMIN to load the seccomp filter
/// without no_new_privs, CAP_SETPCAP to take both out of the bounding set again.
const FOR_THE_EXECUTOR: &[&str] = &["CAP_SYS_ADMIN", "CAP_SETPCAP"];

/// The capabilities of the program: bounding, and for root effective and permitted too. None is inheritable or ambient.
///
/// The sets in the spec are larger (see `FOR_THE_EXECUTOR`); whoever executes the program drops to these.
pub fn capabilities(container: &Container, place: &Place) -> Result<Vec<String>, Error> {
    match container.request.privileged {
        true => Ok(place.bounding_set.clone()),
        false => chosen_capabilities(&container.request.security, &place.bounding_set),
    }
}

pub fn process(container: &Container, place: &Place) -> Process {
    let resolved = &container.resolved;
    let mut args = match place.init {
        Some(_) => vec![INIT.to_owned(), "--".to_owned()],
        None => Vec::new(),
    };
    args.extend(resolved.entrypoint.iter().cloned());
    args.extend(resolved.command.iter().cloned());
    let cwd = resolved.cwd();
    let mut process = ProcessBuilder::default()
        .terminal(container.request.tty)
        .user(user(place))
        .args(args)
        .env(environment(container, place))
        .cwd(PathBuf::from(cwd))
        .capabilities(capability_sets(
            // Whoever starts it has refused by then what cannot be given.
            &capabilities(container, place).unwrap_or_default(),
        ))
        .build()
        .expect(ALL_OPTIONAL);
    // The crate's defaults are not ours. noNewPrivileges must be left out, as libcontainer takes `false` for more than
    // nothing.
    let limits = &container.request.resources;
    let locked = container.request.security.no_new_privileges;
    process
        .set_rlimits(resources::rlimits(limits))
        .set_oom_score_adj(limits.oom_score_adj)
        .set_no_new_privileges(locked.then_some(true))
        .set_apparmor_profile(place.labels.apparmor.clone());
    process
}

/// The primary group is among the supplementary ones too, or a program that drops it would pass "other" checks of files
/// that its group is denied (CVE-2022-36109).
fn user(place: &Place) -> SpecUser {
    let mut groups = vec![place.user.gid];
    groups.extend(
        place
            .user
            .groups
            .iter()
            .filter(|&&gid| gid != place.user.gid),
    );
    UserBuilder::default()
        .uid(place.user.uid)
        .gid(place.user.gid)
        .additional_gids(groups)
        .build()
        .expect(ALL_OPTIONAL)
}

/// Docker's own variables first, then the image's and the request's over them: `K=V` replaces, a bare `K` removes.
/// PATH and HOME are always there: libcontainer fails without the one, and asks NSS in the container for the other.
pub fn environment(container: &Container, place: &Place) -> Vec<String> {
    let mut all = vec![
        format!("PATH={DEFAULT_PATH}"),
        format!("HOSTNAME={}", container.resolved.hostname),
    ];
    if container.request.tty {
        all.push("TERM=xterm".to_owned());
    }
    for entry in &container.resolved.env {
        let key = key(entry);
        let place = all.iter().position(|other| self::key(other) == key);
        match (place, entry.contains('=')) {
            (Some(i), true) => all[i].clone_from(entry),
            (Some(i), false) => {
                all.remove(i);
            }
            (None, true) => all.push(entry.clone()),
            (None, false) => {}
        }
    }
    for (name, value) in [("PATH", DEFAULT_PATH), ("HOME", &place.user.home)] {
        let value = if value.is_empty() { "/" } else { value };
        if !all.iter().any(|entry| key(entry) == name) {
            all.push(format!("{name}={value}"));
        }
    }
    all
}

fn key(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(key, _)| key)
}

/// The sets that go into the spec of a program that is to have these.
pub fn capability_sets(wanted: &[String]) -> LinuxCapabilities {
    let mut names = wanted.to_vec();
    names.extend(FOR_THE_EXECUTOR.iter().map(|&name| name.to_owned()));
    exact_capability_sets(&names)
}

/// These and no others, for whoever needs none for itself.
pub fn exact_capability_sets(names: &[String]) -> LinuxCapabilities {
    let set = parse(names);
    // `LinuxCapabilities::default()` has three capabilities of its own in every set, so each is set here.
    LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set)
        .inheritable(Capabilities::new())
        .ambient(Capabilities::new())
        .build()
        .expect(ALL_OPTIONAL)
}

/// A name that is newer than the `oci_spec` crate is left out: it cannot be given, which is the safe side.
fn parse(names: &[String]) -> Capabilities {
    names
        .iter()
        .filter_map(|name| {
            name.strip_prefix("CAP_")
                .unwrap_or(name)
                .parse::<Capability>()
                .ok()
        })
        .collect()
}
