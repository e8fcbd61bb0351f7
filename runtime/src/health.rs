//! What a health check is, and what its results make of a container: Docker's rules. Pure.

use std::time::Duration;

use time::OffsetDateTime;

use crate::error::Error;
use crate::record::{Health, HealthCheck, HealthStatus, Probe};
use crate::request::HealthRequest;

/// Shorter times are mistaken ones.
const SHORTEST: Duration = Duration::from_millis(1);

const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;

/// So many results are kept.
const KEPT: usize = 5;

/// Bytes of a check's output that are kept.
pub const MOST_OUTPUT: usize = 4096;

/// The exit code of a check that could not be run or took too long.
pub const NO_ANSWER: i32 = -1;

/// The request's check over the image's; a time of zero is the default. `None`: the container is not checked.
pub fn resolve(
    request: &HealthRequest,
    image: Option<&image::Healthcheck>,
) -> Result<Option<HealthCheck>, Error> {
    let image = image.cloned().unwrap_or_default();
    let check = HealthCheck {
        test: request.test.clone().unwrap_or(image.test),
        interval: long_enough("Interval", request.interval.unwrap_or(image.interval))?,
        timeout: long_enough("Timeout", request.timeout.unwrap_or(image.timeout))?,
        start_period: long_enough(
            "StartPeriod",
            request.start_period.unwrap_or(image.start_period),
        )?,
        start_interval: long_enough(
            "StartInterval",
            request.start_interval.unwrap_or(image.start_interval),
        )?,
        retries: request.retries.unwrap_or(image.retries),
    };
    Ok(command(&check).is_some().then_some(check))
}

fn long_enough(what: &'static str, time: Duration) -> Result<Duration, Error> {
    match time.is_zero() || time >= SHORTEST {
        true => Ok(time),
        false => Err(Error::HealthTime(what)),
    }
}

/// The words that are executed.
pub fn command(check: &HealthCheck) -> Option<Vec<String>> {
    match check.test.split_first() {
        Some((kind, [line])) if kind == "CMD-SHELL" => {
            Some(vec!["/bin/sh".into(), "-c".into(), line.clone()])
        }
        Some((kind, words)) if kind == "CMD" && !words.is_empty() => Some(words.to_vec()),
        _ => None,
    }
}

fn or(time: Duration, default: Duration) -> Duration {
    if time.is_zero() { default } else { time }
}

/// How long one check may take.
pub fn timeout(check: &HealthCheck) -> Duration {
    or(check.timeout, TIMEOUT)
}

/// The pause before the next check of a container that has run so long; in its start period it may be a shorter one.
pub fn pause(check: &HealthCheck, is_starting: bool, ran: Duration) -> Duration {
    let usual = or(check.interval, INTERVAL);
    match is_starting && ran < check.start_period {
        true => or(check.start_interval, START_INTERVAL).min(usual),
        false => usual,
    }
}

/// Takes a result in. Failures in the start period of a container that has not been healthy yet do not count.
pub fn take(health: &mut Health, check: &HealthCheck, started: OffsetDateTime, probe: Probe) {
    let in_start_period = probe.start - started < check.start_period;
    let code = probe.exit_code;
    health.log.push(probe);
    if health.log.len() > KEPT {
        health.log.remove(0);
    }
    if code == 0 {
        health.failing_streak = 0;
        health.status = HealthStatus::Healthy;
    } else if health.status != HealthStatus::Starting || !in_start_period {
        health.failing_streak += 1;
        let most = if check.retries == 0 {
            RETRIES
        } else {
            check.retries
        };
        if health.failing_streak >= most {
            health.status = HealthStatus::Unhealthy;
        }
    }
}

