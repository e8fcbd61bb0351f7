//! What `iptables-restore --noflush` and `nft -f -` do with a batch of ours, on plain data. A line that the kernel would
//! refuse is refused, and its table (with nft: everything) stays as it was.

use netmgr::firewall::iptables::{FoundChain, FoundRule, parse, render_save};
use netmgr::firewall::nftables::{FoundChain as NftChain, FoundElement, FoundRule as NftRule};
use netmgr::firewall::nftables::{FoundSet, FoundTable, Hook};
use netmgr::firewall::ruleset::{Ruleset, Table};

/// The built-in chains, as iptables lists them before anybody has written a rule.
pub fn built_in() -> Vec<FoundChain> {
    parse(&render_save(&Ruleset::default(), &Table::ALL, "ACCEPT"))
}

/// Commits the tables of the input one after the other, but only the first `limit`.
pub fn restore(chains: &mut Vec<FoundChain>, input: &str, limit: usize) -> Result<(), String> {
    for (table, lines) in tables(input).into_iter().take(limit) {
        let mut work = chains.clone();
        for line in lines {
            one_line(&mut work, table, line).map_err(|why| format!("{why}: {line}"))?;
        }
        *chains = work;
    }
    Ok(())
}

/// Each table with its lines.
pub fn tables(input: &str) -> Vec<(Table, Vec<&str>)> {
    let mut tables = Vec::new();
    for line in input.lines() {
        if let Some(name) = line.strip_prefix('*') {
            let table = Table::ALL.into_iter().find(|t| t.as_str() == name).unwrap();
            tables.push((table, Vec::new()));
        } else if line != "COMMIT" {
            let (_, lines) = tables.last_mut().expect("a line belongs to a table");
            lines.push(line);
        }
    }
    tables
}

fn one_line(chains: &mut Vec<FoundChain>, table: Table, line: &str) -> Result<(), String> {
    if let Some(rest) = line.strip_prefix(':') {
        let name = rest.split_whitespace().next().unwrap();
        match find(chains, table, name) {
            Ok(chain) => chain.rules.clear(),
            Err(_) => chains.push(FoundChain {
                table,
                name: name.to_owned(),
                policy: "-".to_owned(),
                rules: Vec::new(),
            }),
        }
        return Ok(());
    }
    let (verb, rest) = line.split_once(' ').ok_or("no words")?;
    let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    if verb == "-X" {
        return remove_chain(chains, table, name);
    }
    let (at, spec) = match rest.split_once(' ') {
        Some((number, spec)) if number.parse::<usize>().is_ok() => (number.parse().ok(), spec),
        _ => (None, rest),
    };
    let target = spec
        .split(" -j ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let known = [
        "ACCEPT",
        "DROP",
        "RETURN",
        "MASQUERADE",
        "LOG",
        "DNAT",
        "REDIRECT",
        "REJECT",
    ];
    if let Some(target) = target.filter(|target| !known.contains(target)) {
        find(chains, table, target)?;
    }
    let rule = rule(table, spec);
    let rules = &mut find(chains, table, name)?.rules;
    match (verb, at) {
        ("-A", None) => rules.push(rule),
        ("-I", at) => {
            let at = at.unwrap_or(1);
            if at > rules.len() + 1 {
                return Err("index of insertion too big".into());
            }
            rules.insert(at - 1, rule);
        }
        ("-D", None) => {
            let at = rules.iter().position(|there| *there == rule);
            rules.remove(at.ok_or("no such rule")?);
        }
        _ => return Err("not a line that we write".into()),
    }
    Ok(())
}

fn remove_chain(chains: &mut Vec<FoundChain>, table: Table, name: &str) -> Result<(), String> {
    if !find(chains, table, name)?.rules.is_empty() {
        return Err("chain is not empty".into());
    }
    let jump = format!("-j {name}");
    let mut others = chains.iter().filter(|c| c.table == table);
    if others.any(|c| c.rules.iter().any(|rule| rule.spec.ends_with(&jump))) {
        return Err("chain is in use".into());
    }
    chains.retain(|c| c.table != table || c.name != name);
    Ok(())
}

fn find<'a>(
    chains: &'a mut [FoundChain],
    table: Table,
    name: &str,
) -> Result<&'a mut FoundChain, String> {
    let mut found = chains.iter_mut();
    found
        .find(|c| c.table == table && c.name == name)
        .ok_or_else(|| format!("no chain {name}"))
}

/// As it is listed.
pub fn rule(table: Table, spec: &str) -> FoundRule {
    let text = format!("*{}\n-A X {spec}\n", table.as_str());
    parse(&text).remove(0).rules.remove(0)
}

