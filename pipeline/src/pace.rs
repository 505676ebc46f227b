//! How much of the time a run works: one that fills a gap beside the live run leaves that one room.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

/// Rests that are shorter are put together: to fall asleep and to wake takes its time too.
const REST_MIN: Duration = Duration::from_millis(20);

/// The share of the time that each worker of a run works at most, in thousandths. It may be set while the run goes on; all
/// clones are one.
#[derive(Debug, Clone)]
pub struct Pace(Arc<AtomicU16>);

impl Default for Pace {
    /// Unhindered.
    fn default() -> Self {
        Pace(Arc::new(1000.into()))
    }
}

impl Pace {
    /// From now on; what is not within 1 to 1000 counts as the nearest that is.
    pub fn set(&self, permille: u16) {
        self.0.store(permille.clamp(1, 1000), Ordering::Relaxed);
    }

    /// How long to rest after so much work.
    fn rest(&self, worked: Duration) -> Duration {
        let permille = u32::from(self.0.load(Ordering::Relaxed));
        worked * (1000 - permille) / permille
    }
}

/// Work and rest of one worker. What it does between two turns of its source, closing windows say, is work too.
#[derive(Debug)]
pub(crate) struct Rests {
    pace: Pace,
    /// Since when it works without a break.
    since: Option<Instant>,
    /// What it has not rested yet.
    owed: Duration,
    until: Option<Instant>,
}

impl Rests {
    pub(crate) fn new(pace: Pace) -> Rests {
        Rests { pace, since: None, owed: Duration::ZERO, until: None }
    }

    /// Before a turn: how long the worker has to rest first.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Duration> {
        if let Some(left) = self.until.map(|until| until.saturating_duration_since(now)) {
            if !left.is_zero() {
                return Some(left);
            }
            self.until = None;
        }
        self.breaks(now);
        if self.owed < REST_MIN {
            self.since = Some(now);
            return None;
        }
        let rest = std::mem::take(&mut self.owed);
        self.until = Some(now + rest);
        Some(rest)
    }

    /// There is nothing to do: what follows is no work, and no rest that was owed either.
    pub(crate) fn breaks(&mut self, now: Instant) {
        self.owed += self.since.take().map_or(Duration::ZERO, |since| self.pace.rest(now - since));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker with work at hand all the time, in turns of 3 ms.
    struct Worker {
        rests: Rests,
        now: Instant,
    }

    impl Worker {
        /// Of so many seconds the ms that it worked.
        fn worked_ms(&mut self, seconds: u64) -> u64 {
            let end = self.now + Duration::from_secs(seconds);
            let mut worked_ms = 0;
            while self.now < end {
                let rest = self.rests.due(self.now);
                worked_ms += if rest.is_none() { 3 } else { 0 };
                self.now += rest.unwrap_or(Duration::from_millis(3));
            }
            worked_ms
        }
    }

    #[test]
    fn a_worker_works_for_the_share_that_was_set_also_when_it_is_set_meanwhile() {
        let pace = Pace::default();
        let mut worker = Worker { rests: Rests::new(pace.clone()), now: Instant::now() };
        assert_eq!(worker.worked_ms(3), 3_000);
        for permille in [500, 999, 250, 20] {
            pace.set(permille);
            let (worked, most) = (worker.worked_ms(60), 60 * u64::from(permille));
            assert!((most * 9 / 10..=most * 11 / 10).contains(&worked), "{permille}: {worked} ms of a minute");
        }
        pace.set(0);
        assert!((1..600).contains(&worker.worked_ms(60)), "it never stands still");
        pace.set(2_000);
        worker.worked_ms(60);
        assert_eq!(worker.worked_ms(3), 3_000);
    }

    #[test]
    fn a_break_is_no_work() {
        let pace = Pace::default();
        pace.set(500);
        let mut rests = Rests::new(pace);
        let begin = Instant::now();
        assert_eq!(rests.due(begin), None);
        rests.breaks(begin + Duration::from_millis(1));
        assert_eq!(rests.due(begin + Duration::from_secs(60)), None);
    }
}
