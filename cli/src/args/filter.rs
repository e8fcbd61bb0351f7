//! `ps --filter`: which containers are shown. Pure: what a filter refers to is looked up by the caller.

use netmgr::Protocol;
use regex::Regex;
use runtime::{Container, State};
use time::OffsetDateTime;

use crate::output::{inspect, ports};

/// Filters of one `ps`: those with the same name are alternatives, different names must all hold.
#[derive(Debug, Default)]
pub struct Filters {
    names: Vec<Regex>,
    statuses: Vec<String>,
    ids: Vec<String>,
    labels: Vec<String>,
    exit_codes: Vec<i32>,
    networks: Vec<String>,
    volumes: Vec<String>,
    published: Vec<PortRange>,
    exposed: Vec<PortRange>,
    healths: Vec<String>,
    /// Whether a swarm is asked for, which no container here belongs to.
    impossible: bool,
    /// Images whose containers are shown, as written.
    pub ancestors: Vec<String>,
    /// Containers that the shown ones are older or newer than, as written.
    pub before: Option<String>,
    pub since: Option<String>,
}

/// What the filters refer to, once looked up.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub ancestor_ids: Vec<String>,
    pub before: Option<OffsetDateTime>,
    pub since: Option<OffsetDateTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PortRange {
    first: u16,
    last: u16,
    protocol: Protocol,
}

/// Docker's texts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("Invalid filter '{0}'")]
    Unknown(String),
    #[error("Invalid filter '{name}={value}'")]
    Value { name: String, value: String },
    #[error("Unrecognised filter value for health: {0}")]
    Health(String),
    #[error("syntax error in pattern")]
    Pattern,
    #[error("Invalid filter 'is-task=[{0}]'")]
    Task(String),
}

const HEALTHS: [&str; 4] = ["none", "starting", "healthy", "unhealthy"];

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
            filters.add(name, value)?;
        }
        Ok(filters)
    }

    fn add(&mut self, name: &str, value: &str) -> Result<(), FilterError> {
        let invalid = || FilterError::Value {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        match name {
            "name" => self.names.push(Regex::new(value).map_err(|_| invalid())?),
            "id" => self.ids.push(value.to_owned()),
            "label" => self.labels.push(value.to_owned()),
            "status" if STATUSES.contains(&value) => self.statuses.push(value.to_owned()),
            "exited" => self.exit_codes.push(value.parse().map_err(|_| invalid())?),
            "network" => self.networks.push(value.to_owned()),
            "volume" => self.volumes.push(value.to_owned()),
            "publish" => self.published.push(port_range(value).ok_or_else(invalid)?),
            "expose" => self.exposed.push(port_range(value).ok_or_else(invalid)?),
            "ancestor" => self.ancestors.push(value.to_owned()),
            "before" => self.before = Some(value.to_owned()),
            "since" => self.since = Some(value.to_owned()),
            "health" if HEALTHS.contains(&value) => self.healths.push(value.to_owned()),
            "health" => return Err(FilterError::Health(value.to_owned())),
            "is-task" if value == "false" => {}
            "is-task" if value == "true" => self.impossible = true,
            "is-task" => return Err(FilterError::Task(value.to_owned())),
            "status" => return Err(invalid()),
            _ => return Err(FilterError::Unknown(name.to_owned())),
        }
        Ok(())
    }

    /// A filter on the status looks at containers that do not run, too.
    pub fn names_a_status(&self) -> bool {
        !self.statuses.is_empty()
    }

    pub fn accept(&self, container: &Container, found: &Found) -> bool {
        fn any<T>(values: &[T], test: impl FnMut(&T) -> bool) -> bool {
            values.is_empty() || values.iter().any(test)
        }
        // Inside Docker's engine a name begins with a slash, and people write `^/name$`.
        let slashed = format!("/{}", container.name);
        let is_named = |name: &Regex| name.is_match(&container.name) || name.is_match(&slashed);
        !self.impossible
            && any(&self.names, is_named)
            && any(&self.healths, |wanted| health(container) == wanted)
            && any(&self.statuses, |status| container.status() == status)
            && any(&self.ids, |id| container.id.starts_with(id.as_str()))
            && any(&self.exit_codes, |code| exited_with(container, *code))
            && any(&self.networks, |name| is_on(container, name))
            && any(&self.volumes, |name| mounts(container, name))
            && any(&self.published, |range| publishes(container, *range))
            && any(&self.exposed, |range| exposes(container, *range))
            && any(&self.ancestors, |_| found.ancestor_ids.contains(&container.image_id))
            && found.before.is_none_or(|then| container.created < then)
            && found.since.is_none_or(|then| container.created > then)
            // Every label must be there.
            && self.labels.iter().all(|wanted| has_label(&container.resolved.labels, wanted))
    }
}

/// As Docker calls it; `none` without a check, or where it does not run.
fn health(container: &Container) -> &'static str {
    match (&container.health, &container.state) {
        (Some(health), State::Running { .. }) => health.status.as_str(),
        _ => "none",
    }
}

