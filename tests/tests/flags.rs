//! Each flag and command that people know from Docker, tried from the command line, errors included.
//!
//! A cell is one behaviour on a host of its own, and says which of Docker's commands and flags it covers; the table in docs/docker.md is made
//! from them. Cells run side by side: `cargo test --test flags -- resources/` runs one subject.

#[path = "flags/cell.rs"]
mod cell;
#[path = "flags/commands.rs"]
mod commands;
#[path = "flags/events.rs"]
mod events;
#[path = "flags/health.rs"]
mod health;
#[path = "flags/life.rs"]
mod life;

use std::collections::BTreeSet;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use cell::Cell;

/// By subject, each a file of `flags/`.
const SUBJECTS: &[(&str, &[Cell])] = &[
    ("commands", commands::CELLS),
    ("events", events::CELLS),
    ("health", health::CELLS),
    ("life", life::CELLS),
];

fn main() -> ExitCode {
    let cells = SUBJECTS.iter().flat_map(|(_, cells)| cells.iter());
    let covered: BTreeSet<&str> = cells.flat_map(|cell| cell.covers).copied().collect();
    println!("{} flags and commands are tried", covered.len());
    let mut arguments = Arguments::from_args();
    // A cell waits for processes more than it computes.
    arguments.test_threads.get_or_insert(8);
    let trials = SUBJECTS.iter().flat_map(|(subject, cells)| {
        cells.iter().map(move |cell| {
            let run = cell.run;
            Trial::test(format!("{subject}/{}", cell.name), move || {
                run();
                Ok(())
            })
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
