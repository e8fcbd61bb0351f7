//! When to stop fighting: another program that undoes each mending is not outdone by mending faster. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// To mend the same so many times in so short a time is a fight.
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
        let what = fought_over(&self.mendings);
        if what.is_empty() {
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

/// What was done now and so often before that it is a fight.
fn fought_over(mendings: &VecDeque<(Instant, Vec<String>)>) -> Vec<String> {
    let last = mendings.back().map(|(_, did)| did.as_slice());
    let times = |line: &String| {
        let same = |did: &&Vec<String>| did.iter().any(|other| kind(other) == kind(line));
        mendings.iter().map(|(_, did)| did).filter(same).count()
    };
    let lines = last.unwrap_or_default().iter();
    lines
        .filter(|line| times(line) >= ROUNDS)
        .cloned()
        .collect()
}

/// The same thing done to more or fewer rules is the same thing.
fn kind(line: &str) -> String {
    let is_number = |word: &&str| word.bytes().all(|b| b.is_ascii_digit());
    let words = line.split(' ').filter(|word| !is_number(word));
    words.collect::<Vec<_>>().join(" ")
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
    fn different_damages_are_no_fight_and_different_counts_are() {
        let mut patience = Patience::default();
        let now = Instant::now();
        for n in 0..20 {
            assert_eq!(patience.mended(now, &did(&format!("set cr-{n} up"))), None);
        }
        let paused: Vec<bool> = (0..ROUNDS)
            .map(|n| did(&format!("rules (iptables) {n} lines")))
            .map(|did| patience.mended(now, &did).is_some())
            .collect();
        assert_eq!(paused, [false, false, false, false, false, true]);
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
