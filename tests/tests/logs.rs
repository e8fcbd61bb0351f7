//! Logs under load: a gigabyte at full speed, clients that are stuck, a disk that is full.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::{Cmd, Host, until};
use nix::sys::signal::Signal;

/// Lines of this length with their number first: a thousand make a megabyte.
const LINE: usize = 1000;
const LINES: usize = 1 << 20;

/// What the monitor may hold more at the end than after a tenth of the log, in kB.
const SLACK: u64 = 256;

/// Starts a container that writes numbered lines as fast as it can.
fn start_writer(host: &Host, lines: usize, then: &str) -> String {
    let script = format!(
        "pad=$(head -c {} /dev/zero | tr '\\0' x); seq -w -s \" $pad\n\" 1 {lines}; {then}",
        LINE - 2 - lines.to_string().len()
    );
    let id = host
        .coracle([
            "run", "-d", "--name", "loud", "busybox", "sh", "-c", &script,
        ])
        .ok();
    id.text().to_owned()
}

/// Memory that the process shares with nobody, in kB.
fn private_memory(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the monitor runs");
    let lines = rollup.lines();
    lines
        .filter(|line| line.starts_with("Private_Dirty:"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}

#[track_caller]
fn grown(log: &Path, size: u64, limit: Duration) {
    let length = || fs::metadata(log).map_or(0, |metadata| metadata.len());
    until(limit, || {
        if length() >= size {
            Ok(())
        } else {
            Err(length())
        }
    })
    .unwrap_or_else(|length| panic!("{length} of {size} bytes are in the log"));
}

/// The whole of a log, line by line; how many lines there were.
#[track_caller]
fn check_order(host: &Host, lines: usize) {
    let line = host.command(["logs", "loud"]).line();
    let mut logs = host
        .netns
        .enter(|| {
            Command::new("sh")
                .args(["-c", &line])
                .stdout(Stdio::piped())
                .spawn()
        })
        .unwrap();
    let mut reader = BufReader::with_capacity(1 << 20, logs.stdout.take().unwrap());
    let (mut text, mut number) = (Vec::new(), 0);
    while reader.read_until(b'\n', &mut text).unwrap() > 0 {
        number += 1;
        let first = text.split(|byte| *byte == b' ').next().unwrap();
        let found: usize = std::str::from_utf8(first).unwrap().trim().parse().unwrap();
        assert_eq!(found, number, "out of order");
        assert!(
            text.len() == LINE || number == lines,
            "line {number}: {} bytes",
            text.len()
        );
        text.clear();
    }
    assert!(logs.wait().unwrap().success());
    assert_eq!(number, lines, "lines are missing");
}

#[test]
fn a_gigabyte_arrives_whole_and_in_order_and_the_monitor_stays_small() {
    let host = Host::new();
    if host.is_docker() {
        return;
    }
    let id = start_writer(&host, LINES, "sleep 1000");
    let monitor = host.monitor_of(&id).expect("its monitor");
    let log = host.root().join(format!("containers/{id}/json.log"));
    let limit = Duration::from_secs(300);
    grown(&log, 100 << 20, limit);
    let early = private_memory(monitor);
    grown(&log, ((LINES - 1) * LINE) as u64, limit);
    let late = private_memory(monitor);
    assert!(late <= early + SLACK, "from {early} to {late} kB");
    host.run("rm -f loud");
}

#[test]
fn a_gigabyte_is_read_as_it_was_written() {
    let host = Host::new();
    if host.is_docker() {
        return;
    }
    start_writer(&host, LINES, "");
    host.command(["wait", "loud"])
        .limit(Duration::from_secs(300))
        .run_in(&host.netns)
        .ok();
    check_order(&host, LINES);
}

/// Neither a follower nor an attached client that does not read holds up the container, and the log is whole.
#[test]
fn stuck_clients_hold_up_nobody() {
    let host = Host::new();
    if host.is_docker() {
        return;
    }
    let lines = 60_000;
    let id = start_writer(&host, lines, "until [ -e /go ]; do sleep 0.05; done");
    let stuck: Vec<_> = [["logs", "-f", "loud"], ["attach", "--no-stdin", "loud"]]
        .into_iter()
        .map(|words| {
            let client = host.command(words).spawn_in(&host.netns);
            client.signal(Signal::SIGSTOP);
            client
        })
        .collect();
    let log = host.root().join(format!("containers/{id}/json.log"));
    grown(&log, ((lines - 1) * LINE) as u64, Duration::from_secs(120));
    host.run("exec loud touch /go");
    host.run("wait loud").says("0");
    // A record is longer than its line: only now is all of it there.
    check_order(&host, lines);
    drop(stuck);
    host.run("rm loud");
}

/// The container goes on writing while the disk is full, and the log says what it lacks.
#[test]
fn a_full_disk_is_survived_and_told_in_the_log() {
    let host = Host::new();
    if host.is_docker() {
        return;
    }
    let script = r#"
set -u
folder=$1 tar=$2 program=$3
root=$folder/small run=$folder/small-run
mkdir -p "$root"
mount -t tmpfs -o size=16m none "$root" || exit 1
c() { "$program" --root "$root" --run-root "$run" "$@" 2>&1; }
c import "$tar" busybox >/dev/null
id=$(c run -d --network none --name loud busybox sh -c 'echo begin; until [ -e /proc/1/root/dev/shm/go ]; do sleep 0.05; done; yes 0123456789 | head -n 100000; echo middle; until [ -e /dev/shm/on ]; do sleep 0.05; done; echo end') || { echo "$id"; exit 1; }
until c logs loud | grep -q begin; do sleep 0.05; done
dd if=/dev/zero of="$root/fill" bs=4096 2>/dev/null
pid=$(c inspect -f '{{.State.Pid}}' loud)
touch /proc/$pid/root/dev/shm/go
# It writes all of it though nothing can be kept: head ends, and the shell waits again.
sleep 0.5
until ! grep -qs . "/proc/$pid/task/$pid/children" || [ "$(cat /proc/$(cut -d' ' -f1 "/proc/$pid/task/$pid/children")/comm 2>/dev/null)" = sleep ]; do sleep 0.05; done
rm "$root/fill"
touch /proc/$pid/root/dev/shm/on
c wait loud
c logs loud >"$folder/log"
head -n 1 "$folder/log"
tail -n 1 "$folder/log"
grep -c 'coracle: .* are missing here, they could not be written: No space left' "$folder/log"
c rm loud >/dev/null
umount "$root"
"#;
    let shell = Cmd::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(host.folder())
        .arg(harness::images::busybox_tar())
        .arg(harness::images::binary());
    host.with_environment(shell)
        .limit(Duration::from_secs(120))
        .run_in(&host.netns)
        .ok()
        .says("0\nbegin\nend\n1");
}
