//! `network ls --filter`: which networks are shown. Pure.

use netmgr::{Endpoint, Network};

use super::filter::{FilterError, has_label};
use crate::output::inspect_network::Bridgeless;

/// What the filters look at.
pub struct Listed<'a> {
    name: &'a str,
    id: &'a str,
    driver: &'a str,
    labels: &'a [(String, String)],
    is_predefined: bool,
    is_in_use: bool,
}

impl<'a> Listed<'a> {
    pub fn of(network: &'a Network, endpoints: &[Endpoint]) -> Listed<'a> {
        Listed {
            name: &network.name,
            id: &network.id,
            driver: "bridge",
            labels: &network.labels,
            is_predefined: network.name == Network::DEFAULT,
            is_in_use: !endpoints.is_empty(),
        }
    }

    pub fn of_bridgeless(network: &'a Bridgeless) -> Listed<'a> {
        Listed {
            name: network.name,
            id: network.id,
            driver: network.driver,
            labels: &[],
            is_predefined: true,
            is_in_use: false,
        }
    }
}

/// Filters with the same name are alternatives, different names must all hold.
#[derive(Clone, Debug, Default)]
pub struct Filters(Vec<(String, String)>);

impl Filters {
    pub fn new(pairs: &[(String, String)]) -> Result<Filters, FilterError> {
        for (name, value) in pairs {
            let known = match name.as_str() {
                "name" | "id" | "driver" | "label" | "scope" => true,
                "type" => ["custom", "builtin"].contains(&value.as_str()),
                "dangling" => super::values::parse_bool(value).is_ok(),
                _ => return Err(FilterError::Unknown(name.clone())),
            };
            if !known {
                return Err(FilterError::Value {
                    name: name.clone(),
                    value: value.clone(),
                });
            }
        }
        Ok(Filters(pairs.to_vec()))
    }

    pub fn accept(&self, network: &Listed<'_>) -> bool {
        let any = |wanted: &str, test: &dyn Fn(&str) -> bool| {
            let mut values = self.0.iter().filter(|(name, _)| name == wanted).peekable();
            values.peek().is_none() || values.any(|(_, value)| test(value))
        };
        let is_dangling = !network.is_predefined && !network.is_in_use;
        any("name", &|part| network.name.contains(part))
            && any("id", &|part| network.id.starts_with(part))
            && any("driver", &|driver| network.driver == driver)
            && any("scope", &|scope| scope == "local")
            && any("type", &|kind| (kind == "builtin") == network.is_predefined)
            && any("dangling", &|wanted| super::values::parse_bool(wanted) == Ok(is_dangling))
            // Every label must be there.
            && self.0.iter().filter(|(name, _)| name == "label").all(|(_, label)| has_label(network.labels, label))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::inspect_network::BRIDGELESS;
    use crate::output::sample;

    #[track_caller]
    fn check(filter: &str, expected: [bool; 3]) {
        let pair = super::super::values::parse_filter(filter).unwrap();
        let filters = Filters::new(&[pair]).unwrap();
        let default = sample::network();
        let user = Network {
            name: "web".into(),
            labels: vec![],
            ..sample::network()
        };
        let accepted = [
            filters.accept(&Listed::of(&default, &[])),
            filters.accept(&Listed::of(&user, &[])),
            filters.accept(&Listed::of_bridgeless(&BRIDGELESS[1])),
        ];
        assert_eq!(accepted, expected, "{filter}");
    }

    #[test]
    fn networks_are_told_apart() {
        check("name=e", [true, true, true]);
        check("name=web", [false, true, false]);
        check("driver=null", [false, false, true]);
        check("type=custom", [false, true, false]);
        check("type=builtin", [true, false, true]);
        check("dangling=true", [false, true, false]);
        check("label=a=b", [true, false, false]);
        check("id=bbb", [true, true, false]);
        check("scope=swarm", [false, false, false]);
    }

    #[test]
    fn unknown_filters_are_refused() {
        for (name, value) in [("foo", "x"), ("type", "x"), ("dangling", "perhaps")] {
            assert!(
                Filters::new(&[(name.into(), value.into())]).is_err(),
                "{name}"
            );
        }
    }
}
