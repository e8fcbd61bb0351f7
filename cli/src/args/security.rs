//! What the container may do: capabilities, seccomp, devices, sysctls. The profile of `seccomp=FILE` is read here, since only
//! the caller knows what the path means. Texts of refusal are Docker's.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use runtime::ContainerRequest;
use runtime::request::{DeviceRequest, DeviceRule, SeccompChoice, Security};

use crate::failure::Failure;

#[derive(Debug, Args)]
pub struct SecurityArgs {
    /// Add a capability, such as NET_ADMIN; ALL adds every one
    #[arg(long, value_name = "NAME")]
    pub cap_add: Vec<String>,
    /// Take a capability away; ALL takes every one
    #[arg(long, value_name = "NAME")]
    pub cap_drop: Vec<String>,
    /// seccomp=FILE|unconfined, no-new-privileges, apparmor=PROFILE, label=LABEL, systempaths=unconfined
    #[arg(long, value_name = "OPTION")]
    pub security_opt: Vec<String>,
    /// Give a device of the host: HOST[:CONTAINER][:rwm]; a folder stands for the devices in it
    #[arg(long, value_name = "DEVICE")]
    pub device: Vec<String>,
    /// Allow devices by number: '[a|b|c] MAJOR:MINOR rwm', with * for any number
    #[arg(long, value_name = "RULE", value_parser = parse_device_rule)]
    pub device_cgroup_rule: Vec<DeviceRule>,
    /// Set a kernel parameter of the container's own namespaces
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_sysctl)]
    pub sysctl: Vec<(String, String)>,
    /// Add a group that the program is in, by name or number
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,
}

impl SecurityArgs {
    /// Enters the options in the request.
    pub fn apply(&self, request: &mut ContainerRequest) -> Result<(), Failure> {
        let security = &mut request.security;
        security.cap_add.clone_from(&self.cap_add);
        security.cap_drop.clone_from(&self.cap_drop);
        security.groups.clone_from(&self.group_add);
        security.device_rules.clone_from(&self.device_cgroup_rule);
        for option in &self.security_opt {
            apply_option(option, security).map_err(Failure::Refused)?;
        }
        for text in &self.device {
            security
                .devices
                .push(parse_device(text).map_err(Failure::Refused)?);
        }
        for (name, value) in &self.sysctl {
            // The last one wins, at the place of the first.
            match security.sysctls.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => known.clone_from(value),
                None => security.sysctls.push((name.clone(), value.clone())),
            }
        }
        Ok(())
    }
}

/// `KEY=VALUE`, or `KEY:VALUE` as it was written before Docker 1.11.
fn apply_option(option: &str, security: &mut Security) -> anyhow::Result<()> {
    let unknown = || anyhow!("invalid --security-opt 2: {option:?}");
    if option == "no-new-privileges" {
        security.no_new_privileges = true;
        security.options.push(option.to_owned());
        return Ok(());
    }
    let Some((key, value)) = option.split_once('=').or_else(|| option.split_once(':')) else {
        return Err(anyhow!("Invalid --security-opt: {option:?}"));
    };
    let mut shown = option.to_owned();
    match key {
        "seccomp" if value == "unconfined" => security.seccomp = SeccompChoice::Unconfined,
        "seccomp" => {
            let profile = read_profile(value)?;
            shown = format!("seccomp={profile}");
            security.seccomp = SeccompChoice::Profile(profile);
        }
        "no-new-privileges" => {
            security.no_new_privileges = match value {
                "true" | "1" | "t" | "T" | "TRUE" | "True" => true,
                "false" | "0" | "f" | "F" | "FALSE" | "False" => false,
                _ => return Err(unknown()),
            };
        }
        "apparmor" => security.apparmor = Some(value.to_owned()),
        "label" => security.selinux.push(value.to_owned()),
        "systempaths" if option == "systempaths=unconfined" => {
            security.unmasked = true;
            // Docker's client makes two lists of paths of it, and keeps no word of the option.
            return Ok(());
        }
        _ => return Err(unknown()),
    }
    security.options.push(shown);
    Ok(())
}

/// The text without white space, as Docker's client hands it on. What it means is the engine's to judge.
fn read_profile(path: &str) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let why = crate::failure::chain(&error);
        anyhow!("opening seccomp profile ({path}) failed: open {path}: {why}")
    })?;
    let value: serde_json::Value = serde_json::from_str(&text)
        .map_err(|e| anyhow!("compacting json for seccomp profile ({path}) failed: {e}"))?;
    Ok(value.to_string())
}

/// `HOST[:CONTAINER[:PERMISSIONS]]`, or `HOST:PERMISSIONS`.
fn parse_device(text: &str) -> anyhow::Result<DeviceRequest> {
    let parts: Vec<&str> = text.split(':').collect();
    if parts.len() > 3 || parts[0].is_empty() {
        return Err(anyhow!("bad format for path: {text}"));
    }
    let is_mode = |word: &str| {
        let mut letters: Vec<char> = word.chars().collect();
        letters.sort_unstable();
        let count = letters.len();
        letters.dedup();
        count > 0 && letters.len() == count && word.chars().all(|c| "rwm".contains(c))
    };
    let (container, permissions) = match parts[..] {
        [host] => (host, "rwm"),
        [host, mode] if is_mode(mode) => (host, mode),
        [_, container] => (container, "rwm"),
        [_, container, mode] if is_mode(mode) => (container, mode),
        [.., mode] => return Err(anyhow!("bad mode specified: {mode}")),
        [] => unreachable!("splitting gives one part at least"),
    };
    for path in [container, parts[0]] {
        if !path.starts_with('/') {
            return Err(anyhow!("{path} is not an absolute path"));
        }
    }
    Ok(DeviceRequest {
        host: PathBuf::from(parts[0]),
        container: PathBuf::from(container),
        permissions: permissions.to_owned(),
    })
}

