//! Anyone's rules as `nft -j list ruleset` prints them, read as tests and verdicts. Pure.

use serde_json::Value;

use super::packet::{Allow, Chain, Rule, Table, Test, Verdict};
use super::xtables::net;
use crate::firewall::policy::COMMENT_TAG;

/// The tables of the families that our packets pass. What cannot be read gives none.
pub(super) fn tables(json: &str) -> Vec<Table> {
    let Ok(listing) = serde_json::from_str::<Value>(json) else {
        return Vec::new();
    };
    let mut tables: Vec<Table> = Vec::new();
    for object in listing["nftables"].as_array().into_iter().flatten() {
        if let Some(table) = object.get("table") {
            let family = text(&table["family"]);
            let families: &[u8] = match family.as_str() {
                "ip" => &[4],
                "ip6" => &[6],
                "inet" => &[4, 6],
                _ => continue,
            };
            let name = text(&table["name"]);
            tables.push(Table {
                title: format!("table {family} {name}"),
                families,
                name,
                allow: Allow::Nft { family },
                chains: Vec::new(),
            });
        } else if let Some(chain) = object.get("chain") {
            let hook = chain.get("hook").map(text);
            let drops = text(&chain["policy"]) == "drop";
            if let Some(table) = table_of(&mut tables, chain) {
                table.chains.push(Chain {
                    name: text(&chain["name"]),
                    rules: Vec::new(),
                    base: hook.map(|hook| (hook, drops)),
                });
            }
        } else if let Some(found) = object.get("rule") {
            let name = text(&found["chain"]);
            let chain = table_of(&mut tables, found)
                .and_then(|t| t.chains.iter_mut().find(|c| c.name == name));
            if let Some(chain) = chain {
                chain.rules.extend(rules(found));
            }
        }
    }
    tables
}

fn table_of<'a>(tables: &'a mut [Table], object: &Value) -> Option<&'a mut Table> {
    let title = format!(
        "table {} {}",
        text(&object["family"]),
        text(&object["table"])
    );
    tables.iter_mut().find(|t| t.title == title)
}

/// One rule, or for a verdict map one for each verdict in it.
fn rules(found: &Value) -> Vec<Rule> {
    let name = format!("rule with handle {}", found["handle"]);
    let ours = text(&found["comment"]).starts_with(COMMENT_TAG);
    let mut tests = Vec::new();
    let mut verdicts = Vec::new();
    for expression in found["expr"].as_array().into_iter().flatten() {
        let Some((kind, value)) = expression.as_object().and_then(|o| o.iter().next()) else {
            continue;
        };
        match kind.as_str() {
            "match" => tests.push(test(value)),
            "counter" | "log" | "comment" | "mangle" | "meta" | "ct" | "notrack" | "set" => {}
            "limit" | "quota" | "xt" => tests.push(Test::Unknown),
            "vmap" => verdicts.extend(map(value)),
            _ => verdicts.push((Vec::new(), verdict(kind, value))),
        }
    }
    let rule = |(more, verdict): (Vec<Test>, Verdict)| Rule {
        tests: [tests.clone(), more].concat(),
        verdict,
        name: name.clone(),
        ours,
    };
    verdicts.into_iter().map(rule).collect()
}

fn verdict(kind: &str, value: &Value) -> Verdict {
    match kind {
        "accept" => Verdict::Accept,
        "drop" | "reject" => Verdict::Drop,
        "return" => Verdict::Return,
        "jump" => Verdict::Jump(text(&value["target"])),
        "goto" => Verdict::Goto(text(&value["target"])),
        "queue" => Verdict::Unknown,
        _ => Verdict::Nothing,
    }
}

/// The elements of a map that stands in the rule itself; a named one is not looked up.
fn map(value: &Value) -> Vec<(Vec<Test>, Verdict)> {
    let Some(elements) = value["data"]["set"].as_array() else {
        return vec![(vec![Test::Unknown], Verdict::Unknown)];
    };
    let pairs = elements.iter().filter_map(|element| {
        let (key, verdict_of) = (element.get(0)?, element.get(1)?);
        let (kind, target) = verdict_of.as_object()?.iter().next()?;
        let test = compare(&value["key"], key);
        Some((vec![test], verdict(kind, target)))
    });
    pairs.collect()
}

fn test(value: &Value) -> Test {
    let test = compare(&value["left"], &value["right"]);
    match value["op"].as_str() {
        Some("==" | "in") => test,
        Some("!=") => Test::Not(Box::new(test)),
        _ => Test::Unknown,
    }
}

fn compare(left: &Value, right: &Value) -> Test {
    let understood = || {
        let values = list(right)?;
        if let Some(key) = left["meta"]["key"].as_str() {
            let words: Vec<String> = values.iter().map(|v| text(v)).collect();
            return Some(match key {
                "iifname" | "iif" => Test::In(words),
                "oifname" | "oif" => Test::Out(words),
                "l4proto" => Test::Protocol(words),
                "nfproto" => match words.as_slice() {
                    [word] if word == "ipv4" => Test::Family(4),
                    [word] if word == "ipv6" => Test::Family(6),
                    _ => return None,
                },
                _ => return None,
            });
        }
        if matches!(left["ct"]["key"].as_str()?, "state" | "status") {
            return Some(Test::State(values.iter().map(|v| text(v)).collect()));
        }
        None
    };
    let payload = || {
        let payload = left.get("payload")?;
        let values = list(right)?;
        let protocol = text(&payload["protocol"]);
        match (protocol.as_str(), text(&payload["field"]).as_str()) {
            ("ip" | "ip6", "saddr") => Some(Test::Source(nets(&values)?)),
            ("ip" | "ip6", "daddr") => Some(Test::Destination(nets(&values)?)),
            ("tcp" | "udp" | "sctp" | "th", "dport") => {
                let runs: Option<Vec<(u16, u16)>> = values.iter().map(|v| run(v)).collect();
                Some(Test::Port(runs?))
            }
            ("ip", "protocol") => Some(Test::Protocol(values.iter().map(|v| text(v)).collect())),
            _ => None,
        }
    };
    match left.get("payload") {
        Some(_) => payload(),
        None => understood(),
    }
    .unwrap_or(Test::Unknown)
}

/// One value, or those of a set that stands in the rule; a named set is not looked up.
fn list(right: &Value) -> Option<Vec<&Value>> {
    match right {
        Value::String(name) if name.starts_with('@') => None,
        Value::Array(values) => Some(values.iter().collect()),
        Value::Object(object) => match object.get("set") {
            Some(Value::Array(values)) => Some(values.iter().collect()),
            Some(_) => None,
            None => Some(vec![right]),
        },
        _ => Some(vec![right]),
    }
}

fn nets(values: &[&Value]) -> Option<Vec<ipnet::IpNet>> {
    let one = |value: &&Value| match value.get("prefix") {
        Some(prefix) => net(&format!("{}/{}", text(&prefix["addr"]), prefix["len"])),
        None => net(value.as_str()?),
    };
    values.iter().map(one).collect()
}

fn run(value: &Value) -> Option<(u16, u16)> {
    let port = |value: &Value| u16::try_from(value.as_u64()?).ok();
    match value.get("range") {
        Some(range) => Some((port(range.get(0)?)?, port(range.get(1)?)?)),
        None => Some((port(value)?, port(value)?)),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
