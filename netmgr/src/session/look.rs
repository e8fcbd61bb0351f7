//! Reads of the kernel what a plan starts from.

use super::Session;
use crate::error::Error;
use crate::firewall::iptables;
use crate::firewall::mend::Known;
use crate::firewall::nftables;
use crate::firewall::ruleset::Table;
use crate::journal::Journal;
use crate::kernel::{self, commands, host, links};
use crate::model::{Family, Model};
use crate::plan::{Backend, Found, FoundLink, Tool};

/// How much is read: each listing of rules is a command to be run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// What this backend writes, and what an earlier command is known to have written.
    Needed,
    /// What any backend of ours could have left.
    Everything,
}

impl Session {
    pub(super) fn look(
        &self,
        model: &Model,
        journal: &Journal,
        depth: Depth,
    ) -> Result<Found, Error> {
        let links = links::list()?;
        let ipv6 = self.wants_ipv6(model)?;
        let read = |tool| -> Result<bool, Error> {
            Ok(self.needs(tool, ipv6)?
                || journal.batches.iter().any(|(of, _)| *of == tool)
                || (depth == Depth::Everything && commands::path(lister(tool)).is_some()))
        };
        Ok(Found {
            forwarding: host::forwarding_enabled(Family::V4)?,
            // A host without IPv6 forwards none, and needs to only for a network with IPv6.
            forwarding6: match ipv6 {
                true => host::forwarding_enabled(Family::V6)?,
                false => false,
            },
            turned_on: host::turned_on(&self.settings.run_root)?,
            links: links
                .into_iter()
                .map(|link| FoundLink {
                    is_bridge: link.kind == "bridge",
                    name: link.name,
                    master: link.master,
                })
                .collect(),
            chains: match read(Tool::Iptables)? {
                true => self.chains(Family::V4, journal)?,
                false => None,
            },
            chains6: match read(Tool::Ip6tables)? {
                true => self.chains(Family::V6, journal)?,
                false => None,
            },
            nft: match read(Tool::Nft)? {
                true => Some(table()?),
                false => None,
            },
            has_passage: self.state()?.written().passage,
            journal_links: journal.links.iter().cloned().collect(),
            journal_rules: rules_of(journal, Tool::Iptables),
            journal_rules6: rules_of(journal, Tool::Ip6tables),
            ..Found::default()
        })
    }

    /// Where iptables is installed and does not work (a kernel without xtables), there is nothing of ours and nothing of
    /// others that could drop our packets, unless we know better.
    fn chains(
        &self,
        family: Family,
        journal: &Journal,
    ) -> Result<Option<Vec<iptables::FoundChain>>, Error> {
        let tool = Tool::iptables(family);
        let ours = self.backend() == Backend::Iptables
            || self.state()?.written().backend == Backend::Iptables
            || journal.batches.iter().any(|(of, _)| *of == tool);
        let mut all = Vec::new();
        for table in Table::ALL {
            match commands::save(family, table.as_str()) {
                Ok(text) => all.extend(iptables::parse(&text)),
                Err(error) if ours => return Err(error.into()),
                Err(error) => {
                    tracing::debug!(%error, "rules that are not ours are not looked at");
                    return Ok(None);
                }
            }
        }
        Ok(Some(all))
    }

    /// Whether the rules of a tool have to be read for a change: those that we write, and those that stand by an earlier
    /// setting.
    fn needs(&self, tool: Tool, ipv6: bool) -> Result<bool, Error> {
        let standing = self.state()?.written();
        let backends = [self.backend(), standing.backend];
        // Beside a table of our own there may be an iptables that drops what we accept.
        let beside_nft =
            || backends.contains(&Backend::Nftables) && commands::path(lister(tool)).is_some();
        Ok(match tool {
            Tool::Iptables => backends.contains(&Backend::Iptables) || beside_nft(),
            Tool::Ip6tables => ipv6 && (backends.contains(&Backend::Iptables) || beside_nft()),
            Tool::Nft => backends.contains(&Backend::Nftables),
        })
    }
}

fn lister(tool: Tool) -> &'static str {
    match tool {
        Tool::Iptables => "iptables-save",
        Tool::Ip6tables => "ip6tables-save",
        Tool::Nft => "nft",
    }
}

pub(crate) fn table() -> Result<Option<nftables::FoundTable>, Error> {
    let Some(json) = commands::list_table()? else {
        return Ok(None);
    };
    nftables::parse(&json).map(Some).map_err(|error| {
        Error::Kernel(kernel::Error::Listing {
            name: "nft",
            reason: error.to_string(),
        })
    })
}

/// In the docker profile our names are a real Docker's: with nothing of ours up, only what a killed change of ours was at
/// may be taken away.
pub(super) fn keep_what_is_known(found: &mut Found, journal: &Journal) {
    found
        .links
        .retain(|link| found.journal_links.contains(&link.name));
    let wrote = |tool| journal.batches.iter().any(|(of, _)| *of == tool);
    if !wrote(Tool::Iptables) {
        found.chains = None;
    }
    if !wrote(Tool::Ip6tables) {
        found.chains6 = None;
    }
}

/// Every rule that a journal's batches for iptables name, in whichever direction.
fn rules_of(journal: &Journal, tool: Tool) -> Known {
    let batches = journal.batches.iter().filter(|(of, _)| *of == tool);
    batches
        .flat_map(|(_, batch)| iptables::parse(batch))
        .flat_map(|chain| {
            let (table, name) = (chain.table, chain.name);
            chain
                .rules
                .into_iter()
                .map(move |rule| (table, name.clone(), rule.spec))
        })
        .collect()
}
