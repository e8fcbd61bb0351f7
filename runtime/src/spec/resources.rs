//! Limits as the OCI spec has them, for any runtime. Pure.
//!
//! What libcontainer gets wrong (see `cgroup::limits`) is written once more by the monitor, and is here only where it does no harm.

use oci_spec::runtime::{
    LinuxCpu, LinuxCpuBuilder, LinuxDeviceCgroup, LinuxMemory, LinuxMemoryBuilder,
    LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder, PosixRlimit, PosixRlimitBuilder,
    PosixRlimitType,
};

use super::ALL_OPTIONAL;
use crate::cgroup;
use crate::request::Resources;

pub(super) fn resources(limits: &Resources, devices: Vec<LinuxDeviceCgroup>) -> LinuxResources {
    let mut resources = LinuxResourcesBuilder::default()
        .devices(devices)
        .build()
        .expect(ALL_OPTIONAL);
    resources.set_memory(memory(limits)).set_cpu(cpu(limits));
    if let Some(limit) = limits.pids_limit {
        // runc takes 0 for 1 on v2, and Docker for no limit.
        let limit = if limit > 0 { limit } else { -1 };
        let pids = LinuxPidsBuilder::default().limit(limit).build();
        resources.set_pids(Some(pids.expect(ALL_OPTIONAL)));
    }
    // The weight of block I/O is left out: libcontainer's conversion to v2 overflows.
    resources
}

fn memory(limits: &Resources) -> Option<LinuxMemory> {
    let bytes = |value: Option<u64>| value.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    // Swap alone is an error to libcontainer on v2; -1 is what it is anyway.
    let swap = limits.memory.and(limits.memory_swap);
    let asked = limits.memory.is_some()
        || limits.memory_reservation.is_some()
        || limits.memory_swappiness.is_some()
        || limits.oom_kill_disable;
    asked.then(|| {
        let mut memory = LinuxMemoryBuilder::default().build().expect(ALL_OPTIONAL);
        memory
            .set_limit(bytes(limits.memory))
            .set_swap(swap)
            .set_reservation(bytes(limits.memory_reservation))
            .set_swappiness(limits.memory_swappiness)
            .set_disable_oom_killer(limits.oom_kill_disable.then_some(true));
        memory
    })
}

fn cpu(limits: &Resources) -> Option<LinuxCpu> {
    let (quota, period) = cgroup::bandwidth(limits);
    let asked = limits.cpu_shares.is_some()
        || quota.is_some()
        || period.is_some()
        || limits.cpuset_cpus.is_some()
        || limits.cpuset_mems.is_some();
    asked.then(|| {
        let mut cpu = LinuxCpuBuilder::default().build().expect(ALL_OPTIONAL);
        cpu.set_shares(limits.cpu_shares)
            .set_quota(quota)
            .set_period(period)
            .set_cpus(limits.cpuset_cpus.clone())
            .set_mems(limits.cpuset_mems.clone());
        cpu
    })
}

/// `--ulimit`; of one that is given twice, the last counts.
pub fn rlimits(limits: &Resources) -> Option<Vec<PosixRlimit>> {
    if limits.ulimits.is_empty() {
        return None;
    }
    // A negative number is RLIM_INFINITY (getrlimit(2)).
    let number = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    let mut all: Vec<PosixRlimit> = Vec::new();
    for limit in &limits.ulimits {
        let Some(kind) = rlimit_type(&limit.name) else {
            continue;
        };
        all.retain(|earlier| earlier.typ() != kind);
        let built = PosixRlimitBuilder::default()
            .typ(kind)
            .soft(number(limit.soft))
            .hard(number(limit.hard))
            .build();
        all.push(built.expect("all three fields are given"));
    }
    Some(all)
}

/// `nofile`; `None` for a name that the kernel has not.
pub fn rlimit_type(name: &str) -> Option<PosixRlimitType> {
    Some(match name {
        "core" => PosixRlimitType::RlimitCore,
        "cpu" => PosixRlimitType::RlimitCpu,
        "data" => PosixRlimitType::RlimitData,
        "fsize" => PosixRlimitType::RlimitFsize,
        "locks" => PosixRlimitType::RlimitLocks,
        "memlock" => PosixRlimitType::RlimitMemlock,
        "msgqueue" => PosixRlimitType::RlimitMsgqueue,
        "nice" => PosixRlimitType::RlimitNice,
        "nofile" => PosixRlimitType::RlimitNofile,
        "nproc" => PosixRlimitType::RlimitNproc,
        "rss" => PosixRlimitType::RlimitRss,
        "rtprio" => PosixRlimitType::RlimitRtprio,
        "rttime" => PosixRlimitType::RlimitRttime,
        "sigpending" => PosixRlimitType::RlimitSigpending,
        "stack" => PosixRlimitType::RlimitStack,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Ulimit;

    #[test]
    fn limits_are_in_the_spec() {
        let limits = Resources {
            memory: Some(64 << 20),
            memory_swap: Some(128 << 20),
            nano_cpus: Some(500_000_000),
            cpuset_cpus: Some("0".into()),
            pids_limit: Some(0),
            ..Resources::default()
        };
        let spec = resources(&limits, Vec::new());
        let memory = spec.memory().as_ref().unwrap();
        assert_eq!(
            (memory.limit(), memory.swap()),
            (Some(64 << 20), Some(128 << 20))
        );
        let cpu = spec.cpu().as_ref().unwrap();
        assert_eq!((cpu.quota(), cpu.period()), (Some(50_000), Some(100_000)));
        assert_eq!(cpu.cpus().as_deref(), Some("0"));
        assert_eq!(spec.pids().as_ref().unwrap().limit(), -1);
    }

    #[test]
    fn nothing_asked_for_is_nothing_limited() {
        let spec = resources(&Resources::default(), Vec::new());
        assert!(spec.memory().is_none() && spec.cpu().is_none() && spec.pids().is_none());
        assert!(rlimits(&Resources::default()).is_none());
    }

    #[test]
    fn the_last_ulimit_of_a_name_counts() {
        let limit = |soft, hard| Ulimit {
            name: "nofile".into(),
            soft,
            hard,
        };
        let limits = Resources {
            ulimits: vec![limit(1, 2), limit(3, -1)],
            ..Resources::default()
        };
        let all = rlimits(&limits).unwrap();
        let all: Vec<_> = all.iter().map(|l| (l.soft(), l.hard())).collect();
        assert_eq!(all, [(3, u64::MAX)]);
    }
}
