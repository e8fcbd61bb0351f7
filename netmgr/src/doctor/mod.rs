//! `network doctor`: compares the whole host with the model, names what is amiss, and says what to do.
//!
//! Gathering ([`gather`]) reads the host and judges nothing; judging ([`judge`]) is pure. Mending is `system reload`:
//! set-up, reload and repair are one path, so that none of them forgets what another does (CVE-2025-54410).

use std::fmt;

use rusqlite::Connection;

use crate::change::{self, Netns, Settings};
use crate::error::Error;
use crate::firewall::nftables;
use crate::journal::Live;
use crate::model::{Family, Model};
use crate::plan::{Backend, Written};
use crate::{session, store};
pub use facts::{Bound, Facts, Interface, Save};

mod exposure;
mod facts;
mod foreign;
mod gather;
mod host;
mod links;
mod nft;
mod packet;
mod rules;
mod xtables;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Traffic that should flow does not, or traffic that should not does.
    Error,
    /// Something that does harm under circumstances.
    Warning,
    /// Good to know.
    Note,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// One line, which names the object.
    pub what: String,
    /// What to do about it; empty where there is nothing to do.
    pub advice: String,
    /// Whether [`fix`] mends it.
    pub fixable: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        write!(f, "{severity}: {}", self.what)?;
        match self.advice.is_empty() {
            true => Ok(()),
            false => write!(f, " ({})", self.advice),
        }
    }
}

const FIX: &str = "coracle network doctor --fix, or coracle system reload";

impl Finding {
    fn new(severity: Severity, what: String, advice: impl Into<String>) -> Finding {
        Finding {
            severity,
            what,
            advice: advice.into(),
            fixable: false,
        }
    }

    fn fixable(what: String) -> Finding {
        Finding {
            fixable: true,
            ..Finding::new(Severity::Error, what, FIX)
        }
    }
}

/// Reads the host and says what is amiss, the worst first. Takes no lock: beside a change that is under way it may see
/// half of it.
///
/// `netns_of` gives a running container's namespace by the container's ID, where it is at hand.
pub fn examine(
    settings: &Settings,
    conn: &Connection,
    netns_of: &dyn Fn(&str) -> Option<Netns>,
) -> Result<Vec<Finding>, Error> {
    let model = store::load_model(conn, settings.profile)?;
    let down = Live::now(settings, Written::default())?.state(&settings.run_root)?
        == crate::journal::State::Down;
    if down && model.endpoints.is_empty() {
        let what = "nothing is up: no container is attached to a network".to_owned();
        return Ok(vec![Finding::new(Severity::Note, what, "")]);
    }
    let backend = session::standing_backend(settings)?;
    let mut facts = gather::facts(&model, backend, netns_of)?;
    if backend == Backend::Nftables {
        let guard = crate::kernel::host::turned_on(&settings.run_root)?;
        let table = session::table()?;
        facts.own_table = nftables::differences(table.as_ref(), &model, guard);
    }
    Ok(judge(&model, backend, &facts))
}

/// Mends what can be mended, by the way of `system reload`, and returns what remains.
pub fn fix(
    settings: &Settings,
    conn: &mut Connection,
    netns_of: &dyn Fn(&str) -> Option<Netns>,
) -> Result<Vec<Finding>, Error> {
    change::reload(settings, conn, netns_of)?;
    examine(settings, conn, netns_of)
}

/// What is amiss, the worst first. Pure.
pub fn judge(model: &Model, backend: Backend, facts: &Facts) -> Vec<Finding> {
    let mut out = Vec::new();
    out.extend(links::judge(model, facts));
    out.extend(host::sysctls(model, facts));
    let families = Family::ALL
        .into_iter()
        .filter(|family| *family == Family::V4 || model.has_v6());
    match backend {
        Backend::Iptables => {
            for family in families {
                out.extend(rules::judge(model, family, facts));
            }
            out.extend(rules::left_over_table(facts));
        }
        Backend::Nftables => {
            out.extend(rules::own_table(facts));
            let families: Vec<Family> = families.collect();
            out.extend(rules::passage(model, &families, facts));
        }
        Backend::None => {}
    }
    out.extend(foreign::judge(model, backend, facts));
    out.extend(host::others(model, facts));
    out.extend(exposure::ports(model, facts));
    let unread = facts.unread.iter().cloned();
    out.extend(unread.map(|what| Finding::new(Severity::Warning, what, "run as root")));
    out.extend(exposure::report(model, facts));
    out.sort_by_key(|finding| finding.severity);
    out
}
