//! `volume ls --filter`: which volumes are shown. Pure.

use regex::Regex;
use runtime::engine::volumes::ListedVolume;

use super::filter::{FilterError, has_label};
use super::values::parse_bool;

/// Filters with the same name are alternatives, but for labels; different names must all hold.
#[derive(Debug, Default)]
pub struct Filters {
    names: Vec<Regex>,
    labels: Vec<String>,
    drivers: Vec<String>,
    dangling: Option<bool>,
}

impl Filters {
    pub fn new(pairs: &[(String, String)]) -> Result<Filters, FilterError> {
        let mut filters = Filters::default();
        for (name, value) in pairs {
            let invalid = || FilterError::Value {
                name: name.clone(),
                value: value.clone(),
            };
            match name.as_str() {
                "name" => filters
                    .names
                    .push(Regex::new(value).map_err(|_| invalid())?),
                "label" => filters.labels.push(value.clone()),
                "driver" => filters.drivers.push(value.clone()),
                "dangling" => {
                    filters.dangling = Some(parse_bool(value).map_err(|_| invalid())?);
                }
                _ => return Err(FilterError::Unknown(name.clone())),
            }
        }
        Ok(filters)
    }

    pub fn accept(&self, listed: &ListedVolume) -> bool {
        let volume = &listed.volume;
        (self.names.is_empty() || self.names.iter().any(|name| name.is_match(&volume.name)))
            && (self.drivers.is_empty() || self.drivers.iter().any(|driver| driver == "local"))
            && self
                .labels
                .iter()
                .all(|label| has_label(&volume.labels, label))
            && self
                .dangling
                .is_none_or(|wanted| wanted == listed.users.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::sample;

    #[track_caller]
    fn check(filter: &str, expected: bool) {
        let pair = super::super::values::parse_filter(filter).unwrap();
        let listed = ListedVolume {
            volume: sample::volume(),
            users: vec![sample::id('c')],
        };
        let filters = Filters::new(&[pair]).unwrap();
        assert_eq!(filters.accept(&listed), expected, "{filter}");
    }

    #[test]
    fn volumes_are_told_apart() {
        check("name=at", true);
        check("name=^at", false);
        check("label=tier", true);
        check("label=tier=back", false);
        check("driver=local", true);
        check("driver=nfs", false);
        check("dangling=false", true);
        check("dangling=true", false);
    }

    #[test]
    fn unknown_filters_are_refused() {
        for (name, value) in [("foo", "x"), ("dangling", "x"), ("name", "[")] {
            assert!(Filters::new(&[(name.into(), value.into())]).is_err());
        }
    }
}
