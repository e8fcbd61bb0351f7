//! The rules of a model in words: what `system rules` prints. Reads the same pure policy as everything else.

use crate::firewall::iptables::spec;
use crate::firewall::policy;
use crate::model::{Family, Model};

/// A rule and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    pub table: &'static str,
    /// `-A CHAIN ...`, as `iptables-save` prints it.
    pub rule: String,
    pub why: String,
}

/// Every rule of one family that the model asks for, in the order in which its tables hold them.
pub fn explain(model: &Model, family: Family) -> Vec<Explained> {
    let ruleset = policy::ruleset(model, family);
    let chains = ruleset.chains.iter();
    chains
        .flat_map(|chain| {
            chain.rules.iter().map(|rule| Explained {
                table: chain.table.as_str(),
                rule: format!("-A {} {}", chain.name, spec(rule)),
                why: rule.why.clone(),
            })
        })
        .collect()
}
