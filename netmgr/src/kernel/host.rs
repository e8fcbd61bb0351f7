//! What of the host's own is changed: forwarding (and with it the policy of FORWARD, and how an interface learns its
//! IPv6 routes), and its way back. IPv4 and IPv6 apart.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::change::Firewall;
use crate::firewall::nftables::Guard;
use crate::kernel::{Error, commands};
use crate::model::Family;
use crate::plan::Tool;

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
const IPV6_CONF: &str = "/proc/sys/net/ipv6/conf";

/// In `RUN_ROOT`: what the host had before we changed it. No file: nothing was changed. It goes with a reboot, as do
/// the settings.
const MEMORY: &str = "host.json";

/// A family that is not in here was not changed.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    /// Always false: forwarding that was on is not changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip_forward: Option<bool>,
    /// The policy of FORWARD; `None` where it was left alone.
    #[serde(default)]
    forward_policy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    v6: Option<Before6>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Before6 {
    forward_policy: Option<String>,
    /// Interfaces whose `accept_ra` was 1.
    listeners: Vec<String>,
    /// Interfaces that forwarded by a setting of their own.
    forwarders: Vec<String>,
}

/// Where FORWARD's policy is not ours to set (nftables), a rule of our own has to protect the host's other networks from
/// the forwarding that we turned on: this tells for which families it is needed.
pub fn turned_on(run_root: &Path) -> Result<Guard, Error> {
    let memory = recall(&run_root.join(MEMORY))?;
    Ok(Guard {
        v4: memory.ip_forward.is_some(),
        v6: memory.v6.is_some(),
    })
}

/// Whether the caller's network namespace forwards packets of that family. A kernel without IPv6 forwards none.
pub fn forwarding_enabled(family: Family) -> Result<bool, Error> {
    let path = switch(family);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim() != "0"),
        Err(error) if family == Family::V6 && error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::ReadSysctl { path, source }),
    }
}

/// Turns forwarding on; returns whether it was off.
///
/// A host that did not forward protected its other networks by that. So, as Docker does, the policy of FORWARD becomes
/// DROP, before forwarding starts. A host that forwards already keeps its policy (moby#39439). With IPv6 a host that
/// forwards also stops to listen to router advertisements, by which it may have its own routes (`ip-sysctl: accept_ra`):
/// interfaces that listen are told to go on.
pub fn enable_forwarding(
    family: Family,
    run_root: &Path,
    firewall: Firewall,
) -> Result<bool, Error> {
    if forwarding_enabled(family)? {
        return Ok(false);
    }
    let path = run_root.join(MEMORY);
    let mut memory = recall(&path)?;
    // An older memory wins: it is from before our first change, which may have been cut short.
    if !memory.has(family) {
        let policy = match firewall {
            Firewall::None | Firewall::Nftables => None,
            Firewall::Auto | Firewall::Iptables => policy_to_replace(family)?,
        };
        match family {
            Family::V4 => {
                memory.ip_forward = Some(false);
                memory.forward_policy = policy;
            }
            Family::V6 => memory.v6 = Some(interfaces(policy)?),
        }
        remember(&path, &memory)?;
    }
    if let Err(error) = turn_on(family, &memory) {
        // Nothing may be left; what cannot be put back now stays remembered for `restore`.
        if let Err(second) = restore_family(family, run_root) {
            return Err(Error::RollBack {
                cause: Box::new(error),
                undo: vec![second],
            });
        }
        return Err(error);
    }
    // Said aloud: it is the one thing of the host's own that changes.
    let name = match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    match memory.policy(family) {
        Some(_) => tracing::warn!(
            "turned {name} forwarding on and set the policy of FORWARD to DROP; `coracle system down` undoes both"
        ),
        None => tracing::warn!("turned {name} forwarding on; `coracle system down` undoes it"),
    }
    Ok(true)
}

fn turn_on(family: Family, memory: &Memory) -> Result<(), Error> {
    if memory.policy(family).is_some() {
        set_policy(family, "DROP")?;
    }
    for interface in memory.v6.iter().flat_map(|before| &before.listeners) {
        change_setting(interface, "accept_ra", "1", "2")?;
    }
    set(&switch(family), "1")
}

/// Gives the host back what [`enable_forwarding`] changed, of both families; without such a change, nothing happens.
pub fn restore(run_root: &Path) -> Result<(), Error> {
    // The second also when the first fails: what could not be put back stays remembered.
    let families = [Family::V6, Family::V4];
    let results = families.map(|family| restore_family(family, run_root));
    let mut errors: Vec<Error> = results.into_iter().filter_map(Result::err).collect();
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(Error::Several(errors)),
    }
}

/// As [`restore`], of one family.
pub fn restore_family(family: Family, run_root: &Path) -> Result<(), Error> {
    let path = run_root.join(MEMORY);
    let mut memory = recall(&path)?;
    if !memory.has(family) {
        return Ok(());
    }
    // Not where it is off: what could not be written then cannot be written now. IPv6 may have gone since, and its settings
    // with it.
    if forwarding_enabled(family)? {
        set(&switch(family), "0")?;
    }
    if let (Family::V6, Some(before)) = (family, &memory.v6) {
        for interface in &before.forwarders {
            change_setting(interface, "forwarding", "0", "1")?;
        }
        for interface in &before.listeners {
            change_setting(interface, "accept_ra", "2", "1")?;
        }
    }
    // Whoever has changed the policy since then wanted another one than ours.
    if let Some(policy) = memory.policy(family)
        && forward_policy(family)?.as_deref() == Some("DROP")
    {
        set_policy(family, policy)?;
    }
    match family {
        Family::V4 => (memory.ip_forward, memory.forward_policy) = (None, None),
        Family::V6 => memory.v6 = None,
    }
    if memory != Memory::default() {
        return remember(&path, &memory);
    }
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::RememberHost { path, source })
        }
        _ => Ok(()),
    }
}

