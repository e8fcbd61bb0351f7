//! Our own rules against the model: what is missing, too much, out of order or doubled. Pure.
//!
//! What differs is decided by the comparison that mends ([`mend`]); this puts it into words.

use std::collections::{BTreeMap, HashMap};

use super::{Facts, Finding, Severity, nft};
use crate::firewall::iptables::{self, FoundChain, Line, Script, spec};
use crate::firewall::mend::{self, Goal, Known};
use crate::firewall::nftables;
use crate::firewall::policy::{self, COMMENT_TAG};
use crate::firewall::ruleset::{Chain, Ruleset, Table};
use crate::model::{Family, Model};
use crate::plan::drops_what_it_does_not_know;

/// So many rules of one container are told one by one.
const FEW: usize = 3;

/// Where iptables is the backend: all of the policy.
pub(super) fn judge(model: &Model, family: Family, facts: &Facts) -> Vec<Finding> {
    let wanted = policy::ruleset(model, family);
    compare(family, facts, |found| {
        let mending = mend::mend(
            found,
            &wanted,
            Goal::Stand,
            &Ruleset::default(),
            &Known::new(),
        );
        (mending.forward, wanted)
    })
}

/// Where nftables is the backend: the passage through a FORWARD that drops, of either family, and nothing else of ours.
pub(super) fn passage(model: &Model, families: &[Family], facts: &Facts) -> Vec<Finding> {
    let drops = families.iter().any(|family| {
        let save = facts.save(program(*family));
        save.is_some_and(|save| drops_what_it_does_not_know(&iptables::parse(&save.text)))
    });
    let standing = match drops {
        true => policy::passage(model),
        false => Ruleset::default(),
    };
    let of = |family: &Family| passage_of(model, *family, facts, &standing);
    families.iter().flat_map(of).collect()
}

fn passage_of(model: &Model, family: Family, facts: &Facts, standing: &Ruleset) -> Vec<Finding> {
    let policy = policy::ruleset(model, family);
    compare(family, facts, |found| {
        let standing = standing.clone();
        let mending = mend::mend(found, &policy, Goal::Gone, &standing, &Known::new());
        (mending.forward, standing)
    })
}

