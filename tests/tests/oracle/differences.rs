//! Comparing the answers: what differs must be in the table of known differences, and what is there must differ.

use crate::commands::Answers;
use crate::known::{KNOWN, MACHINE};

/// Questions by a pattern of their key, and what both answer, by patterns too: `*` is any text, `{a,b}` either.
pub struct Difference {
    pub key: &'static str,
    pub docker: &'static str,
    pub ours: &'static str,
    pub why: &'static str,
}

pub const fn differ(
    key: &'static str,
    docker: &'static str,
    ours: &'static str,
    why: &'static str,
) -> Difference {
    Difference {
        key,
        docker,
        ours,
        why,
    }
}

impl Difference {
    fn is(&self, key: &str, docker: &str, ours: &str) -> bool {
        matches(self.key, key) && matches(self.docker, docker) && matches(self.ours, ours)
    }
}

/// Is this difference one of those that are meant?
pub fn is_known(key: &str, docker: &str, ours: &str) -> bool {
    let mut all = KNOWN.iter().chain(MACHINE);
    all.any(|known| known.is(key, docker, ours))
}

/// All questions, with both answers.
fn pairs<'a>(docker: &'a Answers, ours: &'a Answers) -> Vec<(&'a str, &'a str, &'a str)> {
    const NOTHING: &str = "(not there)";
    let mut keys: Vec<_> = docker.keys().chain(ours.keys()).collect();
    keys.sort();
    keys.dedup();
    let answer = |answers: &'a Answers, key| answers.get(key).map_or(NOTHING, String::as_str);
    keys.into_iter()
        .map(|key| (key.as_str(), answer(docker, key), answer(ours, key)))
        .collect()
}

/// The differences that are in no table; prints how much was asked.
pub fn unexpected(name: &str, docker: &Answers, ours: &Answers) -> Vec<String> {
    let pairs = pairs(docker, ours);
    let differ = pairs.iter().filter(|(_, docker, ours)| docker != ours);
    let (meant, others): (Vec<_>, Vec<_>) =
        differ.partition(|(key, docker, ours)| is_known(key, docker, ours));
    println!(
        "{name}: {} questions, {} answers differ on purpose, {} otherwise",
        pairs.len(),
        meant.len(),
        others.len()
    );
    others
        .into_iter()
        .map(|(key, docker, ours)| format!("--- {key}\ndocker: {docker}\nours:   {ours}"))
        .collect()
}

/// Entries of the table for which no engine of ours differs any more.
pub fn that_show_no_more(docker: &Answers, ours: &[Answers]) -> Vec<String> {
    let shows = |known: &&Difference| {
        ours.iter().any(|ours| {
            pairs(docker, ours)
                .into_iter()
                .any(|(key, docker, ours)| docker != ours && known.is(key, docker, ours))
        })
    };
    let gone = KNOWN.iter().filter(|known| !shows(known));
    gone.map(|known| format!("{}: {}", known.key, known.why))
        .collect()
}

/// Does a text have this pattern?
fn matches(pattern: &str, text: &str) -> bool {
    if let Some(open) = pattern.find('{')
        && let Some(close) = pattern.find('}')
        && open < close
        && pattern[open..close].contains(',')
    {
        let (before, after) = (&pattern[..open], &pattern[close + 1..]);
        let mut choices = pattern[open + 1..close].split(',');
        return choices.any(|choice| matches(&format!("{before}{choice}{after}"), text));
    }
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<_> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}
