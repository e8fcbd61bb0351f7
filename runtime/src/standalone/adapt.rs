//! From a bundle's spec to the one that libcontainer is given, and to what our own last step does instead of it. Reads the
//! root filesystem and this process's rights; writes nothing.

use std::path::{Path, PathBuf};

use caps::CapSet;
use oci_spec::runtime::{
    Capabilities, Capability, Hooks, LinuxCapabilities, LinuxCapabilitiesBuilder, LinuxSeccomp,
    Process, Spec,
};

use super::{Error, hooks};
use crate::bundle::cgroup_v1_hierarchies;
use crate::oci::BundleConfinement;
use crate::spec::{Place, cgroup_mounts};
use crate::{cgroup, seccomp, user};

/// Below this cgroup, containers whose spec names none, or a relative one.
const CGROUP_PARENT: &str = "/coracle-oci";

/// Of a program whose spec names none.
const UMASK: u32 = 0o022;

/// The bundle's spec with an absolute root, and without what depends on the bundle's place.
pub(super) fn load(bundle: &Path) -> Result<Spec, Error> {
    let refused = |why: String| Error::Bundle {
        path: bundle.to_owned(),
        why,
    };
    let mut spec = Spec::load(bundle.join("config.json")).map_err(|e| refused(chain(&e)))?;
    if spec.linux().is_none() {
        return Err(refused("config.json has no `linux`".to_owned()));
    }
    if spec.process().is_none() {
        return Err(refused("config.json has no `process`".to_owned()));
    }
    let mut root = spec
        .root()
        .clone()
        .ok_or_else(|| refused("config.json has no `root`".to_owned()))?;
    let path = bundle.join(root.path());
    let path = path
        .canonicalize()
        .map_err(|e| refused(format!("the root filesystem {}: {e}", path.display())))?;
    root.set_path(path);
    spec.set_root(Some(root));
    Ok(spec)
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) if !error.to_string().contains(&source.to_string()) => {
            format!("{error}: {source}")
        }
        _ => error.to_string(),
    }
}

pub(super) fn rootfs(spec: &Spec) -> PathBuf {
    spec.root()
        .as_ref()
        .map(|root| root.path().clone())
        .unwrap_or_default()
}

/// Where the container's cgroups are: a relative path is below a place of ours (runtime-spec, Cgroups Path).
pub(super) fn cgroup_path(spec: &Spec, id: &str) -> Result<PathBuf, Error> {
    let asked = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.cgroups_path().clone());
    match asked {
        None => Ok(Path::new(CGROUP_PARENT).join(id)),
        Some(path) if path.as_os_str().is_empty() => Ok(Path::new(CGROUP_PARENT).join(id)),
        Some(path) if path.to_string_lossy().matches(':').count() == 2 => Err(Error::Unsupported(
            "a cgroup of systemd (cgroupsPath SLICE:PREFIX:NAME): use the cgroupfs manager",
        )),
        Some(path) => {
            let plain: PathBuf = path
                .components()
                .filter(|part| matches!(part, std::path::Component::Normal(_)))
                .collect();
            match path.is_absolute() {
                true => Ok(Path::new("/").join(plain)),
                false => Ok(Path::new(CGROUP_PARENT).join(plain)),
            }
        }
    }
}

/// What libcontainer is given for the first process.
pub(super) fn for_libcontainer(spec: &Spec, bundle: &Path, cgroup: &Path) -> Result<Spec, Error> {
    let mut given = spec.clone();
    let process = spec
        .process()
        .as_ref()
        .map(|process| process_for_libcontainer(process, &rootfs(spec)));
    given.set_process(process);
    given.set_hooks(
        spec.hooks()
            .as_ref()
            .map(|hooks| early_hooks(hooks, bundle)),
    );
    if let Some(linux) = given.linux_mut() {
        linux.set_cgroups_path(Some(cgroup.to_owned()));
        linux.set_seccomp(None);
    }
    read_only_cgroups(&mut given, cgroup)?;
    Ok(given)
}

/// libcontainer's own mount of cgroup v1 ignores `ro`: the binds of our own containers instead (see `spec::mounts`).
fn read_only_cgroups(spec: &mut Spec, cgroup: &Path) -> Result<(), Error> {
    if cgroup::is_v2() {
        return Ok(());
    }
    let hierarchies = cgroup_v1_hierarchies().map_err(|source| Error::Host {
        step: "find the cgroup hierarchies",
        source,
    })?;
    let place = Place {
        cgroup: cgroup.to_owned(),
        cgroup_v1: hierarchies,
        ..Place::default()
    };
    let mut mounts = Vec::new();
    for mount in spec.mounts().clone().unwrap_or_default() {
        let is_cgroup = mount.typ().as_deref() == Some("cgroup")
            && mount.destination() == Path::new("/sys/fs/cgroup");
        let read_only = mount
            .options()
            .iter()
            .flatten()
            .any(|option| option == "ro");
        match (is_cgroup, read_only) {
            (true, true) => mounts.extend(cgroup_mounts("ro", &place)),
            (true, false) => mounts.extend(cgroup_mounts("rw", &place)),
            (false, _) => mounts.push(mount),
        }
    }
    spec.set_mounts(Some(mounts));
    Ok(())
}

