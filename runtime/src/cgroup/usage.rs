//! What a container uses: the counters of its cgroups.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::{Group, field, is_v2};

/// As Docker counts it. What the host does not count is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time since its start.
    pub cpu: Duration,
    /// Bytes, without what the kernel could drop at once (inactive file pages).
    pub memory: u64,
    /// Bytes; `None`: as much as the host has.
    pub memory_limit: Option<u64>,
    /// Bytes since its start.
    pub block_read: u64,
    pub block_written: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// Reads the counters; a container without cgroups uses nothing.
pub fn usage(group: &Group) -> Usage {
    let read = |controller: &str, file: &str| {
        let path = group.directory(controller)?.join(file);
        fs::read_to_string(path).ok()
    };
    let number = |controller: &str, file: &str| -> Option<u64> {
        read(controller, file)?.trim().parse().ok()
    };
    let pids = number("pids", "pids.current").unwrap_or(0);
    let statistics = read("memory", "memory.stat").unwrap_or_default();
    let without = |usage: Option<u64>, name| {
        let dropped = field(&statistics, name).unwrap_or(0);
        usage.unwrap_or(0).saturating_sub(dropped)
    };
    if is_v2() {
        let cpu = read("cpu", "cpu.stat").and_then(|text| field(&text, "usage_usec"));
        let blocks = read("io", "io.stat").unwrap_or_default();
        let (block_read, block_written) = blocks_v2(&blocks);
        return Usage {
            cpu: Duration::from_micros(cpu.unwrap_or(0)),
            memory: without(number("memory", "memory.current"), "inactive_file"),
            // "max" is no number.
            memory_limit: number("memory", "memory.max"),
            block_read,
            block_written,
            pids,
        };
    }
    let blocks = read("blkio", "blkio.throttle.io_service_bytes_recursive");
    let (block_read, block_written) = blocks_v1(&blocks.unwrap_or_default());
    Usage {
        cpu: Duration::from_nanos(number("cpuacct", "cpuacct.usage").unwrap_or(0)),
        memory: without(
            number("memory", "memory.usage_in_bytes"),
            "total_inactive_file",
        ),
        // No limit is the largest number of whole pages.
        memory_limit: number("memory", "memory.limit_in_bytes").filter(|limit| *limit < 1 << 62),
        block_read,
        block_written,
        pids,
    }
}

/// `8:0 Read 4096` for each device.
fn blocks_v1(text: &str) -> (u64, u64) {
    let sum = |kind: &str| {
        let words = text.lines().map(|line| line.split_whitespace());
        words
            .filter_map(|mut words| Some((words.nth(1)?, words.next()?)))
            .filter(|(found, _)| *found == kind)
            .filter_map(|(_, count)| count.parse::<u64>().ok())
            .sum()
    };
    (sum("Read"), sum("Write"))
}

/// `8:0 rbytes=4096 wbytes=0 rios=1 ...` for each device.
fn blocks_v2(text: &str) -> (u64, u64) {
    let sum = |name: &str| {
        text.split_whitespace()
            .filter_map(|word| word.strip_prefix(name)?.parse::<u64>().ok())
            .sum()
    };
    (sum("rbytes="), sum("wbytes="))
}

/// Bytes that came in and went out by the interfaces of a process's network namespace, `lo` apart.
pub fn network(process: i32) -> (u64, u64) {
    let table = fs::read_to_string(Path::new("/proc").join(process.to_string()).join("net/dev"));
    network_of(&table.unwrap_or_default())
}

/// proc_pid_net(5): after two lines of headings, name, eight numbers received (bytes first), eight sent.
fn network_of(table: &str) -> (u64, u64) {
    let (mut received, mut sent) = (0, 0);
    for (name, numbers) in table
        .lines()
        .skip(2)
        .filter_map(|line| line.split_once(':'))
    {
        if name.trim() == "lo" {
            continue;
        }
        let numbers: Vec<u64> = numbers
            .split_whitespace()
            .map(|number| number.parse().unwrap_or(0))
            .collect();
        received += numbers.first().unwrap_or(&0);
        sent += numbers.get(8).unwrap_or(&0);
    }
    (received, sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_all_devices_are_summed() {
        let v1 = "8:0 Read 4096\n8:0 Write 10\n8:0 Total 4106\n8:16 Read 1\nTotal 4107\n";
        assert_eq!(blocks_v1(v1), (4097, 10));
        let v2 =
            "8:0 rbytes=4096 wbytes=10 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2\n";
        assert_eq!(blocks_v2(v2), (4097, 12));
    }

    #[test]
    fn loopback_is_no_network() {
        let table = "Inter-|   Receive\n face |bytes\n    lo: 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9\n  eth0: 842 10 0 0 0 0 0 0 70 1 0 0 0 0 0 0\n";
        assert_eq!(network_of(table), (842, 70));
    }
}
