//! Which limits are allowed, in Docker's words and order. Pure: what the host can do comes as facts.

use std::collections::BTreeSet;

use crate::cgroup::Host;
use crate::request::{Resources, Ulimit};

/// Why limits are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    #[error("Minimum memory limit allowed is 6MB")]
    Memory,
    #[error("Minimum memoryswap limit should be larger than memory limit, see usage")]
    SwapBelowMemory,
    #[error("You should always set the Memory limit when using Memoryswap limit, see usage")]
    SwapWithoutMemory,
    #[error("invalid value: {0}. Valid memory swappiness range is 0-100")]
    Swappiness(u64),
    #[error("Minimum memory reservation allowed is 6MB")]
    Reservation,
    #[error("Minimum memory limit can not be less than memory reservation limit, see usage")]
    ReservationAboveMemory,
    #[error("Minimum kernel memory limit allowed is 6MB")]
    KernelMemory,
    #[error("Conflicting options: Nano CPUs and CPU {0} cannot both be set")]
    NanoCpusAnd(&'static str),
    #[error("Range of CPUs is from 0.01 to {0}.00, as there are only {0} CPUs available")]
    Cpus(usize),
    #[error(
        "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted"
    )]
    NoCpus,
    #[error("the minimum allowed cpu-shares is 2")]
    FewShares,
    #[error("the maximum allowed cpu-shares is 262144")]
    ManyShares,
    #[error("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")]
    Period,
    #[error("CPU cfs quota can not be less than 1ms (i.e. 1000)")]
    Quota,
    #[error("Invalid value {value} for cpuset {set}: invalid format: {value}")]
    Set { set: &'static str, value: String },
    #[error("Requested {what} are not available - requested {value}, available: {available}")]
    NotAvailable {
        what: &'static str,
        value: String,
        available: String,
    },
    #[error("Range of blkio weight is from 10 to 1000")]
    Weight,
    #[error("cannot limit {}: {why}", device.display())]
    NoBlockDevice {
        device: std::path::PathBuf,
        why: String,
    },
    #[error("Invalid value {0}, range for oom score adj is [-1000, 1000]")]
    OomScore(i32),
    #[error(
        "the hard limit of {name} would be {wanted}, above this host's own of {own}: only a process with CAP_SYS_RESOURCE may raise it"
    )]
    Ulimit {
        name: String,
        wanted: String,
        own: u64,
    },
    // `update`.
    #[error("Conflicting options: {new} cannot be updated as {old} has already been set")]
    AlreadySet {
        new: &'static str,
        old: &'static str,
    },
    #[error(
        "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
    )]
    MemoryAboveSwap,
}

/// Less and a program can hardly be started.
const LEAST_MEMORY: u64 = 6 << 20;

const NOT_MOUNTED: &str = "or the cgroup is not mounted";

/// Who asks: a new container, or one that has limits already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Create,
    Update,
}

/// Refuses what makes no sense, takes away what this host cannot do, and says so: the answer is for the user.
pub fn check(
    resources: &mut Resources,
    host: &Host,
    purpose: Purpose,
) -> Result<Vec<String>, LimitError> {
    let mut warnings = Vec::new();
    normalize(resources);
    check_memory(resources, host, purpose, &mut warnings)?;
    if resources.pids_limit.is_some() && !host.pids {
        discard(&mut resources.pids_limit);
        warnings.push(format!(
            "Your kernel does not support PIDs limit capabilities {NOT_MOUNTED}. PIDs limit discarded."
        ));
    }
    check_cpus(resources, host, &mut warnings)?;
    check_sets(resources, host, &mut warnings)?;
    if resources.blkio_weight.is_some() && !host.blkio_weight {
        discard(&mut resources.blkio_weight);
        warnings.push(format!(
            "Your kernel does not support Block I/O weight {NOT_MOUNTED}. Weight discarded."
        ));
    }
    if !resources.throttles.is_empty() && !host.blkio_throttle {
        resources.throttles.clear();
        warnings.push(format!(
            "Your kernel does not support Block I/O limits of devices {NOT_MOUNTED}. Limits of devices discarded."
        ));
    }
    if resources
        .blkio_weight
        .is_some_and(|w| !(10..=1000).contains(&w))
    {
        return Err(LimitError::Weight);
    }
    if let Some(score) = resources.oom_score_adj
        && !(-1000..=1000).contains(&score)
    {
        return Err(LimitError::OomScore(score));
    }
    if purpose == Purpose::Create {
        complete(resources);
        // Any number below is no limit, and that is what there is without.
        resources.pids_limit = resources.pids_limit.filter(|limit| *limit > 0);
    }
    Ok(warnings)
}

