//! From one ruleset to another, as a batch whose size is that of the difference.
//!
//! Trusts that the kernel holds what the earlier ruleset says; [`super::mend`] is for when it does not. A rule of someone
//! else's in a shared chain is neither seen nor touched.

use std::collections::HashSet;

use super::iptables::{Line, Script, spec};
use super::ruleset::{Chain, Owner, Place, Ruleset};

/// The lines that lead from one ruleset to another of the same profile. `delta(after, before)` undoes it.
pub fn delta(before: &Ruleset, after: &Ruleset) -> Script {
    let mut script = Script::default();
    for chain in &after.chains {
        let old = before.chain(chain.table, &chain.name);
        let lines = script.lines_mut(chain.table);
        match chain.owner {
            Owner::Administrator => {}
            Owner::Engine => delta_engine(&chain.name, &specs(old), &specs(Some(chain)), lines),
            Owner::Host => delta_host(old, chain, lines),
        }
    }
    script
}

pub(super) fn specs(chain: Option<&Chain>) -> Vec<String> {
    chain.map_or_else(Vec::new, |c| c.rules.iter().map(spec).collect())
}

/// In a chain of ours positions are known: deletes by rule, then inserts each new rule where it belongs.
fn delta_engine(name: &str, before: &[String], after: &[String], lines: &mut Vec<Line>) {
    let old: HashSet<&String> = before.iter().collect();
    let new: HashSet<&String> = after.iter().collect();
    let kept_before: Vec<&String> = before.iter().filter(|s| new.contains(s)).collect();
    let kept_after: Vec<&String> = after.iter().filter(|s| old.contains(s)).collect();
    if kept_before != kept_after {
        // What stays has changed its order: the one case where a rewrite is simpler than moves.
        rewrite(name, after, lines);
        return;
    }
    for gone in before.iter().filter(|s| !new.contains(s)) {
        lines.push(Line::Delete(name.to_owned(), gone.clone()));
    }
    let last_kept = after.iter().rposition(|s| old.contains(s));
    let leading = match last_kept {
        Some(_) => after.iter().take_while(|s| !old.contains(s)).count(),
        None => 0,
    };
    // "At the top" and "at the end" cost the same however long the chain is; for any other position, as for a removal,
    // iptables reads all of it first.
    for added in after[..leading].iter().rev() {
        lines.push(Line::Insert(name.to_owned(), 1, added.clone()));
    }
    let rest = after.iter().enumerate().skip(leading);
    for (at, added) in rest.filter(|(_, s)| !old.contains(s)) {
        lines.push(match last_kept.is_some_and(|kept| kept > at) {
            true => Line::Insert(name.to_owned(), at + 1, added.clone()),
            false => Line::Append(name.to_owned(), added.clone()),
        });
    }
}

fn rewrite(name: &str, rules: &[String], lines: &mut Vec<Line>) {
    lines.push(Line::Chain(name.to_owned()));
    for rule in rules {
        lines.push(Line::Append(name.to_owned(), rule.clone()));
    }
}

/// In a shared chain only "at the top" and "at the end" are safe positions, since others write there too. So a rule that
/// comes below older ones of ours (an inverse puts it back there, a new network comes below the jumps at the head) takes
/// those above it along.
fn delta_host(before: Option<&Chain>, after: &Chain, lines: &mut Vec<Line>) {
    let name = &after.name;
    let (old_top, old_tail) = split(before);
    let (new_top, new_tail) = split(Some(after));
    let old: HashSet<&String> = old_top.iter().chain(&old_tail).collect();
    let new: HashSet<&String> = new_top.iter().chain(&new_tail).collect();
    let deepest = new_top.iter().rposition(|s| !old.contains(s));
    let moved: HashSet<&String> = match deepest {
        Some(at) => new_top[..at].iter().filter(|s| old.contains(s)).collect(),
        None => HashSet::new(),
    };
    for gone in old_top.iter().chain(&old_tail) {
        if !new.contains(gone) || moved.contains(gone) {
            lines.push(Line::Delete(name.clone(), gone.clone()));
        }
    }
    if let Some(at) = deepest {
        for rule in new_top[..=at].iter().rev() {
            lines.push(Line::Insert(name.clone(), 1, rule.clone()));
        }
    }
    let last_kept = new_tail.iter().rposition(|s| old.contains(s));
    for (at, added) in new_tail
        .iter()
        .enumerate()
        .filter(|(_, s)| !old.contains(s))
    {
        // Between rules that exclude each other the place is of no matter to packets; it is to exact undoing.
        lines.push(match last_kept.is_some_and(|kept| kept > at) {
            true => Line::Insert(name.clone(), new_top.len() + at + 1, added.clone()),
            false => Line::Append(name.clone(), added.clone()),
        });
    }
}

/// The rules of a shared chain that are kept in order (head and top), and the others.
pub(super) fn split(chain: Option<&Chain>) -> (Vec<String>, Vec<String>) {
    let (mut top, mut tail) = (Vec::new(), Vec::new());
    for rule in chain.iter().flat_map(|c| &c.rules) {
        match rule.place {
            Place::Head | Place::Top => top.push(spec(rule)),
            Place::Tail => tail.push(spec(rule)),
        }
    }
    (top, tail)
}
