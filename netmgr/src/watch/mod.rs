//! `network watch`: a foreground loop that mends what others take away of ours, within a second.
//!
//! It listens to the kernel's notifications and compares the kernel with the model after each burst of them; where
//! the kernel announces nothing (legacy xtables, sysctls) it looks once a second. The comparison and the mending are those of
//! `system reload`: there is no second way to write rules. The lock is held only while it compares, and the
//! model is read anew each time, so what was removed meanwhile does not come back.

use std::fmt;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::change::{Netns, Settings};
use crate::error::Error;
use crate::firewall::mend::Goal;
use crate::journal::Journal;
use crate::kernel::links;
use crate::model::Model;
use crate::plan::Op;
use crate::preview;
use crate::session::{Namespaces, Session};
use crate::store;
use listen::{Listener, Woken};
use patience::Patience;
use unannounced::Unannounced;
pub(crate) use unannounced::is_legacy;

mod listen;
mod patience;
mod unannounced;

/// How often that is looked at which the kernel does not announce: with the mending itself it stays below a second.
const EACH: Duration = Duration::from_millis(750);

/// As the kernel names them: with the first 15 bytes.
const OUR_TOOLS: [&str; 3] = ["iptables-restor", "ip6tables-resto", "nft"];

/// Finds a running container's namespace by the container's ID, in the database as it is then.
pub type NetnsOf<'a> = &'a dyn Fn(&Connection, &str) -> Option<Netns>;

/// Something that the watch did, and when.
#[derive(Clone, Debug)]
pub struct Event {
    pub at: OffsetDateTime,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Listening from here on.
    Started,
    /// Something had changed, and nothing of ours was amiss. Not worth a line, but for one who counts.
    Compared,
    Mended {
        /// One line for each thing that was done, without the rules themselves.
        did: Vec<String>,
        /// Programs that wrote rules just before, with their process IDs.
        by: Vec<String>,
        took: Duration,
    },
    /// Another program takes away again and again what is mended: no mending for a while.
    BackedOff {
        /// What keeps changing.
        what: Vec<String>,
        by: Vec<String>,
        pause: Duration,
    },
    /// This time it did not work; it is tried again after the pause.
    Failed { error: String, pause: Duration },
}

impl fmt::Display for Event {
    /// One line, with its time.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.replace_nanosecond(0).unwrap_or(self.at);
        write!(
            f,
            "{} {}",
            at.format(&Rfc3339).unwrap_or_default(),
            self.what
        )
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = |by: &[String]| match by.is_empty() {
            true => String::new(),
            false => format!(" after {}", by.join(", ")),
        };
        match self {
            What::Started => f.write_str("watching"),
            What::Compared => f.write_str("compared: all is in place"),
            What::Mended { did, by, took } => write!(
                f,
                "mended{} in {} ms: {}",
                after(by),
                took.as_millis(),
                did.join("; ")
            ),
            What::BackedOff { what, by, pause } => write!(
                f,
                "backing off for {} s: another program keeps undoing this{}: {}",
                pause.as_secs(),
                after(by),
                what.join("; ")
            ),
            What::Failed { error, pause } => write!(
                f,
                "cannot mend, trying again in {} s: {error}",
                pause.as_secs()
            ),
        }
    }
}

