//! Bytes: what `system df` says against what du(1) finds, and whether anything is left when all has been pruned.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Cmd, Output, eventually};

/// Bytes of allocated blocks, as du(1) counts them.
#[track_caller]
pub fn du(root: &Path, options: &[String]) -> u64 {
    let output = Cmd::new("du")
        .args(["--summarize", "--block-size=1"])
        .args(options)
        .arg(root)
        .run()
        .ok();
    let bytes = output.text().split_whitespace().next();
    bytes.and_then(|bytes| bytes.parse().ok()).unwrap()
}

/// One of those rows of `system df -v` that Docker does not have.
pub fn other(df: &Value, what: &str) -> u64 {
    let rows = df["Others"].as_array().unwrap().iter();
    let row = rows
        .into_iter()
        .find(|row| row["What"].as_str().unwrap().starts_with(what));
    row.unwrap()["SizeBytes"].as_u64().unwrap()
}

/// The parts are the whole, and nothing in ROOT is left out. Between two looks that agree nothing has happened. `run` runs the program with
/// a line of arguments.
#[track_caller]
pub fn check_sum(root: &Path, run: &dyn Fn(&str) -> Output) {
    eventually("the parts of `system df` are ROOT", || {
        let before = du(root, &[]);
        let df = run("system df -v --format json").ok().json();
        let rows = run("system df --format json").ok();
        let rows = rows
            .stdout
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let kinds: u64 = rows.map(|row| row["SizeBytes"].as_u64().unwrap()).sum();
        let others = df["Others"].as_array().unwrap().iter();
        let others: u64 = others
            .filter(|row| !row["What"].as_str().unwrap().ends_with("(in Images)"))
            .map(|row| row["SizeBytes"].as_u64().unwrap())
            .sum();
        let total = df["TotalBytes"].as_u64().unwrap();
        let after = du(root, &[]);
        match before == after && total == after && kinds + others == total {
            true if other(&df, "unknown") == 0 => Ok(()),
            _ => Err(format!("du {before}, {after}; {kinds} + {others}; {df:#}")),
        }
    });
}

/// The database and empty directories are all there is.
#[track_caller]
pub fn check_nothing_is_left(root: &Path) {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() && !path.is_symlink() {
                true => walk(&path, found),
                false => found.push(path),
            }
        }
    }
    for name in ["layers/.staging", "images", "containers", "volumes"] {
        let path = root.join(name);
        let count = fs::read_dir(&path).map_or(0, Iterator::count);
        assert_eq!(count, 0, "{}", path.display());
    }
    let mut found = Vec::new();
    walk(root, &mut found);
    found.retain(|path| {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap();
        !name.starts_with("coracle.db")
            && !name.starts_with("seccomp/")
            && name != "reserve"
            && name != "layers/.lock"
    });
    assert!(found.is_empty(), "{found:?}");
}
