//! What changes without a notification: sysctls, and rules where they are kept by the legacy xtables.
//!
//! Read once a second and compared with the last time, not with the model: that needs neither lock nor database.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::Path;

use crate::firewall::ruleset::Table;
use crate::kernel::commands;
use crate::model::Family;

const SYSCTLS: [&str; 2] = [
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/net/ipv6/conf/all/forwarding",
];

/// What stood there at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unannounced(u64);

impl Unannounced {
    pub(super) fn now(hears_rules: bool) -> Unannounced {
        Unannounced(print(hears_rules))
    }
}

fn print(hears_rules: bool) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in SYSCTLS {
        fs::read(path).ok().hash(&mut hasher);
    }
    if !hears_rules || is_legacy() {
        for family in Family::ALL {
            for table in Table::ALL {
                // What cannot be read now is found out by the comparison, which says so.
                let text = commands::save(family, table.as_str()).unwrap_or_default();
                without_counters(&text).hash(&mut hasher);
            }
        }
    }
    hasher.finish()
}

/// Whether `iptables` writes to the old xtables here: by the program that the name leads to.
pub(crate) fn is_legacy() -> bool {
    let target = commands::path("iptables-save").and_then(|path| fs::canonicalize(path).ok());
    let name = target.as_deref().and_then(Path::file_name);
    name.is_some_and(|name| name.to_string_lossy().contains("legacy"))
}

/// Dates and packet counters change by themselves.
fn without_counters(text: &str) -> Vec<&str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.split(" [").next().unwrap_or(line))
        .collect()
}
