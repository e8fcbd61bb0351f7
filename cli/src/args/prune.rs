//! What `prune` commands have in common: the question, and the choice by age and label.

use std::io::{BufRead, Write};

use anyhow::{Context as _, bail};
use clap::Args;
use runtime::engine::Candidate;
use time::OffsetDateTime;

use super::filter::{FilterError, has_label};
use super::{moment, values};
use crate::failure::Failure;
use crate::output::words;

/// Of every `prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Only those that match: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::parse_filter)]
    pub filter: Vec<(String, String)>,
}

impl PruneArgs {
    /// What is to go; `None`, where the user does not want it after all.
    pub fn confirmed(&self, warning: &str) -> Result<Option<Filters>, Failure> {
        let filters =
            Filters::new(&self.filter, OffsetDateTime::now_utc()).map_err(Failure::Own)?;
        Ok((self.force || is_sure(warning)?).then_some(filters))
    }
}

/// Of a filter that says yes or no.
pub fn bool_of(name: &str, value: &str) -> Result<bool, Failure> {
    values::parse_bool(value).map_err(|_| {
        let (name, value) = (name.to_owned(), value.to_owned());
        Failure::Own(FilterError::Value { name, value }.into())
    })
}

/// The last line of every `prune` that makes room.
pub fn reclaimed(bytes: u64) -> String {
    format!("Total reclaimed space: {}", words::size_with(bytes, 4))
}

/// Asks on stdout, and reads the answer from stdin.
pub fn is_sure(warning: &str) -> Result<bool, Failure> {
    let ask = || -> std::io::Result<String> {
        let mut out = std::io::stdout();
        writeln!(out, "{warning}")?;
        write!(out, "Are you sure you want to continue? [y/N] ")?;
        out.flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().context("cannot ask").map_err(Failure::Own)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

/// Asked of each thing that could go.
pub type Wanted<'a> = Box<dyn Fn(&Candidate<'_>) -> bool + 'a>;

#[derive(Debug, Default)]
pub struct Filters {
    /// Made before.
    until: Option<OffsetDateTime>,
    with: Vec<String>,
    without: Vec<String>,
}

impl Filters {
    /// What the engine asks of each; `None`: everything may go.
    pub fn wanted(&self) -> Option<Wanted<'_>> {
        let is_empty = self.until.is_none() && self.with.is_empty() && self.without.is_empty();
        match is_empty {
            true => None,
            false => Some(Box::new(|of| self.accept(of.created, of.labels))),
        }
    }

    pub fn new(pairs: &[(String, String)], now: OffsetDateTime) -> anyhow::Result<Filters> {
        let mut filters = Filters::default();
        for (name, value) in pairs {
            match name.as_str() {
                "until" if filters.until.is_some() => bail!("more than one until filter specified"),
                "until" => {
                    let until = moment::parse(value, now).map_err(anyhow::Error::msg)?;
                    filters.until = Some(OffsetDateTime::from_unix_timestamp_nanos(until.into())?);
                }
                "label" => filters.with.push(value.clone()),
                "label!" => filters.without.push(value.clone()),
                _ => return Err(FilterError::Unknown(name.clone()).into()),
            }
        }
        Ok(filters)
    }

    /// `created`: `None` where nobody knows.
    pub fn accept(&self, created: Option<OffsetDateTime>, labels: &[(String, String)]) -> bool {
        self.until
            .is_none_or(|until| created.is_some_and(|created| created < until))
            && self.with.iter().all(|label| has_label(labels, label))
            && !self.without.iter().any(|label| has_label(labels, label))
    }
}