pub fn has_label(labels: &[(String, String)], wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.iter().any(|(k, v)| k == key && v == value),
        None => labels.iter().any(|(k, _)| k == wanted),
    }
}

fn exited_with(container: &Container, wanted: i32) -> bool {
    matches!(container.state, State::Exited { code, .. } if code == wanted)
}

fn is_on(container: &Container, network: &str) -> bool {
    let by_id = |(attached, _): &(netmgr::Network, netmgr::Endpoint)| attached.id == network;
    container.attachments.iter().any(by_id)
        || inspect::network_names(container)
            .iter()
            .any(|name| name == network)
}

fn mounts(container: &Container, wanted: &str) -> bool {
    container
        .resolved
        .mounts
        .iter()
        .any(|mount| mount.volume.as_deref() == Some(wanted) || mount.target == wanted)
}

fn publishes(container: &Container, range: PortRange) -> bool {
    ports::published(container).iter().any(|run| {
        let last = run.host.saturating_add(run.count.saturating_sub(1));
        run.protocol == range.protocol && run.host <= range.last && range.first <= last
    })
}

fn exposes(container: &Container, range: PortRange) -> bool {
    let exposed = container.resolved.exposed_ports.iter();
    exposed
        .filter_map(|text| ports::parse_run(text))
        .any(|(first, last, protocol)| {
            protocol == range.protocol && first <= range.last && range.first <= last
        })
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn port_range(text: &str) -> Option<PortRange> {
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let (first, protocol) = ports::parse_port(&format!("{first}/{protocol}"))?;
    Some(PortRange {
        first,
        last: last.parse().ok().filter(|last| *last >= first)?,
        protocol,
    })
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

    #[track_caller]
    fn check(container: &Container, pairs: &[(&str, &str)], expected: bool) {
        let accepted = filters(pairs).unwrap().accept(container, &Found::default());
        assert_eq!(accepted, expected, "{pairs:?}");
    }

    #[test]
    fn the_same_filter_twice_is_an_alternative_and_different_ones_are_conditions() {
        let container = sample::running();
        for (pairs, expected) in [
            (&[][..], true),
            (&[("name", "x"), ("name", "web")], true),
            (&[("name", "web"), ("status", "exited")], false),
            (&[("status", "exited"), ("status", "running")], true),
            (&[("id", &container.id[..5])], true),
            (&[("id", "dd")], false),
            (&[("label", "tier=front"), ("label", "tier")], true),
            (&[("label", "tier=front"), ("label", "nope")], false),
        ] {
            check(&container, pairs, expected);
        }
    }

    #[test]
    fn names_are_regular_expressions_with_and_without_the_slash() {
        for (pattern, expected) in [
            ("eb", true),
            ("^eb", false),
            ("^web", true),
            ("^web$", false),
            ("^web1$", true),
            ("^/web1$", true),
            ("w.b[0-9]", true),
            ("w.b[2-9]", false),
        ] {
            check(&sample::running(), &[("name", pattern)], expected);
        }
    }

    #[test]
    fn ports_networks_volumes_and_codes_are_looked_at() {
        for (name, value, expected) in [
            ("publish", "8080", true),
            ("publish", "8000-8100/tcp", true),
            ("publish", "8080/udp", false),
            ("publish", "80", false),
            ("expose", "80", true),
            ("expose", "8080", false),
            ("network", "bridge", true),
            ("network", "other", false),
            ("volume", "data", true),
            ("volume", "/x", true),
            ("volume", "/tmp", false),
            ("exited", "0", false),
            ("health", "none", true),
            ("health", "healthy", false),
        ] {
            check(&sample::running(), &[(name, value)], expected);
        }
        check(&sample::exited(), &[("exited", "137")], true);
    }

    #[test]
    fn what_a_filter_refers_to_is_compared() {
        let container = sample::running();
        let accepts = |found: &Found| filters(&[]).unwrap().accept(&container, found);
        let day = time::Duration::DAY;
        assert!(accepts(&Found {
            before: Some(container.created + day),
            ..Found::default()
        }));
        assert!(!accepts(&Found {
            before: Some(container.created),
            ..Found::default()
        }));
        assert!(accepts(&Found {
            since: Some(container.created - day),
            ..Found::default()
        }));
        assert!(!accepts(&Found {
            since: Some(container.created),
            ..Found::default()
        }));
        let of = filters(&[("ancestor", "bb")]).unwrap();
        assert!(!of.accept(&container, &Found::default()));
        let ancestor_ids = vec![container.image_id.clone()];
        assert!(of.accept(
            &container,
            &Found {
                ancestor_ids,
                ..Found::default()
            }
        ));
    }

    #[test]
    fn unknown_filters_are_refused_in_dockers_words() {
        for (name, value, text) in [
            ("foo", "bar", "Invalid filter 'foo'"),
            ("status", "bogus", "Invalid filter 'status=bogus'"),
            ("exited", "x", "Invalid filter 'exited=x'"),
            ("name", "[", "Invalid filter 'name=['"),
            ("publish", "9-8", "Invalid filter 'publish=9-8'"),
        ] {
            assert_eq!(filters(&[(name, value)]).unwrap_err().to_string(), text);
        }
    }
}
