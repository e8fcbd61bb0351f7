//! The rules of a model in words: what `system rules` prints. Reads the same pure policy as everything else.

use crate::change::Settings;
use crate::error::Error;
use crate::firewall::iptables::spec;
use crate::firewall::nftables;
use crate::firewall::policy;
use crate::kernel::host;
use crate::model::{Family, Model};
use crate::plan::Backend;
use crate::session;

/// A rule and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// `nat`, `nat (IPv6)`, or `inet coracle` with nftables.
    pub table: String,
    /// As `iptables-save` prints it (`-A CHAIN ...`), or as `nft` reads it.
    pub rule: String,
    pub why: String,
}

/// Every rule that the model asks for under these settings, in the order in which its tables hold them.
pub fn explain(settings: &Settings, model: &Model) -> Result<Vec<Explained>, Error> {
    Ok(match session::standing_backend(settings)? {
        Backend::None => Vec::new(),
        Backend::Iptables => {
            let families = Family::ALL.into_iter();
            families
                .filter(|family| *family == Family::V4 || model.has_v6())
                .flat_map(|family| iptables(model, family))
                .collect()
        }
        Backend::Nftables => {
            let guard = host::turned_on(&settings.run_root)?;
            let lines = nftables::explained(&nftables::elements(model, guard));
            let explained = lines.into_iter().map(|(rule, why)| Explained {
                table: format!("{} {}", nftables::FAMILY, nftables::TABLE),
                rule,
                why,
            });
            explained.collect()
        }
    })
}

/// The rules of one family.
pub fn iptables(model: &Model, family: Family) -> Vec<Explained> {
    let ruleset = policy::ruleset(model, family);
    let chains = ruleset.chains.iter();
    chains
        .flat_map(|chain| {
            chain.rules.iter().map(move |rule| Explained {
                table: match family {
                    Family::V4 => chain.table.as_str().to_owned(),
                    Family::V6 => format!("{} (IPv6)", chain.table.as_str()),
                },
                rule: format!("-A {} {}", chain.name, spec(rule)),
                why: rule.why.clone(),
            })
        })
        .collect()
}
