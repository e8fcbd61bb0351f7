//! Images and registries that mean harm, or are damaged: what must come of a pull of each, through the real command.
//!
//! Each row is a test: `bad_images layers/dot-dot`. It has a machine of its own (`machine`), which must be the same afterwards, to the
//! times of its files, and a store that must be as empty as before. What only a registry that misbehaves can send comes from a mock;
//! all layers come from a real registry.

#[path = "bad_images/documents.rs"]
mod documents;
#[path = "bad_images/image.rs"]
mod image;
#[path = "bad_images/layers.rs"]
mod layers;
#[path = "bad_images/machine.rs"]
mod machine;
#[path = "bad_images/packing.rs"]
mod packing;
#[path = "bad_images/push.rs"]
mod push;
#[path = "bad_images/talk.rs"]
mod talk;

use std::process::ExitCode;

use harness::registry::Access;
use harness::{Netns, Registry};
use libtest_mimic::{Arguments, Trial};

/// One line of the table.
pub struct Row {
    name: &'static str,
    run: Box<dyn FnOnce(&'static Netns) + Send>,
}

pub fn row(name: &'static str, run: impl FnOnce(&'static Netns) + Send + 'static) -> Row {
    Row {
        name,
        run: Box::new(run),
    }
}

/// Addresses beside loopback, of hosts to which nothing may be said in the clear.
pub const REGISTRY: &str = "192.0.2.10";
pub const ELSEWHERE: &str = "192.0.2.20";

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // All rows are in it until the program ends.
    let netns: &'static Netns = Box::leak(Box::new(Netns::new()));
    netns.ip(&format!(
        "link set lo up\naddr add {REGISTRY}/32 dev lo\naddr add {ELSEWHERE}/32 dev lo\n"
    ));
    let subjects = [
        ("layers", layers::rows()),
        ("packing", packing::rows()),
        ("documents", documents::rows()),
        ("talk", talk::rows()),
    ];
    let rows = subjects
        .into_iter()
        .flat_map(|(subject, rows)| rows.into_iter().map(move |row| (subject, row)));
    let trials = rows.map(|(subject, row)| {
        Trial::test(format!("{subject}/{}", row.name), move || {
            (row.run)(netns);
            Ok(())
        })
    });
    let trials = trials.collect();
    // Ended when dropped, which `exit` would not do.
    let registry = (!arguments.list).then(|| Registry::start_in(netns, Access::Open));
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(registry);
    conclusion.exit_code()
}
