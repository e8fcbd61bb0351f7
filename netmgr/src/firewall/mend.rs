//! From the rules that were found in the kernel to those that must be there, as a batch and its inverse.
//!
//! Repair, `system reload`, `system up` and `system down` all come through here. Chains of ours are rewritten where they
//! differ; in shared chains only rules of ours are moved, added or removed; the administrator's chain is created and
//! otherwise left alone.

use std::collections::HashSet;

use super::diff::{specs, split};
use super::iptables::{FoundChain, Line, Script, spec};
use super::policy::COMMENT_TAG;
use super::ruleset::{Chain, Owner, Place, Ruleset, Table, Verdict};

/// Rules in shared chains that are known to be ours although they carry no comment of ours (the docker profile has
/// none): of an earlier model, or from the journal of a killed change.
pub type Known = HashSet<(Table, String, String)>;

/// Every rule of a ruleset that stands in a shared chain.
pub fn known(ruleset: &Ruleset) -> impl Iterator<Item = (Table, String, String)> + '_ {
    let shared = ruleset.chains.iter().filter(|c| c.owner == Owner::Host);
    shared.flat_map(|c| {
        let rules = c.rules.iter();
        rules.map(|rule| (c.table, c.name.clone(), spec(rule)))
    })
}

/// Whether the rules are to stand or to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    Stand,
    Gone,
}

/// A batch made from what was found, and the batch that brings back what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mending {
    pub forward: Script,
    pub inverse: Script,
    /// What was left in place on purpose, in words for the user.
    pub notes: Vec<String>,
}

/// Compares what was found with a ruleset and writes what is missing, out of order, doubled or left over. With
/// [`Goal::Gone`] it takes all of it away, chains included.
///
/// `standing` are rules in shared chains that stay or come whatever the goal.
pub fn mend(
    found: &[FoundChain],
    ruleset: &Ruleset,
    goal: Goal,
    standing: &Ruleset,
    known_ours: &Known,
) -> Mending {
    let mut ours: Known = known_ours.clone();
    ours.extend(known(ruleset));
    let mut out = Mending::default();
    for table in Table::ALL {
        let mut work = TableWork {
            table,
            found,
            ours: &ours,
            kept: HashSet::new(),
            first: Vec::new(),
            then: Vec::new(),
            last: Vec::new(),
            undo_first: Vec::new(),
            undo_then: Vec::new(),
            undo_last: Vec::new(),
            left: Vec::new(),
        };
        work.run(ruleset, goal, standing, &mut out.notes);
        *out.forward.lines_mut(table) = [work.first, work.then, work.last].concat();
        work.undo_then.reverse();
        *out.inverse.lines_mut(table) = [work.undo_first, work.undo_then, work.undo_last].concat();
    }
    out
}

/// The lines for one table, in three groups: chains of ours first, so that jumps find their targets; then the shared
/// chains; chains are removed last, when nothing refers to them any more. The inverse has the same three groups.
struct TableWork<'a> {
    table: Table,
    found: &'a [FoundChain],
    ours: &'a Known,
    /// Rules of ours that stay where they are.
    kept: HashSet<String>,
    first: Vec<Line>,
    then: Vec<Line>,
    last: Vec<Line>,
    undo_first: Vec<Line>,
    /// In the order of doing; reversed at the end.
    undo_then: Vec<Line>,
    undo_last: Vec<Line>,
    /// What the built-in chains hold once the lines have run.
    left: Vec<String>,
}

