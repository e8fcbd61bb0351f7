//! When to stop fighting: another program that undoes each mending is not outdone by mending faster. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// So many mendings in so short a time are a fight.
const ROUNDS: usize = 6;
const WINDOW: Duration = Duration::from_secs(10);

const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Peace for so long makes the next pause a short one again.
const PEACE: Duration = Duration::from_secs(60);

/// How a failed mending is tried again.
const FIRST_RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Patience {
    /// When, and what was done.
    mendings: VecDeque<(Instant, Vec<String>)>,
    until: Option<Instant>,
    last_pause: Option<(Instant, Duration)>,
    failures: u32,
    /// A comparison is due as soon as the pause is over.
    owes: bool,
}

impl Patience {
    /// How much longer nothing is to be done.
    pub(super) fn pause(&mut self, now: Instant) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(now);
        if left.is_zero() {
            self.until = None;
            return None;
        }
        Some(left)
    }

    pub(super) fn owes(&self) -> bool {
        self.owes
    }

    /// All was in place.
    pub(super) fn well(&mut self) {
        self.failures = 0;
        self.owes = false;
    }

    /// Something was mended. If it was once too often: what kept changing, and the pause that begins now.
    pub(super) fn mended(
        &mut self,
        now: Instant,
        did: &[String],
    ) -> Option<(Vec<String>, Duration)> {
        self.well();
        self.mendings.push_back((now, did.to_vec()));
        while let Some((at, _)) = self.mendings.front()
            && now.saturating_duration_since(*at) > WINDOW
        {
            self.mendings.pop_front();
        }
        if self.mendings.len() < ROUNDS {
            return None;
        }
        let pause = match self.last_pause {
            Some((end, pause)) if now.saturating_duration_since(end) < PEACE => {
                (pause * 2).min(LONGEST_PAUSE)
            }
            _ => FIRST_PAUSE,
        };
        self.last_pause = Some((now + pause, pause));
        self.until = Some(now + pause);
        self.owes = true;
        let what = most_common(&self.mendings);
        self.mendings.clear();
        Some((what, pause))
    }

    pub(super) fn failed(&mut self, now: Instant) -> Duration {
        let pause = FIRST_RETRY * 2u32.pow(self.failures.min(8));
        self.failures += 1;
        self.until = Some(now + pause);
        self.owes = true;
        pause
    }
}

/// What was done in at least half of the mendings; else what was done in the last one.
fn most_common(mendings: &VecDeque<(Instant, Vec<String>)>) -> Vec<String> {
    let last = mendings.back().map(|(_, did)| did.as_slice());
    let often = |line: &&String| {
        let times = mendings.iter().filter(|(_, did)| did.contains(*line));
        times.count() * 2 >= mendings.len()
    };
    let all = last.unwrap_or_default();
    let common: Vec<String> = all.iter().filter(often).cloned().collect();
    match common.is_empty() {
        true => all.to_vec(),
        false => common,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn did(text: &str) -> Vec<String> {
        vec![text.to_owned()]
    }

    #[test]
    fn a_few_mendings_are_no_fight() {
        let mut patience = Patience::default();
        let start = Instant::now();
        for n in 0..100 {
            let at = start + Duration::from_secs(3 * n);
            assert_eq!(patience.mended(at, &did("rules")), None);
            assert_eq!(patience.pause(at), None);
        }
    }

    #[test]
    fn a_fight_is_left_for_longer_each_time_and_named() {
        let mut patience = Patience::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..4 {
            let paused = loop {
                now += Duration::from_millis(300);
                if let Some(paused) = patience.mended(now, &did("rules (iptables)")) {
                    break paused;
                }
            };
            assert_eq!(paused.0, did("rules (iptables)"));
            assert!(patience.owes());
            assert_eq!(patience.pause(now), Some(paused.1));
            now += paused.1;
            assert_eq!(patience.pause(now), None);
            pauses.push(paused.1.as_secs());
        }
        assert_eq!(pauses, [5, 10, 20, 40]);
        now += PEACE;
        for _ in 1..ROUNDS {
            assert_eq!(patience.mended(now, &did("a")), None);
        }
        assert_eq!(patience.mended(now, &did("a")).unwrap().1, FIRST_PAUSE);
    }

    #[test]
    fn a_failure_is_tried_again_later_and_later() {
        let mut patience = Patience::default();
        let now = Instant::now();
        assert_eq!(patience.failed(now).as_secs(), 1);
        assert_eq!(patience.failed(now).as_secs(), 2);
        assert!(patience.owes());
        patience.well();
        assert!(!patience.owes());
        assert_eq!(patience.failed(now).as_secs(), 1);
    }
}
