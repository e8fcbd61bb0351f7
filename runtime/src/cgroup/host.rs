//! What this host can limit, and how much of it there is.

use std::fs;
use std::path::Path;

use super::{hierarchy, is_v2};

/// The facts that limits are checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// CPUs that this process may use.
    pub cpus: usize,
    /// The CPUs and memory nodes that there are: `0-3`.
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub memory: bool,
    /// Memory and swap together.
    pub swap: bool,
    pub swappiness: bool,
    pub oom_kill_disable: bool,
    pub cpu: bool,
    pub cpuset: bool,
    pub pids: bool,
    pub blkio_weight: bool,
    /// Rates of block devices.
    pub blkio_throttle: bool,
}

impl Host {
    /// Looks at the mounted hierarchies.
    pub fn find() -> Host {
        let cpus = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count() as usize);
        let (cpu_file, memory_file) = match is_v2() {
            true => ("cpuset.cpus.effective", "cpuset.mems.effective"),
            false => ("cpuset.cpus", "cpuset.mems"),
        };
        let sets = |name: &str| {
            let root = hierarchy("cpuset")?;
            let text = fs::read_to_string(root.join(name)).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let all_cpus = format!("0-{}", cpus.saturating_sub(1));
        let v1 = |controller: &str, file: &str| {
            !is_v2() && hierarchy(controller).is_some_and(|root| root.join(file).exists())
        };
        Host {
            cpus,
            cpuset_cpus: sets(cpu_file).unwrap_or(all_cpus),
            cpuset_mems: sets(memory_file).unwrap_or_else(|| "0".to_owned()),
            memory: has("memory"),
            // The root of v2 has no limits, so the kernel's own ability is asked for.
            swap: v1("memory", "memory.memsw.limit_in_bytes")
                || (is_v2() && has("memory") && Path::new("/proc/swaps").exists()),
            swappiness: v1("memory", "memory.swappiness"),
            oom_kill_disable: v1("memory", "memory.oom_control"),
            cpu: has("cpu"),
            cpuset: has("cpuset"),
            pids: has("pids"),
            blkio_throttle: super::can_throttle(),
            blkio_weight: match is_v2() {
                true => has("io"),
                false => ["blkio.weight", "blkio.bfq.weight"]
                    .iter()
                    .any(|file| v1("blkio", file)),
            },
        }
    }
}

/// Whether the controller can be used at all.
fn has(controller: &str) -> bool {
    let Some(root) = hierarchy(controller) else {
        return false;
    };
    !is_v2()
        || fs::read_to_string(root.join("cgroup.controllers"))
            .is_ok_and(|all| all.split_whitespace().any(|one| one == controller))
}
