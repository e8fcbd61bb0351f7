//! Waiting for a condition, bounded, instead of sleeping.

use std::time::{Duration, Instant};

/// How long a condition may take before the test fails. Generous: a loaded machine is slow, and only a failing test waits for all of it.
pub const PATIENCE: Duration = Duration::from_secs(10);

const PAUSE: Duration = Duration::from_millis(20);

/// Asks again until the answer is `Ok`, for [`PATIENCE`] at most; then panics with the last refusal.
#[track_caller]
pub fn eventually<T, E: std::fmt::Display>(what: &str, ask: impl FnMut() -> Result<T, E>) -> T {
    match until(PATIENCE, ask) {
        Ok(value) => value,
        Err(refusal) => panic!("{what}: still not so after {PATIENCE:?}: {refusal}"),
    }
}

/// Asks again until the answer is `Ok` or the time is up; the last answer.
pub fn until<T, E>(limit: Duration, mut ask: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let end = Instant::now() + limit;
    loop {
        match ask() {
            Ok(value) => return Ok(value),
            Err(refusal) if Instant::now() >= end => return Err(refusal),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