/// One transaction.
pub fn nft(table: &mut Option<FoundTable>, input: &str) -> Result<(), String> {
    let mut work = table.clone();
    let mut lines = input.lines();
    while let Some(line) = lines.next() {
        let mut text = line.to_owned();
        // Elements, one to a line.
        if line.ends_with('{') {
            for line in lines.by_ref() {
                text.push_str(&format!("\n{line}"));
                if line == "}" {
                    break;
                }
            }
        }
        command(&mut work, &text).map_err(|why| format!("{why}: {text}"))?;
    }
    *table = work;
    Ok(())
}

fn command(table: &mut Option<FoundTable>, text: &str) -> Result<(), String> {
    let words: Vec<&str> = text.splitn(6, ' ').collect();
    match words.as_slice() {
        ["add", "table", "inet", "coracle"] => {
            table.get_or_insert_default();
            return Ok(());
        }
        ["delete", "table", "inet", "coracle"] => {
            return table.take().map(|_| ()).ok_or("no table".into());
        }
        _ => {}
    }
    let table = table.as_mut().ok_or("no table")?;
    match words.as_slice() {
        ["add", "set" | "map", "inet", "coracle", name, body] => {
            table.sets.insert((*name).to_owned(), set(body));
        }
        ["add", "chain", "inet", "coracle", name, rest @ ..] => {
            let chain = chain(rest.first().copied().unwrap_or_default());
            table.chains.insert((*name).to_owned(), chain);
        }
        ["add", "rule", "inet", "coracle", name, text] => {
            let chain = table.chains.get_mut(*name).ok_or("no chain")?;
            chain.rules.push(nft_rule(text));
        }
        [
            verb @ ("add" | "delete"),
            "element",
            "inet",
            "coracle",
            name,
            body,
        ] => {
            let set = table.sets.get_mut(*name).ok_or("no set")?;
            let body = body.trim_start_matches('{').trim_end_matches('}');
            for entry in body.lines().filter(|line| !line.trim().is_empty()) {
                element(set, verb, entry.trim().trim_end_matches(','))?;
            }
        }
        _ => return Err("not a command that we write".into()),
    }
    Ok(())
}

/// `{ type ipv4_addr . inet_service : verdict; flags interval; }`
fn set(body: &str) -> FoundSet {
    let mut set = FoundSet::default();
    let inner = body.trim_start_matches("{ ").trim_end_matches(" }");
    for part in inner.split(';').map(str::trim) {
        match part.split_once(' ') {
            Some(("type", types)) => {
                let (key, data) = match types.split_once(" : ") {
                    Some((key, data)) => (key, Some(data.to_owned())),
                    None => (types, None),
                };
                set.key = key.split(" . ").map(str::to_owned).collect();
                set.data = data;
            }
            Some(("flags", flags)) => set.flags = flags.split(',').map(str::to_owned).collect(),
            _ => {}
        }
    }
    set
}

/// `{ type filter hook forward priority -5; policy accept; }`, or nothing.
fn chain(body: &str) -> NftChain {
    let words: Vec<&str> = body
        .split([' ', ';', '{', '}'])
        .filter(|w| !w.is_empty())
        .collect();
    match words.as_slice() {
        [
            "type",
            kind,
            "hook",
            hook,
            "priority",
            priority,
            "policy",
            policy,
        ] => NftChain {
            hook: Some(Hook {
                kind: (*kind).to_owned(),
                hook: (*hook).to_owned(),
                priority: priority.parse().unwrap(),
            }),
            policy: Some((*policy).to_owned()),
            rules: Vec::new(),
        },
        _ => NftChain::default(),
    }
}

fn nft_rule(text: &str) -> NftRule {
    let (text, comment) = match text.rsplit_once(" comment \"") {
        Some((text, comment)) => (text, Some(comment.trim_end_matches('"').to_owned())),
        None => (text, None),
    };
    NftRule {
        text: Some(text.to_owned()),
        comment,
        targets: Vec::new(),
        sets: Vec::new(),
    }
}

/// Stricter than nft, which takes an element again that is there with the same value.
fn element(set: &mut FoundSet, verb: &str, text: &str) -> Result<(), String> {
    let (key, data, comment) = match text.split_once(" comment \"") {
        Some((key, rest)) => {
            let (comment, rest) = rest.split_once('"').unwrap();
            let data = rest.strip_prefix(" : ").map(str::to_owned);
            (key, data, Some(comment.to_owned()))
        }
        None => (text, None, None),
    };
    match verb {
        "add" => {
            let element = FoundElement { data, comment };
            match set.elements.insert(key.to_owned(), element) {
                None => Ok(()),
                Some(_) => Err("element is there".into()),
            }
        }
        _ => {
            let removed = set.elements.remove(key);
            removed.map(|_| ()).ok_or("no such element".into())
        }
    }
}
