//! Anyone's rules as `iptables-save` prints them, read as tests and verdicts. Pure.

use super::facts::Save;
use super::packet::{Allow, Chain, Rule, Table, Test, Verdict};
use crate::firewall::policy::COMMENT_TAG;
use crate::model::Family;

pub(super) fn tables(save: &Save) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for line in save.text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('*') {
            tables.push(Table {
                title: format!("{} table {name}", save.tool),
                families: match save.family {
                    Family::V4 => &[4],
                    Family::V6 => &[6],
                },
                name: name.to_owned(),
                allow: Allow::Xtables {
                    command: save.tool.to_owned(),
                    table: name.to_owned(),
                },
                chains: Vec::new(),
            });
            continue;
        }
        let Some(table) = tables.last_mut() else {
            continue;
        };
        if let Some(rest) = line.strip_prefix(':') {
            let mut words = rest.split(' ');
            let name = words.next().unwrap_or_default();
            let policy = words.next().unwrap_or("-");
            table.chains.push(Chain {
                name: name.to_owned(),
                rules: Vec::new(),
                base: (policy != "-").then(|| (name.to_lowercase(), policy == "DROP")),
            });
        } else if let Some((name, text)) = appended(line)
            && let Some(chain) = table.chains.iter_mut().find(|c| c.name == name)
        {
            let number = chain.rules.len() + 1;
            chain.rules.push(rule(number, text));
        }
    }
    tables
}

/// With counters in front, or without.
fn appended(line: &str) -> Option<(&str, &str)> {
    let line = match line.strip_prefix('[') {
        Some(rest) => rest.split_once("] ")?.1,
        None => line,
    };
    let rest = line.strip_prefix("-A ")?;
    Some(rest.split_once(' ').unwrap_or((rest, "")))
}

fn rule(number: usize, text: &str) -> Rule {
    let words = words(text);
    let mut tests = Vec::new();
    let mut verdict = Verdict::Nothing;
    let mut negated = false;
    let mut ours = false;
    let mut words = words.iter().map(String::as_str).peekable();
    while let Some(word) = words.next() {
        if word == "!" {
            negated = true;
            continue;
        }
        let mut value = || words.next().unwrap_or_default().to_owned();
        let nets = |value: String| {
            let nets = value.split(',').map(net);
            nets.collect::<Option<Vec<_>>>()
        };
        let test = match word {
            "-i" => Some(Test::In(vec![value()])),
            "-o" => Some(Test::Out(vec![value()])),
            "-s" => Some(nets(value()).map_or(Test::Unknown, Test::Source)),
            "-d" => Some(nets(value()).map_or(Test::Unknown, Test::Destination)),
            "-p" => Some(match value().as_str() {
                "all" => continue,
                name => Test::Protocol(vec![name.to_owned()]),
            }),
            "--dport" | "--dports" => Some(ports(&value()).map_or(Test::Unknown, Test::Port)),
            "--ctstate" | "--state" => Some(Test::State(
                value()
                    .to_lowercase()
                    .split(',')
                    .map(str::to_owned)
                    .collect(),
            )),
            // The tests of these follow, or they test nothing.
            "-m" => match value().as_str() {
                "tcp" | "udp" | "sctp" | "comment" | "conntrack" | "state" | "multiport" => None,
                _ => Some(Test::Unknown),
            },
            "--comment" => {
                ours |= value().starts_with(COMMENT_TAG);
                None
            }
            "-j" | "-g" => {
                let name = value();
                verdict = match (word, name.as_str()) {
                    (_, "ACCEPT") => Verdict::Accept,
                    (_, "DROP" | "REJECT") => Verdict::Drop,
                    (_, "RETURN") => Verdict::Return,
                    (_, "NFQUEUE" | "QUEUE") => Verdict::Unknown,
                    (_, other) if is_passing(other) => Verdict::Nothing,
                    ("-g", _) => Verdict::Goto(name),
                    _ => Verdict::Jump(name),
                };
                // A target's own options follow.
                break;
            }
            // A further option of a match that is not understood.
            _ => Some(Test::Unknown),
        };
        if let Some(test) = test {
            tests.push(match std::mem::take(&mut negated) {
                true => Test::Not(Box::new(test)),
                false => test,
            });
        }
    }
    Rule {
        tests,
        verdict,
        name: format!("rule {number} (`{text}`)"),
        ours,
    }
}

/// Targets after which the next rule comes, or that translate and so let pass.
fn is_passing(target: &str) -> bool {
    matches!(
        target,
        "LOG"
            | "NFLOG"
            | "MARK"
            | "CONNMARK"
            | "TCPMSS"
            | "TRACE"
            | "CT"
            | "SET"
            | "CLASSIFY"
            | "DSCP"
            | "TOS"
            | "TTL"
            | "HL"
            | "AUDIT"
            | "CHECKSUM"
            | "NOTRACK"
            | "MASQUERADE"
            | "SNAT"
            | "DNAT"
            | "REDIRECT"
            | "NETMAP"
    )
}

pub(super) fn net(text: &str) -> Option<ipnet::IpNet> {
    match text.contains('/') {
        true => text.parse().ok(),
        false => text.parse::<std::net::IpAddr>().ok().map(Into::into),
    }
}

fn ports(text: &str) -> Option<Vec<(u16, u16)>> {
    let run = |word: &str| {
        let (first, last) = word.split_once(':').unwrap_or((word, word));
        Some((first.parse().ok()?, last.parse().ok()?))
    };
    text.split(',').map(run).collect()
}

/// Double quotes hold a word together; a backslash in them takes the next character as it is.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted => word.extend(chars.next()),
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}
