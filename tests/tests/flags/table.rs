//! docs/docker.md: which of Docker's commands and flags work, made from the cells.
//!
//! What the program's own help lists and Docker has must have a cell; what has a cell must be in the help; what has none is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;

use harness::Cmd;
use harness::images::{binary, repository};

use crate::differences::DIFFERENCES;

/// Docker's commands, each with its flags as `-m/--memory`.
const DOCKER: &str = include_str!("docker.txt");

/// Set: writes the document in place of comparing it.
const WRITE: &str = "CORACLE_WRITE_DOCS";

const HEAD: &str = "\
# Docker's commands and flags in Coracle

Made by `cargo test -p coracle-tests --test flags -- table` from the tests (with `CORACLE_WRITE_DOCS=1` it writes this file): what stands under
\"works\" is tried from the command line by a test of that suite, errors included. What is missing is refused, with Docker's exit code for an unknown flag.
Flags are those of Docker's client 28.2. `create` takes the flags of `run`.
";

/// The document is up to date, and says nothing that is not tried.
pub fn check(covered: &BTreeSet<&str>) {
    let text = document(covered);
    let path: PathBuf = repository().join("docs/docker.md");
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, text).expect("write docs/docker.md");
        return;
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == text,
        "docs/docker.md is not what the cells say; {WRITE}=1 writes it anew"
    );
}

/// A flag by all its names, the short one first.
type Flag = Vec<String>;

fn document(covered: &BTreeSet<&str>) -> String {
    let docker = docker();
    let mut complaints = Vec::new();
    let (mut rows, mut own, mut absent) = (String::new(), String::new(), Vec::new());
    let mut known: BTreeSet<String> = BTreeSet::new();
    let (mut works, mut missing) = (0, 0);
    for (command, flags) in &docker {
        known.insert(command.clone());
        for name in flags.iter().flatten() {
            known.insert(format!("{command} {name}"));
        }
        let Some(ours) = help(command) else {
            absent.push(format!("`{command}`"));
            missing += 1;
            continue;
        };
        if !covered.contains(command.as_str()) {
            complaints.push(format!("no cell shows `{command}`"));
        }
        works += 1;
        let (mut good, mut lacking, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        notes.extend(difference(command));
        for flag in flags {
            let written = format!("`{}`", flag.join("`, `"));
            let names = flag.iter().map(|name| format!("{command} {name}"));
            let tried: Vec<bool> = names
                .clone()
                .map(|name| covered.contains(name.as_str()))
                .collect();
            let listed = flag.iter().any(|name| ours.contains(name));
            match (tried.iter().all(|tried| *tried), listed) {
                (true, _) => {
                    good.push(written);
                    works += 1;
                }
                (false, false) => {
                    lacking.push(written);
                    missing += 1;
                }
                (false, true) => {
                    complaints.push(format!("no cell shows all of `{command}` {written}"))
                }
            }
            notes.extend(names.filter_map(|name| difference(&name)));
        }
        let all: BTreeSet<&String> = flags.iter().flatten().collect();
        let extra: Vec<&String> = ours.iter().filter(|name| !all.contains(name)).collect();
        // `create` is listed without the flags that it shares with `run`.
        if !extra.is_empty() && command != "create" {
            let extra: Vec<String> = extra.iter().map(|name| format!("`{name}`")).collect();
            let _ = writeln!(own, "- `{command}`: {}", extra.join(", "));
        }
        let _ = writeln!(
            rows,
            "| `{command}` | {} | {} | {} |",
            good.join(", "),
            notes.join("; "),
            lacking.join(", ")
        );
    }
    complaints.extend(
        covered
            .iter()
            .filter(|name| !known.contains(**name) && !is_ours(name))
            .map(|name| {
                format!("a cell covers `{name}`, which neither Docker nor the program has")
            }),
    );
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    format!(
        "{HEAD}\n{works} commands and flags work, {missing} are missing.\n\n\
         | command | works | differs | missing |\n|---|---|---|---|\n{rows}\n\
         Commands that are missing: {}.\n\n## Flags that Docker does not have\n\n{own}",
        absent.join(", ")
    )
}

/// A command or flag of ours that Docker does not have.
fn is_ours(name: &str) -> bool {
    let (command, flag) = match name.find(" -") {
        Some(at) => (&name[..at], Some(&name[at + 1..])),
        None => (name, None),
    };
    help(command).is_some_and(|flags| flag.is_none_or(|flag| flags.contains(flag)))
}

fn difference(name: &str) -> Option<String> {
    let found = DIFFERENCES.iter().find(|(what, _)| *what == name)?;
    let flag = name.find(" -").map(|at| format!("`{}`: ", &name[at + 1..]));
    Some(format!("{}{}", flag.unwrap_or_default(), found.1))
}

/// In the order of the file.
fn docker() -> Vec<(String, Vec<Flag>)> {
    let lines = DOCKER.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(':'))
        .map(|(command, flags)| {
            let flags = flags.split_whitespace();
            let names = flags.map(|flag| flag.split('/').map(str::to_owned).collect());
            (command.to_owned(), names.collect())
        })
        .collect()
}

/// The flags of one of the program's own commands; `None`: it has no such command. Global options are left out.
fn help(command: &str) -> Option<BTreeSet<String>> {
    thread_local! {
        static SEEN: std::cell::RefCell<BTreeMap<String, Option<BTreeSet<String>>>> = const { std::cell::RefCell::new(BTreeMap::new()) };
    }
    if let Some(seen) = SEEN.with_borrow(|seen| seen.get(command).cloned()) {
        return seen;
    }
    let output = Cmd::new(binary())
        .args(command.split(' '))
        .arg("--help")
        .run();
    let flags = (output.code() == 0).then(|| {
        let own = output
            .text()
            .split("Global options:")
            .next()
            .unwrap_or_default()
            .to_owned();
        let lines = own
            .lines()
            .map(str::trim_start)
            .filter(|line| line.starts_with('-') && !line.contains("--help"));
        let words = lines.flat_map(|line| {
            line.split("  ")
                .next()
                .unwrap_or_default()
                .split([' ', ',', '=', '['])
        });
        words
            .filter(|word| word.starts_with('-'))
            .map(str::to_owned)
            .collect()
    });
    SEEN.with_borrow_mut(|seen| seen.insert(command.to_owned(), flags.clone()));
    flags
}
