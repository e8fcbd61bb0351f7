//! What the kernel holds, read from `nft -j list table inet coracle`. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::decompile::{expression, references, statements};
use super::layout::{Hook, USER_CHAIN};

/// Our table as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundTable {
    /// Someone has switched it off (`nft add table inet coracle { flags dormant; }`).
    pub dormant: bool,
    pub sets: BTreeMap<String, FoundSet>,
    pub chains: BTreeMap<String, FoundChain>,
}

/// A set, or a map where it has data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundSet {
    pub key: Vec<String>,
    pub data: Option<String>,
    pub flags: Vec<String>,
    /// Attributes that ours never have: a size, a timeout.
    pub further: Vec<(String, String)>,
    /// By key, as nft writes it.
    pub elements: BTreeMap<String, FoundElement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundElement {
    pub data: Option<String>,
    pub comment: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundChain {
    pub hook: Option<Hook<String>>,
    pub policy: Option<String>,
    pub rules: Vec<FoundRule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRule {
    /// `None`: a rule that only an administrator writes, in words that are not known here.
    pub text: Option<String>,
    pub comment: Option<String>,
    /// The chains that it jumps to.
    pub targets: Vec<String>,
    /// The sets that it looks into.
    pub sets: Vec<String>,
}

/// The listing is not what nft writes.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    #[error("nft's listing is not JSON")]
    Json(#[source] serde_json::Error),
    #[error("nft's listing has no member {member} where there must be one: {object}")]
    Missing {
        member: &'static str,
        object: String,
    },
    #[error("nft's listing has an element that is not understood: {element}")]
    Element { element: String },
}

/// Reads `nft -j list table inet coracle`. Objects other than sets, maps, chains and rules (counters and the like that an
/// administrator's rules refer to) are passed over.
///
/// A dormant table need not be legible (nft 1.0.6 ends the listing at its flags): then nothing else is known of it.
pub fn parse(json: &str) -> Result<FoundTable, ParseError> {
    let listing: Value = match serde_json::from_str(json) {
        Ok(listing) => listing,
        Err(_) if ends_in_flags(json) => {
            return Ok(FoundTable {
                dormant: true,
                ..FoundTable::default()
            });
        }
        Err(error) => return Err(ParseError::Json(error)),
    };
    let objects = listing["nftables"]
        .as_array()
        .ok_or_else(|| missing("nftables", &listing))?;
    let mut table = FoundTable::default();
    for object in objects.iter().filter_map(Value::as_object) {
        for (kind, body) in object {
            match kind.as_str() {
                "table" => table.dormant = body.get("flags").is_some(),
                "set" | "map" => {
                    table.sets.insert(text(body, "name")?, set(body)?);
                }
                "chain" => {
                    let found = table.chains.entry(text(body, "name")?).or_default();
                    found.hook = hook(body);
                    found.policy = body["policy"].as_str().map(str::to_owned);
                }
                "rule" => {
                    let found = table.chains.entry(text(body, "chain")?).or_default();
                    found.rules.push(rule(body));
                }
                _ => {}
            }
        }
    }
    Ok(table)
}

fn ends_in_flags(json: &str) -> bool {
    let table = json.split_once("\"table\": {");
    table.is_some_and(|(_, rest)| !rest.contains('}') && rest.contains("\"flags\":"))
}

fn missing(member: &'static str, object: &Value) -> ParseError {
    let object = object.to_string().chars().take(200).collect();
    ParseError::Missing { member, object }
}

fn text(body: &Value, member: &'static str) -> Result<String, ParseError> {
    let found = body[member].as_str();
    found
        .map(str::to_owned)
        .ok_or_else(|| missing(member, body))
}

fn hook(body: &Value) -> Option<Hook<String>> {
    Some(Hook {
        kind: body["type"].as_str()?.to_owned(),
        hook: body["hook"].as_str()?.to_owned(),
        priority: body["prio"].as_i64()?,
    })
}

fn rule(body: &Value) -> FoundRule {
    let (mut targets, mut sets) = (Vec::new(), Vec::new());
    references(&body["expr"], &mut targets, &mut sets);
    FoundRule {
        text: statements(&body["expr"]),
        comment: body["comment"].as_str().map(str::to_owned),
        targets,
        sets,
    }
}

/// A type alone, a list of them, or (of a map's data) one text with dots.
fn types(value: &Value) -> Vec<String> {
    let split = |text: &str| text.split(" . ").map(str::to_owned).collect();
    match value {
        Value::String(text) => split(text),
        Value::Array(list) => list
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        other => vec![other.to_string()],
    }
}

fn set(body: &Value) -> Result<FoundSet, ParseError> {
    let data = match &body["map"] {
        Value::Null => None,
        data => Some(types(data)),
    };
    let mut set = FoundSet {
        key: types(&body["type"]),
        data: data.as_ref().map(|types| types.join(" . ")),
        flags: match &body["flags"] {
            Value::Null => Vec::new(),
            flags => types(flags),
        },
        ..FoundSet::default()
    };
    for (name, unit) in [("size", ""), ("timeout", "s"), ("gc-interval", "s")] {
        if let Some(value) = body[name].as_u64() {
            set.further
                .push((name.to_owned(), format!("{value}{unit}")));
        }
    }
    let data_types = data.unwrap_or_default();
    for element in body["elem"].as_array().into_iter().flatten() {
        let not_understood = || ParseError::Element {
            element: element.to_string(),
        };
        let (key, value) = match data_types.is_empty() {
            true => (element, None),
            false => (&element[0], Some(&element[1])),
        };
        let inner = &key["elem"];
        let (key, comment) = match inner.is_object() {
            true => (&inner["val"], inner["comment"].as_str()),
            false => (key, None),
        };
        let key = typed(key, &set.key).ok_or_else(not_understood)?;
        let data = match value {
            Some(value) => Some(typed(value, &data_types).ok_or_else(not_understood)?),
            None => None,
        };
        let comment = comment.map(str::to_owned);
        set.elements.insert(key, FoundElement { data, comment });
    }
    Ok(set)
}

/// A key or value in the words of its types: interface names in quotes, protocols by name.
fn typed(value: &Value, types: &[String]) -> Option<String> {
    let parts = match value["concat"].as_array() {
        Some(parts) => parts.iter().collect(),
        None => vec![value],
    };
    if parts.len() != types.len() {
        return None;
    }
    let words: Option<Vec<String>> = parts
        .into_iter()
        .zip(types)
        .map(|(part, kind)| match (kind.as_str(), part) {
            ("ifname", Value::String(name)) => Some(format!("\"{name}\"")),
            // Without /etc/protocols nft has no names for them.
            ("inet_proto", Value::Number(number)) => Some(match number.as_u64()? {
                6 => "tcp".to_owned(),
                17 => "udp".to_owned(),
                132 => "sctp".to_owned(),
                other => other.to_string(),
            }),
            _ => expression(part),
        })
        .collect();
    Some(words?.join(" . "))
}

impl FoundSet {
    pub(super) fn kind(&self) -> &'static str {
        match self.data {
            Some(_) => "map",
            None => "set",
        }
    }

    /// Whether it is the same but for its elements.
    pub(super) fn is_like(&self, other: &FoundSet) -> bool {
        (&self.key, &self.data, &self.flags, &self.further)
            == (&other.key, &other.data, &other.flags, &other.further)
    }
}

impl FoundRule {
    /// Whether it says the same for the same reason.
    pub(super) fn is_like(&self, other: &FoundRule) -> bool {
        self.text.is_some() && (&self.text, &self.comment) == (&other.text, &other.comment)
    }
}

/// The chains and sets that are the administrator's.
#[derive(Debug, Default)]
pub(super) struct Administrators {
    pub(super) chains: BTreeSet<String>,
    pub(super) sets: BTreeSet<String>,
}

impl FoundTable {
    /// The administrator's chain, and what its rules lead to.
    pub(super) fn administrators(&self) -> Administrators {
        let mut theirs = Administrators::default();
        let mut open = vec![USER_CHAIN.to_owned()];
        while let Some(name) = open.pop() {
            let Some(chain) = self.chains.get(&name) else {
                continue;
            };
            if theirs.chains.insert(name) {
                for rule in &chain.rules {
                    open.extend(rule.targets.iter().cloned());
                    theirs.sets.extend(rule.sets.iter().cloned());
                }
            }
        }
        theirs
    }
}