/// Whether FORWARD lost the policy that we gave it together with all of the table `filter` (`nft flush ruleset`), by
/// which a chain of ours, `chain`, has gone too: then nobody has decided on another policy, and a host that forwards
/// only because of us lies open.
pub(crate) fn policy_is_lost(family: Family, run_root: &Path, chain: &str) -> Result<bool, Error> {
    if recall(&run_root.join(MEMORY))?.policy(family).is_none() {
        return Ok(false);
    }
    let table = commands::save(family, "filter")?;
    let mut chains = table.lines().filter_map(|line| line.strip_prefix(':'));
    let is = |line: &str, name: &str| line.split(' ').next() == Some(name);
    let held = chains.any(|line| is(line, chain) || line.starts_with("FORWARD DROP"));
    Ok(!held)
}

pub(crate) fn policy_again(family: Family) -> Result<(), Error> {
    set_policy(family, "DROP")
}

impl Memory {
    fn has(&self, family: Family) -> bool {
        match family {
            Family::V4 => self.ip_forward.is_some(),
            Family::V6 => self.v6.is_some(),
        }
    }

    fn policy(&self, family: Family) -> Option<&str> {
        match family {
            Family::V4 => self.forward_policy.as_deref(),
            Family::V6 => self.v6.as_ref()?.forward_policy.as_deref(),
        }
    }
}

/// For IPv6 the one of all interfaces: writing it sets each of them.
fn switch(family: Family) -> PathBuf {
    match family {
        Family::V4 => IP_FORWARD.into(),
        Family::V6 => setting("all", "forwarding"),
    }
}

fn setting(interface: &str, name: &str) -> PathBuf {
    Path::new(IPV6_CONF).join(interface).join(name)
}

fn set(path: &Path, value: &'static str) -> Result<(), Error> {
    fs::write(path, value).map_err(|source| Error::WriteSysctl {
        path: path.into(),
        value,
        source,
    })
}

/// The interfaces, as they are before the switch of all of them is turned.
fn interfaces(forward_policy: Option<String>) -> Result<Before6, Error> {
    let failed = |source| Error::ReadSysctl {
        path: IPV6_CONF.into(),
        source,
    };
    let mut before = Before6 {
        forward_policy,
        ..Before6::default()
    };
    for entry in fs::read_dir(IPV6_CONF).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(name) = name.to_str() else { continue };
        // Not interfaces: what new ones begin with, and the switch itself.
        if matches!(name, "all" | "default") {
            continue;
        }
        // An interface that forwards does not listen at 1.
        if is(name, "forwarding", "1")? {
            before.forwarders.push(name.into());
        } else if is(name, "accept_ra", "1")? {
            before.listeners.push(name.into());
        }
    }
    Ok(before)
}

/// `false` for an interface that has gone since it was listed.
fn is(interface: &str, name: &str, value: &str) -> Result<bool, Error> {
    let path = setting(interface, name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim() == value),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::ReadSysctl { path, source }),
    }
}

/// Sets what still has the value `from`: any other is somebody's will.
fn change_setting(interface: &str, name: &str, from: &str, to: &'static str) -> Result<(), Error> {
    match is(interface, name, from)? {
        true => set(&setting(interface, name), to),
        false => Ok(()),
    }
}

fn tool(family: Family) -> Tool {
    match family {
        Family::V4 => Tool::Iptables,
        Family::V6 => Tool::Ip6tables,
    }
}

/// `None` when the policy is DROP already: then it is not ours to put back.
fn policy_to_replace(family: Family) -> Result<Option<String>, Error> {
    // A table that is not in use yet has the kernel's own policy.
    let policy = forward_policy(family)?.unwrap_or_else(|| "ACCEPT".into());
    Ok((policy != "DROP").then_some(policy))
}

fn forward_policy(family: Family) -> Result<Option<String>, Error> {
    let table = commands::save(family, "filter")?;
    let policy = table
        .lines()
        .find_map(|line| line.strip_prefix(":FORWARD "))
        .and_then(|rest| rest.split_whitespace().next());
    Ok(policy.map(str::to_owned))
}

/// With `--noflush` a built-in chain in the input gets its policy and keeps its rules.
fn set_policy(family: Family, policy: &str) -> Result<(), Error> {
    let input = format!("*filter\n:FORWARD {policy} [0:0]\nCOMMIT\n");
    commands::write(tool(family), &input)
}

/// Empty where there is no file.
fn recall(memory: &Path) -> Result<Memory, Error> {
    let failed = |source| Error::RecallHost {
        path: memory.into(),
        source,
    };
    match fs::read(memory) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| failed(error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Memory::default()),
        Err(error) => Err(failed(error)),
    }
}

/// By a rename, so that a killed command leaves the whole memory or none.
fn remember(memory: &Path, before: &Memory) -> Result<(), Error> {
    let write = || {
        let directory = memory.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory)?;
        let new: PathBuf = memory.with_extension("json.new");
        fs::write(&new, serde_json::to_vec(before)?)?;
        fs::rename(&new, memory)
    };
    write().map_err(|source: io::Error| Error::RememberHost {
        path: memory.into(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_an_older_version_is_read() {
        let old = r#"{"ip_forward":false,"forward_policy":"ACCEPT"}"#;
        let memory: Memory = serde_json::from_str(old).unwrap();
        assert!(memory.has(Family::V4) && !memory.has(Family::V6));
        assert_eq!(memory.policy(Family::V4), Some("ACCEPT"));
    }
}
