//! What becomes of a container by itself: restarts, health checks. The texts are Docker's.

use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::Args;
use runtime::ContainerRequest;
use runtime::request::{HealthRequest, RestartPolicy};

use super::values;
use crate::failure::Failure;

#[derive(Debug, Args)]
pub struct LifeArgs {
    /// When to start the container again: no, on-failure[:MAX], always or unless-stopped
    #[arg(
        long,
        value_name = "POLICY",
        default_value = "no",
        hide_default_value = true
    )]
    pub restart: String,
    /// Command that tells whether the container is healthy
    #[arg(long, value_name = "COMMAND")]
    pub health_cmd: Option<String>,
    /// Time between two checks (30s)
    #[arg(long, value_name = "DURATION", value_parser = values::parse_go_duration)]
    pub health_interval: Option<i64>,
    /// Time that one check may take (30s)
    #[arg(long, value_name = "DURATION", value_parser = values::parse_go_duration)]
    pub health_timeout: Option<i64>,
    /// Time in which the container may be unhealthy at first (0s)
    #[arg(long, value_name = "DURATION", value_parser = values::parse_go_duration)]
    pub health_start_period: Option<i64>,
    /// Time between two checks in the start period (5s)
    #[arg(long, value_name = "DURATION", value_parser = values::parse_go_duration)]
    pub health_start_interval: Option<i64>,
    /// Failures in a row that make it unhealthy (3)
    #[arg(long, value_name = "N", value_parser = values::parse_integer)]
    pub health_retries: Option<i64>,
    /// No checks, whatever the image says
    #[arg(long)]
    pub no_healthcheck: bool,
}

impl LifeArgs {
    /// Enters the options in the request.
    pub fn apply(&self, request: &mut ContainerRequest) -> Result<(), Failure> {
        request.restart = parse_restart(&self.restart)?;
        if request.auto_remove && request.restart != RestartPolicy::No {
            return Err(Failure::Refused(anyhow!(
                "conflicting options: cannot specify both --restart and --rm"
            )));
        }
        request.health = self.health().map_err(Failure::Refused)?;
        Ok(())
    }

    fn health(&self) -> anyhow::Result<HealthRequest> {
        let command = self.health_cmd.as_ref().filter(|line| !line.is_empty());
        let times = [
            ("--health-interval", self.health_interval),
            ("--health-timeout", self.health_timeout),
            ("--health-start-period", self.health_start_period),
            ("--health-start-interval", self.health_start_interval),
            ("--health-retries", self.health_retries),
        ];
        let is_given = |(_, value): &(&str, Option<i64>)| value.is_some_and(|value| value != 0);
        if self.no_healthcheck {
            if command.is_some() || times.iter().any(is_given) {
                bail!("--no-healthcheck conflicts with --health-* options");
            }
            return Ok(HealthRequest {
                test: Some(vec!["NONE".to_owned()]),
                ..HealthRequest::default()
            });
        }
        if let Some((name, _)) = times.iter().find(|(_, value)| value.is_some_and(|v| v < 0)) {
            bail!("{name} cannot be negative");
        }
        // Zero is the image's, or the default.
        let time = |nanos: Option<i64>| {
            let nanos = nanos.and_then(|nanos| u64::try_from(nanos).ok())?;
            (nanos != 0).then(|| Duration::from_nanos(nanos))
        };
        let retries = self.health_retries.filter(|retries| *retries != 0);
        Ok(HealthRequest {
            test: command.map(|line| vec!["CMD-SHELL".to_owned(), line.clone()]),
            interval: time(self.health_interval),
            timeout: time(self.health_timeout),
            start_period: time(self.health_start_period),
            start_interval: time(self.health_start_interval),
            retries: retries.map(|retries| u32::try_from(retries).unwrap_or(u32::MAX)),
        })
    }
}