impl TableWork<'_> {
    fn run(&mut self, ruleset: &Ruleset, goal: Goal, standing: &Ruleset, notes: &mut Vec<String>) {
        let (own, shared): (Vec<&Chain>, Vec<&Chain>) = ruleset
            .chains_of(self.table)
            .partition(|c| c.owner != Owner::Host);
        let mut going = Vec::new();
        for chain in own {
            match (goal, chain.owner) {
                (Goal::Stand, Owner::Administrator) => self.ensure_administrators(chain),
                (Goal::Stand, _) => self.ensure(chain),
                (Goal::Gone, Owner::Administrator) if self.has_others_rules(chain) => {
                    notes.push(format!(
                        "chain {} holds rules that are not ours: it stays, and so does the jump to it",
                        chain.name
                    ));
                    self.keep_jumps_to(&chain.name, &shared);
                }
                (Goal::Gone, _) => going.push(chain.name.as_str()),
            }
        }
        for name in self.table.built_in_chains() {
            let wanted = match goal {
                Goal::Stand => shared.iter().find(|c| c.name == *name).copied(),
                Goal::Gone => standing.chain(self.table, name),
            };
            self.settle(name, wanted);
        }
        for name in going {
            self.remove(name, notes);
        }
    }

    fn found(&self, name: &str) -> Option<&FoundChain> {
        let mut chains = self.found.iter();
        chains.find(|c| c.table == self.table && c.name == name)
    }

    fn found_specs(&self, name: &str) -> Option<Vec<String>> {
        let chain = self.found(name)?;
        Some(chain.rules.iter().map(|r| r.spec.clone()).collect())
    }

    /// A chain of ours: as wanted, or rewritten whole.
    fn ensure(&mut self, chain: &Chain) {
        let (name, wanted, found) = (
            &chain.name,
            specs(Some(chain)),
            self.found_specs(&chain.name),
        );
        if found.as_ref() == Some(&wanted) {
            return;
        }
        fill(name, &wanted, &mut self.first);
        match found {
            Some(old) => fill(name, &old, &mut self.undo_first),
            None => {
                self.undo_first.push(Line::Chain(name.clone()));
                self.undo_last.push(Line::RemoveChain(name.clone()));
            }
        }
        // Chains before contents: a rule of one chain of ours may jump to the next.
        self.first
            .sort_by_key(|line| !matches!(line, Line::Chain(_)));
        self.undo_first
            .sort_by_key(|line| !matches!(line, Line::Chain(_)));
    }

    /// The administrator's chain: made with its RETURN, or given it back if it was flushed; nothing else.
    fn ensure_administrators(&mut self, chain: &Chain) {
        match self.found_specs(&chain.name) {
            None => self.ensure(chain),
            Some(found) => {
                for rule in specs(Some(chain))
                    .into_iter()
                    .filter(|s| !found.contains(s))
                {
                    self.then
                        .push(Line::Append(chain.name.clone(), rule.clone()));
                    self.undo_then.push(Line::Delete(chain.name.clone(), rule));
                }
            }
        }
    }

    fn has_others_rules(&self, chain: &Chain) -> bool {
        let ours = specs(Some(chain));
        let found = self.found_specs(&chain.name).unwrap_or_default();
        found.iter().any(|rule| !ours.contains(rule))
    }

    fn keep_jumps_to(&mut self, name: &str, shared: &[&Chain]) {
        let rules = shared.iter().flat_map(|c| &c.rules);
        let jumps = rules.filter(|r| matches!(&r.verdict, Verdict::Jump(to) if to == name));
        self.kept.extend(jumps.map(spec));
    }

    /// Brings our rules in a shared chain in order, leaving everyone else's where they are.
    fn settle(&mut self, name: &str, wanted: Option<&Chain>) {
        let (ordered, tail) = split(wanted);
        let (head, top) = ordered.split_at(head_length(wanted));
        let leftovers = self.leftovers(name, |rule| ordered.contains(rule) || tail.contains(rule));
        let mut shared = Shared {
            name,
            rules: self.found_specs(name).unwrap_or_default(),
            lines: &mut self.then,
            undo: &mut self.undo_then,
        };
        leftovers.iter().for_each(|rule| shared.delete(rule));
        shared.order(head, top);
        shared.order_tail(&ordered, &tail);
        self.left.append(&mut shared.rules);
    }

    /// Rules of ours that are not wanted, and those that are there once too often.
    fn leftovers(&self, name: &str, is_wanted: impl Fn(&String) -> bool) -> Vec<String> {
        let mut seen: HashSet<&String> = HashSet::new();
        let mut leftovers = Vec::new();
        for found in self.found(name).into_iter().flat_map(|c| &c.rules) {
            let rule = &found.spec;
            let is_tagged = |comment: &String| comment.starts_with(COMMENT_TAG);
            let is_ours = found.comment.as_ref().is_some_and(is_tagged)
                || self
                    .ours
                    .contains(&(self.table, name.to_owned(), rule.clone()));
            let stays = self.kept.contains(rule) || (is_wanted(rule) && seen.insert(rule));
            if is_ours && !stays {
                leftovers.push(rule.clone());
            }
        }
        leftovers
    }

    /// Empties and removes a chain of ours, unless a rule that is not ours still jumps to it.
    fn remove(&mut self, name: &str, notes: &mut Vec<String>) {
        let Some(old) = self.found_specs(name) else {
            return;
        };
        self.first.push(Line::Chain(name.to_owned()));
        let at = self
            .undo_first
            .iter()
            .take_while(|l| matches!(l, Line::Chain(_)))
            .count();
        self.undo_first.insert(at, Line::Chain(name.to_owned()));
        for rule in old {
            self.undo_first.push(Line::Append(name.to_owned(), rule));
        }
        let jump = format!("-j {name}");
        let refers = |rule: &str| rule.ends_with(&jump) || rule.contains(&format!("{jump} "));
        let user_chains = self
            .found
            .iter()
            .filter(|c| c.table == self.table && !self.first.contains(&Line::Chain(c.name.clone())))
            .filter(|c| !self.table.built_in_chains().contains(&c.name.as_str()))
            .flat_map(|c| c.rules.iter().map(|r| &r.spec));
        if self.left.iter().chain(user_chains).any(|rule| refers(rule)) {
            notes.push(format!(
                "chain {name} is left in place, empty: a rule that is not ours jumps to it"
            ));
        } else {
            self.last.push(Line::RemoveChain(name.to_owned()));
        }
    }
}

