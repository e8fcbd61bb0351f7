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
\"works\" is tried from the command line by a test of that suite, errors included. What is missing is refused, as an unknown flag or with what to do instead.
Flags are those of Docker's client 28.2; `container run` is `run`, and so on. Why something differs: [differences.md](differences.md).
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

/// What is shown of one of Docker's commands.
#[derive(Default)]
struct Row {
    works: Vec<String>,
    differs: Vec<String>,
    missing: Vec<String>,
}

/// The document, as it grows; and what is wrong with the cells.
#[derive(Default)]
struct Document {
    rows: String,
    flags_of_run: String,
    own: String,
    absent: Vec<String>,
    complaints: Vec<String>,
    works: usize,
    differ: usize,
    missing: usize,
}

fn document(covered: &BTreeSet<&str>) -> String {
    let docker = docker();
    let mut document = Document::default();
    for (command, flags) in &docker {
        document.add(command, flags, covered);
    }
    let Document {
        rows,
        flags_of_run,
        own,
        absent,
        mut complaints,
        works,
        differ,
        missing,
    } = document;
    let names = docker.iter().flat_map(|(command, flags)| {
        let flags = flags.iter().flatten();
        let flags = flags.map(move |name| format!("{command} {name}"));
        std::iter::once(command.clone()).chain(flags)
    });
    let known: BTreeSet<String> = names.collect();
    let strange = covered
        .iter()
        .filter(|name| !known.contains(**name) && !is_ours(name));
    complaints.extend(
        strange.map(|name| {
            format!("a cell covers `{name}`, which neither Docker nor the program has")
        }),
    );
    let idle = DIFFERENCES.iter().map(|(what, _)| *what);
    let idle = idle.filter(|what| !known.contains(*what) || !covered.contains(what));
    complaints.extend(idle.map(|what| format!("`{what}` is said to differ, and no cell shows it")));
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    format!(
        "{HEAD}\n{works} commands and flags work, {differ} of them otherwise than in Docker; {missing} are missing.\n\n\
         ## Commands\n\n| command | works | differs | missing |\n|---|---|---|---|\n{rows}\n\
         Commands that are missing: {}.\n\n\
         ## Flags of run and create\n\n| flag | | differs |\n|---|---|---|\n{flags_of_run}\n\
         ## Flags that Docker does not have\n\n{own}",
        absent.join(", ")
    )
}

/// A command that is missing, and answers with what does its work.
const ONLY_ANSWERS: &str = "build";

impl Document {
    fn add(&mut self, command: &str, flags: &[Flag], covered: &BTreeSet<&str>) {
        let Some(ours) = help(command).filter(|_| command != ONLY_ANSWERS) else {
            self.absent.push(format!("`{command}`"));
            self.missing += 1;
            return;
        };
        if !covered.contains(command) {
            self.complaints.push(format!("no cell shows `{command}`"));
        }
        self.works += 1;
        let mut row = Row::default();
        row.differs.extend(difference(command));
        self.differ += row.differs.len();
        for flag in flags {
            self.add_flag(command, flag, &ours, covered, &mut row);
        }
        let all: BTreeSet<&String> = flags.iter().flatten().collect();
        let extra: Vec<String> = ours
            .iter()
            .filter(|name| !all.contains(name))
            .map(|name| format!("`{name}`"))
            .collect();
        // `create` is listed without the flags that it shares with `run`.
        if !extra.is_empty() && command != "create" {
            let _ = writeln!(self.own, "- `{command}`: {}", extra.join(", "));
        }
        let (differs, missing) = (row.differs.join("; "), row.missing.join(", "));
        let works = match command {
            "run" => "[its flags](#flags-of-run-and-create)".to_owned(),
            "create" => "the flags of `run`".to_owned(),
            _ => row.works.join(", "),
        };
        let _ = writeln!(
            self.rows,
            "| `{command}` | {works} | {differs} | {missing} |"
        );
    }

    fn add_flag(
        &mut self,
        command: &str,
        flag: &Flag,
        ours: &BTreeSet<String>,
        covered: &BTreeSet<&str>,
        row: &mut Row,
    ) {
        let written = format!("`{}`", flag.join("`, `"));
        let names = flag.iter().map(|name| format!("{command} {name}"));
        let tried = names.clone().all(|name| covered.contains(name.as_str()));
        let listed = flag.iter().any(|name| ours.contains(name));
        let difference = names.clone().find_map(|name| difference(&name));
        let state = match (tried, listed) {
            (true, _) => {
                self.works += 1;
                self.differ += usize::from(difference.is_some());
                "works"
            }
            (false, false) => {
                self.missing += 1;
                "missing"
            }
            (false, true) => {
                self.complaints
                    .push(format!("no cell shows all of `{command}` {written}"));
                return;
            }
        };
        if command == "run" {
            let difference = difference.unwrap_or_default();
            let _ = writeln!(self.flags_of_run, "| {written} | {state} | {difference} |");
            return;
        }
        row.differs
            .extend(difference.map(|text| format!("{written}: {text}")));
        match tried {
            true => row.works.push(written),
            false => row.missing.push(written),
        }
    }
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
    Some(found.1.to_owned())
}

/// In the order of the file.
pub fn docker() -> Vec<(String, Vec<Flag>)> {
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
pub fn help(command: &str) -> Option<BTreeSet<String>> {
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
