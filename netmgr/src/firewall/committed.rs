//! Which tables of a batch for `iptables-restore` stand in the kernel: it commits them one after the other, and a failure
//! does not tell how far it came. Pure.

use std::collections::{HashMap, HashSet};

use super::iptables::{FoundChain, parse_rule, split_rule};
use super::ruleset::Table;

/// One table's part of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub table: Table,
    /// From `*TABLE` to `COMMIT`: input of its own.
    pub input: String,
}

/// The input, cut after each `COMMIT`.
pub fn parts(input: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut table = None;
    let mut part = String::new();
    for line in input.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = Table::ALL.into_iter().find(|t| t.as_str() == name);
        }
        part.push_str(line);
        part.push('\n');
        if line == "COMMIT" {
            let input = std::mem::take(&mut part);
            parts.extend(table.take().map(|table| Part { table, input }));
        }
    }
    parts
}

/// Whether the kernel, as listed, has this part behind it. Within a table it is all or nothing, so that one line that can
/// tell is enough: a rule of ours stands once in its chain, or not at all.
pub fn is_committed(part: &Part, listed: &[FoundChain]) -> bool {
    let find = |name: &str| {
        listed
            .iter()
            .find(|c| c.table == part.table && c.name == name)
    };
    let has = |chain: &str, spec: &str| {
        find(chain).is_some_and(|c| c.rules.iter().any(|rule| rule.spec == spec))
    };
    let effect = Effect::of(part);
    let mut was_to_go = false;
    for ((chain, spec), count) in &effect.rules {
        if effect.rewritten.contains(chain) {
            continue;
        }
        match (*count, has(chain, spec)) {
            (1.., there) => return there,
            (..0, false) => return true,
            // It stands still, unless there were two.
            (..0, true) => was_to_go = true,
            (0, _) => {}
        }
    }
    if let Some(name) = effect.removed.iter().next() {
        return find(name).is_none();
    }
    for name in &effect.rewritten {
        let wanted = effect.appended.get(name);
        let wanted = wanted.into_iter().flatten();
        let stands = find(name).is_some_and(|c| c.rules.iter().map(|r| &r.spec).eq(wanted));
        if !stands {
            return false;
        }
    }
    // What only moves rules can be taken back whether or not it was done.
    !was_to_go
}

/// What a part comes to.
#[derive(Default)]
struct Effect<'a> {
    /// How many more of a rule there are in a chain.
    rules: HashMap<(&'a str, String), i32>,
    /// Chains that are made, or emptied, and what is appended to them.
    rewritten: HashSet<&'a str>,
    appended: HashMap<&'a str, Vec<String>>,
    removed: HashSet<&'a str>,
}

impl<'a> Effect<'a> {
    fn of(part: &'a Part) -> Effect<'a> {
        let mut effect = Effect::default();
        for line in part.input.lines() {
            if let Some(rest) = line.strip_prefix(':') {
                effect.rewritten.extend(rest.split(' ').next());
            } else if let Some(name) = line.strip_prefix("-X ") {
                effect.removed.insert(name);
                effect.rewritten.remove(name);
            } else if let Some((chain, spec)) = split_rule(line) {
                let spec = parse_rule(spec).spec;
                let more = match line.starts_with("-D ") {
                    true => -1,
                    false => 1,
                };
                if more == 1 {
                    effect.appended.entry(chain).or_default().push(spec.clone());
                }
                *effect.rules.entry((chain, spec)).or_default() += more;
            }
        }
        effect
    }
}

#[cfg(test)]
mod tests {
    use super::super::iptables::parse;
    use super::*;

    fn committed(input: &str, listing: &str) -> bool {
        is_committed(&parts(input)[0], &parse(listing))
    }

    #[test]
    fn input_is_cut_after_each_table() {
        let input = "*nat\n-A X -j ACCEPT\nCOMMIT\n*filter\n-D Y -j DROP\nCOMMIT\n";
        let cut: Vec<_> = parts(input)
            .into_iter()
            .map(|p| (p.table, p.input))
            .collect();
        let nat = "*nat\n-A X -j ACCEPT\nCOMMIT\n".to_owned();
        let filter = "*filter\n-D Y -j DROP\nCOMMIT\n".to_owned();
        assert_eq!(cut, [(Table::Nat, nat), (Table::Filter, filter)]);
    }

    #[test]
    fn what_stands_tells_whether_a_table_was_committed() {
        let add = "*filter\n-A FORWARD -i br0 -j ACCEPT\nCOMMIT\n";
        let remove = "*filter\n-D FORWARD -i br0 -j ACCEPT\nCOMMIT\n";
        let there = "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -i br0 -j ACCEPT\nCOMMIT\n";
        let gone = "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n";
        assert!(committed(add, there) && !committed(add, gone));
        assert!(committed(remove, gone) && !committed(remove, there));
        let chain = "*filter\n:MINE - [0:0]\n-A MINE -j RETURN\nCOMMIT\n";
        let remove = "*filter\n-F MINE\n-X MINE\nCOMMIT\n";
        assert!(committed(chain, chain) && !committed(chain, gone));
        assert!(committed(remove, gone) && !committed(remove, chain));
        let elsewhere = "*nat\n:FORWARD DROP [0:0]\n-A FORWARD -i br0 -j ACCEPT\nCOMMIT\n";
        assert!(!committed(add, elsewhere), "another table");
    }
}
