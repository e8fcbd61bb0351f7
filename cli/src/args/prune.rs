//! What `prune` commands have in common: the question, and the choice by age and label.

use std::io::{BufRead, Write};

use anyhow::{Context as _, bail};
use time::OffsetDateTime;

use super::filter::{FilterError, has_label};
use super::moment;
use crate::failure::Failure;

/// Asks on stdout, and reads the answer from stdin.
pub fn is_sure(warning: &str) -> Result<bool, Failure> {
    let ask = || -> std::io::Result<String> {
        let mut out = std::io::stdout();
        out.write_all(warning.as_bytes())?;
        out.flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().context("cannot ask").map_err(Failure::Own)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

#[derive(Debug, Default)]
pub struct Filters {
    /// Made before.
    until: Option<OffsetDateTime>,
    with: Vec<String>,
    without: Vec<String>,
}

impl Filters {
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
