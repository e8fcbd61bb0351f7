//! `stats` and `top`: what containers use, and what runs in them.

use std::collections::HashSet;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use super::Engine;
use crate::cgroup::{self, Group, Usage};
use crate::error::Error;
use crate::process;
use crate::record::{Container, State};
use crate::request::NetworkMode;
use crate::store;

/// What one container used at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    pub id: String,
    pub name: String,
    /// As the caller named it; else its ID.
    pub asked: String,
    pub usage: Usage,
    /// Bytes that came in and went out since its start.
    pub network: (u64, u64),
    /// Bytes: its own limit, or all that the host has. 0 if it does not run.
    pub memory_limit: u64,
    taken: Instant,
}

impl Sample {
    /// Percent of one CPU since the sample before: two whole ones are 200.
    pub fn cpu_percent(&self, before: &Sample) -> f64 {
        let between = self.taken.saturating_duration_since(before.taken);
        // It may have been started anew between the two.
        let used = self.usage.cpu.checked_sub(before.usage.cpu);
        match between {
            Duration::ZERO => 0.0,
            _ => used.unwrap_or_default().as_secs_f64() / between.as_secs_f64() * 100.0,
        }
    }

    pub fn memory_percent(&self) -> f64 {
        match self.memory_limit {
            0 => 0.0,
            limit => self.usage.memory as f64 / limit as f64 * 100.0,
        }
    }
}

/// A table of processes: headings, and a row for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processes {
    pub titles: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Engine {
    /// What these containers use now. Without names: those that run, with `all` the others too, newest first. A container that
    /// does not run uses nothing.
    pub fn sample(&mut self, names: &[String], all: bool) -> Result<Vec<Sample>, Error> {
        let named = |name: &String| {
            let container = store::find(&self.conn, name)?.container;
            Ok::<_, Error>((name.clone(), container))
        };
        let containers: Vec<(String, Container)> = match names {
            [] => store::list(&self.conn)?
                .into_iter()
                .map(|stored| (stored.container.id.clone(), stored.container))
                .filter(|(_, c)| all || matches!(c.state, State::Running { .. }))
                .collect(),
            names => names.iter().map(named).collect::<Result<_, _>>()?,
        };
        let host_memory = host_memory();
        Ok(containers
            .into_iter()
            .map(|(asked, container)| sample(asked, &container, host_memory))
            .collect())
    }

    /// `top`: the processes of a running container, with these options for `ps`; without any, `-ef`, read from /proc itself.
    pub fn top(&mut self, name: &str, options: &[String]) -> Result<Processes, Error> {
        let container = store::find(&self.conn, name)?.container;
        match container.state {
            State::Running { .. } => {}
            State::Restarting { .. } => return Err(Error::IsRestarting(container.id)),
            _ => return Err(Error::NotRunning(container.id)),
        }
        let pids = cgroup::processes(&Group::of(&container));
        if options.is_empty() {
            return Ok(Processes {
                titles: process::FULL_TITLES.map(str::to_owned).into(),
                rows: pids.into_iter().filter_map(process::full_row).collect(),
            });
        }
        let output = Command::new("ps").args(options).output();
        let output = output.map_err(|source| Error::Host {
            step: "run ps, which its options are for",
            source,
        })?;
        if !output.status.success() {
            return Err(Error::Ps(complaint(&output)));
        }
        select(&String::from_utf8_lossy(&output.stdout), &pids)
    }
}

/// What a program said that failed: the first line, as below it `ps` explains its use.
fn complaint(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    match said.lines().find(|line| !line.trim().is_empty()) {
        Some(line) => line.trim().to_owned(),
        None => output.status.to_string(),
    }
}

fn sample(asked: String, container: &Container, host_memory: u64) -> Sample {
    let (usage, network, memory_limit) = match container.state {
        State::Running { pid, .. } => {
            let usage = cgroup::usage(&Group::of(container));
            let network = match container.request.network {
                // The host's own traffic is not the container's.
                NetworkMode::Host => (0, 0),
                _ => cgroup::network(pid),
            };
            let limit = usage.memory_limit.unwrap_or(host_memory);
            (usage, network, limit.min(host_memory))
        }
        _ => Default::default(),
    };
    Sample {
        id: container.id.clone(),
        name: container.name.clone(),
        asked,
        usage,
        network,
        memory_limit,
        taken: Instant::now(),
    }
}

/// Bytes; proc_meminfo(5).
fn host_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0) << 10
}

/// The lines of a `ps` that are about these processes. Its last column takes the rest of a line.
fn select(output: &str, pids: &[i32]) -> Result<Processes, Error> {
    let mut lines = output.lines();
    let titles: Vec<String> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let column = titles
        .iter()
        .position(|title| title == "PID")
        .ok_or(Error::NoPidColumn)?;
    let wanted: HashSet<String> = pids.iter().map(i32::to_string).collect();
    let rows = lines
        .map(|line| cells(line, titles.len()))
        .filter(|row| row.get(column).is_some_and(|pid| wanted.contains(pid)))
        .collect();
    Ok(Processes { titles, rows })
}

fn cells(line: &str, count: usize) -> Vec<String> {
    let mut row = Vec::with_capacity(count);
    let mut rest = line.trim_start();
    while row.len() + 1 < count && !rest.is_empty() {
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        row.push(rest[..end].to_owned());
        rest = rest[end..].trim_start();
    }
    row.push(rest.trim_end().to_owned());
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_lines_of_ps_are_taken() {
        let output = "  PID TTY      CMD\n    1 ?        init [2]\n   42 pts/0    sh -c  a b\n  420 ?        other\n";
        let found = select(output, &[42]).unwrap();
        assert_eq!(found.titles, ["PID", "TTY", "CMD"]);
        assert_eq!(found.rows, [["42", "pts/0", "sh -c  a b"]]);
        assert!(matches!(select("CMD\nx\n", &[1]), Err(Error::NoPidColumn)));
    }

    #[test]
    fn a_percentage_is_of_one_cpu() {
        let at = |seconds, cpu| Sample {
            id: String::new(),
            name: String::new(),
            asked: String::new(),
            usage: Usage {
                cpu: Duration::from_secs(cpu),
                memory: 50,
                ..Usage::default()
            },
            network: (0, 0),
            memory_limit: 200,
            taken: *START + Duration::from_secs(seconds),
        };
        static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        assert_eq!(at(4, 6).cpu_percent(&at(2, 2)), 200.0);
        assert_eq!(at(4, 6).cpu_percent(&at(4, 2)), 0.0);
        assert_eq!(at(4, 0).cpu_percent(&at(2, 5)), 0.0);
        assert_eq!(at(4, 0).memory_percent(), 25.0);
    }
}