/// Those that come before the container's root is entered. The others are run by ourselves: `startContainer` as the last
/// thing before the program, `poststart` and `poststop` by `start` and `delete`.
fn early_hooks(hooks: &Hooks, bundle: &Path) -> Hooks {
    let wrap = |list: Option<Vec<oci_spec::runtime::Hook>>| {
        list.map(|list| {
            list.iter()
                .map(|hook| hooks::wrapped(hook, bundle))
                .collect()
        })
    };
    let mut early = Hooks::default();
    #[allow(deprecated)] // still in use, by nvidia's container toolkit for one
    early.set_prestart(wrap(hooks.prestart().clone()));
    early.set_create_runtime(wrap(hooks.create_runtime().clone()));
    early.set_create_container(wrap(hooks.create_container().clone()));
    early
}

/// The process with the rights that our last step needs, and a HOME: without one libcontainer would ask the libraries of the
/// container for it.
pub(super) fn process_for_libcontainer(process: &Process, rootfs: &Path) -> Process {
    let mut given = process.clone();
    let sets = own(process.capabilities().as_ref());
    let with_two = |set: &Option<Capabilities>| {
        let mut set = set.clone().unwrap_or_default();
        set.insert(Capability::SysAdmin);
        set.insert(Capability::Setpcap);
        set
    };
    let empty = |set: &Option<Capabilities>| set.clone().unwrap_or_default();
    let sets = LinuxCapabilitiesBuilder::default()
        .bounding(with_two(sets.bounding()))
        .effective(with_two(sets.effective()))
        .permitted(with_two(sets.permitted()))
        .inheritable(empty(sets.inheritable()))
        .ambient(empty(sets.ambient()))
        .build()
        .expect("every set is given");
    given.set_capabilities(Some(sets));
    // libcontainer takes `false` for more than nothing.
    given.set_no_new_privileges(process.no_new_privileges().filter(|wanted| *wanted));
    let mut env = process.env().clone().unwrap_or_default();
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        let home =
            user::look_up(rootfs, &process.user().uid().to_string(), &[]).map(|user| user.home);
        let home = home
            .ok()
            .filter(|home| !home.is_empty())
            .unwrap_or_else(|| "/".to_owned());
        env.push(format!("HOME={home}"));
    }
    given.set_env(Some(env));
    // As runc has it: what a program makes is not for everybody to write to because its engine's caller had no umask.
    let mut user = process.user().clone();
    user.set_umask(Some(user.umask().unwrap_or(UMASK)));
    given.set_user(user);
    given
}

/// The sets without what we do not have ourselves and so cannot give; runc leaves it out, too.
fn own(wanted: Option<&LinuxCapabilities>) -> LinuxCapabilities {
    let have = |set| caps::read(None, set).unwrap_or_default();
    let (bounding, permitted) = (have(CapSet::Bounding), have(CapSet::Permitted));
    let keep = |set: Option<&Capabilities>, of: &caps::CapsHashSet| -> Capabilities {
        set.into_iter()
            .flatten()
            .filter(|name| to_ours(**name).is_some_and(|cap| of.contains(&cap)))
            .copied()
            .collect()
    };
    let all =
        |of: fn(&LinuxCapabilities) -> &Option<Capabilities>| wanted.and_then(|w| of(w).as_ref());
    let permitted_set = keep(all(LinuxCapabilities::permitted), &permitted);
    let within = |set: Capabilities| -> Capabilities {
        set.into_iter()
            .filter(|name| permitted_set.contains(name))
            .collect()
    };
    let effective = within(keep(all(LinuxCapabilities::effective), &permitted));
    let inheritable = keep(all(LinuxCapabilities::inheritable), &permitted);
    // capabilities(7): ambient ones are permitted and inheritable.
    let ambient = within(keep(all(LinuxCapabilities::ambient), &permitted))
        .into_iter()
        .filter(|name| inheritable.contains(name))
        .collect::<Capabilities>();
    LinuxCapabilitiesBuilder::default()
        .bounding(keep(all(LinuxCapabilities::bounding), &bounding))
        .effective(effective)
        .permitted(permitted_set)
        .inheritable(inheritable)
        .ambient(ambient)
        .build()
        .expect("every set is given")
}

/// By its name, which is `CAP_...` in JSON.
fn to_ours(name: Capability) -> Option<caps::Capability> {
    let text = serde_json::to_value(name).ok()?;
    text.as_str()?.parse().ok()
}

/// What our own last step does for this process.
pub(super) fn confinement(
    process: &Process,
    seccomp: Option<&LinuxSeccomp>,
    preserve_fds: u32,
) -> Result<BundleConfinement, Error> {
    let size = process
        .console_size()
        .filter(|_| process.terminal() == Some(true));
    Ok(BundleConfinement {
        capabilities: Some(own(process.capabilities().as_ref())),
        filter: seccomp.map(seccomp::compile_oci).transpose()?,
        preserve_fds,
        console_size: size
            .map(|size| (size.height() as u16, size.width() as u16))
            .filter(|size| size.0 > 0),
        ..BundleConfinement::default()
    })
}
