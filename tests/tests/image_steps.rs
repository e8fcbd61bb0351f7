//! SIGKILL before each system call with which the commands about images make something permanent or take it away: renames, waits for the
//! disk, writes into the database's log, deletions. At random moments these windows, a hundred microseconds wide, are not met
//! (`image_storm.rs`). After each kill there is no half image, no byte is unaccounted for, the next pull completes, and the store is whole.
//!
//! strace(1) kills: its count of calls is one for each thread and each kind of call.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use harness::registry::Access;
use harness::{Host, Output, Registry, images, layered, usage};
use nix::sys::signal::Signal;

const CALLS: [&str; 10] = [
    "rename",
    "renameat",
    "renameat2",
    "syncfs",
    "fsync",
    "fdatasync",
    "pwrite64",
    "unlink",
    "unlinkat",
    "rmdir",
];
/// Of many calls in a row that are all alike, so many at either end: a tree is deleted by hundreds, and what a transaction writes counts
/// when it is whole.
const ENDS: usize = 2;

/// One call of the main thread.
#[derive(Clone, Debug)]
struct Step {
    call: String,
    /// The how-manieth of its kind, from 1.
    number: usize,
}

struct Bench<'a> {
    host: &'a Host,
    images: Vec<String>,
    /// Of all images.
    archive: String,
    trace: PathBuf,
}

impl Bench<'_> {
    fn run(&self, lines: &[&str]) {
        for line in lines {
            self.host.run(&self.words(line).join(" "));
        }
    }

    /// `A` and `B` are images that share layers, `ARCHIVE` has all, `TAR` is of a root filesystem.
    fn words(&self, line: &str) -> Vec<String> {
        let tar = images::busybox_tar().display().to_string();
        let meant = |word: &str| match word {
            "A" => self.images[0].clone(),
            "B" => self.images[1].clone(),
            "ARCHIVE" => self.archive.clone(),
            "TAR" => tar.clone(),
            word => word.to_owned(),
        };
        line.split_whitespace().map(meant).collect()
    }

    fn traced(&self, line: &str, kill: Option<&Step>) -> Output {
        let mut options = vec![
            "-f".to_owned(),
            "-o".to_owned(),
            self.trace.display().to_string(),
            "-e".to_owned(),
            format!("trace={}", CALLS.join(",")),
        ];
        if let Some(Step { call, number }) = kill {
            let inject = format!("inject={call}:signal=KILL:when={number}");
            options.extend(["-e".to_owned(), inject]);
        }
        let command = self.host.command(self.words(line));
        command
            .wrapped_in("strace", options)
            .run_in(&self.host.netns)
    }

    /// The calls of the main thread, in their order.
    fn steps(&self) -> Vec<Step> {
        let text = fs::read_to_string(&self.trace).unwrap();
        let mut main = None;
        let mut counts = BTreeMap::new();
        let mut steps = Vec::new();
        for line in text.lines() {
            let (thread, rest) = line.split_once(' ').unwrap();
            let Some((call, _)) = rest.trim_start().split_once('(') else {
                continue;
            };
            // A call is begun once, and may be resumed on another line.
            if *main.get_or_insert(thread) != thread || !CALLS.contains(&call) {
                continue;
            }
            let number = counts.entry(call.to_owned()).or_insert(0);
            *number += 1;
            // Zeros that make room in the memory which the database's users share.
            if !rest.contains("\"\\0\", 1, ") {
                let (call, number) = (call.to_owned(), *number);
                steps.push(Step { call, number });
            }
        }
        steps
    }

    /// Everything is in order, whatever was killed.
    fn check(&self, what: &str) {
        let host = self.host;
        let left = host.try_run("image check --quick");
        // Rubbish is shown by its path.
        let half = left.stdout.lines().find(|line| {
            ["image ", "layer ", "name "]
                .iter()
                .any(|kind| line.starts_with(kind))
        });
        assert!(half.is_none(), "{what}: {left}");
        for id in host.run("images -aq").stdout.lines() {
            host.run(&format!("image inspect {id}"));
        }
        usage::check_sum(&host.root(), &|line| host.try_run(line));
        self.run(&["pull -q A"]);
        let output = host.try_run("image check");
        let is_clean = output.code() == 0 && output.text().ends_with("no problems");
        assert!(is_clean, "{what}: {output}");
    }
}

