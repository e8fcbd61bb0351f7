//! From the table that was found to the one that must be, as one transaction and its inverse.
//!
//! The administrator's chain, and what its rules lead to, is created (empty) and otherwise left alone.

use std::collections::BTreeMap;

use super::compare::{Comparison, Fault, compare, wanted};
use super::elements::Guard;
use super::found::{Administrators, FoundSet, FoundTable};
use super::layout::{FAMILY, TABLE, USER_CHAIN};
use super::script::Script;
use crate::firewall::mend::Goal;
use crate::model::Model;

/// Input for `nft -f -` that brings what was found to what must be, and the input that brings it back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mending {
    pub forward: String,
    pub inverse: String,
    /// What was left in place on purpose, or could not be undone, in words for the user.
    pub notes: Vec<String>,
}

impl Mending {
    pub fn is_empty(&self) -> bool {
        self.forward.is_empty()
    }
}

/// Compares what was found with what must be and writes what is missing, altered, doubled or left over. With
/// [`Goal::Gone`] the table goes, but for an administrator's rules.
///
/// A table that is dormant is only woken: look again afterwards.
pub fn mend(found: Option<&FoundTable>, model: &Model, guard: Guard, goal: Goal) -> Mending {
    let wanted = match goal {
        Goal::Stand => wanted(model, guard),
        Goal::Gone => FoundTable::default(),
    };
    let Some(found) = found else {
        return match goal {
            Goal::Gone => Mending::default(),
            Goal::Stand => Mending {
                forward: whole(&wanted).text(),
                inverse: format!("delete table {FAMILY} {TABLE}\n"),
                notes: Vec::new(),
            },
        };
    };
    if found.dormant {
        // Alone in its transaction: the kernel takes no other changes beside it, and the listing may not tell the rest.
        return Mending {
            forward: format!("add table {FAMILY} {TABLE}\n"),
            inverse: format!("add table {FAMILY} {TABLE} {{ flags dormant; }}\n"),
            notes: vec![format!("table {FAMILY} {TABLE} was dormant")],
        };
    }
    let mut notes = Vec::new();
    if goal == Goal::Gone {
        let user = found.chains.get(USER_CHAIN);
        if user.is_none_or(|chain| chain.rules.is_empty()) {
            return Mending {
                forward: format!("delete table {FAMILY} {TABLE}\n"),
                inverse: whole(found).text(),
                notes,
            };
        }
        notes.push(format!(
            "chain {USER_CHAIN} holds rules that are not ours: it stays, and so does the table {FAMILY} {TABLE}"
        ));
    }
    let theirs = found.administrators();
    let comparison = compare(found, &wanted, &theirs);
    if has_unreadable_rule(found, &comparison) {
        notes.push(format!(
            "a rule in table {FAMILY} {TABLE} that is not ours goes, and could not be brought back"
        ));
    }
    let is_structural = comparison.is_structural();
    let forward = transaction(found, &wanted, &comparison, &theirs, is_structural);
    let inverse = match forward.is_empty() {
        true => Script::default(),
        false => {
            let back = comparison.inverted();
            transaction(&wanted, found, &back, &theirs, is_structural)
        }
    };
    Mending {
        forward: forward.text(),
        inverse: inverse.text(),
        notes,
    }
}

/// Everything, for a kernel without the table.
fn whole(table: &FoundTable) -> Script {
    let mut script = Script::default();
    script.table("add");
    for (name, set) in &table.sets {
        script.add_set(name, set);
    }
    for name in table.chains.keys() {
        add_chain(name, table, &mut script);
    }
    for name in table.chains.keys() {
        add_rules(name, table, &mut script);
    }
    for (name, set) in &table.sets {
        add_elements(name, set, &mut script);
    }
    script
}

fn add_chain(name: &str, table: &FoundTable, script: &mut Script) {
    if let Some(chain) = table.chains.get(name) {
        let policy = chain.policy.as_deref().unwrap_or("accept");
        script.add_chain(name, chain.hook.as_ref(), policy);
    }
}

