//! Waiting for a condition, bounded, instead of sleeping.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long a condition may take before the test fails. Generous: a loaded machine is slow, and only a failing test waits for all of it.
pub const PATIENCE: Duration = Duration::from_secs(10);

const PAUSE: Duration = Duration::from_millis(20);

/// A limit as it is on this machine: `CORACLE_TEST_PATIENCE` times as long (a number; 1, unless said), for machines that are slow by nature.
pub fn scaled(limit: Duration) -> Duration {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    let factor = FACTOR.get_or_init(|| match std::env::var("CORACLE_TEST_PATIENCE") {
        Ok(text) => text.parse().unwrap_or_else(|_| {
            panic!("CORACLE_TEST_PATIENCE is to be a whole number, not {text:?}")
        }),
        Err(_) => 1,
    });
    limit * *factor
}

/// Asks again until the answer is `Ok`, for [`PATIENCE`] at most; then panics with the last refusal.
#[track_caller]
pub fn eventually<T, E: std::fmt::Display>(what: &str, ask: impl FnMut() -> Result<T, E>) -> T {
    match until(PATIENCE, ask) {
        Ok(value) => value,
        Err(refusal) => {
            let limit = scaled(PATIENCE);
            panic!("{what}: still not so after {limit:?}: {refusal}")
        }
    }
}

/// Asks again until the answer is `Ok` or the time is up ([`scaled`]); the last answer.
pub fn until<T, E>(limit: Duration, mut ask: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let end = Instant::now() + scaled(limit);
    loop {
        match ask() {
            Ok(value) => return Ok(value),
            Err(refusal) if Instant::now() >= end => return Err(refusal),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
