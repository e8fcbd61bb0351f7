//! What a container may use of the machine.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::RestartPolicy;

/// `--memory`, `--cpus` and the like. `None`: as the kernel has it; for `update`: as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Bytes.
    pub memory: Option<u64>,
    /// Memory and swap together, in bytes; -1: as much swap as there is.
    pub memory_swap: Option<i64>,
    /// Bytes.
    pub memory_reservation: Option<u64>,
    /// Bytes. Accepted for old scripts and said to be without effect: kernels count this with the rest.
    pub kernel_memory: Option<u64>,
    /// 0 to 100; cgroup v1 only.
    pub memory_swappiness: Option<u64>,
    /// Billionths of a CPU: `--cpus 1.5` is 1,500,000,000.
    pub nano_cpus: Option<u64>,
    /// Relative weight; 1024 is usual.
    pub cpu_shares: Option<u64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Microseconds in each period.
    pub cpu_quota: Option<i64>,
    /// `0-2,4`
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    /// 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// `--device-read-bps` and its siblings.
    pub throttles: Vec<Throttle>,
    /// -1: no limit.
    pub pids_limit: Option<i64>,
    /// `--oom-kill-disable`; cgroup v1 only.
    pub oom_kill_disable: bool,
    /// -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    pub ulimits: Vec<Ulimit>,
}

/// `update`: what is to be changed of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpdateRequest {
    /// Those that are set.
    pub resources: Resources,
    pub restart: Option<RestartPolicy>,
}

/// `--device-read-bps DEVICE:RATE`: how fast a block device of the host may be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    pub kind: ThrottleKind,
    /// Of the host, below /dev.
    pub device: PathBuf,
    /// Bytes or operations in a second; 0: no limit.
    pub rate: u64,
}

/// What of a block device is slowed down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ThrottleKind {
    ReadBytes,
    WriteBytes,
    ReadOperations,
    WriteOperations,
}

/// `--ulimit NAME=SOFT[:HARD]`; -1 is no limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// `nofile`, without `RLIMIT_`.
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}
