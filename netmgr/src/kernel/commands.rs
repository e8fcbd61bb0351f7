//! Runs `iptables-restore`, `iptables-save`, the same of ip6tables, and `nft`, in the network namespace of the calling
//! thread.
//!
//! The exit code decides; what they write is context for people.

use std::env;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::fs::MemfdFlags;

use crate::kernel::Error;
use crate::model::Family;
use crate::plan::Tool;

/// Root's own PATH need not hold them, as under cron or sudo.
const FURTHER_DIRECTORIES: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Where a command is, if this host has it.
pub fn path(name: &str) -> Option<PathBuf> {
    let search = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&search)
        .chain(FURTHER_DIRECTORIES.iter().map(PathBuf::from))
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|file| is_executable(file))
}

/// Applies a batch. `iptables-restore` commits one table after the other: a batch of several tables that fails can have
/// changed the first of them. `nft` takes all of it or nothing.
pub fn write(tool: Tool, batch: &str) -> Result<(), Error> {
    let (name, args): (_, &[&str]) = match tool {
        Tool::Iptables => ("iptables-restore", &["--noflush", "-w"]),
        Tool::Ip6tables => ("ip6tables-restore", &["--noflush", "-w"]),
        Tool::Nft => ("nft", &["-f", "-"]),
    };
    let path = path(name).ok_or(Error::MissingCommand { name })?;
    let failed_run = |source| Error::RunCommand {
        path: path.clone(),
        source,
    };
    // A file and not a pipe: nothing to be fed while the command runs, so no second thread and no deadlock.
    let input = in_memory(batch).map_err(failed_run)?;
    let output = command(&path)
        .args(args)
        .stdin(input)
        .stdout(Stdio::null())
        .output()
        .map_err(failed_run)?;
    if output.status.success() {
        return Ok(());
    }
    let stderr = text(&output.stderr);
    Err(Error::CommandFailed {
        name,
        status: output.status.to_string(),
        line: complained_line(&stderr, batch),
        stderr,
    })
}

/// [`write`] by `iptables-restore --noflush -w`.
pub fn restore(batch: &str) -> Result<(), Error> {
    write(Tool::Iptables, batch)
}

/// `iptables-save -t TABLE`. A table that is not in use gives an empty text.
pub fn save(table: &str) -> Result<String, Error> {
    save_of(Family::V4, table)
}

/// [`save`], or the same by `ip6tables-save`.
pub fn save_of(family: Family, table: &str) -> Result<String, Error> {
    let name = match family {
        Family::V4 => "iptables-save",
        Family::V6 => "ip6tables-save",
    };
    let path = path(name).ok_or(Error::MissingCommand { name })?;
    let Output {
        status,
        stdout,
        stderr,
    } = command(&path)
        .args(["-t", table])
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::RunCommand {
            path: path.clone(),
            source,
        })?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    Err(Error::CommandFailed {
        name,
        status: status.to_string(),
        line: None,
        stderr: text(&stderr),
    })
}

fn command(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.env("LC_ALL", "C");
    command
}

fn is_executable(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn in_memory(text: &str) -> std::io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("rules", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// On one line, for an error message.
fn text(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("Try `"));
    lines.collect::<Vec<_>>().join("; ")
}

/// The line of the batch whose number follows the word `line`, which every version of the command writes somewhere.
/// For the reader only.
fn complained_line(stderr: &str, batch: &str) -> Option<String> {
    let (_, after) = stderr.rsplit_once("line")?;
    let digits: String = after
        .trim_start_matches([':', ' '])
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    let number: usize = digits.parse().ok()?;
    batch
        .lines()
        .nth(number.checked_sub(1)?)
        .map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaint_points_at_its_line() {
        let batch = "*nat\n-A NOWHERE -j ACCEPT\nCOMMIT\n";
        let told = |stderr| complained_line(stderr, batch);
        assert_eq!(
            told("iptables-restore: line 2 failed").as_deref(),
            Some("-A NOWHERE -j ACCEPT")
        );
        assert_eq!(
            told("Error occurred at line: 2").as_deref(),
            Some("-A NOWHERE -j ACCEPT")
        );
        assert_eq!(told("line 99 failed"), None);
        assert_eq!(told("line 0"), None);
        assert_eq!(told("out of memory"), None);
    }
}