/// `no`, `on-failure[:MAX]`, `always`, `unless-stopped`; nothing is `no`. As with Docker, only a maximum that is no number is the command
/// line's fault.
pub fn parse_restart(text: &str) -> Result<RestartPolicy, Failure> {
    let (name, most) = match text.split_once(':') {
        Some((name, most)) => {
            let number = most.parse::<i64>().map_err(|_| {
                let why = "invalid restart policy format: maximum retry count must be an integer";
                Failure::Refused(anyhow!(why))
            })?;
            (name, Some(number))
        }
        None => (text, None),
    };
    let refused = |text: String| Err(Failure::Own(anyhow!(text)));
    let policy = match name {
        "" | "no" => RestartPolicy::No,
        "always" => RestartPolicy::Always,
        "unless-stopped" => RestartPolicy::UnlessStopped,
        "on-failure" => match most.map(u32::try_from) {
            None | Some(Ok(0)) => RestartPolicy::OnFailure(None),
            Some(Ok(most)) => RestartPolicy::OnFailure(Some(most)),
            Some(Err(_)) if most.is_some_and(|most| most > 0) => RestartPolicy::OnFailure(None),
            Some(Err(_)) => return refused("maximum retry count cannot be negative".to_owned()),
        },
        _ => return refused(format!("invalid restart policy '{name}'")),
    };
    match (policy, most) {
        (RestartPolicy::OnFailure(_), _) | (_, None | Some(0)) => Ok(policy),
        _ => refused(format!(
            "maximum retry count cannot be used with restart policy '{name}'"
        )),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        life: LifeArgs,
    }

    fn request(words: &[&str]) -> Result<ContainerRequest, Failure> {
        let words = std::iter::once("x").chain(words.iter().copied());
        let mut request = ContainerRequest::default();
        let only = Only::try_parse_from(words).unwrap();
        only.life.apply(&mut request).map(|()| request)
    }

    #[track_caller]
    fn refuses(words: &[&str], text: &str) {
        match request(words).unwrap_err() {
            Failure::Refused(why) | Failure::Own(why) => assert_eq!(why.to_string(), text),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn policies_are_read_as_docker_reads_them() {
        let policy = |text| request(&["--restart", text]).unwrap().restart;
        assert_eq!(policy("no"), RestartPolicy::No);
        assert_eq!(policy(""), RestartPolicy::No);
        assert_eq!(policy("always"), RestartPolicy::Always);
        assert_eq!(policy("unless-stopped"), RestartPolicy::UnlessStopped);
        assert_eq!(policy("on-failure"), RestartPolicy::OnFailure(None));
        assert_eq!(policy("on-failure:3"), RestartPolicy::OnFailure(Some(3)));
        refuses(&["--restart", "x"], "invalid restart policy 'x'");
        let format = "invalid restart policy format: maximum retry count must be an integer";
        refuses(&["--restart", "on-failure:x"], format);
        refuses(&["--restart", "on-failure:1:2"], format);
        refuses(
            &["--restart", "on-failure:-1"],
            "maximum retry count cannot be negative",
        );
        refuses(
            &["--restart", "always:3"],
            "maximum retry count cannot be used with restart policy 'always'",
        );
    }

    #[test]
    fn checks_are_read_and_contradictions_refused() {
        let health = request(&[
            "--health-cmd",
            "curl x",
            "--health-interval",
            "1m30s",
            "--health-retries=2",
        ])
        .unwrap()
        .health;
        assert_eq!(health.test.unwrap(), ["CMD-SHELL", "curl x"]);
        assert_eq!(health.interval, Some(Duration::from_secs(90)));
        assert_eq!((health.timeout, health.retries), (None, Some(2)));
        let none = request(&["--no-healthcheck"]).unwrap().health;
        assert_eq!(none.test.unwrap(), ["NONE"]);
        refuses(
            &["--no-healthcheck", "--health-cmd", "x"],
            "--no-healthcheck conflicts with --health-* options",
        );
        refuses(
            &["--health-interval=-1s"],
            "--health-interval cannot be negative",
        );
        refuses(
            &["--health-retries=-1"],
            "--health-retries cannot be negative",
        );
    }
}
