//! Writes the input of `nft -f -`. Decides nothing.

use super::chains::CHAINS;
use super::elements::Elements;
use super::found::{FoundChain, FoundRule, FoundSet};
use super::layout::{ChainDef, FAMILY, Hook, RuleDef, SETS, SetDef, TABLE, USER_CHAIN};
use crate::firewall::policy::COMMENT_TAG;

/// Lines for one transaction.
#[derive(Clone, Debug, Default)]
pub(super) struct Script(String);

impl Script {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn text(self) -> String {
        self.0
    }

    pub(super) fn command(&mut self, verb: &str, kind: &str, rest: &str) {
        let line = format!("{verb} {kind} {FAMILY} {TABLE} {rest}");
        self.0.push_str(line.trim_end());
        self.0.push('\n');
    }

    pub(super) fn table(&mut self, verb: &str) {
        self.0.push_str(&format!("{verb} table {FAMILY} {TABLE}\n"));
    }

    pub(super) fn append(&mut self, other: Script) {
        self.0.push_str(&other.0);
    }

    pub(super) fn add_set(&mut self, name: &str, set: &FoundSet) {
        let kind = set.kind();
        let mut body = format!("type {}", set.key.join(" . "));
        if let Some(data) = &set.data {
            body.push_str(&format!(" : {data}"));
        }
        body.push(';');
        if !set.flags.is_empty() {
            body.push_str(&format!(" flags {};", set.flags.join(",")));
        }
        for (name, value) in &set.further {
            body.push_str(&format!(" {name} {value};"));
        }
        self.command("add", kind, &format!("{name} {{ {body} }}"));
    }

    pub(super) fn add_chain(&mut self, name: &str, hook: Option<&Hook<String>>, policy: &str) {
        let body = hook.map_or_else(String::new, |h| {
            format!(
                "{{ type {} hook {} priority {}; policy {policy}; }}",
                h.kind, h.hook, h.priority
            )
        });
        self.command("add", "chain", &format!("{name} {body}"));
    }

    /// Nothing for a rule that could not be read back into words.
    pub(super) fn add_rule(&mut self, chain: &str, rule: &FoundRule) {
        let Some(text) = &rule.text else { return };
        let comment = rule.comment.as_ref();
        let comment = comment.map_or_else(String::new, |c| format!(" comment {}", quoted(c)));
        self.command("add", "rule", &format!("{chain} {text}{comment}"));
    }

    /// One element to a line, so that a complaint of nft names it. `entries`: key, value, comment.
    pub(super) fn elements<'a>(
        &mut self,
        verb: &str,
        set: &str,
        entries: impl Iterator<Item = (&'a str, Option<&'a str>, Option<&'a str>)>,
    ) {
        let lines: Vec<String> = entries
            .map(|(key, data, comment)| {
                let mut line = key.to_owned();
                if let Some(comment) = comment {
                    line.push_str(&format!(" comment {}", quoted(comment)));
                }
                if let Some(data) = data {
                    line.push_str(&format!(" : {data}"));
                }
                line
            })
            .collect();
        match lines.as_slice() {
            [] => {}
            [one] => self.command(verb, "element", &format!("{set} {{ {one} }}")),
            many => {
                let body = many.join(",\n  ");
                self.command(verb, "element", &format!("{set} {{\n  {body}\n}}"));
            }
        }
    }
}

/// nft knows no escapes: a comment that was read back cannot hold a quotation mark.
fn quoted(comment: &str) -> String {
    format!("\"{}\"", comment.replace(['"', '\n'], "_"))
}

impl SetDef {
    pub(super) fn as_found(&self) -> FoundSet {
        FoundSet {
            key: self.key.iter().map(|&k| k.to_owned()).collect(),
            data: self.data.map(str::to_owned),
            flags: match self.interval {
                true => vec!["interval".to_owned()],
                false => Vec::new(),
            },
            further: Vec::new(),
            elements: Default::default(),
        }
    }
}

impl RuleDef {
    pub(super) fn as_found(&self) -> FoundRule {
        FoundRule {
            text: Some(self.0.to_owned()),
            comment: Some(format!("{COMMENT_TAG}{}", self.1)),
            targets: Vec::new(),
            sets: Vec::new(),
        }
    }
}

impl ChainDef {
    pub(super) fn as_found(&self) -> FoundChain {
        FoundChain {
            hook: self.hook.as_ref().map(|h| Hook {
                kind: h.kind.to_owned(),
                hook: h.hook.to_owned(),
                priority: h.priority,
            }),
            policy: self.hook.as_ref().map(|_| "accept".to_owned()),
            rules: self.rules.iter().map(RuleDef::as_found).collect(),
        }
    }
}

/// The table with its sets, chains and rules, and no elements.
pub fn render_layout() -> String {
    let mut script = Script::default();
    script.table("add");
    for set in SETS {
        script.add_set(set.name, &set.as_found());
    }
    script.add_chain(USER_CHAIN, None, "");
    for def in CHAINS {
        let chain = def.as_found();
        script.add_chain(def.name, chain.hook.as_ref(), "accept");
    }
    for def in CHAINS {
        for rule in &def.as_found().rules {
            script.add_rule(def.name, rule);
        }
    }
    script.text()
}

/// The lines that add elements.
pub fn render_elements(elements: &Elements) -> String {
    let mut script = Script::default();
    for_each_set(elements, |set, entries| {
        let entries = entries.iter();
        script.elements(
            "add",
            set,
            entries.map(|(key, e)| (*key, e.data.as_deref(), Some(e.comment.as_str()))),
        );
    });
    script.text()
}

/// Every rule and element as `nft` reads it, each with its intent.
pub fn explained(elements: &Elements) -> Vec<(String, String)> {
    let rules = CHAINS.iter().flat_map(|def| {
        let line = |rule: &RuleDef| {
            let text = format!("add rule {FAMILY} {TABLE} {} {}", def.name, rule.0);
            (text, rule.1.to_owned())
        };
        def.rules.iter().map(line).collect::<Vec<_>>()
    });
    let elements = elements.iter().map(|((set, key), element)| {
        let data = element.data.as_ref().map(|data| format!(" : {data}"));
        let data = data.unwrap_or_default();
        let why = element.comment.trim_start_matches(COMMENT_TAG).to_owned();
        let text = format!("add element {FAMILY} {TABLE} {set} {{ {key}{data} }}");
        (text, why)
    });
    rules.chain(elements).collect()
}

/// A set's elements are neighbours in the order of [`Elements`].
fn for_each_set<'a>(
    elements: &'a Elements,
    mut each: impl FnMut(&'static str, &[(&'a str, &'a super::Element)]),
) {
    let all: Vec<_> = elements.iter().collect();
    for group in all.chunk_by(|a, b| a.0.0 == b.0.0) {
        let entries: Vec<_> = group.iter().map(|(k, e)| (k.1.as_str(), *e)).collect();
        each(group[0].0.0, &entries);
    }
}