/// Zero is Docker's word for nothing said.
fn normalize(resources: &mut Resources) {
    let zero = |value: &mut Option<u64>| *value = value.filter(|value| *value != 0);
    zero(&mut resources.memory);
    zero(&mut resources.memory_reservation);
    zero(&mut resources.kernel_memory);
    zero(&mut resources.nano_cpus);
    zero(&mut resources.cpu_shares);
    zero(&mut resources.cpu_period);
    resources.memory_swap = resources.memory_swap.filter(|swap| *swap != 0);
    resources.cpu_quota = resources.cpu_quota.filter(|quota| *quota != 0);
    resources.blkio_weight = resources.blkio_weight.filter(|weight| *weight != 0);
    let empty = |set: &mut Option<String>| *set = set.take().filter(|set| !set.is_empty());
    empty(&mut resources.cpuset_cpus);
    empty(&mut resources.cpuset_mems);
}

/// Twice the memory, unless something else is said.
pub fn complete(resources: &mut Resources) {
    if let Some(memory) = resources.memory {
        let twice = i64::try_from(memory.saturating_mul(2)).unwrap_or(i64::MAX);
        resources.memory_swap.get_or_insert(twice);
    }
}

fn discard<T>(value: &mut Option<T>) {
    *value = None;
}

fn check_memory(
    resources: &mut Resources,
    host: &Host,
    purpose: Purpose,
    warnings: &mut Vec<String>,
) -> Result<(), LimitError> {
    if resources.memory.is_some() && !host.memory {
        resources.memory = None;
        resources.memory_swap = None;
        warnings.push(format!(
            "Your kernel does not support memory limit capabilities {NOT_MOUNTED}. Limitation discarded."
        ));
    }
    if resources.memory.is_some_and(|memory| memory < LEAST_MEMORY) {
        return Err(LimitError::Memory);
    }
    if resources.memory.is_some() && resources.memory_swap != Some(-1) && !host.swap {
        resources.memory_swap = Some(-1);
        warnings.push(format!(
            "Your kernel does not support swap limit capabilities {NOT_MOUNTED}. Memory limited without swap."
        ));
    }
    match (resources.memory, resources.memory_swap) {
        (Some(memory), Some(swap)) if u64::try_from(swap).is_ok_and(|swap| swap < memory) => {
            return Err(LimitError::SwapBelowMemory);
        }
        (None, Some(swap)) if swap > 0 && purpose == Purpose::Create => {
            return Err(LimitError::SwapWithoutMemory);
        }
        _ => {}
    }
    if let Some(swappiness) = resources.memory_swappiness {
        if swappiness > 100 {
            return Err(LimitError::Swappiness(swappiness));
        }
        if !host.swappiness {
            resources.memory_swappiness = None;
            warnings.push(format!(
                "Your kernel does not support memory swappiness capabilities {NOT_MOUNTED}. Memory swappiness discarded."
            ));
        }
    }
    if resources.memory_reservation.is_some() && !host.memory {
        resources.memory_reservation = None;
        warnings.push(format!(
            "Your kernel does not support memory soft limit capabilities {NOT_MOUNTED}. Limitation discarded."
        ));
    }
    if let Some(reservation) = resources.memory_reservation {
        if reservation < LEAST_MEMORY {
            return Err(LimitError::Reservation);
        }
        if resources.memory.is_some_and(|memory| memory < reservation) {
            return Err(LimitError::ReservationAboveMemory);
        }
    }
    if let Some(kernel) = resources.kernel_memory.take() {
        if kernel < LEAST_MEMORY {
            return Err(LimitError::KernelMemory);
        }
        warnings.push(
            "Specifying a kernel memory limit is deprecated: kernels count it with the rest. Limitation discarded."
                .to_owned(),
        );
    }
    if resources.oom_kill_disable && !host.oom_kill_disable {
        resources.oom_kill_disable = false;
        warnings.push(
            "Your kernel does not support OomKillDisable. OomKillDisable discarded.".to_owned(),
        );
    }
    if resources.oom_kill_disable && resources.memory.is_none() {
        warnings.push(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources."
                .to_owned(),
        );
    }
    Ok(())
}

fn check_cpus(
    resources: &mut Resources,
    host: &Host,
    warnings: &mut Vec<String>,
) -> Result<(), LimitError> {
    if let Some(nano) = resources.nano_cpus {
        if resources.cpu_period.is_some() {
            return Err(LimitError::NanoCpusAnd("Period"));
        }
        if resources.cpu_quota.is_some() {
            return Err(LimitError::NanoCpusAnd("Quota"));
        }
        if !host.cpu {
            return Err(LimitError::NoCpus);
        }
        // Under a hundredth the kernel refuses the quota, at the start; Docker lets it come to that.
        if nano < 10_000_000 || nano > (host.cpus as u64).saturating_mul(1_000_000_000) {
            return Err(LimitError::Cpus(host.cpus));
        }
    }
    let asked = resources.cpu_shares.is_some()
        || resources.cpu_period.is_some()
        || resources.cpu_quota.is_some();
    if asked && !host.cpu {
        discard(&mut resources.cpu_shares);
        discard(&mut resources.cpu_period);
        discard(&mut resources.cpu_quota);
        warnings.push(format!(
            "Your kernel does not support CPU shares, period and quota {NOT_MOUNTED}. They are discarded."
        ));
    }
    match resources.cpu_shares {
        Some(..2) => return Err(LimitError::FewShares),
        Some(262_145..) => return Err(LimitError::ManyShares),
        _ => {}
    }
    if resources
        .cpu_period
        .is_some_and(|p| !(1000..=1_000_000).contains(&p))
    {
        return Err(LimitError::Period);
    }
    if resources
        .cpu_quota
        .is_some_and(|quota| quota > 0 && quota < 1000)
    {
        return Err(LimitError::Quota);
    }
    Ok(())
}

