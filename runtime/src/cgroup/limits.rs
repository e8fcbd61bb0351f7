//! Limits as the files of a cgroup: which values, pure, for both versions; and writing them, whole or not at all.
//!
//! libcontainer writes what the spec says when a container is made. It is written again from here, before the program runs,
//! because it leaves out or gets wrong: `oom_kill_disable`, on v2 a swap limit of nothing and the weight of block I/O.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Group, is_v2};
use crate::request::Resources;

/// A value for a file of a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    controller: &'static str,
    /// The first of these that is there.
    files: &'static [&'static str],
    value: String,
    /// That no such file is there is no error: the host cannot do it.
    optional: bool,
}

/// The length of a period where none is asked for, in microseconds.
pub const DEFAULT_PERIOD: u64 = 100_000;

/// Quota and period, in microseconds, of `--cpus`, or as they were asked for.
pub fn bandwidth(resources: &Resources) -> (Option<i64>, Option<u64>) {
    match resources.nano_cpus {
        // NanoCPUs * period / 10^9, as Docker has it.
        Some(nano) if nano > 0 => {
            let quota = nano.saturating_mul(DEFAULT_PERIOD) / 1_000_000_000;
            let quota = i64::try_from(quota).unwrap_or(i64::MAX);
            (Some(quota), Some(DEFAULT_PERIOD))
        }
        _ => (
            resources.cpu_quota.filter(|quota| *quota != 0),
            resources.cpu_period.filter(|period| *period != 0),
        ),
    }
}

fn settings(resources: &Resources, v2: bool) -> Vec<Setting> {
    match v2 {
        true => settings_v2(resources),
        false => settings_v1(resources),
    }
}