/// `c 42:* rmw`.
fn parse_device_rule(text: &str) -> Result<DeviceRule, String> {
    read_device_rule(text).ok_or_else(|| format!("invalid device cgroup format '{text}'"))
}

fn read_device_rule(text: &str) -> Option<DeviceRule> {
    let mut words = text.split(' ');
    let (kind, numbers, permissions) = (words.next()?, words.next()?, words.next()?);
    let kind = kind.chars().next().filter(|_| kind.len() == 1)?;
    let number = |word: &str| match word {
        "*" => Some(None),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok().map(Some),
        _ => None,
    };
    let (major, minor) = numbers.split_once(':')?;
    let is_sound = words.next().is_none()
        && "abc".contains(kind)
        && (1..=3).contains(&permissions.len())
        && permissions.chars().all(|c| "rwm".contains(c));
    is_sound.then_some(DeviceRule {
        kind,
        major: number(major)?,
        minor: number(minor)?,
        permissions: permissions.to_owned(),
    })
}

/// What belongs to a namespace that a container has of its own (sysctl(8), namespaces(7)); everything else is the host's.
const IPC_SYSCTLS: &[&str] = &[
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

fn parse_sysctl(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value))
            if IPC_SYSCTLS.contains(&name)
                || name.starts_with("net.")
                || name.starts_with("fs.mqueue.") =>
        {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err(format!("sysctl '{text}' is not allowed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_up_to_three_parts() {
        let check = |text: &str, expect: &str| {
            let got = match parse_device(text) {
                Ok(d) => format!(
                    "{} {} {}",
                    d.host.display(),
                    d.container.display(),
                    d.permissions
                ),
                Err(error) => error.to_string(),
            };
            assert_eq!(got, expect, "{text}");
        };
        check("/dev/a", "/dev/a /dev/a rwm");
        check("/dev/a:/dev/b", "/dev/a /dev/b rwm");
        check("/dev/a:rw", "/dev/a /dev/a rw");
        check("/dev/a:/dev/b:r", "/dev/a /dev/b r");
        check("/dev/a:/dev/b:q", "bad mode specified: q");
        check("/dev/a:/dev/b:rr", "bad mode specified: rr");
        check("/dev/a:", " is not an absolute path");
        check("/dev/a:x", "x is not an absolute path");
        check("a", "a is not an absolute path");
        check(":/dev/a", "bad format for path: :/dev/a");
        check("/a:/b:r:w", "bad format for path: /a:/b:r:w");
    }

    #[test]
    fn a_device_rule_has_a_kind_two_numbers_and_permissions() {
        let rule = parse_device_rule("c 42:* rmw").unwrap();
        assert_eq!(
            (rule.kind, rule.major, rule.minor, &*rule.permissions),
            ('c', Some(42), None, "rmw")
        );
        for bad in [
            "",
            "c",
            "c 1:1",
            "x 1:1 r",
            "c a:1 r",
            "c 1 r",
            "c 1:1 z",
            "c 1:1 rwmr",
            "c 1:-1 r",
            "c 1:1 r ",
            "cc 1:1 r",
            "c : r",
        ] {
            assert!(parse_device_rule(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_namespaced_sysctls_are_taken() {
        assert!(parse_sysctl("net.core.somaxconn=1").is_ok());
        assert_eq!(parse_sysctl("kernel.sem=1 2=3").unwrap().1, "1 2=3");
        for bad in ["net.core.somaxconn", "kernel.panic=1", "=", "net/core=1"] {
            let expect = format!("sysctl '{bad}' is not allowed");
            assert_eq!(parse_sysctl(bad).unwrap_err(), expect);
        }
    }

    #[test]
    fn options_are_kept_as_they_were_written() {
        let mut security = Security::default();
        for option in [
            "no-new-privileges:false",
            "seccomp:unconfined",
            "label=disable",
            "apparmor=x",
        ] {
            apply_option(option, &mut security).unwrap();
        }
        apply_option("systempaths=unconfined", &mut security).unwrap();
        assert!(security.unmasked && !security.no_new_privileges);
        assert_eq!(security.options.len(), 4);
        for (bad, why) in [
            ("foo", "Invalid --security-opt: \"foo\""),
            ("foo=1", "invalid --security-opt 2: \"foo=1\""),
            (
                "systempaths:unconfined",
                "invalid --security-opt 2: \"systempaths:unconfined\"",
            ),
            (
                "no-new-privileges:maybe",
                "invalid --security-opt 2: \"no-new-privileges:maybe\"",
            ),
            (
                "seccomp=/no/such",
                "opening seccomp profile (/no/such) failed: open /no/such: no such file or directory",
            ),
        ] {
            let error = apply_option(bad, &mut security).unwrap_err();
            assert_eq!(error.to_string(), why);
        }
    }
}