/// As Go writes a duration: `1m30s`, `300ms`, `1.5s`.
pub fn go_duration(time: Duration) -> String {
    let nanos = time.as_nanos();
    let decimal = |unit: u128, name: &str| {
        let digits = unit.ilog10() as usize;
        let rest = format!("{:0digits$}", nanos % unit);
        let rest = rest.trim_end_matches('0');
        let point = if rest.is_empty() { "" } else { "." };
        format!("{}{point}{rest}{name}", nanos / unit)
    };
    match nanos {
        0 => "0s".into(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => decimal(1_000, "µs"),
        1_000_000..1_000_000_000 => decimal(1_000_000, "ms"),
        _ => {
            let (hours, minutes) = (time.as_secs() / 3600, time.as_secs() / 60 % 60);
            let seconds = time - Duration::from_secs(hours * 3600 + minutes * 60);
            let rest = format!("{:09}", seconds.subsec_nanos());
            let rest = rest.trim_end_matches('0');
            let point = if rest.is_empty() { "" } else { "." };
            let seconds = format!("{}{point}{rest}s", seconds.as_secs());
            match (hours, minutes) {
                (0, 0) => seconds,
                (0, _) => format!("{minutes}m{seconds}"),
                _ => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(start_period: u64) -> HealthCheck {
        HealthCheck {
            test: vec!["CMD".into(), "true".into()],
            interval: Duration::ZERO,
            timeout: Duration::ZERO,
            start_period: Duration::from_secs(start_period),
            start_interval: Duration::ZERO,
            retries: 2,
        }
    }

    fn after(check: &HealthCheck, results: &[(i64, i32)]) -> (HealthStatus, u32, usize) {
        let started = OffsetDateTime::UNIX_EPOCH;
        let mut health = Health::default();
        for (at, code) in results {
            let start = started + time::Duration::seconds(*at);
            let probe = Probe {
                start,
                end: start,
                exit_code: *code,
                output: String::new(),
            };
            take(&mut health, check, started, probe);
        }
        (health.status, health.failing_streak, health.log.len())
    }

    #[test]
    fn so_many_failures_in_a_row_are_unhealthy_and_one_success_is_healthy() {
        use HealthStatus::*;
        let now = check(0);
        assert_eq!(after(&now, &[(1, 1)]), (Starting, 1, 1));
        assert_eq!(after(&now, &[(1, 1), (2, -1)]), (Unhealthy, 2, 2));
        assert_eq!(after(&now, &[(1, 1), (2, 1), (3, 0)]), (Healthy, 0, 3));
        assert_eq!(
            after(&now, &[(1, 0), (2, 1), (3, 0), (4, 1)]),
            (Healthy, 1, 4)
        );
        assert_eq!(after(&now, &[(1, 0); 9]), (Healthy, 0, 5));
    }

    #[test]
    fn failures_in_the_start_period_do_not_count_until_it_was_healthy() {
        use HealthStatus::*;
        let slow = check(10);
        assert_eq!(after(&slow, &[(1, 1), (2, 1), (3, 1)]), (Starting, 0, 3));
        assert_eq!(after(&slow, &[(9, 1), (11, 1)]), (Starting, 1, 2));
        assert_eq!(after(&slow, &[(1, 0), (2, 1), (3, 1)]), (Unhealthy, 2, 3));
    }

    #[test]
    fn the_pause_is_the_start_interval_while_it_starts() {
        let second = Duration::from_secs(1);
        assert_eq!(pause(&check(10), true, second), START_INTERVAL);
        assert_eq!(pause(&check(10), true, second * 10), INTERVAL);
        assert_eq!(pause(&check(10), false, second), INTERVAL);
        assert_eq!(pause(&check(0), true, Duration::ZERO), INTERVAL);
    }

    #[test]
    fn the_request_stands_above_the_image() {
        let image = image::Healthcheck {
            test: vec!["CMD-SHELL".into(), "a b".into()],
            interval: Duration::from_secs(1),
            ..image::Healthcheck::default()
        };
        let request = HealthRequest {
            timeout: Some(Duration::from_secs(2)),
            ..HealthRequest::default()
        };
        let made = resolve(&request, Some(&image)).unwrap().unwrap();
        assert_eq!(command(&made).unwrap(), ["/bin/sh", "-c", "a b"]);
        assert_eq!((made.interval.as_secs(), made.timeout.as_secs()), (1, 2));
        let none = HealthRequest {
            test: Some(vec!["NONE".into()]),
            ..HealthRequest::default()
        };
        assert_eq!(resolve(&none, Some(&image)).unwrap(), None);
        assert_eq!(resolve(&HealthRequest::default(), None).unwrap(), None);
        let short = HealthRequest {
            interval: Some(Duration::from_nanos(1)),
            ..HealthRequest::default()
        };
        assert_eq!(
            resolve(&short, None).unwrap_err().to_string(),
            "Interval in Healthcheck cannot be less than 1ms"
        );
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (millis, text) in [
            (300, "300ms"),
            (1000, "1s"),
            (1500, "1.5s"),
            (90_000, "1m30s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(go_duration(Duration::from_nanos(1_500)), "1.5µs");
    }
}
