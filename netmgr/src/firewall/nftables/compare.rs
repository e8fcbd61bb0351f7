//! What was found, beside what must be: for repair and for the doctor. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::chains::CHAINS;
use super::elements::{Guard, elements};
use super::found::{Administrators, FoundChain, FoundElement, FoundRule, FoundSet, FoundTable};
use super::layout::{FAMILY, SETS, TABLE, USER_CHAIN};
use crate::model::Model;

/// The table that must be.
pub(super) fn wanted(model: &Model, guard: Guard) -> FoundTable {
    let mut table = FoundTable::default();
    for def in SETS {
        table.sets.insert(def.name.to_owned(), def.as_found());
    }
    for def in CHAINS {
        table.chains.insert(def.name.to_owned(), def.as_found());
    }
    // Of the administrator's chain only that it is there.
    let user = FoundChain::default();
    table.chains.insert(USER_CHAIN.to_owned(), user);
    for ((set, key), element) in elements(model, guard) {
        let set = table.sets.entry(set.to_owned()).or_default();
        let comment = Some(element.comment);
        let data = element.data;
        set.elements.insert(key, FoundElement { data, comment });
    }
    table
}

/// What is wrong with a set or chain as such.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Missing,
    /// Another type of set, or another hook.
    Altered,
    /// Neither ours nor the administrator's.
    Extra,
}

/// The difference between the table that was found and the one that must be.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) sets: BTreeMap<String, Fault>,
    pub(super) chains: BTreeMap<String, Fault>,
    /// Chains that stand where they must and whose rules do not say what they must.
    pub(super) rules: BTreeSet<String>,
}

pub(super) fn compare(
    found: &FoundTable,
    wanted: &FoundTable,
    theirs: &Administrators,
) -> Comparison {
    let mut out = Comparison::default();
    for (name, set) in &wanted.sets {
        match found.sets.get(name) {
            None => out.sets.insert(name.clone(), Fault::Missing),
            Some(there) if !there.is_like(set) => out.sets.insert(name.clone(), Fault::Altered),
            Some(_) => None,
        };
    }
    let is_extra =
        |name: &&String| !wanted.sets.contains_key(*name) && !theirs.sets.contains(*name);
    let extra = found.sets.keys().filter(is_extra);
    out.sets
        .extend(extra.map(|name| (name.clone(), Fault::Extra)));
    for (name, chain) in &wanted.chains {
        match found.chains.get(name) {
            None => {
                out.chains.insert(name.clone(), Fault::Missing);
            }
            Some(_) if name == USER_CHAIN => {}
            Some(there) if (&there.hook, &there.policy) != (&chain.hook, &chain.policy) => {
                out.chains.insert(name.clone(), Fault::Altered);
            }
            Some(there) if !same_rules(there, chain) => {
                out.rules.insert(name.clone());
            }
            Some(_) => {}
        }
    }
    let is_extra =
        |name: &&String| !wanted.chains.contains_key(*name) && !theirs.chains.contains(*name);
    let extra = found.chains.keys().filter(is_extra);
    out.chains
        .extend(extra.map(|name| (name.clone(), Fault::Extra)));
    out
}

fn same_rules(one: &FoundChain, other: &FoundChain) -> bool {
    one.rules.len() == other.rules.len()
        && one
            .rules
            .iter()
            .zip(&other.rules)
            .all(|(a, b)| a.is_like(b))
}

/// What is wrong with our table, in words. Empty when nothing is.
pub fn differences(found: Option<&FoundTable>, model: &Model, guard: Guard) -> Vec<String> {
    let Some(found) = found else {
        return vec![format!("table {FAMILY} {TABLE} is missing")];
    };
    if found.dormant {
        return vec![format!("table {FAMILY} {TABLE} is dormant")];
    }
    let wanted = wanted(model, guard);
    let comparison = compare(found, &wanted, &found.administrators());
    let mut words = Vec::new();
    for (name, fault) in &comparison.chains {
        words.push(match fault {
            Fault::Missing => format!("chain {name} is missing"),
            Fault::Altered => format!("chain {name} hangs elsewhere than it must"),
            Fault::Extra => format!("chain {name} is not ours"),
        });
    }
    for name in &comparison.rules {
        rules_in_words(name, &found.chains[name], &wanted.chains[name], &mut words);
    }
    for (name, fault) in &comparison.sets {
        let set = found.sets.get(name).or(wanted.sets.get(name));
        let kind = set.map_or("set", FoundSet::kind);
        words.push(match fault {
            Fault::Missing => format!("{kind} {name} is missing"),
            Fault::Altered => format!("{kind} {name} is of another type than it must be"),
            Fault::Extra => format!("{kind} {name} is not ours"),
        });
    }
    for (name, set) in &wanted.sets {
        if let (Some(there), None) = (found.sets.get(name), comparison.sets.get(name)) {
            elements_in_words(name, there, set, &mut words);
        }
    }
    words
}

fn rules_in_words(name: &str, found: &FoundChain, wanted: &FoundChain, words: &mut Vec<String>) {
    let before = words.len();
    let text = |rule: &FoundRule| match &rule.text {
        Some(text) => format!("`{text}`"),
        None => "in words that are not known here".to_owned(),
    };
    let count =
        |rules: &[FoundRule], rule: &FoundRule| rules.iter().filter(|r| r.is_like(rule)).count();
    for rule in &wanted.rules {
        match count(&found.rules, rule) {
            0 => words.push(format!("a rule of chain {name} is missing: {}", text(rule))),
            1 => {}
            n => words.push(format!(
                "a rule of chain {name} stands {n} times: {}",
                text(rule)
            )),
        }
    }
    for rule in found.rules.iter().filter(|r| count(&wanted.rules, r) == 0) {
        words.push(format!(
            "a rule in chain {name} is not ours: {}",
            text(rule)
        ));
    }
    if words.len() == before {
        words.push(format!("the rules of chain {name} are out of order"));
    }
}

fn elements_in_words(name: &str, found: &FoundSet, wanted: &FoundSet, words: &mut Vec<String>) {
    let kind = wanted.kind();
    for (key, element) in &wanted.elements {
        let why = element.comment.as_deref().unwrap_or_default();
        let Some(there) = found.elements.get(key) else {
            words.push(format!("element {key} of {kind} {name} is missing ({why})"));
            continue;
        };
        if there.data != element.data {
            let value = |data: &Option<String>| data.clone().unwrap_or_default();
            words.push(format!(
                "element {key} of {kind} {name} is {} and must be {} ({why})",
                value(&there.data),
                value(&element.data)
            ));
        } else if there.comment != element.comment {
            words.push(format!(
                "element {key} of {kind} {name} has another comment than `{why}`"
            ));
        }
    }
    for key in found
        .elements
        .keys()
        .filter(|k| !wanted.elements.contains_key(*k))
    {
        words.push(format!("element {key} of {kind} {name} is not ours"));
    }
}