fn program(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

fn compare(
    family: Family,
    facts: &Facts,
    mend: impl FnOnce(&[FoundChain]) -> (Script, Ruleset),
) -> Vec<Finding> {
    let program = program(family);
    let Some(save) = facts.save(program) else {
        return Vec::new();
    };
    let found = iptables::parse(&save.text);
    let (forward, wanted) = mend(&found);
    differences(&found, &forward, &wanted)
        .into_iter()
        .map(|what| {
            Finding::fixable(match family {
                Family::V4 => what,
                Family::V6 => format!("{program}: {what}"),
            })
        })
        .collect()
}

pub(super) fn own_table(facts: &Facts) -> Vec<Finding> {
    let lines = facts.own_table.iter();
    lines
        .map(|line| Finding::fixable(format!("nftables: {line}")))
        .collect()
}

/// Where iptables is the backend: the table of the other one, which judges our packets a second time.
pub(super) fn left_over_table(facts: &Facts) -> Option<Finding> {
    let title = format!("table {} {}", nftables::FAMILY, nftables::TABLE);
    let tables = nft::tables(&facts.nft);
    let is_there = tables.iter().any(|table| table.title == title);
    is_there.then(|| Finding {
        severity: Severity::Warning,
        ..Finding::fixable(format!(
            "nftables: {title} is left over from the nftables backend"
        ))
    })
}

/// What a mending would change, in words, by chain and by the container or network that a rule is for.
fn differences(found: &[FoundChain], forward: &Script, wanted: &Ruleset) -> Vec<String> {
    let mut out = Vec::new();
    for table in Table::ALL {
        let lines = forward.lines(table);
        let mut touched: Vec<&str> = Vec::new();
        for line in lines {
            let (Line::Chain(name)
            | Line::Append(name, _)
            | Line::Insert(name, _, _)
            | Line::Delete(name, _)
            | Line::RemoveChain(name)) = line;
            if !touched.contains(&name.as_str()) {
                touched.push(name);
            }
        }
        for name in touched {
            let there = found.iter().find(|c| c.table == table && c.name == name);
            let chain = wanted.chain(table, name);
            let subject = format!("table {}, chain {name}", table.as_str());
            match there {
                None if !table.built_in_chains().contains(&name) => {
                    out.push(format!("{subject}: the chain is missing"));
                }
                Some(_) if lines.contains(&Line::RemoveChain(name.to_owned())) => {
                    out.push(format!("{subject}: the chain is left over"));
                }
                there => {
                    let gone = deleted(lines, name, chain);
                    out.extend(in_chain(&subject, there, chain, &gone));
                }
            }
        }
    }
    out
}

/// Rules that the mending deletes for good: in a shared chain those of ours, in a chain of ours everyone's.
fn deleted(lines: &[Line], name: &str, chain: Option<&Chain>) -> Option<Vec<String>> {
    let is_rewritten = lines.contains(&Line::Chain(name.to_owned()));
    if is_rewritten {
        return None;
    }
    let wanted: Vec<String> = chain.into_iter().flat_map(|c| &c.rules).map(spec).collect();
    let deleted = lines.iter().filter_map(|line| match line {
        Line::Delete(chain, rule) if chain == name => Some(rule.clone()),
        _ => None,
    });
    Some(deleted.filter(|rule| !wanted.contains(rule)).collect())
}

fn in_chain(
    subject: &str,
    there: Option<&FoundChain>,
    chain: Option<&Chain>,
    gone: &Option<Vec<String>>,
) -> Vec<String> {
    let mut count: HashMap<&str, usize> = HashMap::new();
    for rule in there.into_iter().flat_map(|c| &c.rules) {
        *count.entry(&rule.spec).or_default() += 1;
    }
    let wanted: Vec<(String, &str)> = chain
        .into_iter()
        .flat_map(|c| &c.rules)
        .map(|rule| (spec(rule), rule.why.as_str()))
        .collect();
    let mut groups: BTreeMap<(&str, String), Vec<String>> = BTreeMap::new();
    for (rule, why) in &wanted {
        let kind = match count.get(rule.as_str()) {
            None => "missing",
            Some(1) => continue,
            Some(_) => "there more than once",
        };
        let (who, what) = who(why);
        groups.entry((kind, who)).or_default().push(what);
    }
    for rule in there.into_iter().flat_map(|c| &c.rules) {
        let is_wanted = wanted.iter().any(|(spec, _)| *spec == rule.spec);
        let is_extra = match gone {
            Some(gone) => gone.contains(&rule.spec),
            None => !is_wanted,
        };
        if is_extra {
            let comment = rule.comment.as_deref().unwrap_or_default();
            let (who, what) = match comment.strip_prefix(COMMENT_TAG) {
                Some(why) => who(why),
                None => (String::new(), format!("`{}`", rule.spec)),
            };
            groups.entry(("too much", who)).or_default().push(what);
        }
    }
    if groups.is_empty() {
        return vec![format!("{subject}: our rules are out of order")];
    }
    let told = groups.into_iter().map(|((kind, who), whats)| {
        let of = match who.is_empty() {
            true => String::new(),
            false => format!(" of {who}"),
        };
        match whats.as_slice() {
            [what] => format!("{subject}: a rule{of} is {kind}: {what}"),
            few if few.len() <= FEW => format!(
                "{subject}: {} rules{of} are {kind}: {}",
                few.len(),
                few.join("; ")
            ),
            many => format!("{subject}: {} rules{of} are {kind}", many.len()),
        }
    });
    told.collect()
}

/// `container web (0123...)` or `network net`, and what the rule does for it.
fn who(why: &str) -> (String, String) {
    match why.split_once(": ") {
        Some((who, what)) if who.starts_with("container ") || who.starts_with("network ") => {
            (who.to_owned(), what.to_owned())
        }
        _ => (String::new(), why.to_owned()),
    }
}
