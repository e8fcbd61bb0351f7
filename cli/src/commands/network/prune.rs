//! `network prune`: removes the networks that nobody runs on.

use std::io::{BufRead, Write};

use anyhow::{Context as _, bail};
use clap::Args;
use netmgr::Network;
use time::OffsetDateTime;

use super::super::{Answer, Context};
use crate::args::filter::{FilterError, has_label};
use crate::args::values;
use crate::failure::Failure;
use crate::output::{self, words};

const WARNING: &str = "WARNING! This will remove all custom networks not used by at least one container.\n\
     Are you sure you want to continue? [y/N] ";

/// Remove all networks that no running container is on
#[derive(Debug, Args)]
#[command(override_usage = "coracle network prune [OPTIONS]")]
pub struct Prune {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only those that match: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::parse_filter)]
    filter: Vec<(String, String)>,
}

pub fn run(context: &Context, options: Prune) -> Answer {
    let filters = Filters::new(&options.filter, OffsetDateTime::now_utc()).map_err(Failure::Own)?;
    if !options.force && !ask(WARNING)? {
        return Ok(0);
    }
    let removed = context
        .engine()?
        .prune_networks(|network| filters.accept(network))?;
    if !removed.is_empty() {
        let names: Vec<&str> = removed.iter().map(|n| n.name.as_str()).collect();
        output::print(&format!("Deleted Networks:\n{}\n", names.join("\n")))?;
    }
    Ok(0)
}

/// Asks on the terminal, or whatever stdin is; nothing but `y` is consent.
pub fn ask(question: &str) -> Result<bool, Failure> {
    let ask = || -> std::io::Result<String> {
        let mut out = std::io::stdout();
        out.write_all(question.as_bytes())?;
        out.flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().context("cannot ask").map_err(Failure::Own)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

#[derive(Debug, Default)]
struct Filters {
    /// Made before.
    until: Option<OffsetDateTime>,
    with: Vec<String>,
    without: Vec<String>,
}

impl Filters {
    fn new(pairs: &[(String, String)], now: OffsetDateTime) -> anyhow::Result<Filters> {
        let mut filters = Filters::default();
        for (name, value) in pairs {
            match name.as_str() {
                "until" if filters.until.is_some() => bail!("more than one until filter specified"),
                "until" => filters.until = Some(time_of(value, now)?),
                "label" => filters.with.push(value.clone()),
                "label!" => filters.without.push(value.clone()),
                _ => return Err(FilterError::Unknown(name.clone()).into()),
            }
        }
        Ok(filters)
    }

    fn accept(&self, network: &Network) -> bool {
        let created = words::parse_rfc3339(&network.created);
        self.until
            .is_none_or(|until| created.is_some_and(|created| created < until))
            && self.with.iter().all(|l| has_label(&network.labels, l))
            && !self.without.iter().any(|l| has_label(&network.labels, l))
    }
}

/// `24h`, `10m30s` ago; seconds since 1970; RFC 3339.
fn time_of(text: &str, now: OffsetDateTime) -> anyhow::Result<OffsetDateTime> {
    if let Some(ago) = values::parse_duration(text) {
        return Ok(now - ago);
    }
    let seconds = text.parse().ok();
    seconds
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .or_else(|| words::parse_rfc3339(text))
        .with_context(|| format!("failed to parse value as time or duration: {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::sample;

    #[track_caller]
    fn check(filter: &str, expected: bool) {
        let pair = values::parse_filter(filter).unwrap();
        // The sample was made an hour before.
        let filters = Filters::new(&[pair], sample::NOW).unwrap();
        assert_eq!(filters.accept(&sample::network()), expected, "{filter}");
    }

    #[test]
    fn networks_are_chosen_by_age_and_label() {
        check("until=30m", true);
        check("until=2h", false);
        check("until=1h30m", false);
        check("until=2026-11-23T08:30:00Z", true);
        check("until=1000", false);
        check("label=a=b", true);
        check("label=c", false);
        check("label!=a", false);
        let unknown = [("foo".to_owned(), "1h".to_owned())];
        let error = Filters::new(&unknown, sample::NOW).unwrap_err();
        assert_eq!(error.to_string(), "Invalid filter 'foo'");
    }
}
