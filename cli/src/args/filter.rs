//! `ps --filter`: which containers are shown. Pure.

use runtime::Container;

/// Filters of one `ps`: those with the same name are alternatives, different names must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    names: Vec<String>,
    statuses: Vec<String>,
    ids: Vec<String>,
    labels: Vec<String>,
}

/// Docker's texts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("Invalid filter '{0}'")]
    Unknown(String),
    #[error("Invalid filter 'status={0}'")]
    Status(String),
    /// Docker takes any regular expression; a name holds only letters, digits and `_.-`.
    #[error("filter 'name={0}' is a regular expression, and only ^ and $ are built yet")]
    Pattern(String),
}

const STATUSES: [&str; 7] = [
    "created",
    "restarting",
    "running",
    "removing",
    "paused",
    "exited",
    "dead",
];

impl Filters {
    pub fn new(pairs: &[(String, String)]) -> Result<Filters, FilterError> {
        let mut filters = Filters::default();
        for (name, value) in pairs {
            match name.as_str() {
                "name" => filters.names.push(name_pattern(value)?),
                "id" => filters.ids.push(value.clone()),
                "label" => filters.labels.push(value.clone()),
                "status" if STATUSES.contains(&value.as_str()) => {
                    filters.statuses.push(value.clone());
                }
                "status" => return Err(FilterError::Status(value.clone())),
                _ => return Err(FilterError::Unknown(name.clone())),
            }
        }
        Ok(filters)
    }

    /// A filter on the status looks at containers that do not run, too.
    pub fn names_a_status(&self) -> bool {
        !self.statuses.is_empty()
    }

    pub fn accept(&self, container: &Container) -> bool {
        let any = |values: &[String], test: &dyn Fn(&str) -> bool| {
            values.is_empty() || values.iter().any(|value| test(value))
        };
        any(&self.names, &|pattern| matches(pattern, &container.name))
            && any(&self.statuses, &|status| container.state.as_str() == status)
            && any(&self.ids, &|id| container.id.starts_with(id))
            // Every label must be there.
            && self.labels.iter().all(|wanted| has_label(&container.resolved.labels, wanted))
    }
}

fn has_label(labels: &[(String, String)], wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.iter().any(|(k, v)| k == key && v == value),
        None => labels.iter().any(|(k, _)| k == wanted),
    }
}

/// `^/name$` is what Docker's own names look like inside the engine, so the slash is accepted.
fn name_pattern(value: &str) -> Result<String, FilterError> {
    let plain = value
        .strip_prefix('^')
        .unwrap_or(value)
        .trim_start_matches('/');
    let plain = plain.strip_suffix('$').unwrap_or(plain);
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if plain.bytes().all(is_name) {
        Ok(value.replacen('/', "", 1))
    } else {
        Err(FilterError::Pattern(value.to_owned()))
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    let from_start = pattern.starts_with('^');
    let to_end = pattern.ends_with('$');
    let plain = pattern.trim_start_matches('^').trim_end_matches('$');
    match (from_start, to_end) {
        (true, true) => name == plain,
        (true, false) => name.starts_with(plain),
        (false, true) => name.ends_with(plain),
        (false, false) => name.contains(plain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::sample;

    fn filters(pairs: &[(&str, &str)]) -> Result<Filters, FilterError> {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        Filters::new(&pairs)
    }

    #[test]
    fn the_same_filter_twice_is_an_alternative_and_different_ones_are_conditions() {
        let container = sample::running();
        let accepts = |pairs: &[(&str, &str)]| filters(pairs).unwrap().accept(&container);
        assert!(accepts(&[]));
        assert!(accepts(&[("name", "x"), ("name", "web")]));
        assert!(!accepts(&[("name", "web"), ("status", "exited")]));
        assert!(accepts(&[("status", "exited"), ("status", "running")]));
        assert!(accepts(&[("id", &container.id[..5])]));
        assert!(!accepts(&[("id", "dd")]));
        assert!(accepts(&[("label", "tier=front"), ("label", "tier")]));
        assert!(!accepts(&[("label", "tier=front"), ("label", "nope")]));
    }

    #[test]
    fn names_match_anywhere_unless_anchored() {
        assert!(matches("eb", "web1"));
        assert!(!matches("^eb", "web1"));
        assert!(matches("^web", "web1"));
        assert!(!matches("^web$", "web1"));
        let anchored = name_pattern("^/web1$").unwrap();
        assert!(matches(&anchored, "web1"));
        assert!(!matches(&anchored, "aweb1"));
        assert_eq!(
            name_pattern("we.*b"),
            Err(FilterError::Pattern("we.*b".into()))
        );
    }

    #[test]
    fn unknown_filters_are_refused_in_dockers_words() {
        let text = |pairs: &[(&str, &str)]| filters(pairs).unwrap_err().to_string();
        assert_eq!(text(&[("foo", "bar")]), "Invalid filter 'foo'");
        assert_eq!(
            text(&[("status", "bogus")]),
            "Invalid filter 'status=bogus'"
        );
    }
}