fn check_sets(
    resources: &mut Resources,
    host: &Host,
    warnings: &mut Vec<String>,
) -> Result<(), LimitError> {
    let asked = resources.cpuset_cpus.is_some() || resources.cpuset_mems.is_some();
    if asked && !host.cpuset {
        discard(&mut resources.cpuset_cpus);
        discard(&mut resources.cpuset_mems);
        warnings.push(format!(
            "Your kernel does not support cpuset {NOT_MOUNTED}. Cpuset discarded."
        ));
    }
    for (asked, available, set, what) in [
        (&resources.cpuset_cpus, &host.cpuset_cpus, "cpus", "CPUs"),
        (
            &resources.cpuset_mems,
            &host.cpuset_mems,
            "mems",
            "memory nodes",
        ),
    ] {
        let Some(value) = asked else { continue };
        let invalid = || LimitError::Set {
            set,
            value: value.clone(),
        };
        let wanted = parse_set(value).ok_or_else(invalid)?;
        let there = parse_set(available).unwrap_or_default();
        if !wanted.is_subset(&there) {
            return Err(LimitError::NotAvailable {
                what,
                value: value.clone(),
                available: available.clone(),
            });
        }
    }
    Ok(())
}

/// More CPUs than any kernel is built for.
const MOST_CPUS: u32 = 8192;

/// `0-2,4`; `None` where it is not understood.
fn parse_set(text: &str) -> Option<BTreeSet<u32>> {
    let mut set = BTreeSet::new();
    let number = |text: &str| text.parse().ok().filter(|number| *number < MOST_CPUS);
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        set.extend(first..=last);
    }
    Some(set)
}

/// What an `update` makes of a container's limits: `old` with the ones that `new` has, which has been checked by itself.
pub fn merge(old: &Resources, new: &Resources) -> Result<Resources, LimitError> {
    let already = |new, old| Err(LimitError::AlreadySet { new, old });
    if new.nano_cpus.is_some() {
        if old.cpu_period.is_some() {
            return already("Nano CPUs", "CPU Period");
        }
        if old.cpu_quota.is_some() {
            return already("Nano CPUs", "CPU Quota");
        }
    }
    if old.nano_cpus.is_some() {
        if new.cpu_period.is_some() {
            return already("CPU Period", "NanoCPUs");
        }
        if new.cpu_quota.is_some() {
            return already("CPU Quota", "NanoCPUs");
        }
    }
    let mut merged = Resources {
        memory: new.memory.or(old.memory),
        memory_swap: new.memory_swap.or(old.memory_swap),
        memory_reservation: new.memory_reservation.or(old.memory_reservation),
        nano_cpus: new.nano_cpus.or(old.nano_cpus),
        cpu_shares: new.cpu_shares.or(old.cpu_shares),
        cpu_period: new.cpu_period.or(old.cpu_period),
        cpu_quota: new.cpu_quota.or(old.cpu_quota),
        cpuset_cpus: new.cpuset_cpus.clone().or(old.cpuset_cpus.clone()),
        cpuset_mems: new.cpuset_mems.clone().or(old.cpuset_mems.clone()),
        blkio_weight: new.blkio_weight.or(old.blkio_weight),
        pids_limit: new.pids_limit.or(old.pids_limit),
        ..old.clone()
    };
    match (merged.memory, merged.memory_swap) {
        (Some(memory), Some(swap)) if u64::try_from(swap).is_ok_and(|swap| swap < memory) => {
            return Err(match new.memory_swap {
                None => LimitError::MemoryAboveSwap,
                Some(_) => LimitError::SwapBelowMemory,
            });
        }
        (None, Some(swap)) if swap > 0 => return Err(LimitError::SwapWithoutMemory),
        (Some(memory), _) if merged.memory_reservation.is_some_and(|r| r > memory) => {
            return Err(LimitError::ReservationAboveMemory);
        }
        _ => {}
    }
    complete(&mut merged);
    Ok(merged)
}

/// Refuses a hard limit above `own` of the same name, which is our own; with CAP_SYS_RESOURCE do not ask.
pub fn check_ulimits(
    ulimits: &[Ulimit],
    own: impl Fn(&str) -> Option<u64>,
) -> Result<(), LimitError> {
    for limit in ulimits {
        // A negative number is no limit, the highest of all.
        let wanted = u64::try_from(limit.hard).unwrap_or(u64::MAX);
        let Some(own) = own(&limit.name) else {
            continue;
        };
        if wanted > own {
            return Err(LimitError::Ulimit {
                name: limit.name.clone(),
                wanted: u64::try_from(limit.hard)
                    .map_or_else(|_| "unlimited".to_owned(), |hard| hard.to_string()),
                own,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
