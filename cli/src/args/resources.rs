//! What the container may use of the machine: memory, CPUs, processes.

use clap::Args;
use runtime::ContainerRequest;
use runtime::request::{Resources, Ulimit};

use super::sizes::parse_size;
use super::throttle::ThrottleArgs;
use super::values::parse_integer;
use crate::failure::Failure;

/// The limits that `update` can change.
#[derive(Debug, Args)]
pub struct LimitArgs {
    /// Memory limit: 512m, 1.5g
    #[arg(short, long, value_name = "BYTES", value_parser = parse_size)]
    pub memory: Option<u64>,
    /// Memory and swap together; -1: as much swap as there is; without it twice the memory
    #[arg(long, value_name = "BYTES", value_parser = parse_swap)]
    pub memory_swap: Option<i64>,
    /// What the container keeps when the host's memory is short
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub memory_reservation: Option<u64>,
    #[arg(long, value_name = "BYTES", value_parser = parse_size, hide = true)]
    pub kernel_memory: Option<u64>,
    /// How many CPUs: 1.5
    #[arg(long, value_name = "NUMBER", value_parser = parse_cpus)]
    pub cpus: Option<u64>,
    /// Relative weight among those that want the CPU; 1024 is usual
    #[arg(short, long, value_name = "WEIGHT", value_parser = parse_integer)]
    pub cpu_shares: Option<i64>,
    /// Length of a period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", value_parser = parse_integer)]
    pub cpu_period: Option<i64>,
    /// CPU time in each period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", value_parser = parse_integer)]
    pub cpu_quota: Option<i64>,
    /// Which CPUs: 0-3, 0,1
    #[arg(long, value_name = "SET")]
    pub cpuset_cpus: Option<String>,
    /// Which memory nodes: 0-3, 0,1
    #[arg(long, value_name = "SET")]
    pub cpuset_mems: Option<String>,
    /// Relative weight of block I/O, from 10 to 1000
    #[arg(long, value_name = "WEIGHT", value_parser = parse_weight)]
    pub blkio_weight: Option<u16>,
    /// How many processes and threads; -1: no limit
    #[arg(long, value_name = "NUMBER", value_parser = parse_integer)]
    pub pids_limit: Option<i64>,
}

#[derive(Debug, Args)]
pub struct ResourceArgs {
    #[command(flatten)]
    pub limits: LimitArgs,
    /// How ready the kernel is to swap the container's memory, from 0 to 100; -1: as the host
    #[arg(long, value_name = "PERCENT", value_parser = parse_integer)]
    pub memory_swappiness: Option<i64>,
    #[command(flatten)]
    pub throttles: ThrottleArgs,
    /// Limit of each process: NAME=SOFT[:HARD], such as nofile=1024
    #[arg(long, value_name = "LIMIT", value_parser = parse_ulimit)]
    pub ulimit: Vec<Ulimit>,
    /// Let the container wait for memory instead of killing a process of it
    #[arg(long)]
    pub oom_kill_disable: bool,
    /// How ready the kernel is to kill the container for want of memory, from -1000 to 1000
    #[arg(long, value_name = "SCORE", value_parser = parse_integer)]
    pub oom_score_adj: Option<i64>,
    /// Cgroup in which the container gets its own
    #[arg(long, value_name = "PATH")]
    pub cgroup_parent: Option<String>,
}

impl ResourceArgs {
    /// Enters the options in the request.
    pub fn apply(&self, request: &mut ContainerRequest) -> Result<(), Failure> {
        let swappiness = match self.memory_swappiness {
            None | Some(-1) => None,
            Some(value) => Some(u64::try_from(value).map_err(|_| {
                Failure::Refused(anyhow::anyhow!(
                    "invalid value: {value}. Valid memory swappiness range is 0-100"
                ))
            })?),
        };
        request.resources = Resources {
            memory_swappiness: swappiness,
            ulimits: self.ulimit.clone(),
            throttles: self.throttles.all(),
            oom_kill_disable: self.oom_kill_disable,
            // 0 is what a container has anyway. A number that no i32 holds is out of range as well.
            oom_score_adj: self
                .oom_score_adj
                .filter(|score| *score != 0)
                .map(|score| score.clamp(i32::MIN.into(), i32::MAX.into()) as i32),
            ..self.limits.resources()
        };
        let parent = self.cgroup_parent.clone();
        request.cgroup_parent = parent.filter(|parent| !parent.is_empty());
        Ok(())
    }
}

