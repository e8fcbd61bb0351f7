//! When to try again, and how long to wait before.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use ureq::http::{HeaderMap, header};

use super::Watcher;
use crate::error::Error;

const ATTEMPTS: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// A registry that asks for more is told no: the person at the terminal decides then.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Counts the tries of one request.
#[derive(Default)]
pub struct Backoff {
    failed: u32,
}

impl Backoff {
    pub fn new() -> Self {
        Backoff::default()
    }

    /// Waits before the next try, or gives `error` back if there have been enough.
    pub fn wait(
        &mut self,
        error: Error,
        after: Option<Duration>,
        watcher: &dyn Watcher,
    ) -> Result<(), Error> {
        self.failed += 1;
        let wait = after.unwrap_or(FIRST_WAIT * 2_u32.pow(self.failed - 1));
        if wait > LONGEST_WAIT {
            return Err(match error {
                Error::RegistryStatus { registry, .. } => Error::RateLimited {
                    registry,
                    seconds: wait.as_secs(),
                },
                other => other,
            });
        }
        if self.failed >= ATTEMPTS {
            return Err(error);
        }
        let seconds = wait.as_secs_f32();
        watcher.notice(format!("{error}: retrying in {seconds:.1} s"));
        let step = Duration::from_millis(50);
        let mut left = wait;
        while !left.is_zero() {
            if watcher.cancelled() {
                return Err(Error::Cancelled);
            }
            let nap = step.min(left);
            std::thread::sleep(nap);
            left -= nap;
        }
        Ok(())
    }
}

/// Retry-After, as seconds or as a date (RFC 9110, 10.2.3).
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    // HTTP's dates are those of mail with another name of the zone.
    let date = OffsetDateTime::parse(&text.replace("GMT", "+0000"), &Rfc2822).ok()?;
    Some(
        (date - OffsetDateTime::now_utc())
            .try_into()
            .unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, text.parse().unwrap());
        retry_after(&headers)
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert!(after("Wed, 21 Oct 2099 07:28:00 GMT").unwrap() > LONGEST_WAIT);
        assert_eq!(after("soon"), None);
    }

    struct Quiet;
    impl Watcher for Quiet {
        fn notice(&self, _: String) {}
        fn cancelled(&self) -> bool {
            false
        }
    }

    #[test]
    fn tries_and_waits_are_bounded() {
        let busy = || Error::RegistryStatus {
            registry: "r".into(),
            status: 429,
            request: "x".into(),
            detail: "x".into(),
        };
        let mut backoff = Backoff::new();
        for _ in 1..ATTEMPTS {
            assert!(backoff.wait(busy(), Some(Duration::ZERO), &Quiet).is_ok());
        }
        assert!(backoff.wait(busy(), Some(Duration::ZERO), &Quiet).is_err());
        let long = Backoff::new().wait(busy(), Some(Duration::from_secs(3600)), &Quiet);
        assert!(matches!(
            long,
            Err(Error::RateLimited { seconds: 3600, .. })
        ));
    }
}
