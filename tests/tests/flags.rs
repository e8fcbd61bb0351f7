//! Each flag and command that people know from Docker, tried from the command line, errors included.
//!
//! A cell is one behaviour on a host of its own, and says which of Docker's commands and flags it covers; the table in docs/docker.md is made
//! from them. Cells run side by side: `cargo test --test flags -- resources/` runs one subject, and `-- resources/,life/` two.

#[path = "flags/archive.rs"]
mod archive;
#[path = "flags/basics.rs"]
mod basics;
#[path = "flags/block_io.rs"]
mod block_io;
#[path = "flags/cell.rs"]
mod cell;
#[path = "flags/commands.rs"]
mod commands;
#[path = "flags/devices.rs"]
mod devices;
#[path = "flags/differences.rs"]
mod differences;
#[path = "flags/events.rs"]
mod events;
#[path = "flags/files.rs"]
mod files;
#[path = "flags/health.rs"]
mod health;
#[path = "flags/images.rs"]
mod images;
#[path = "flags/life.rs"]
mod life;
#[path = "flags/listing.rs"]
mod listing;
#[path = "flags/login.rs"]
mod login;
#[path = "flags/logs.rs"]
mod logs;
#[path = "flags/mounts.rs"]
mod mounts;
#[path = "flags/namespaces.rs"]
mod namespaces;
#[path = "flags/nest.rs"]
mod nest;
#[path = "flags/networks.rs"]
mod networks;
#[path = "flags/pull.rs"]
mod pull;
#[path = "flags/push.rs"]
mod push;
#[path = "flags/resources.rs"]
mod resources;
#[path = "flags/seccomp.rs"]
mod seccomp;
#[path = "flags/security.rs"]
mod security;
#[path = "flags/small.rs"]
mod small;
#[path = "flags/space.rs"]
mod space;
#[path = "flags/spelling.rs"]
mod spelling;
#[path = "flags/standstill.rs"]
mod standstill;
#[path = "flags/streams.rs"]
mod streams;
#[path = "flags/table.rs"]
mod table;
#[path = "flags/users.rs"]
mod users;
#[path = "flags/volumes.rs"]
mod volumes;

use std::collections::BTreeSet;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

use cell::Cell;

/// By subject, each a file of `flags/`.
const SUBJECTS: &[(&str, &[Cell])] = &[
    ("archive", archive::CELLS),
    ("basics", basics::CELLS),
    ("block_io", block_io::CELLS),
    ("commands", commands::CELLS),
    ("devices", devices::CELLS),
    ("events", events::CELLS),
    ("files", files::CELLS),
    ("health", health::CELLS),
    ("images", images::CELLS),
    ("life", life::CELLS),
    ("listing", listing::CELLS),
    ("login", login::CELLS),
    ("logs", logs::CELLS),
    ("mounts", mounts::CELLS),
    ("namespaces", namespaces::CELLS),
    ("nest", nest::CELLS),
    ("networks", networks::CELLS),
    ("pull", pull::CELLS),
    ("push", push::CELLS),
    ("resources", resources::CELLS),
    ("seccomp", seccomp::CELLS),
    ("security", security::CELLS),
    ("small", small::CELLS),
    ("space", space::CELLS),
    ("spelling", spelling::CELLS),
    ("standstill", standstill::CELLS),
    ("streams", streams::CELLS),
    ("users", users::CELLS),
    ("volumes", volumes::CELLS),
];

fn main() -> ExitCode {
    let cells = SUBJECTS.iter().flat_map(|(_, cells)| cells.iter());
    let covered: BTreeSet<&str> = cells.flat_map(|cell| cell.covers).copied().collect();
    println!("{} flags and commands are tried", covered.len());
    let mut arguments = Arguments::from_args();
    // A cell waits for processes more than it computes.
    arguments.test_threads.get_or_insert(8);
    // libtest-mimic takes one filter.
    let filters = arguments.filter.take();
    let wanted = |name: &str| match &filters {
        Some(filters) => filters.split(',').any(|filter| match arguments.exact {
            true => name == filter,
            false => name.contains(filter),
        }),
        None => true,
    };
    let cells = SUBJECTS.iter().flat_map(|(subject, cells)| {
        cells.iter().map(move |cell| {
            let run = cell.run;
            Trial::test(format!("{subject}/{}", cell.name), move || {
                run();
                Ok(())
            })
        })
    });
    let table = Trial::test("table", move || {
        table::check(&covered);
        Ok(())
    });
    let trials = cells.chain([table]).filter(|trial| wanted(trial.name()));
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