fn setting(controller: &'static str, file: &'static [&'static str], value: String) -> Setting {
    Setting {
        controller,
        files: file,
        value,
        optional: false,
    }
}

fn settings_v1(resources: &Resources) -> Vec<Setting> {
    let mut all = Vec::new();
    let mut add = |controller, file, value: Option<String>| {
        all.extend(value.map(|value| setting(controller, file, value)));
    };
    let (quota, period) = bandwidth(resources);
    add("cpu", &["cpu.shares"], text(resources.cpu_shares));
    add("cpu", &["cpu.cfs_period_us"], text(period));
    add("cpu", &["cpu.cfs_quota_us"], text(quota));
    add("cpuset", &["cpuset.cpus"], resources.cpuset_cpus.clone());
    add("cpuset", &["cpuset.mems"], resources.cpuset_mems.clone());
    add("memory", &[V1_LIMIT], text(resources.memory));
    let swap = resources.memory.and(resources.memory_swap);
    add("memory", &[V1_SWAP], text(swap));
    add(
        "memory",
        &["memory.soft_limit_in_bytes"],
        text(resources.memory_reservation),
    );
    add(
        "memory",
        &["memory.swappiness"],
        text(resources.memory_swappiness),
    );
    let disable = resources.oom_kill_disable.then(|| "1".to_owned());
    add("memory", &["memory.oom_control"], disable);
    add("pids", &["pids.max"], pids(resources));
    let weight = resources.blkio_weight.filter(|weight| *weight > 0);
    all.extend(weight.map(|weight| Setting {
        optional: true,
        ..setting(
            "blkio",
            &["blkio.weight", "blkio.bfq.weight"],
            weight.to_string(),
        )
    }));
    all
}

fn settings_v2(resources: &Resources) -> Vec<Setting> {
    let mut all = Vec::new();
    let mut add = |controller, file, value: Option<String>| {
        all.extend(value.map(|value| setting(controller, file, value)));
    };
    let shares = resources.cpu_shares.filter(|shares| *shares > 0);
    add("cpu", &["cpu.weight"], text(shares.map(cpu_weight)));
    let max = match bandwidth(resources) {
        (None, None) => None,
        (quota, period) => {
            let period = period.unwrap_or(DEFAULT_PERIOD);
            Some(match quota.filter(|quota| *quota > 0) {
                Some(quota) => format!("{quota} {period}"),
                None => format!("max {period}"),
            })
        }
    };
    add("cpu", &["cpu.max"], max);
    add("cpuset", &["cpuset.cpus"], resources.cpuset_cpus.clone());
    add("cpuset", &["cpuset.mems"], resources.cpuset_mems.clone());
    add("memory", &["memory.max"], text(resources.memory));
    // Here swap is counted by itself.
    let swap = match (resources.memory, resources.memory_swap) {
        (Some(memory), Some(both)) => Some(match u64::try_from(both) {
            Ok(both) => both.saturating_sub(memory).to_string(),
            Err(_) => "max".to_owned(),
        }),
        _ => None,
    };
    all.extend(swap.map(|swap| Setting {
        optional: true,
        ..setting("memory", &["memory.swap.max"], swap)
    }));
    let mut add = |controller, file, value: Option<String>| {
        all.extend(value.map(|value| setting(controller, file, value)));
    };
    add(
        "memory",
        &["memory.low"],
        text(resources.memory_reservation),
    );
    add("pids", &["pids.max"], pids(resources));
    if let Some(weight) = resources.blkio_weight.filter(|weight| *weight > 0) {
        let weights = [
            (&["io.bfq.weight"][..], weight.to_string()),
            (&["io.weight"][..], io_weight(weight).to_string()),
        ];
        all.extend(weights.map(|(files, value)| Setting {
            optional: true,
            ..setting("io", files, value)
        }));
    }
    all
}

const V1_LIMIT: &str = "memory.limit_in_bytes";
const V1_SWAP: &str = "memory.memsw.limit_in_bytes";

fn text<T: ToString>(value: Option<T>) -> Option<String> {
    value.map(|value| value.to_string())
}

/// No number above zero is no limit.
fn pids(resources: &Resources) -> Option<String> {
    resources.pids_limit.map(|limit| match limit {
        1.. => limit.to_string(),
        _ => "max".to_owned(),
    })
}

/// cpu.shares (2 to 262144, usually 1024) as cpu.weight (1 to 10000, usually 100), as runc from 1.3.2 and libcontainer do it.
fn cpu_weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

/// blkio.weight (10 to 1000) as io.weight (1 to 10000), as runc does it.
fn io_weight(weight: u16) -> u32 {
    1 + u32::from(weight.saturating_sub(10)) * 9999 / 990
}

/// What had been in the files, to go back to.
#[derive(Debug, Default)]
pub struct Undo(Vec<(PathBuf, String)>);

impl Undo {
    /// Writes it back, the last first. As good as it goes: who calls has an error to tell already.
    pub fn undo(self) {
        for (path, value) in self.0.into_iter().rev() {
            if let Err(error) = write(&path, &value) {
                tracing::warn!(path = %path.display(), %error, "a limit could not be taken back");
            }
        }
    }
}

/// Writes the limits of a live container. On an error, which names the file, nothing has changed.
pub fn apply(group: &Group, resources: &Resources) -> io::Result<Undo> {
    let mut undo = Undo::default();
    for setting in in_order(settings(resources, is_v2()), group) {
        if let Err(error) = apply_one(group, &setting, &mut undo) {
            undo.undo();
            return Err(error);
        }
    }
    Ok(undo)
}

fn apply_one(group: &Group, setting: &Setting, undo: &mut Undo) -> io::Result<()> {
    let directory = group.directory(setting.controller).ok_or_else(|| {
        io::Error::other(format!("this host has no {} cgroup", setting.controller))
    })?;
    let candidates = setting.files.iter().map(|file| directory.join(file));
    let found = candidates.clone().find(|path| path.exists());
    let path = match (found, setting.optional) {
        (Some(path), _) => path,
        (None, true) => return Ok(()),
        (None, false) => directory.join(setting.files[0]),
    };
    let before = fs::read_to_string(&path).map_err(|e| named(&path, &setting.value, &e))?;
    let before = match setting.files {
        // Several lines, of which the first is the switch.
        ["memory.oom_control"] => super::field(&before, "oom_kill_disable")
            .unwrap_or(0)
            .to_string(),
        _ => before.trim().to_owned(),
    };
    write(&path, &setting.value).map_err(|e| named(&path, &setting.value, &e))?;
    undo.0.push((path, before));
    Ok(())
}

/// v1 never lets the limit of memory stand above that of memory and swap: which of the two goes first depends on where they are.
fn in_order(mut settings: Vec<Setting>, group: &Group) -> Vec<Setting> {
    let place = |file: &str| settings.iter().position(|s| s.files == [file]);
    if let (Some(limit), Some(swap)) = (place(V1_LIMIT), place(V1_SWAP)) {
        let now = group.directory("memory").map(|d| d.join(V1_SWAP));
        let now = now.and_then(|path| fs::read_to_string(path).ok());
        let now: Option<u64> = now.and_then(|text| text.trim().parse().ok());
        let wanted: Option<u64> = settings[swap].value.parse().ok();
        // -1 is no number of that kind, and above all.
        let rises = wanted.is_none_or(|wanted| now.is_some_and(|now| wanted > now));
        if rises {
            settings.swap(limit, swap);
        }
    }
    settings
}

/// An empty line, as an empty `cpuset.cpus` of v2 has, must be written as a line.
fn write(path: &Path, value: &str) -> io::Result<()> {
    fs::write(path, format!("{value}\n"))
}

fn named(path: &Path, value: &str, error: &io::Error) -> io::Error {
    let path = path.display();
    io::Error::new(error.kind(), format!("write {value:?} to {path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `file=value` of each.
    fn lines(resources: &Resources, v2: bool) -> Vec<String> {
        settings(resources, v2)
            .iter()
            .map(|s| format!("{}={}", s.files.join("|"), s.value))
            .collect()
    }

    fn check(resources: Resources, v1: &[&str], v2: &[&str]) {
        assert_eq!(lines(&resources, false), v1, "v1: {resources:?}");
        assert_eq!(lines(&resources, true), v2, "v2: {resources:?}");
    }

    #[test]
    fn nothing_asked_for_is_nothing_written() {
        check(Resources::default(), &[], &[]);
    }

    #[test]
    fn memory_is_counted_with_swap_on_v1_and_without_on_v2() {
        let memory = |memory_swap| Resources {
            memory: Some(64 << 20),
            memory_swap: Some(memory_swap),
            ..Resources::default()
        };
        let limit = "memory.limit_in_bytes=67108864";
        let max = "memory.max=67108864";
        check(
            memory(128 << 20),
            &[limit, "memory.memsw.limit_in_bytes=134217728"],
            &[max, "memory.swap.max=67108864"],
        );
        check(
            memory(64 << 20),
            &[limit, "memory.memsw.limit_in_bytes=67108864"],
            &[max, "memory.swap.max=0"],
        );
        check(
            memory(-1),
            &[limit, "memory.memsw.limit_in_bytes=-1"],
            &[max, "memory.swap.max=max"],
        );
        let reservation = Resources {
            memory_reservation: Some(8 << 20),
            memory_swap: Some(-1),
            ..Resources::default()
        };
        check(
            reservation,
            &["memory.soft_limit_in_bytes=8388608"],
            &["memory.low=8388608"],
        );
    }

    #[test]
    fn cpus_are_a_quota_of_a_period() {
        check(
            Resources {
                nano_cpus: Some(1_500_000_000),
                ..Resources::default()
            },
            &["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=150000"],
            &["cpu.max=150000 100000"],
        );
        check(
            Resources {
                cpu_quota: Some(20_000),
                ..Resources::default()
            },
            &["cpu.cfs_quota_us=20000"],
            &["cpu.max=20000 100000"],
        );
        check(
            Resources {
                cpu_period: Some(50_000),
                cpu_quota: Some(-1),
                ..Resources::default()
            },
            &["cpu.cfs_period_us=50000", "cpu.cfs_quota_us=-1"],
            &["cpu.max=max 50000"],
        );
    }

    #[test]
    fn weights_are_converted_for_v2() {
        check(
            Resources {
                cpu_shares: Some(1024),
                blkio_weight: Some(1000),
                ..Resources::default()
            },
            &["cpu.shares=1024", "blkio.weight|blkio.bfq.weight=1000"],
            &["cpu.weight=100", "io.bfq.weight=1000", "io.weight=10000"],
        );
        assert_eq!((cpu_weight(2), cpu_weight(262_144)), (1, 10_000));
        assert_eq!((io_weight(10), io_weight(500)), (1, 4950));
    }

    #[test]
    fn only_v1_can_do_some_things() {
        check(
            Resources {
                memory_swappiness: Some(10),
                oom_kill_disable: true,
                pids_limit: Some(-1),
                cpuset_cpus: Some("0".into()),
                ..Resources::default()
            },
            &[
                "cpuset.cpus=0",
                "memory.swappiness=10",
                "memory.oom_control=1",
                "pids.max=max",
            ],
            &["cpuset.cpus=0", "pids.max=max"],
        );
    }
}