fn add_rules(name: &str, table: &FoundTable, script: &mut Script) {
    for rule in table.chains.get(name).iter().flat_map(|c| &c.rules) {
        script.add_rule(name, rule);
    }
}

fn add_elements(name: &str, set: &FoundSet, script: &mut Script) {
    let entries = set.elements.iter();
    script.elements(
        "add",
        name,
        entries.map(|(k, e)| (k.as_str(), e.data.as_deref(), e.comment.as_deref())),
    );
}

fn has_unreadable_rule(found: &FoundTable, comparison: &Comparison) -> bool {
    let rewritten = comparison.rules.iter().chain(comparison.chains.keys());
    rewritten
        .filter_map(|name| found.chains.get(name))
        .any(|chain| chain.rules.iter().any(|rule| rule.text.is_none()))
}

impl Comparison {
    /// Whether sets or chains as such are wrong. Rules refer to both, so all of ours are taken out first and put back last.
    fn is_structural(&self) -> bool {
        !self.sets.is_empty() || !self.chains.is_empty()
    }

    /// The same difference, seen from the other side.
    fn inverted(&self) -> Comparison {
        let turn = |fault: &Fault| match fault {
            Fault::Missing => Fault::Extra,
            Fault::Altered => Fault::Altered,
            Fault::Extra => Fault::Missing,
        };
        let faults = |all: &BTreeMap<String, Fault>| {
            let turned = all.iter().map(|(name, fault)| (name.clone(), turn(fault)));
            turned.collect()
        };
        Comparison {
            sets: faults(&self.sets),
            chains: faults(&self.chains),
            rules: self.rules.clone(),
        }
    }
}

/// The lines from one table to another, given how they differ.
fn transaction(
    from: &FoundTable,
    to: &FoundTable,
    comparison: &Comparison,
    theirs: &Administrators,
    is_structural: bool,
) -> Script {
    let mut script = Script::default();
    let ours = |name: &&String| !theirs.chains.contains(*name) && *name != USER_CHAIN;
    let rewritten: Vec<&String> = match is_structural {
        true => to.chains.keys().filter(ours).collect(),
        false => comparison.rules.iter().collect(),
    };
    if is_structural {
        for name in from.chains.keys().filter(ours) {
            script.command("flush", "chain", name);
        }
        for (name, fault) in &comparison.chains {
            if *fault != Fault::Missing {
                script.command("delete", "chain", name);
            }
        }
        for (name, fault) in &comparison.sets {
            if let (Some(set), true) = (from.sets.get(name), *fault != Fault::Missing) {
                script.command("delete", set.kind(), name);
            }
        }
        for (name, fault) in &comparison.sets {
            if let (Some(set), true) = (to.sets.get(name), *fault != Fault::Extra) {
                script.add_set(name, set);
            }
        }
        for (name, fault) in &comparison.chains {
            if *fault != Fault::Extra {
                add_chain(name, to, &mut script);
            }
        }
    } else {
        for name in &rewritten {
            script.command("flush", "chain", name);
        }
    }
    for name in rewritten {
        add_rules(name, to, &mut script);
    }
    let mut adds = Script::default();
    for (name, set) in &to.sets {
        let is_new = comparison.sets.contains_key(name);
        match from.sets.get(name).filter(|_| !is_new) {
            Some(there) => change_elements(name, there, set, &mut script, &mut adds),
            None => add_elements(name, set, &mut adds),
        }
    }
    script.append(adds);
    script
}

/// Deletes before adds: a key may get another value.
fn change_elements(
    name: &str,
    from: &FoundSet,
    to: &FoundSet,
    deletes: &mut Script,
    adds: &mut Script,
) {
    let gone = from
        .elements
        .iter()
        .filter(|(key, element)| to.elements.get(*key) != Some(*element));
    deletes.elements(
        "delete",
        name,
        gone.map(|(key, _)| (key.as_str(), None, None)),
    );
    let added = to
        .elements
        .iter()
        .filter(|(key, element)| from.elements.get(*key) != Some(*element));
    adds.elements(
        "add",
        name,
        added.map(|(k, e)| (k.as_str(), e.data.as_deref(), e.comment.as_deref())),
    );
}
