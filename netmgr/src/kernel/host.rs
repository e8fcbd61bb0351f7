//! The one thing of the host's own that is changed: `ip_forward` (and with it the policy of FORWARD), and its way back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::change::Firewall;
use crate::kernel::{Error, commands};
use crate::model::Family;

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// In `RUN_ROOT`: what the host had before we changed it. No file: nothing was changed. It goes with a reboot, as do
/// the settings.
const MEMORY: &str = "host.json";

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Before {
    ip_forward: bool,
    /// The policy of FORWARD; `None` where it was left alone.
    forward_policy: Option<String>,
}

/// Whether the caller's network namespace forwards IPv4 packets.
pub fn forwarding_enabled() -> Result<bool, Error> {
    let text = fs::read_to_string(IP_FORWARD).map_err(|source| Error::ReadSysctl {
        path: IP_FORWARD.into(),
        source,
    })?;
    Ok(text.trim() != "0")
}

/// Turns forwarding on; returns whether it was off.
///
/// A host that did not forward protected its other networks by that. So, as Docker does, the policy of FORWARD becomes
/// DROP, before forwarding starts. A host that forwards already keeps its policy (moby#39439).
pub fn enable_forwarding(
    family: Family,
    run_root: &Path,
    firewall: Firewall,
) -> Result<bool, Error> {
    let Family::V4 = family else {
        return Ok(false);
    };
    if forwarding_enabled()? {
        return Ok(false);
    }
    let memory = run_root.join(MEMORY);
    // An older memory wins: it is from before our first change, which may have been cut short.
    let before = match recall(&memory)? {
        Some(before) => before,
        None => {
            let before = Before {
                ip_forward: false,
                forward_policy: match firewall {
                    Firewall::None | Firewall::Nftables => None,
                    Firewall::Auto | Firewall::Iptables => policy_to_replace()?,
                },
            };
            remember(&memory, &before)?;
            before
        }
    };
    let enabled = (|| {
        if before.forward_policy.is_some() {
            set_policy("DROP")?;
        }
        set_forwarding("1")
    })();
    if let Err(error) = enabled {
        // Nothing may be left; what cannot be put back now stays remembered for `restore`.
        if let Err(second) = restore(run_root) {
            return Err(Error::RollBack {
                cause: Box::new(error),
                undo: vec![second],
            });
        }
        return Err(error);
    }
    // Said aloud: it is the one thing of the host's own that changes.
    match before.forward_policy {
        Some(_) => tracing::warn!(
            "turned IPv4 forwarding on and set the policy of FORWARD to DROP; `coracle system down` undoes both"
        ),
        None => tracing::warn!("turned IPv4 forwarding on; `coracle system down` undoes it"),
    }
    Ok(true)
}

/// As [`restore`], of one family.
pub fn restore_family(_family: Family, run_root: &Path) -> Result<(), Error> {
    restore(run_root)
}

/// Gives the host back what [`enable_forwarding`] changed; without such a change, nothing happens.
pub fn restore(run_root: &Path) -> Result<(), Error> {
    let memory = run_root.join(MEMORY);
    let Some(before) = recall(&memory)? else {
        return Ok(());
    };
    if !before.ip_forward {
        set_forwarding("0")?;
    }
    // Whoever has changed the policy since then wanted another one than ours.
    if let Some(policy) = &before.forward_policy
        && forward_policy()?.as_deref() == Some("DROP")
    {
        set_policy(policy)?;
    }
    match fs::remove_file(&memory) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::RememberHost {
            path: memory,
            source,
        }),
        _ => Ok(()),
    }
}

/// Whether FORWARD lost the policy that we gave it together with all of the table `filter` (`nft flush ruleset`), by
/// which a chain of ours, `chain`, has gone too: then nobody has decided on another policy, and a host that forwards
/// only because of us lies open.
pub(crate) fn policy_is_lost(run_root: &Path, chain: &str) -> Result<bool, Error> {
    match recall(&run_root.join(MEMORY))? {
        Some(before) if before.forward_policy.is_some() => {}
        _ => return Ok(false),
    }
    let table = commands::save("filter")?;
    let mut chains = table.lines().filter_map(|line| line.strip_prefix(':'));
    let is = |line: &str, name: &str| line.split(' ').next() == Some(name);
    let held = chains.any(|line| is(line, chain) || line.starts_with("FORWARD DROP"));
    Ok(!held)
}

pub(crate) fn policy_again() -> Result<(), Error> {
    set_policy("DROP")
}

fn set_forwarding(value: &'static str) -> Result<(), Error> {
    fs::write(IP_FORWARD, value).map_err(|source| Error::WriteSysctl {
        path: IP_FORWARD.into(),
        value,
        source,
    })
}

/// `None` when the policy is DROP already: then it is not ours to put back.
fn policy_to_replace() -> Result<Option<String>, Error> {
    // A table that is not in use yet has the kernel's own policy.
    let policy = forward_policy()?.unwrap_or_else(|| "ACCEPT".into());
    Ok((policy != "DROP").then_some(policy))
}

fn forward_policy() -> Result<Option<String>, Error> {
    let table = commands::save("filter")?;
    let policy = table
        .lines()
        .find_map(|line| line.strip_prefix(":FORWARD "))
        .and_then(|rest| rest.split_whitespace().next());
    Ok(policy.map(str::to_owned))
}

/// With `--noflush` a built-in chain in the input gets its policy and keeps its rules.
fn set_policy(policy: &str) -> Result<(), Error> {
    commands::restore(&format!("*filter\n:FORWARD {policy} [0:0]\nCOMMIT\n"))
}

fn recall(memory: &Path) -> Result<Option<Before>, Error> {
    let failed = |source| Error::RecallHost {
        path: memory.into(),
        source,
    };
    match fs::read(memory) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| failed(error.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// By a rename, so that a killed command leaves the whole memory or none.
fn remember(memory: &Path, before: &Before) -> Result<(), Error> {
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
