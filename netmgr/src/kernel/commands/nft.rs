//! Runs `nft`, in the network namespace of the calling thread.

use std::process::{Output, Stdio};

use super::{command, in_memory, path, text};
use crate::firewall::nftables::{FAMILY, TABLE};
use crate::kernel::Error;

const NAME: &str = "nft";

/// `nft -f -`: one transaction, all or nothing. `nft` itself begins anew when another program has changed the ruleset in the
/// meantime; there is no lock to wait for.
pub fn apply(batch: &str) -> Result<(), Error> {
    let output = run(&["-f", "-"], batch)?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(&output, batch))
}

/// `nft -j list table inet coracle`; `None` where there is no such table.
pub fn list() -> Result<Option<String>, Error> {
    let output = run(&["-j", "list", "table", FAMILY, TABLE], "")?;
    if output.status.success() {
        return Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    // The exit code is the same for every failure, so the table is looked for among all.
    match has_table()? {
        true => Err(failed(&output, "")),
        false => Ok(None),
    }
}

/// The tables of all families, on one line each: `table inet coracle`.
fn has_table() -> Result<bool, Error> {
    let output = run(&["list", "tables", FAMILY], "")?;
    if !output.status.success() {
        return Err(failed(&output, ""));
    }
    let ours = format!("table {FAMILY} {TABLE}");
    let tables = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(tables.lines().any(|line| line.trim() == ours))
}

fn run(arguments: &[&str], input: &str) -> Result<Output, Error> {
    let path = path(NAME).ok_or(Error::MissingNft)?;
    let failed_run = |source| Error::RunCommand {
        path: path.clone(),
        source,
    };
    // A file and not a pipe: nothing to be fed while the command runs.
    let input = in_memory(input).map_err(failed_run)?;
    command(&path)
        .args(arguments)
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .map_err(failed_run)
}

fn failed(output: &Output, batch: &str) -> Error {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Error::CommandFailed {
        name: NAME,
        status: output.status.to_string(),
        line: complained_line(&stderr, batch),
        stderr: text(complaint(&stderr).as_bytes()),
    }
}

/// Without the lines that quote the input and mark a place in it: an error message quotes it already.
fn complaint(stderr: &str) -> String {
    let is_mark = |line: &str| line.trim_matches([' ', '^', '~', '\t']).is_empty();
    let lines: Vec<&str> = stderr.lines().collect();
    let kept = lines.iter().enumerate().filter(|(at, line)| {
        let is_marked = lines.get(at + 1).is_some_and(|next| is_mark(next));
        !is_mark(line) && !is_marked
    });
    kept.map(|(_, line)| format!("{line}\n")).collect()
}

/// `/dev/stdin:LINE:FIRST-LAST: Error: ...`: the line of the batch that the first complaint is about. For the reader only.
fn complained_line(stderr: &str, batch: &str) -> Option<String> {
    let (place, _) = stderr.split_once(": Error:")?;
    let number: usize = place.rsplit(':').nth(1)?.parse().ok()?;
    let line = batch.lines().nth(number.checked_sub(1)?)?;
    Some(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPLAINT: &str = "/dev/stdin:2:14-20: Error: No such file or directory\n\
        add rule inet coracle x accept\n             ^^^^^^^\n";

    #[test]
    fn complaint_points_at_its_line() {
        let batch = "add table inet coracle\nadd rule inet coracle x accept\n";
        let line = complained_line(COMPLAINT, batch);
        assert_eq!(line.as_deref(), Some("add rule inet coracle x accept"));
        assert_eq!(
            complained_line("netlink: Error: out of memory", batch),
            None
        );
        assert_eq!(complained_line("", batch), None);
    }

    #[test]
    fn complaint_does_not_repeat_the_input() {
        assert_eq!(
            complaint(COMPLAINT),
            "/dev/stdin:2:14-20: Error: No such file or directory\n"
        );
    }
}