/// Kills a command before each of its steps, one in each run. `must` are calls that it is known to make.
fn step_through(before: &[&str], line: &str, must: &[(&str, usize)]) {
    let host = Host::builder().without_image().build();
    if host.is_docker() {
        return; // The promise is ours.
    }
    let registry = Registry::start(&host, Access::Open);
    let bench = Bench {
        images: layered::push(&host, &registry),
        archive: host.folder().join("all.tar").display().to_string(),
        trace: host.folder().join("trace"),
        host: &host,
    };
    bench.run(&["pull -q A", "pull -q B", "save -o ARCHIVE A B"]);
    // Twice, that the second time begins as all others do.
    for _ in 0..2 {
        bench.run(before);
        bench.traced(line, None).ok();
    }
    let all = bench.steps();
    for (call, least) in must {
        let count = all.iter().filter(|step| step.call == *call).count();
        assert!(count >= *least, "{line}: {call} {count} times: {all:?}");
    }
    let rows = all.chunk_by(|a, b| a.call == b.call);
    let ends = |row: &'_ [Step]| {
        let at = 0..row.len();
        at.filter(|at| *at < ENDS || at + ENDS >= row.len())
            .map(|at| row[at].clone())
            .collect::<Vec<_>>()
    };
    let chosen: Vec<Step> = rows.flat_map(ends).collect();
    let mut hit = BTreeSet::new();
    for step in &chosen {
        bench.run(before);
        let output = bench.traced(line, Some(step));
        let what = format!("{line} killed before {} {}", step.call, step.number);
        assert!(!output.stderr.contains("panicked"), "{what}: {output}");
        match output.status.signal() == Some(Signal::SIGKILL as i32) {
            // It was the main thread's own call.
            true => {
                let at = bench.steps();
                let of_kind = at.iter().filter(|at| at.call == step.call);
                let reached = of_kind.map(|at| at.number).max().unwrap_or(0);
                if reached >= step.number {
                    hit.insert((step.call.clone(), step.number));
                }
            }
            false => assert!(output.code() == 0, "{what}: {output}"),
        }
        bench.check(&what);
    }
    println!("{line}: {} of {} steps were met", hit.len(), chosen.len());
    for step in &chosen {
        let is_certain = must.iter().any(|(call, _)| *call == step.call);
        let is_hit = hit.contains(&(step.call.clone(), step.number));
        assert!(is_hit || !is_certain, "{line}: {step:?} was never met");
    }
    assert!(hit.len() * 10 >= chosen.len() * 9, "{line}: {hit:?}");
    host.run("system prune -af");
    usage::check_nothing_is_left(&host.root());
    drop((bench, registry));
    host.remove_everything();
    host.assert_clean();
}

#[test]
fn a_pull_can_be_killed_before_each_step_of_its_commit() {
    let must = [
        ("syncfs", 1),
        ("rename", 6),
        ("renameat2", 1),
        ("fsync", 2),
        ("pwrite64", 2),
    ];
    step_through(&["system prune -af"], "pull A", &must);
}

#[test]
fn a_load_can_be_killed_before_each_step_of_its_commits() {
    let must = [
        ("syncfs", 2),
        ("rename", 8),
        ("renameat2", 2),
        ("fsync", 4),
        ("pwrite64", 2),
    ];
    step_through(&["system prune -af"], "load -qi ARCHIVE", &must);
}

#[test]
fn an_import_can_be_killed_before_each_step_of_its_commit() {
    let must = [
        ("syncfs", 1),
        ("rename", 2),
        ("renameat2", 1),
        ("fsync", 2),
        ("pwrite64", 2),
    ];
    step_through(&["system prune -af"], "import TAR mine:1", &must);
}

/// A power cut may bring back rows whose commit did not wait for the disk, but not those of what has been deleted.
#[test]
fn what_a_removal_deletes_has_lost_its_rows_on_the_disk_before() {
    let host = Host::new();
    if host.is_docker() {
        return;
    }
    let bench = Bench {
        images: Vec::new(),
        archive: String::new(),
        trace: host.folder().join("trace"),
        host: &host,
    };
    for line in ["rmi busybox", "image prune -af"] {
        bench.run(&["import TAR busybox"]);
        bench.traced(line, None).ok();
        let steps = bench.steps();
        let first = steps.iter().position(|step| step.call == "rename");
        let before = &steps[..first.expect("it moves directories away")];
        let last = before.last().map(|step| &*step.call);
        assert_eq!(last, Some("fdatasync"), "{line}: {steps:?}");
        assert!(before.iter().any(|step| step.call == "pwrite64"));
    }
}

#[test]
fn a_removal_can_be_killed_before_each_of_its_steps() {
    let before = ["pull -q A", "pull -q B"];
    let must = [("rename", 3), ("pwrite64", 2), ("unlinkat", 4)];
    step_through(&before, "rmi -f A", &must);
}

#[test]
fn a_prune_can_be_killed_before_each_of_its_steps() {
    let before = ["pull -q A", "pull -q B"];
    let must = [("rename", 10), ("pwrite64", 2), ("unlinkat", 4)];
    step_through(&before, "image prune -af", &must);
}

#[test]
fn a_tag_can_be_killed_before_each_of_its_steps() {
    step_through(&["pull -q A"], "tag A other:1", &[("pwrite64", 2)]);
}