impl LimitArgs {
    pub fn resources(&self) -> Resources {
        Resources {
            memory: self.memory,
            memory_swap: self.memory_swap,
            memory_reservation: self.memory_reservation,
            kernel_memory: self.kernel_memory,
            nano_cpus: self.cpus,
            cpu_shares: self.cpu_shares.map(too_little),
            cpu_period: self.cpu_period.map(too_little),
            cpu_quota: self.cpu_quota,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            blkio_weight: self.blkio_weight,
            pids_limit: self.pids_limit,
            ..Resources::default()
        }
    }
}

/// A negative number is as much below the range as 1, and is refused like it.
fn too_little(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(1)
}

fn parse_swap(text: &str) -> Result<i64, String> {
    match text {
        "-1" => Ok(-1),
        _ => parse_size(text).map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
    }
}

/// Billionths of a CPU. A negative number is as much out of range as one that is too large.
fn parse_cpus(text: &str) -> Result<u64, String> {
    let invalid = || format!("failed to parse {text} as a rational number");
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !all_digits(whole) || !all_digits(fraction) {
        return Err(invalid());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 9 {
        return Err("value is too precise".to_owned());
    }
    let nano = format!("{whole}{fraction:0<9}").parse::<u64>();
    Ok(match (sign, nano) {
        (_, Ok(0)) => 0,
        (1, Ok(nano)) => nano,
        _ => u64::MAX,
    })
}

fn parse_weight(text: &str) -> Result<u16, String> {
    text.parse().map_err(|error: std::num::ParseIntError| {
        let why = match error.kind() {
            std::num::IntErrorKind::PosOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.ParseUint: parsing {text:?}: {why}")
    })
}

/// `nofile=1024`, `nofile=1024:2048`; -1 is no limit.
fn parse_ulimit(text: &str) -> Result<Ulimit, String> {
    let (name, values) = text
        .split_once('=')
        .ok_or_else(|| format!("invalid ulimit argument: {text}"))?;
    if runtime::spec::rlimit_type(name).is_none() {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let parts: Vec<&str> = values.split(':').collect();
    let (soft, hard) = match parts[..] {
        [one] => (parse_integer(one)?, parse_integer(one)?),
        [soft, hard] => (parse_integer(soft)?, parse_integer(hard)?),
        _ => {
            return Err(format!(
                "too many limit value arguments - {values}, can only have up to two, `soft[:hard]`"
            ));
        }
    };
    const ORDER: &str = "ulimit soft limit must be less than or equal to hard limit";
    match (soft, hard) {
        (_, -1) => {}
        (-1, _) => return Err(format!("{ORDER}: soft: -1 (unlimited), hard: {hard}")),
        _ if soft > hard => return Err(format!("{ORDER}: {soft} > {hard}")),
        _ => {}
    }
    Ok(Ulimit {
        name: name.to_owned(),
        soft,
        hard,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_exact_to_the_billionth() {
        for (text, nano) in [
            ("1.5", 1_500_000_000),
            (".5", 500_000_000),
            ("2", 2_000_000_000),
            ("0.000000001", 1),
            ("1.0000000000", 1_000_000_000),
            ("0", 0),
            ("-1", u64::MAX),
        ] {
            assert_eq!(parse_cpus(text), Ok(nano), "{text}");
        }
        assert_eq!(
            parse_cpus("1.0000000001"),
            Err("value is too precise".into())
        );
        for text in ["x", "", ".", "1e3x", "1.2.3"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ulimits_have_a_name_and_one_or_two_values() {
        let limit = parse_ulimit("nofile=1024:2048").unwrap();
        assert_eq!((limit.soft, limit.hard), (1024, 2048));
        let unlimited = parse_ulimit("core=-1").unwrap();
        assert_eq!((unlimited.soft, unlimited.hard), (-1, -1));
        for (text, why) in [
            ("x=1", "invalid ulimit type: x"),
            ("nofile", "invalid ulimit argument: nofile"),
            (
                "nofile=5:3",
                "ulimit soft limit must be less than or equal to hard limit: 5 > 3",
            ),
            (
                "nofile=-1:5",
                "ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: 5",
            ),
            (
                "nofile=1:2:3",
                "too many limit value arguments - 1:2:3, can only have up to two, `soft[:hard]`",
            ),
        ] {
            assert_eq!(parse_ulimit(text), Err(why.into()), "{text}");
        }
    }
}