/// Watches until `stop` can be read (or its other end is closed). `open` opens the database for one comparison;
/// `netns_of` is asked for containers whose veth is missing, which can then be made anew.
///
/// Only what keeps it from listening at all is an error; a comparison or mending that fails is reported and
/// tried again.
pub fn run(
    settings: &Settings,
    open: impl Fn() -> Result<Connection, Error>,
    netns_of: NetnsOf<'_>,
    stop: OwnedFd,
    report: &mut dyn FnMut(Event),
) -> Result<(), Error> {
    let mut listener = Listener::open(stop)?;
    let mut tell = |what| {
        let at = OffsetDateTime::now_utc();
        report(Event { at, what });
    };
    tell(What::Started);
    let mend = || mend(settings, &open()?, netns_of);
    let mut patience = Patience::default();
    let mut last = None;
    let mut wrote = false;
    // What happened before we listened is looked at first.
    let mut woken = Woken::Changed { by: Vec::new() };
    loop {
        let pause = patience.pause(Instant::now());
        // From before the comparison: a change beside it is then seen the next time.
        let now = Some(Unannounced::now(listener.hears_rules()));
        match woken {
            Woken::Stop => return Ok(()),
            _ if pause.is_some() => {}
            Woken::Quiet if now == last && !patience.owes() => {}
            Woken::Quiet => {
                wrote = compare(mend, Vec::new(), &mut patience, &mut tell);
            }
            Woken::Changed { mut by } => {
                // What we wrote last is announced by now too, under the name of the command that wrote it for us.
                if wrote {
                    by.retain(|author| !OUR_TOOLS.iter().any(|tool| author.starts_with(tool)));
                }
                wrote = compare(mend, by, &mut patience, &mut tell);
            }
        }
        last = now;
        woken = listener.wait(pause.unwrap_or(EACH).min(EACH))?;
    }
}

/// Once under the lock: compares, and mends what is amiss. Returns whether it mended.
fn compare(
    mend: impl Fn() -> Result<Vec<String>, Error>,
    by: Vec<String>,
    patience: &mut Patience,
    tell: &mut impl FnMut(What),
) -> bool {
    let begun = Instant::now();
    match mend() {
        Ok(did) if did.is_empty() => {
            patience.well();
            tell(What::Compared);
            false
        }
        Ok(did) => {
            let took = begun.elapsed();
            let too_often = patience.mended(Instant::now(), &did);
            tell(What::Mended {
                did,
                by: by.clone(),
                took,
            });
            if let Some((what, pause)) = too_often {
                tell(What::BackedOff { what, by, pause });
            }
            true
        }
        Err(error) => {
            let pause = patience.failed(Instant::now());
            tell(What::Failed {
                error: chain(&error),
                pause,
            });
            // It may have written a part.
            true
        }
    }
}

/// What was mended, in words; nothing where all is in place, and then nothing was written either.
fn mend(
    settings: &Settings,
    conn: &Connection,
    netns_of: NetnsOf<'_>,
) -> Result<Vec<String>, Error> {
    let session = Session::begin(settings)?;
    let mut did = Vec::new();
    if Journal::is_pending(&settings.run_root) {
        session.repair(conn)?;
        did.push("repaired a change that was cut short".to_owned());
    }
    let model = store::load_model(conn, settings.profile)?;
    let netns = without_veth(&model, |id| netns_of(conn, id))?;
    let survey = session.survey(&model, &netns)?;
    // A veth that no endpoint has any more is on its way out with its container's namespace.
    let dying = |op: &Op| matches!(op, Op::RemoveVeth(_));
    let amiss = !survey.settle.is_empty() || !survey.policy_lost.is_empty();
    if !amiss && survey.ops.iter().all(dying) {
        return Ok(did);
    }
    session.mend(&model, Goal::Stand, &Journal::default(), &netns)?;
    let lost = survey.policy_lost.into_iter();
    did.extend(lost.map(preview::policy_again));
    did.extend(survey.ops.iter().filter(|op| !dying(op)).map(in_short));
    did.extend(survey.settle.iter().map(ToString::to_string));
    Ok(did)
}

/// The namespaces of containers that have lost a veth, where they are at hand.
fn without_veth(
    model: &Model,
    netns_of: impl Fn(&str) -> Option<Netns>,
) -> Result<Namespaces, Error> {
    let links = links::list()?;
    let mut found = Namespaces::new();
    for endpoint in &model.endpoints {
        let id = &endpoint.container_id;
        let is_there = links.iter().any(|l| l.name == endpoint.host_interface);
        if !is_there && let Some(netns) = netns_of(id) {
            found.insert(id.clone(), netns);
        }
    }
    Ok(found)
}

/// Without the rules themselves: `system reload --dry-run` prints those.
fn in_short(op: &Op) -> String {
    let mut lines = preview::words(op);
    let count = lines.len() - 1;
    let first = lines.remove(0);
    match op {
        Op::Rules(_) => format!("{} {count} lines", first.trim_end_matches(':')),
        _ => first,
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