fn fill(name: &str, rules: &[String], lines: &mut Vec<Line>) {
    lines.push(Line::Chain(name.to_owned()));
    for rule in rules {
        lines.push(Line::Append(name.to_owned(), rule.clone()));
    }
}

fn head_length(chain: Option<&Chain>) -> usize {
    let rules = chain.into_iter().flat_map(|c| &c.rules);
    rules.filter(|r| r.place == Place::Head).count()
}

/// A shared chain while lines are written for it: what it holds after them, and how to undo each.
struct Shared<'a> {
    name: &'a str,
    rules: Vec<String>,
    lines: &'a mut Vec<Line>,
    undo: &'a mut Vec<Line>,
}

impl Shared<'_> {
    /// Makes `head` the very first rules and `top` stand in its order. Either is written anew unless it is in place.
    fn order(&mut self, head: &[String], top: &[String]) {
        let there = self.rules.iter().filter(|r| top.contains(r));
        let in_order = there.eq(top.iter());
        if in_order && self.rules.starts_with(head) {
            return;
        }
        if !in_order {
            top.iter().for_each(|rule| self.delete(rule));
            top.iter().rev().for_each(|rule| self.insert(rule));
        }
        head.iter().for_each(|rule| self.delete(rule));
        head.iter().rev().for_each(|rule| self.insert(rule));
    }

    /// Puts the tail below the ordered rules and in its order too, from the first that is not in place: packets do not
    /// mind, but undoing and comparing stay exact.
    fn order_tail(&mut self, ordered: &[String], tail: &[String]) {
        let last = self.rules.iter().rposition(|r| ordered.contains(r));
        let above = &self.rules[..last.map_or(0, |at| at + 1)];
        let there: Vec<String> = self
            .rules
            .iter()
            .filter(|r| tail.contains(r))
            .cloned()
            .collect();
        let in_place = match above.iter().any(|r| tail.contains(r)) {
            true => 0,
            false => there.iter().zip(tail).take_while(|(a, b)| a == b).count(),
        };
        there[in_place..].iter().for_each(|rule| self.delete(rule));
        tail[in_place..].iter().for_each(|rule| self.append(rule));
    }

    /// Deletes a rule if it is there; by what it says, not by position: should someone insert
    /// a rule in the meantime, we take none of theirs. Of several equal ones the kernel removes the first.
    fn delete(&mut self, rule: &str) {
        if let Some(at) = self.rules.iter().position(|r| r == rule) {
            self.rules.remove(at);
            let name = self.name.to_owned();
            self.lines.push(Line::Delete(name.clone(), rule.to_owned()));
            self.undo.push(Line::Insert(name, at + 1, rule.to_owned()));
        }
    }

    fn insert(&mut self, rule: &str) {
        self.rules.insert(0, rule.to_owned());
        let name = self.name.to_owned();
        self.lines
            .push(Line::Insert(name.clone(), 1, rule.to_owned()));
        self.undo.push(Line::Delete(name, rule.to_owned()));
    }

    fn append(&mut self, rule: &str) {
        self.rules.push(rule.to_owned());
        let name = self.name.to_owned();
        self.lines.push(Line::Append(name.clone(), rule.to_owned()));
        self.undo.push(Line::Delete(name, rule.to_owned()));
    }
}
