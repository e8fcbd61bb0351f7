//! Reading a host's firewall: `iptables-save` text made comparable, and the captures to compare it with.

use crate::{Cmd, Netns};

/// `iptables-save` with counters zeroed and dates removed, as the captures have it, of the tables that do anything.
#[track_caller]
pub fn save(netns: &Netns) -> String {
    comparable(&Cmd::new("iptables-save").run_in(netns).ok().stdout)
}

/// All rules of both families in iptables, and our own table in nft: what a change must leave as it was.
#[track_caller]
pub fn everywhere(netns: &Netns) -> String {
    // Without a table of ours it fails, and says nothing on stdout.
    let nft = Cmd::new("nft").args(["-s", "list", "table", "inet", "coracle"]);
    let ip6tables = Cmd::new("ip6tables-save").run_in(netns).ok();
    save(netns) + &comparable(&ip6tables.stdout) + &nft.run_in(netns).stdout
}

/// The tables nat and filter of [`save`], without the comments on rules (`-m comment --comment ...`).
#[track_caller]
pub fn nat_and_filter(netns: &Netns) -> String {
    let all = save(netns);
    ["filter", "nat"]
        .iter()
        .map(|table| without_comments(&table_of(&all, table)))
        .collect()
}

/// One table of an `iptables-save` text, from `*name` to `COMMIT`; empty if it is not there.
pub fn table_of(save: &str, name: &str) -> String {
    save.lines()
        .skip_while(|line| *line != format!("*{name}"))
        .scan(false, |ended, line| {
            let more = !*ended;
            *ended |= line == "COMMIT";
            more.then(|| format!("{line}\n"))
        })
        .collect()
}

/// The rules (`-A` lines) of one chain of one table.
pub fn chain(save: &str, table: &str, chain: &str) -> Vec<String> {
    let start = format!("-A {chain} ");
    table_of(save, table)
        .lines()
        .filter(|line| line.starts_with(&start))
        .map(str::to_owned)
        .collect()
}

/// The rules of one chain as the `iptables` crate reads them, one command a chain: a second witness beside the text of
/// `iptables-save`. The first line is the chain itself (`-N CHAIN`).
#[track_caller]
pub fn listed(netns: &Netns, table: &str, chain: &str) -> Vec<String> {
    let list = || {
        let listed = iptables::new(false).and_then(|tables| tables.list(table, chain));
        listed.map_err(|error| error.to_string())
    };
    netns
        .enter(list)
        .unwrap_or_else(|error| panic!("cannot list {chain} of {table}: {error}"))
}

/// A capture of Docker's rules, as this repository keeps it (netmgr's golden files; a test there compares them with the
/// captures themselves): `capture("03-publish-tcp")`.
#[track_caller]
pub fn capture(name: &str) -> String {
    let path = crate::images::repository().join(format!("netmgr/tests/golden/docker/{name}.rules"));
    std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("the capture {} is missing: {error}", path.display()))
}

/// Fails with a line-by-line comparison unless the two are equal.
#[track_caller]
pub fn assert_same(what: &str, actual: &str, expected: &str) {
    assert!(
        actual == expected,
        "{what}: the rules differ (- expected, + actual)\n{}",
        difference(expected, actual)
    );
}

/// The lines of both, those of one only marked; the common head and tail of a text are left out.
pub fn difference(expected: &str, actual: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (expected.lines().collect(), actual.lines().collect());
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let tail = old[head..]
        .iter()
        .rev()
        .zip(new[head..].iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let removed = old[head..old.len() - tail]
        .iter()
        .map(|l| format!("- {l}\n"));
    let added = new[head..new.len() - tail]
        .iter()
        .map(|l| format!("+ {l}\n"));
    removed.chain(added).collect()
}

/// The text of an `iptables-save` with counters zeroed and dates removed. A table that holds nothing but empty built-in chains with policy ACCEPT
/// is left out: iptables (nf_tables) leaves it behind once a table was used, and it does nothing.
pub fn comparable(save: &str) -> String {
    let idle = |line: &str| {
        line.starts_with('*')
            || line == "COMMIT"
            || (line.starts_with(':') && line.contains(" ACCEPT ["))
    };
    let zeroed: String = save
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| match line.rsplit_once(" [") {
            Some((head, _)) if line.starts_with(':') => format!("{head} [0:0]\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    zeroed
        .split_inclusive("COMMIT\n")
        .filter(|table| !table.lines().all(idle))
        .collect()
}

fn without_comments(rules: &str) -> String {
    let mut plain = String::new();
    for line in rules.lines() {
        let mut line = line.to_owned();
        while let Some(start) = line.find(" -m comment --comment ") {
            let text = start + " -m comment --comment ".len();
            let end = match line[text..].strip_prefix('"') {
                Some(quoted) => text + 2 + quoted.find('"').unwrap_or(quoted.len() - 1),
                None => text + line[text..].find(' ').unwrap_or(line.len() - text),
            };
            line.replace_range(start..end, "");
        }
        plain += &line;
        plain.push('\n');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVE: &str = "# made by a test\n*filter\n:INPUT ACCEPT [5:60]\n:MINE - [0:0]\n-A INPUT -j MINE\nCOMMIT\n*nat\n:OUTPUT DROP [1:2]\nCOMMIT\n";

    #[test]
    fn counters_and_dates_do_not_count() {
        assert!(comparable(SAVE).starts_with("*filter\n:INPUT ACCEPT [0:0]\n:MINE - [0:0]\n"));
    }

    #[test]
    fn an_unused_table_is_nothing_but_a_policy_a_chain_or_a_rule_is() {
        let idle = "*raw\n:OUTPUT ACCEPT [3:180]\nCOMMIT\n";
        assert_eq!(comparable(idle), "");
        for line in [
            ":FORWARD DROP [0:0]",
            ":MINE - [0:0]",
            "-A OUTPUT -j ACCEPT",
        ] {
            let table = format!("*filter\n{line}\nCOMMIT\n");
            assert_eq!(comparable(&format!("{idle}{table}{idle}")), table);
        }
    }

    #[test]
    fn a_table_ends_at_its_commit() {
        assert_eq!(
            table_of(&comparable(SAVE), "nat"),
            "*nat\n:OUTPUT DROP [0:0]\nCOMMIT\n"
        );
        assert_eq!(table_of(SAVE, "raw"), "");
    }

    #[test]
    fn comments_on_rules_are_taken_out() {
        assert_eq!(
            without_comments(
                "-A A -m comment --comment \"a b\" -j B\n-A A -m comment --comment ab -j B\n"
            ),
            "-A A -j B\n-A A -j B\n"
        );
    }

    #[test]
    fn a_difference_shows_the_lines_of_one_side_only() {
        assert_eq!(difference("a\nb\nc\n", "a\nx\nc\n"), "- b\n+ x\n");
        assert_eq!(difference("a\n", "a\n"), "");
    }
}
