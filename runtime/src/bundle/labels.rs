//! What the host's security modules are told of a container: AppArmor's profile, SELinux's labels. Both are absent without
//! complaint where the host has none, as in Docker. Reads only.

use std::path::Path;

use crate::request::{ContainerRequest, NamespaceMode};
use crate::spec::Labels;

/// Below `root`, which is `/` but in tests. `id` is the container's: its SELinux categories are taken from it, so that they are
/// its own and stay the same for its life.
pub fn labels(root: &Path, request: &ContainerRequest, id: &str) -> Labels {
    let security = &request.security;
    let mut labels = Labels::default();
    if has_apparmor(root) {
        let unconfined = || request.privileged.then(|| "unconfined".to_owned());
        labels.apparmor = security.apparmor.clone().or_else(unconfined);
    }
    // Who is among the host's processes must be able to talk to them.
    let shares = [&request.namespaces.pid, &request.namespaces.ipc].contains(&&NamespaceMode::Host);
    let asked = security.selinux.iter().any(|word| word == "disable");
    let disabled = request.privileged || asked || (shares && security.selinux.is_empty());
    if has_selinux(root)
        && !disabled
        && let Some((process, file)) = contexts(root)
    {
        let level = format!("s0:{}", categories(id));
        labels.process = Some(changed(&process, &level, &security.selinux));
        // Of what is mounted only the level is the container's.
        let levels: Vec<String> = (security.selinux.iter())
            .filter(|word| word.starts_with("level:"))
            .cloned()
            .collect();
        labels.mount = Some(changed(&file, &level, &levels));
    }
    labels
}

fn has_apparmor(root: &Path) -> bool {
    std::fs::read_to_string(root.join("sys/module/apparmor/parameters/enabled"))
        .is_ok_and(|text| text.starts_with('Y'))
}

/// The directory is there on kernels that only could; the file system in it has this file.
fn has_selinux(root: &Path) -> bool {
    root.join("sys/fs/selinux/enforce").exists()
}

/// lxc_contexts(5): the labels that the policy has for containers' processes and files.
fn contexts(root: &Path) -> Option<(String, String)> {
    let read = |path: &Path| std::fs::read_to_string(root.join(path)).ok();
    let config = read(Path::new("etc/selinux/config"))?;
    let policy = value(&config, "SELINUXTYPE")?;
    let contexts = read(
        &Path::new("etc/selinux")
            .join(policy)
            .join("contexts/lxc_contexts"),
    )?;
    Some((value(&contexts, "process")?, value(&contexts, "file")?))
}

/// `name = "value"`, one a line.
fn value(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

/// Two categories out of 1024, the lower first.
fn categories(id: &str) -> String {
    let number = |range: std::ops::Range<usize>| {
        let digits = id.get(range).unwrap_or_default();
        u32::from_str_radix(digits, 16).unwrap_or(0) % 1024
    };
    let (a, b) = (number(0..6), number(6..12));
    let b = if a == b { (b + 1) % 1024 } else { b };
    format!("c{},c{}", a.min(b), a.max(b))
}

/// `user:role:type:level` with what the options say in place of its parts.
fn changed(label: &str, level: &str, options: &[String]) -> String {
    let mut parts: Vec<&str> = label.splitn(4, ':').collect();
    parts.resize(4, "");
    parts[3] = level;
    for option in options {
        let Some((part, value)) = option.split_once(':') else {
            continue;
        };
        match part {
            "user" => parts[0] = value,
            "role" => parts[1] = value,
            "type" => parts[2] = value,
            "level" => parts[3] = value,
            _ => {}
        }
    }
    parts.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    fn asked(apparmor: Option<&str>, selinux: &[&str], privileged: bool) -> ContainerRequest {
        let mut request = ContainerRequest {
            privileged,
            ..ContainerRequest::default()
        };
        request.security.apparmor = apparmor.map(str::to_owned);
        request.security.selinux = selinux.iter().map(|&word| word.to_owned()).collect();
        request
    }

    const ID: &str = "0000010000021111";

    #[test]
    fn a_host_without_them_has_no_labels() {
        let root = host(&[("sys/module/apparmor/parameters/enabled", "N\n")]);
        let wanted = asked(Some("mine"), &["type:x_t"], false);
        assert_eq!(labels(root.path(), &wanted, ID), Labels::default());
    }

    #[test]
    fn apparmor_has_the_profile_that_was_asked_for() {
        let root = host(&[("sys/module/apparmor/parameters/enabled", "Y\n")]);
        let profile = |wanted: Option<&str>, privileged| {
            labels(root.path(), &asked(wanted, &[], privileged), ID).apparmor
        };
        assert_eq!(profile(Some("mine"), false).as_deref(), Some("mine"));
        assert_eq!(profile(None, false), None);
        assert_eq!(profile(None, true).as_deref(), Some("unconfined"));
    }

    #[test]
    fn selinux_has_the_policys_labels_with_the_containers_categories() {
        let root = host(&[
            ("sys/fs/selinux/enforce", "1"),
            (
                "etc/selinux/config",
                "SELINUX=enforcing\nSELINUXTYPE=targeted\n",
            ),
            (
                "etc/selinux/targeted/contexts/lxc_contexts",
                "process = \"system_u:system_r:container_t:s0\"\nfile = \"system_u:object_r:container_file_t:s0\"\n",
            ),
        ]);
        let labels = |words: &[&str], privileged| {
            let labels = labels(root.path(), &asked(None, words, privileged), ID);
            (labels.process, labels.mount)
        };
        let text = |process: &str, mount: &str| (Some(process.to_owned()), Some(mount.to_owned()));
        assert_eq!(
            labels(&[], false),
            text(
                "system_u:system_r:container_t:s0:c1,c2",
                "system_u:object_r:container_file_t:s0:c1,c2"
            )
        );
        assert_eq!(
            labels(&["type:x_t", "level:s0:c9"], false),
            text(
                "system_u:system_r:x_t:s0:c9",
                "system_u:object_r:container_file_t:s0:c9"
            )
        );
        assert_eq!(labels(&["disable"], false), (None, None));
        assert_eq!(labels(&[], true), (None, None));
    }
}
